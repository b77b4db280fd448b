-- Incidents, which gather alerts of one cause, and silences.
CREATE TABLE muttd_incidents (
    id              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org             TEXT NOT NULL,
    group_key       TEXT COLLATE "C" NOT NULL,
    status          TEXT NOT NULL CHECK (status IN ('ACTIVE', 'ACKNOWLEDGED', 'RESOLVED', 'DISMISSED')),
    rule_uid        TEXT NOT NULL,
    title           TEXT NOT NULL,
    severity        INTEGER NOT NULL,
    team            TEXT NOT NULL,
    host            TEXT NOT NULL,
    first_seen      TIMESTAMPTZ NOT NULL,
    last_seen       TIMESTAMPTZ NOT NULL,
    last_alert      UUID NOT NULL,
    alerts          BIGINT NOT NULL,
    told            BIGINT NOT NULL,
    silenced        BIGINT NOT NULL,
    assignee        TEXT,
    acknowledged_by TEXT,
    acknowledged_at TIMESTAMPTZ,
    closed_by       TEXT,
    closed_at       TIMESTAMPTZ,
    comment         TEXT,
    last_told       TIMESTAMPTZ,
    told_severity   INTEGER,
    resolve_at      TIMESTAMPTZ,
    escalate_at     TIMESTAMPTZ,
    escalations     INTEGER NOT NULL
);
CREATE INDEX idx_muttd_incidents_key ON muttd_incidents (org, group_key, id);
CREATE UNIQUE INDEX idx_muttd_incidents_open ON muttd_incidents (org, group_key)
    WHERE status IN ('ACTIVE', 'ACKNOWLEDGED');
CREATE INDEX idx_muttd_incidents_seen ON muttd_incidents (org, last_seen, id);
CREATE INDEX idx_muttd_incidents_resolve ON muttd_incidents (resolve_at) WHERE status IN ('ACTIVE', 'ACKNOWLEDGED');
CREATE INDEX idx_muttd_incidents_escalate ON muttd_incidents (escalate_at) WHERE status = 'ACTIVE';
CREATE INDEX idx_muttd_incidents_age ON muttd_incidents (last_seen) WHERE status IN ('RESOLVED', 'DISMISSED');

CREATE TABLE muttd_silences (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org        TEXT NOT NULL,
    matcher    TEXT NOT NULL,
    starts_at  TIMESTAMPTZ NOT NULL,
    ends_at    TIMESTAMPTZ NOT NULL,
    author     TEXT NOT NULL,
    reason     TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    ended_at   TIMESTAMPTZ
);
-- When it is over: at its time, or when somebody ended it.
CREATE INDEX idx_muttd_silences_over ON muttd_silences (least(ends_at, ended_at));
CREATE INDEX idx_muttd_silences_org ON muttd_silences (org, created_at, id);

ALTER TABLE alerts ADD COLUMN incident_id BIGINT;
ALTER TABLE alerts DROP CONSTRAINT chk_alert_state;
ALTER TABLE alerts ADD CONSTRAINT chk_alert_state
    CHECK (state IN ('pending', 'delivered', 'dead', 'recorded', 'grouped', 'silenced'));
CREATE INDEX idx_alerts_incident ON alerts (org, incident_id, created_at, id) WHERE incident_id IS NOT NULL;
