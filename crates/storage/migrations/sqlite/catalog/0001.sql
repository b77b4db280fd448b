-- The catalog. Table and column names are those of MUTT 2.5; `org` and the `alerts` table are ours.
-- Times are microseconds since the epoch (UTC); ids of events and alerts are 16 bytes, high first,
-- so that their order is the order of acceptance.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Grows with every change of rules, hosts and teams.
INSERT INTO meta (name, value) VALUES ('revision', 0);

CREATE TABLE alert_rules (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    org             TEXT NOT NULL DEFAULT 'default',
    match_string    TEXT CHECK (length(match_string) <= 255),
    trap_oid        TEXT CHECK (length(trap_oid) <= 255),
    syslog_severity INTEGER,
    match_type      TEXT NOT NULL DEFAULT 'contains' CHECK (match_type IN ('contains', 'regex', 'oid_prefix')),
    priority        INTEGER NOT NULL DEFAULT 100,
    prod_handling   TEXT NOT NULL CHECK (length(prod_handling) <= 100),
    dev_handling    TEXT NOT NULL CHECK (length(dev_handling) <= 100),
    team_assignment TEXT NOT NULL CHECK (length(team_assignment) <= 100),
    is_active       INTEGER NOT NULL DEFAULT 1 CHECK (is_active IN (0, 1)),
    CONSTRAINT chk_syslog_severity CHECK (syslog_severity BETWEEN 0 AND 7),
    CONSTRAINT chk_match_criteria CHECK (match_string IS NOT NULL OR trap_oid IS NOT NULL)
) STRICT;

CREATE INDEX idx_alert_rules_order ON alert_rules (org, priority, id);

CREATE TABLE development_hosts (
    org      TEXT NOT NULL DEFAULT 'default',
    hostname TEXT NOT NULL CHECK (length(hostname) BETWEEN 1 AND 255),
    PRIMARY KEY (org, hostname)
) STRICT, WITHOUT ROWID;

CREATE TABLE device_teams (
    org             TEXT NOT NULL DEFAULT 'default',
    hostname        TEXT NOT NULL CHECK (length(hostname) BETWEEN 1 AND 255),
    team_assignment TEXT NOT NULL CHECK (length(team_assignment) BETWEEN 1 AND 100),
    PRIMARY KEY (org, hostname)
) STRICT, WITHOUT ROWID;

-- No foreign key to the rules: history outlives them.
CREATE TABLE event_audit_log (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    org               TEXT NOT NULL DEFAULT 'default',
    event_id          BLOB NOT NULL,
    event_timestamp   INTEGER NOT NULL,
    hostname          TEXT NOT NULL,
    matched_rule_id   INTEGER NOT NULL,
    handling_decision TEXT NOT NULL,
    forwarded_to_moog INTEGER NOT NULL DEFAULT 0 CHECK (forwarded_to_moog IN (0, 1)),
    raw_message       TEXT
) STRICT;

-- Also the order of acceptance, by which old rows are purged.
CREATE UNIQUE INDEX idx_audit_log_event ON event_audit_log (event_id, matched_rule_id, org);
CREATE INDEX idx_audit_log_timestamp ON event_audit_log (org, event_timestamp);
CREATE INDEX idx_audit_log_hostname ON event_audit_log (org, hostname, event_timestamp);
CREATE INDEX idx_audit_log_rule_id ON event_audit_log (org, matched_rule_id, event_timestamp);

-- Rows of event_audit_log, so that the unfiltered list need not count them.
CREATE TABLE event_audit_count (
    org  TEXT PRIMARY KEY,
    rows INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE config_audit_log (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    org            TEXT NOT NULL DEFAULT 'default',
    changed_at     INTEGER NOT NULL,
    changed_by     TEXT NOT NULL,
    operation      TEXT NOT NULL CHECK (operation IN ('CREATE', 'UPDATE', 'DELETE')),
    table_name     TEXT NOT NULL,
    record_id      INTEGER NOT NULL,
    old_values     TEXT,
    new_values     TEXT,
    reason         TEXT,
    correlation_id TEXT NOT NULL
) STRICT;

CREATE INDEX idx_config_audit_changed_at ON config_audit_log (org, changed_at);
CREATE INDEX idx_config_audit_table_record ON config_audit_log (org, table_name, record_id, changed_at);
CREATE INDEX idx_config_audit_age ON config_audit_log (changed_at);

CREATE TABLE alerts (
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
    state          TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead', 'recorded')),
    state_at       INTEGER NOT NULL,
    attempts       INTEGER NOT NULL DEFAULT 0,
    detail         TEXT
) STRICT;

CREATE INDEX idx_alerts_created ON alerts (org, created_at);
CREATE INDEX idx_alerts_host ON alerts (org, host, created_at);
CREATE INDEX idx_alerts_state ON alerts (org, state, created_at);
CREATE INDEX idx_alerts_event ON alerts (event_id);
CREATE INDEX idx_alerts_pending ON alerts (created_at) WHERE state = 'pending';
