-- Alerts and how far they came. The pending ones are the outbox of delivery.
CREATE TABLE alerts (
    id             UUID PRIMARY KEY,
    org            TEXT NOT NULL,
    kind           TEXT NOT NULL,
    event_id       UUID NOT NULL,
    correlation_id TEXT NOT NULL,
    created_at     TIMESTAMPTZ NOT NULL,
    host           TEXT NOT NULL,
    host_full      TEXT, -- only where it is too long for an index
    team           TEXT NOT NULL,
    severity       INTEGER NOT NULL,
    handling       TEXT NOT NULL,
    rule_id        BIGINT,
    signature      TEXT NOT NULL,
    message        TEXT NOT NULL,
    raw_json       BYTEA NOT NULL,
    state          TEXT NOT NULL,
    state_at       TIMESTAMPTZ NOT NULL,
    attempts       INTEGER NOT NULL DEFAULT 0,
    detail         TEXT,
    CONSTRAINT chk_alert_state CHECK (state IN ('pending', 'delivered', 'dead', 'recorded'))
);
CREATE INDEX idx_alerts_created ON alerts (org, created_at, id);
CREATE INDEX idx_alerts_host ON alerts (org, host, created_at, id);
CREATE INDEX idx_alerts_state ON alerts (org, state, created_at, id);
CREATE INDEX idx_alerts_event ON alerts (event_id);
CREATE INDEX idx_alerts_pending ON alerts (created_at, id) WHERE state = 'pending';

-- Where the functions look for tables: nowhere else than where the tables are.
DO $$
DECLARE
    f RECORD;
BEGIN
    FOR f IN
        SELECT oid::regprocedure AS name FROM pg_proc
        WHERE pronamespace = current_schema()::regnamespace AND prokind = 'f'
          AND (proname LIKE 'muttd\_%'
               OR proname IN ('create_monthly_partition', 'drop_old_partitions', 'archive_old_events',
                              'get_archive_statistics', 'delete_old_archives'))
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', f.name, current_schema());
    END LOOP;
END $$;

-- The rows of a log that was not partitioned, month by month where they are sane.
DO $$
DECLARE
    month_of DATE;
    names TEXT;
    seq TEXT;
    grants RECORD;
BEGIN
    IF to_regclass('event_audit_log_unpartitioned') IS NOT NULL THEN
        ALTER TABLE event_audit_log_unpartitioned ADD COLUMN IF NOT EXISTS org TEXT NOT NULL DEFAULT 'default';
        ALTER TABLE event_audit_log_unpartitioned ADD COLUMN IF NOT EXISTS event_id UUID;
        FOR month_of IN
            SELECT DISTINCT date_trunc('month', event_timestamp AT TIME ZONE 'UTC')::date
            FROM event_audit_log_unpartitioned
            WHERE event_timestamp BETWEEN now() - interval '10 years' AND now() + interval '3 months'
        LOOP
            PERFORM create_monthly_partition(month_of);
        END LOOP;
        names := 'id, event_timestamp, hostname, matched_rule_id, handling_decision, forwarded_to_moog, raw_message, '
                 'org, event_id';
        EXECUTE format('INSERT INTO event_audit_log (%s) SELECT %1$s FROM event_audit_log_unpartitioned', names);
        seq := pg_get_serial_sequence('event_audit_log', 'id');
        PERFORM setval(seq, greatest((SELECT max(id) FROM event_audit_log), 1));
        FOR grants IN
            SELECT coalesce(r.rolname, 'public') AS grantee, a.grantee AS id, a.privilege_type
            FROM pg_class c, aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
            WHERE c.oid = 'event_audit_log_unpartitioned'::regclass AND a.grantee <> c.relowner
        LOOP
            EXECUTE format('GRANT %s ON event_audit_log TO %s', grants.privilege_type,
                           CASE grants.id WHEN 0 THEN 'PUBLIC' ELSE quote_ident(grants.grantee) END);
            IF grants.privilege_type = 'INSERT' THEN
                EXECUTE format('GRANT USAGE, SELECT ON SEQUENCE %s TO %s', seq,
                               CASE grants.id WHEN 0 THEN 'PUBLIC' ELSE quote_ident(grants.grantee) END);
            END IF;
        END LOOP;
        DROP TABLE event_audit_log_unpartitioned;
    END IF;
END $$;

-- Who could write the log can do our work: the same rights on what is new. The functions that make
-- partitions run with the owner's rights, so they are not for everybody.
DO $$
DECLARE
    who RECORD;
    name TEXT;
BEGIN
    REVOKE EXECUTE ON FUNCTION create_monthly_partition(DATE), muttd_keep_partitions(), muttd_count_partitions(),
        muttd_drop_empty_partitions(TIMESTAMPTZ) FROM PUBLIC;
    FOR who IN
        SELECT DISTINCT quote_ident(r.rolname) AS grantee
        FROM pg_class c, aclexplode(c.relacl) a JOIN pg_roles r ON r.oid = a.grantee
        WHERE c.oid = 'event_audit_log'::regclass AND a.privilege_type = 'INSERT' AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON alerts, muttd_event_counts, event_audit_log_archive, '
                       'config_audit_log TO %s', who.grantee);
        EXECUTE format('GRANT SELECT, DELETE ON event_audit_log TO %s', who.grantee);
        EXECUTE format('GRANT SELECT ON muttd_meta, muttd_migrations, partition_health_summary TO %s',
                       who.grantee);
        FOREACH name IN ARRAY ARRAY['event_audit_log_archive', 'config_audit_log'] LOOP
            IF pg_get_serial_sequence(name, 'id') IS NOT NULL THEN
                EXECUTE format('GRANT USAGE, SELECT ON SEQUENCE %s TO %s', pg_get_serial_sequence(name, 'id'),
                               who.grantee);
            END IF;
        END LOOP;
        EXECUTE format('GRANT EXECUTE ON FUNCTION create_monthly_partition(DATE), muttd_keep_partitions(), '
                       'muttd_count_partitions(), muttd_drop_empty_partitions(TIMESTAMPTZ) TO %s', who.grantee);
    END LOOP;
END $$;

-- Only now, so that the rows that were moved are counted at once and not one by one.
CREATE TRIGGER muttd_count_insert AFTER INSERT ON event_audit_log
    FOR EACH ROW WHEN (NEW.event_id IS NULL) EXECUTE FUNCTION muttd_count_row();
CREATE TRIGGER muttd_count_delete AFTER DELETE ON event_audit_log
    FOR EACH ROW WHEN (current_setting('muttd.counts_itself', true) IS DISTINCT FROM 'yes')
    EXECUTE FUNCTION muttd_count_row();
DELETE FROM muttd_event_counts;
SELECT muttd_keep_partitions();
