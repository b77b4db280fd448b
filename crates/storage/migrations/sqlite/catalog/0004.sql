-- Incidents, which gather alerts of one cause, and silences.

CREATE TABLE incidents (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    org             TEXT NOT NULL,
    group_key       TEXT NOT NULL,
    status          TEXT NOT NULL CHECK (status IN ('ACTIVE', 'ACKNOWLEDGED', 'RESOLVED', 'DISMISSED')),
    rule_uid        TEXT NOT NULL,
    title           TEXT NOT NULL,
    severity        INTEGER NOT NULL,
    team            TEXT NOT NULL,
    host            TEXT NOT NULL,
    first_seen      INTEGER NOT NULL,
    last_seen       INTEGER NOT NULL,
    last_alert      BLOB NOT NULL,
    alerts          INTEGER NOT NULL,
    told            INTEGER NOT NULL,
    silenced        INTEGER NOT NULL,
    assignee        TEXT,
    acknowledged_by TEXT,
    acknowledged_at INTEGER,
    closed_by       TEXT,
    closed_at       INTEGER,
    comment         TEXT,
    last_told       INTEGER,
    told_severity   INTEGER,
    resolve_at      INTEGER,
    escalate_at     INTEGER,
    escalations     INTEGER NOT NULL
) STRICT;

CREATE INDEX idx_incidents_key ON incidents (org, group_key, id);
CREATE UNIQUE INDEX idx_incidents_open ON incidents (org, group_key) WHERE status IN ('ACTIVE', 'ACKNOWLEDGED');
CREATE INDEX idx_incidents_seen ON incidents (org, last_seen);
CREATE INDEX idx_incidents_resolve ON incidents (resolve_at) WHERE status IN ('ACTIVE', 'ACKNOWLEDGED');
CREATE INDEX idx_incidents_escalate ON incidents (escalate_at) WHERE status = 'ACTIVE';
CREATE INDEX idx_incidents_age ON incidents (last_seen) WHERE status IN ('RESOLVED', 'DISMISSED');

CREATE TABLE silences (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    org        TEXT NOT NULL,
    matcher    TEXT NOT NULL,
    starts_at  INTEGER NOT NULL,
    ends_at    INTEGER NOT NULL,
    author     TEXT NOT NULL,
    reason     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    ended_at   INTEGER
) STRICT;

-- When it is over: at its time, or when somebody ended it.
CREATE INDEX idx_silences_over ON silences (min(ends_at, coalesce(ended_at, ends_at)));
CREATE INDEX idx_silences_org ON silences (org, created_at);

-- Two states more, which a CHECK does not take without a new table.
CREATE TABLE alerts_new (
    id             BLOB PRIMARY KEY,
    org            TEXT NOT NULL,
    kind           TEXT NOT NULL,
    event_id       BLOB NOT NULL,
    correlation_id TEXT NOT NULL,
    created_at     INTEGER NOT NULL,
    host           TEXT NOT NULL,
    team           TEXT NOT NULL,
    severity       INTEGER NOT NULL,
    handling       TEXT NOT NULL,
    rule_id        INTEGER,
    signature      TEXT NOT NULL,
    message        TEXT NOT NULL,
    raw_json       BLOB NOT NULL,
    state          TEXT NOT NULL
                   CHECK (state IN ('pending', 'delivered', 'dead', 'recorded', 'grouped', 'silenced')),
    state_at       INTEGER NOT NULL,
    attempts       INTEGER NOT NULL DEFAULT 0,
    detail         TEXT,
    detection      TEXT,
    incident_id    INTEGER
) STRICT;

INSERT INTO alerts_new (rowid, id, org, kind, event_id, correlation_id, created_at, host, team, severity, handling,
                        rule_id, signature, message, raw_json, state, state_at, attempts, detail, detection)
    SELECT rowid, id, org, kind, event_id, correlation_id, created_at, host, team, severity, handling,
           rule_id, signature, message, raw_json, state, state_at, attempts, detail, detection
    FROM alerts;
DROP TABLE alerts;
ALTER TABLE alerts_new RENAME TO alerts;

CREATE INDEX idx_alerts_created ON alerts (org, created_at);
CREATE INDEX idx_alerts_host ON alerts (org, host, created_at);
CREATE INDEX idx_alerts_state ON alerts (org, state, created_at);
CREATE INDEX idx_alerts_event ON alerts (event_id);
CREATE INDEX idx_alerts_pending ON alerts (created_at) WHERE state = 'pending';
CREATE INDEX idx_alerts_incident ON alerts (org, incident_id, created_at) WHERE incident_id IS NOT NULL;
