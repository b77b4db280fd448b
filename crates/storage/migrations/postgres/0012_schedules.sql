-- Scheduled rules: how far each came, its runs, and what it could not look at.
CREATE TABLE muttd_schedules (
    org       TEXT COLLATE "C" NOT NULL,
    uid       TEXT COLLATE "C" NOT NULL,
    begun     TIMESTAMPTZ NOT NULL,
    through   TIMESTAMPTZ NOT NULL,
    judged    TIMESTAMPTZ NOT NULL,
    off_since TIMESTAMPTZ,
    failures  INTEGER NOT NULL DEFAULT 0,
    error     TEXT,
    error_at  TIMESTAMPTZ,
    gaps      BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (org, uid)
);

CREATE TABLE muttd_schedule_runs (
    org        TEXT COLLATE "C" NOT NULL,
    uid        TEXT COLLATE "C" NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    first      TIMESTAMPTZ NOT NULL,
    through    TIMESTAMPTZ NOT NULL,
    took_ms    BIGINT NOT NULL,
    events     BIGINT NOT NULL,
    matches    BIGINT NOT NULL,
    late       BIGINT NOT NULL,
    PRIMARY KEY (org, uid, started_at)
);

CREATE TABLE muttd_schedule_gaps (
    org      TEXT COLLATE "C" NOT NULL,
    uid      TEXT COLLATE "C" NOT NULL,
    first    TIMESTAMPTZ NOT NULL,
    through  TIMESTAMPTZ NOT NULL,
    why      TEXT NOT NULL,
    found_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (org, uid, first, through)
);
