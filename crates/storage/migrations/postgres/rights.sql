-- After the steps, in their transaction: whose the new things are and who may use them. The settings
-- muttd.owner (of the tables that were adopted) and muttd.before (what was there) come from the program.

DO $$
DECLARE
    its_owner NAME := current_setting('muttd.owner');
    was_there OID[] := string_to_array(current_setting('muttd.before'), ',')::oid[];
    item RECORD;
BEGIN
    -- The functions look for tables where the tables are and nowhere else.
    FOR item IN
        SELECT oid::regprocedure AS name FROM pg_proc
        WHERE pronamespace = current_schema()::regnamespace AND prokind = 'f'
          AND (proname LIKE 'muttd\_%'
               OR proname IN ('create_monthly_partition', 'drop_old_partitions', 'archive_old_events',
                              'get_archive_statistics', 'delete_old_archives'))
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', item.name, current_schema());
        -- SECURITY DEFINER: with the rights of the owner of the tables, not of whoever migrates.
        BEGIN
            EXECUTE format('ALTER FUNCTION %s OWNER TO %I', item.name, its_owner);
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE WARNING '% stays with %', item.name, current_user;
        END;
    END LOOP;
    FOR item IN
        SELECT c.oid::regclass AS name FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v')
          AND c.oid <> ALL (was_there) AND r.rolname = current_user AND r.rolname <> its_owner
          AND (c.relname LIKE 'muttd\_%'
               OR c.relname IN ('alert_rules', 'development_hosts', 'device_teams', 'config_audit_log', 'event_audit_log',
                                'event_audit_log_archive', 'alerts', 'partition_health_summary')
               OR EXISTS (SELECT FROM pg_inherits i
                          WHERE i.inhrelid = c.oid AND i.inhparent = 'event_audit_log'::regclass))
    LOOP
        BEGIN
            EXECUTE format('ALTER TABLE %s OWNER TO %I', item.name, its_owner);
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE WARNING '% stays with %', item.name, current_user;
        END;
    END LOOP;
END $$;

-- Who could write the log can do our work: the same rights on what is new. Keys of users and detection
-- rules are for those who could edit the rules, too. Functions that run with the owner's rights are not for everybody.
DO $$
DECLARE
    who RECORD;
    name TEXT;
BEGIN
    REVOKE EXECUTE ON FUNCTION create_monthly_partition(DATE), muttd_make_month(DATE, BOOLEAN),
        muttd_count_partitions(), muttd_drop_empty_partitions(TIMESTAMPTZ) FROM PUBLIC;
    FOR who IN
        SELECT quote_ident(r.rolname) AS grantee, has_table_privilege(r.oid, 'alert_rules', 'INSERT') AS edits
        FROM pg_roles r
        WHERE r.oid IN (SELECT a.grantee FROM pg_class c, aclexplode(c.relacl) a
                        WHERE c.oid = 'event_audit_log'::regclass AND a.privilege_type = 'INSERT'
                        UNION SELECT c.relowner FROM pg_class c WHERE c.oid = 'event_audit_log'::regclass)
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON alerts, muttd_event_counts, event_audit_log_archive, '
                       'config_audit_log TO %s', who.grantee);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON muttd_incidents, muttd_silences, muttd_correlation_workers, '
                       'muttd_correlation_shards, muttd_correlation_state, muttd_correlation_hits TO %s', who.grantee);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON muttd_schedules, muttd_schedule_runs, '
                       'muttd_schedule_gaps TO %s', who.grantee);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON muttd_agents, muttd_agent_bars TO %s', who.grantee);
        -- Whoever enrols agents counts them and the uses of tokens.
        EXECUTE format('GRANT SELECT, UPDATE ON muttd_orgs, muttd_agent_tokens TO %s', who.grantee);
        EXECUTE format('GRANT SELECT, DELETE ON event_audit_log TO %s', who.grantee);
        EXECUTE format('GRANT SELECT ON muttd_meta, muttd_migrations, partition_health_summary TO %s', who.grantee);
        EXECUTE format('GRANT %s ON muttd_users, muttd_user_keys, muttd_detection_orgs, muttd_detection_documents, '
                       'muttd_detection_versions, muttd_detection_settings TO %s',
                       CASE WHEN who.edits THEN 'SELECT, INSERT, UPDATE, DELETE' ELSE 'SELECT' END, who.grantee);
        IF who.edits THEN
            EXECUTE format('GRANT INSERT, DELETE ON muttd_orgs, muttd_agent_tokens TO %s', who.grantee);
        END IF;
        FOREACH name IN ARRAY ARRAY['event_audit_log_archive', 'config_audit_log'] LOOP
            IF pg_get_serial_sequence(name, 'id') IS NOT NULL THEN
                EXECUTE format('GRANT USAGE, SELECT ON SEQUENCE %s TO %s', pg_get_serial_sequence(name, 'id'),
                               who.grantee);
            END IF;
        END LOOP;
        EXECUTE format('GRANT EXECUTE ON FUNCTION create_monthly_partition(DATE), muttd_make_month(DATE, BOOLEAN), '
                       'muttd_count_partitions(), muttd_drop_empty_partitions(TIMESTAMPTZ) TO %s', who.grantee);
    END LOOP;
END $$;
