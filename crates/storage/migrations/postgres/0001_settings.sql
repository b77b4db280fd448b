-- Rules, hosts, teams and the log of their changes: MUTT 2.5's tables, made when they are missing,
-- and what we need besides. Every new column has a default, so statements that name the old columns
-- go on working. Run inside one transaction, with the schema of the tables first in search_path.

CREATE TABLE muttd_meta (
    name  TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
COMMENT ON TABLE muttd_meta IS 'muttd: revision grows with every change of rules, hosts and teams, whoever makes it';
INSERT INTO muttd_meta (name, value) VALUES ('revision', 0);

CREATE TABLE IF NOT EXISTS alert_rules (
    id              SERIAL PRIMARY KEY,
    match_string    VARCHAR(255),
    trap_oid        VARCHAR(255),
    syslog_severity INTEGER,
    match_type      VARCHAR(20) NOT NULL DEFAULT 'contains',
    priority        INTEGER NOT NULL DEFAULT 100,
    prod_handling   VARCHAR(100) NOT NULL,
    dev_handling    VARCHAR(100) NOT NULL,
    team_assignment VARCHAR(100) NOT NULL,
    is_active       BOOLEAN NOT NULL DEFAULT true,
    CONSTRAINT chk_match_type CHECK (match_type IN ('contains', 'regex', 'oid_prefix')),
    CONSTRAINT chk_syslog_severity CHECK (syslog_severity BETWEEN 0 AND 7),
    CONSTRAINT chk_match_criteria CHECK (match_string IS NOT NULL OR trap_oid IS NOT NULL)
);
ALTER TABLE alert_rules ADD COLUMN IF NOT EXISTS org TEXT NOT NULL DEFAULT 'default';
CREATE INDEX IF NOT EXISTS idx_alert_rules_match_type ON alert_rules (match_type);
CREATE INDEX IF NOT EXISTS idx_alert_rules_is_active ON alert_rules (is_active);
CREATE INDEX IF NOT EXISTS idx_alert_rules_order ON alert_rules (org, priority, id);

CREATE TABLE IF NOT EXISTS development_hosts (
    hostname VARCHAR(255) NOT NULL
);
ALTER TABLE development_hosts ADD COLUMN IF NOT EXISTS org TEXT NOT NULL DEFAULT 'default';

CREATE TABLE IF NOT EXISTS device_teams (
    hostname        VARCHAR(255) NOT NULL,
    team_assignment VARCHAR(100) NOT NULL
);
ALTER TABLE device_teams ADD COLUMN IF NOT EXISTS org TEXT NOT NULL DEFAULT 'default';

-- A host may belong to several organisations: the key becomes (org, hostname).
DO $$
DECLARE
    tbl TEXT;
    old RECORD;
BEGIN
    FOREACH tbl IN ARRAY ARRAY['development_hosts', 'device_teams'] LOOP
        FOR old IN SELECT conname FROM pg_constraint
                   WHERE conrelid = tbl::regclass AND contype IN ('p', 'u') LOOP
            EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', tbl, old.conname);
        END LOOP;
        EXECUTE format('ALTER TABLE %I ADD CONSTRAINT %I PRIMARY KEY (org, hostname)', tbl, tbl || '_pkey');
    END LOOP;
END $$;

CREATE TABLE IF NOT EXISTS config_audit_log (
    id             BIGSERIAL PRIMARY KEY,
    changed_at     TIMESTAMPTZ NOT NULL DEFAULT now(),
    changed_by     VARCHAR(100) NOT NULL,
    operation      VARCHAR(10) NOT NULL CHECK (operation IN ('CREATE', 'UPDATE', 'DELETE')),
    table_name     VARCHAR(50) NOT NULL,
    record_id      INTEGER NOT NULL,
    old_values     JSONB,
    new_values     JSONB,
    reason         TEXT,
    correlation_id VARCHAR(36)
);
ALTER TABLE config_audit_log ADD COLUMN IF NOT EXISTS org TEXT NOT NULL DEFAULT 'default';
-- The names are the original's, so that an adopted table gets no index twice.
CREATE INDEX IF NOT EXISTS idx_config_audit_log_table_record ON config_audit_log (table_name, record_id);
CREATE INDEX IF NOT EXISTS idx_config_audit_log_changed_at ON config_audit_log (changed_at DESC);
CREATE INDEX IF NOT EXISTS idx_config_audit_log_changed_by ON config_audit_log (changed_by);
CREATE INDEX IF NOT EXISTS idx_config_audit_log_correlation_id ON config_audit_log (correlation_id)
    WHERE correlation_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_config_audit_log_old_values_gin ON config_audit_log USING GIN (old_values);
CREATE INDEX IF NOT EXISTS idx_config_audit_log_new_values_gin ON config_audit_log USING GIN (new_values);
CREATE INDEX IF NOT EXISTS idx_config_audit_page ON config_audit_log (org, changed_at, id);

-- Whoever edits, with whatever program: workers must notice. SECURITY DEFINER, so that a person who
-- may edit rules needs no right on muttd_meta.
CREATE FUNCTION muttd_move_revision() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    UPDATE muttd_meta SET value = value + 1 WHERE name = 'revision';
    RETURN NULL;
END $$;

CREATE TRIGGER muttd_revision AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON alert_rules
    FOR EACH STATEMENT EXECUTE FUNCTION muttd_move_revision();
CREATE TRIGGER muttd_revision AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON development_hosts
    FOR EACH STATEMENT EXECUTE FUNCTION muttd_move_revision();
CREATE TRIGGER muttd_revision AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON device_teams
    FOR EACH STATEMENT EXECUTE FUNCTION muttd_move_revision();
