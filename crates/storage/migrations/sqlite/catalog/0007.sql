-- Scheduled rules: how far each came, its runs, and what it could not look at.

CREATE TABLE schedules (
    org       TEXT NOT NULL,
    uid       TEXT NOT NULL,
    begun     INTEGER NOT NULL,
    through   INTEGER NOT NULL,
    judged    INTEGER NOT NULL,
    off_since INTEGER,
    failures  INTEGER NOT NULL DEFAULT 0,
    error     TEXT,
    error_at  INTEGER,
    gaps      INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (org, uid)
) STRICT;

CREATE TABLE schedule_runs (
    org        TEXT NOT NULL,
    uid        TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    first      INTEGER NOT NULL,
    through    INTEGER NOT NULL,
    took_ms    INTEGER NOT NULL,
    events     INTEGER NOT NULL,
    matches    INTEGER NOT NULL,
    late       INTEGER NOT NULL,
    PRIMARY KEY (org, uid, started_at)
) STRICT;

CREATE TABLE schedule_gaps (
    org      TEXT NOT NULL,
    uid      TEXT NOT NULL,
    first    INTEGER NOT NULL,
    through  INTEGER NOT NULL,
    why      TEXT NOT NULL,
    found_at INTEGER NOT NULL,
    PRIMARY KEY (org, uid, first, through)
) STRICT;
