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

-- The rows of a log that was not partitioned, month by month where they are sane.
DO $$
DECLARE
    month_of DATE;
    names TEXT;
    grants RECORD;
BEGIN
    IF to_regclass('event_audit_log_unpartitioned') IS NULL THEN
        RETURN;
    END IF;
    FOR month_of IN
        SELECT DISTINCT date_trunc('month', event_timestamp AT TIME ZONE 'UTC')::date
        FROM event_audit_log_unpartitioned
        WHERE event_timestamp BETWEEN now() - interval '10 years' AND now() + interval '3 months'
    LOOP
        PERFORM muttd_make_month(month_of, true);
    END LOOP;
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO names FROM pg_attribute
        WHERE attrelid = 'event_audit_log_unpartitioned'::regclass AND attnum > 0 AND NOT attisdropped
          AND attgenerated = '';
    EXECUTE format('INSERT INTO event_audit_log (%s) SELECT %1$s FROM event_audit_log_unpartitioned', names);
    PERFORM setval('event_audit_log_id_seq', greatest((SELECT max(id) FROM event_audit_log), 1));
    FOR grants IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END AS grantee, a.privilege_type
        FROM pg_class c, aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
        WHERE c.oid = 'event_audit_log_unpartitioned'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON event_audit_log TO %s', grants.privilege_type, grants.grantee);
        IF grants.privilege_type = 'INSERT' THEN
            EXECUTE format('GRANT USAGE, SELECT ON SEQUENCE event_audit_log_id_seq TO %s', grants.grantee);
        END IF;
    END LOOP;
    DROP TABLE event_audit_log_unpartitioned;
    EXECUTE current_setting('muttd.again');
END $$;

-- Only now, so that the rows that were moved are counted at once and not one by one.
CREATE TRIGGER muttd_count_insert AFTER INSERT ON event_audit_log
    FOR EACH ROW WHEN (NEW.event_id IS NULL) EXECUTE FUNCTION muttd_count_row();
CREATE TRIGGER muttd_count_delete AFTER DELETE ON event_audit_log
    FOR EACH ROW WHEN (current_setting('muttd.counts_itself', true) IS DISTINCT FROM 'yes')
    EXECUTE FUNCTION muttd_count_row();
DELETE FROM muttd_event_counts;
SELECT muttd_count_partitions();
