-- The contract's functions and view, in place of the original's (of which archive_old_events could
-- not run), and those the driver calls.

DO $$
DECLARE
    old RECORD;
BEGIN
    DROP VIEW IF EXISTS partition_health_summary;
    FOR old IN
        SELECT oid::regprocedure AS name FROM pg_proc
        WHERE pronamespace = current_schema()::regnamespace AND prokind = 'f'
          AND proname IN ('create_monthly_partition', 'drop_old_partitions', 'archive_old_events',
                          'get_archive_statistics', 'delete_old_archives')
    LOOP
        EXECUTE format('DROP FUNCTION %s', old.name);
    END LOOP;
END $$;

-- The partitions of event_audit_log and their bounds.
CREATE FUNCTION muttd_audit_partitions()
RETURNS TABLE (part TEXT, relid OID, lower_bound TIMESTAMPTZ, upper_bound TIMESTAMPTZ, is_default BOOLEAN)
LANGUAGE plpgsql STABLE SET timezone = 'UTC' SET datestyle = 'ISO, MDY' AS $$
BEGIN
    RETURN QUERY
        SELECT p.relname::text, p.oid,
               coalesce(substring(p.bounds FROM 'FROM \(''([^'']+)''\)')::timestamptz, '-infinity'),
               coalesce(substring(p.bounds FROM 'TO \(''([^'']+)''\)')::timestamptz, 'infinity'),
               p.bounds = 'DEFAULT'
        FROM (SELECT c.relname, c.oid, pg_get_expr(c.relpartbound, c.oid) AS bounds
              FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
              WHERE i.inhparent = 'event_audit_log'::regclass) p;
END $$;

-- Makes the partition of the month (UTC) of `month_of`, moves there what the default partition has
-- caught of it, and gives its name. What other partitions cover stays theirs, and a gap of less
-- than a day to the neighbour (months made in another time zone) is closed.
CREATE FUNCTION create_monthly_partition(month_of DATE) RETURNS TEXT
LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '3s' SET timezone = 'UTC' AS $$
DECLARE
    first_day TIMESTAMPTZ := date_trunc('month', month_of::timestamp) AT TIME ZONE 'UTC';
    after_last TIMESTAMPTZ := (date_trunc('month', month_of::timestamp) + interval '1 month') AT TIME ZONE 'UTC';
    new_part TEXT := 'event_audit_log_' || to_char(month_of, 'YYYY_MM');
    spare REGCLASS;
    edge TIMESTAMPTZ;
    names TEXT;
    caught BIGINT;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('muttd partitions of event_audit_log'));
    IF EXISTS (SELECT FROM muttd_audit_partitions() p WHERE p.part = new_part) THEN
        RETURN new_part;
    END IF;
    IF to_regclass(quote_ident(new_part)) IS NOT NULL THEN
        RAISE WARNING 'the table % is there but no partition; its month stays in the default partition', new_part;
        RETURN NULL;
    END IF;
    LOOP
        SELECT max(p.upper_bound) INTO edge FROM muttd_audit_partitions() p
            WHERE NOT p.is_default AND p.lower_bound <= first_day AND p.upper_bound > first_day;
        EXIT WHEN edge IS NULL;
        first_day := edge;
    END LOOP;
    IF first_day >= after_last THEN
        RETURN NULL; -- wholly covered by others
    END IF;
    SELECT coalesce(max(p.upper_bound), first_day) INTO first_day FROM muttd_audit_partitions() p
        WHERE NOT p.is_default AND p.upper_bound <= first_day AND p.upper_bound > first_day - interval '1 day';
    SELECT coalesce(min(p.lower_bound), after_last) INTO after_last FROM muttd_audit_partitions() p
        WHERE NOT p.is_default AND p.lower_bound >= first_day AND p.lower_bound < after_last + interval '1 day';

    SELECT partdefid::regclass INTO spare FROM pg_partitioned_table
        WHERE partrelid = 'event_audit_log'::regclass AND partdefid <> 0;
    EXECUTE format('CREATE TABLE %I (LIKE event_audit_log INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)',
                   new_part);
    DELETE FROM muttd_event_counts c WHERE c.part = new_part;
    INSERT INTO muttd_event_counts (part, org, rows) VALUES (new_part, '', 0);
    IF spare IS NOT NULL THEN
        -- Attaching fails as long as the default partition has rows of the month.
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', spare);
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO names FROM pg_attribute
            WHERE attrelid = 'event_audit_log'::regclass AND attnum > 0 AND NOT attisdropped;
        PERFORM set_config('muttd.counts_itself', 'yes', true);
        EXECUTE format('WITH moved AS (DELETE FROM %1$s WHERE event_timestamp >= $1 AND event_timestamp < $2 '
                       'RETURNING %3$s) INSERT INTO %2$I (%3$s) SELECT %3$s FROM moved', spare, new_part, names)
            USING first_day, after_last;
        GET DIAGNOSTICS caught = ROW_COUNT;
        PERFORM set_config('muttd.counts_itself', 'no', true);
        IF caught > 0 THEN
            EXECUTE format('INSERT INTO muttd_event_counts (part, org, rows) '
                           'SELECT v.part, p.org, v.sign * count(*) FROM %I p, (VALUES ($1, 1), ($2, -1)) v (part, sign) '
                           'GROUP BY v.part, p.org, v.sign', new_part)
                USING new_part, (SELECT relname::text FROM pg_class WHERE oid = spare);
        END IF;
    END IF;
    EXECUTE format('ALTER TABLE event_audit_log ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   new_part, first_day, after_last);
    RETURN new_part;
END $$;

-- Counts partitions that were made or attached by others, so that totals need not.
CREATE FUNCTION muttd_count_partitions() RETURNS INTEGER
LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '3s' AS $$
DECLARE
    uncounted RECORD;
    n INTEGER := 0;
BEGIN
    FOR uncounted IN
        SELECT p.part AS name, p.relid::regclass AS tbl FROM muttd_audit_partitions() p
        WHERE NOT EXISTS (SELECT FROM muttd_event_counts c WHERE c.org = '' AND c.part = p.part)
    LOOP
        BEGIN
            EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', uncounted.tbl);
            DELETE FROM muttd_event_counts c WHERE c.part = uncounted.name;
            EXECUTE format('INSERT INTO muttd_event_counts (part, org, rows) '
                           'SELECT $1, org, count(*) FROM %s GROUP BY org', uncounted.tbl) USING uncounted.name;
            INSERT INTO muttd_event_counts (part, org, rows) VALUES (uncounted.name, '', 0);
            n := n + 1;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            NULL; -- busy: until the next time, totals count its rows
        END;
    END LOOP;
    RETURN n;
END $$;

-- For people who wrote into a partition behind all triggers (TRUNCATE, COPY with triggers off).
CREATE FUNCTION muttd_recount() RETURNS INTEGER LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM muttd_event_counts;
    RETURN muttd_count_partitions();
END $$;

-- All rows of an organisation.
CREATE FUNCTION muttd_audit_total(of_org TEXT) RETURNS BIGINT LANGUAGE plpgsql STABLE AS $$
DECLARE
    total BIGINT;
    uncounted RECORD;
    n BIGINT;
BEGIN
    SELECT coalesce(sum(c.rows), 0) INTO total FROM muttd_event_counts c
        WHERE c.org = of_org
          AND c.part IN (SELECT k.relname::text FROM pg_inherits i JOIN pg_class k ON k.oid = i.inhrelid
                         WHERE i.inhparent = 'event_audit_log'::regclass)
          AND EXISTS (SELECT FROM muttd_event_counts m WHERE m.org = '' AND m.part = c.part);
    FOR uncounted IN
        SELECT i.inhrelid::regclass AS tbl FROM pg_inherits i JOIN pg_class k ON k.oid = i.inhrelid
        WHERE i.inhparent = 'event_audit_log'::regclass
          AND NOT EXISTS (SELECT FROM muttd_event_counts m WHERE m.org = '' AND m.part = k.relname::text)
    LOOP
        EXECUTE format('SELECT count(*) FROM %s WHERE org = $1', uncounted.tbl) INTO n USING of_org;
        total := total + n;
    END LOOP;
    RETURN total;
END $$;

-- Adds up the differences; rows that somebody else holds are left for the next time.
CREATE FUNCTION muttd_compact_counts() RETURNS VOID LANGUAGE sql AS $$
    WITH gone AS (
        DELETE FROM muttd_event_counts WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM muttd_event_counts WHERE org <> '' LIMIT 50000 FOR UPDATE SKIP LOCKED))
        RETURNING part, org, rows)
    INSERT INTO muttd_event_counts (part, org, rows)
        SELECT part, org, sum(rows) FROM gone GROUP BY part, org HAVING sum(rows) <> 0;
$$;

-- This month and the next three, and every month from thirteen back that the default partition has
-- caught. Gives the number of partitions that were made.
CREATE FUNCTION muttd_keep_partitions() RETURNS INTEGER
LANGUAGE plpgsql SECURITY DEFINER SET timezone = 'UTC' AS $$
DECLARE
    spare REGCLASS;
    this_month TIMESTAMP := date_trunc('month', now() AT TIME ZONE 'UTC');
    wanted DATE[];
    m DATE;
    before INTEGER := (SELECT count(*) FROM muttd_audit_partitions());
BEGIN
    SELECT array_agg((this_month + n * interval '1 month')::date) INTO wanted FROM generate_series(0, 3) n;
    SELECT partdefid::regclass INTO spare FROM pg_partitioned_table
        WHERE partrelid = 'event_audit_log'::regclass AND partdefid <> 0;
    IF spare IS NOT NULL THEN
        FOR m IN SELECT (this_month - n * interval '1 month')::date FROM generate_series(1, 13) n LOOP
            EXECUTE format('SELECT $1 || CASE WHEN EXISTS (SELECT FROM %s WHERE event_timestamp >= $2 '
                           'AND event_timestamp < $3) THEN ARRAY[$2::date] ELSE ARRAY[]::date[] END', spare)
                INTO wanted
                USING wanted, m::timestamp AT TIME ZONE 'UTC', (m + interval '1 month') AT TIME ZONE 'UTC';
        END LOOP;
    END IF;
    FOREACH m IN ARRAY wanted LOOP
        BEGIN
            PERFORM create_monthly_partition(m);
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            RAISE NOTICE 'event_audit_log is busy; the partition of % is made later', m;
        END;
    END LOOP;
    PERFORM muttd_count_partitions();
    RETURN (SELECT count(*) FROM muttd_audit_partitions()) - before;
END $$;

-- Drops monthly partitions that ended before `before` and are empty.
CREATE FUNCTION muttd_drop_empty_partitions(before TIMESTAMPTZ) RETURNS INTEGER
LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '1s' AS $$
DECLARE
    old RECORD;
    used BOOLEAN;
    n INTEGER := 0;
BEGIN
    FOR old IN
        SELECT p.part AS name, p.relid::regclass AS tbl FROM muttd_audit_partitions() p
        WHERE NOT p.is_default AND p.upper_bound <= before AND p.part ~ '^event_audit_log_\d{4}_\d{2}$'
    LOOP
        BEGIN
            EXECUTE format('SELECT EXISTS (SELECT FROM %s)', old.tbl) INTO used;
            CONTINUE WHEN used;
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', old.tbl);
            EXECUTE format('SELECT EXISTS (SELECT FROM %s)', old.tbl) INTO used;
            CONTINUE WHEN used;
            EXECUTE format('DROP TABLE %s', old.tbl);
            DELETE FROM muttd_event_counts c WHERE c.part = old.name;
            n := n + 1;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            NULL;
        END;
    END LOOP;
    RETURN n;
END $$;

-- Drops every monthly partition that ended `months` months ago, with its rows. A partition of another
-- name (a legal hold, years before the months) is somebody's decision and stays.
CREATE FUNCTION drop_old_partitions(months INTEGER) RETURNS INTEGER LANGUAGE plpgsql AS $$
DECLARE
    old RECORD;
    n INTEGER := 0;
BEGIN
    FOR old IN
        SELECT p.part AS name, p.relid::regclass AS tbl FROM muttd_audit_partitions() p
        WHERE NOT p.is_default
          AND p.part ~ '^event_audit_log_\d{4}_\d{2}$'
          AND p.upper_bound <= date_trunc('month', now()) - months * interval '1 month' + interval '1 day'
    LOOP
        EXECUTE format('DROP TABLE %s', old.tbl);
        DELETE FROM muttd_event_counts c WHERE c.part = old.name;
        n := n + 1;
    END LOOP;
    RETURN n;
END $$;

-- The smallest id that an event accepted at `t` can have.
CREATE FUNCTION muttd_first_id(t TIMESTAMPTZ) RETURNS UUID LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex(least(greatest(floor(extract(epoch FROM t) * 1000), 0), 281474976710655)::bigint), 12, '0')
            || repeat('0', 20))::uuid
$$;

-- Moves at most `batch` rows accepted before `before` from the log into the archive; rows without an
-- event id go by event_timestamp. Gives how many.
CREATE FUNCTION muttd_archive_events(before TIMESTAMPTZ, batch BIGINT) RETURNS BIGINT
LANGUAGE plpgsql AS $$
DECLARE
    first_kept UUID := muttd_first_id(before);
    n BIGINT;
BEGIN
    PERFORM set_config('muttd.counts_itself', 'yes', true);
    WITH chosen AS MATERIALIZED (
        (SELECT e.id, e.event_timestamp FROM event_audit_log e
            WHERE e.event_id < first_kept ORDER BY e.event_id LIMIT batch)
        UNION ALL
        (SELECT e.id, e.event_timestamp FROM event_audit_log e
            WHERE e.event_id IS NULL AND e.event_timestamp < before ORDER BY e.event_timestamp LIMIT batch)
        LIMIT batch
    ), gone AS (
        DELETE FROM event_audit_log e USING chosen c WHERE e.id = c.id AND e.event_timestamp = c.event_timestamp
        RETURNING e.tableoid AS part, e.id, e.event_timestamp, e.hostname, e.matched_rule_id, e.handling_decision,
                  e.forwarded_to_moog, e.raw_message, e.org, e.event_id
    ), counted AS (
        INSERT INTO muttd_event_counts (part, org, rows)
            SELECT k.relname, g.org, -count(*) FROM gone g JOIN pg_class k ON k.oid = g.part GROUP BY k.relname, g.org
    ), kept AS (
        INSERT INTO event_audit_log_archive (event_timestamp, hostname, matched_rule_id, handling_decision,
                forwarded_to_moog, raw_message, archived_from_partition, original_id, original_partition_timestamp,
                org, event_id)
            SELECT g.event_timestamp, g.hostname, g.matched_rule_id, g.handling_decision, g.forwarded_to_moog,
                   g.raw_message, left(k.relname, 50), g.id, g.event_timestamp, g.org, g.event_id
            FROM gone g JOIN pg_class k ON k.oid = g.part
    )
    SELECT count(*) INTO n FROM gone;
    PERFORM set_config('muttd.counts_itself', 'no', true);
    RETURN n;
END $$;

-- Deletes at most `batch` archived rows of events accepted before `before`. Of rows without an event id
-- only archived_at is certain: event_timestamp is the word of a clock that may stand in 1970.
CREATE FUNCTION muttd_purge_archive(before TIMESTAMPTZ, batch BIGINT) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
    n BIGINT;
BEGIN
    DELETE FROM event_audit_log_archive WHERE id IN (
        (SELECT a.id FROM event_audit_log_archive a WHERE a.event_id < muttd_first_id(before)
            ORDER BY a.event_id LIMIT batch)
        UNION ALL
        (SELECT a.id FROM event_audit_log_archive a WHERE a.event_id IS NULL AND a.archived_at < before
            ORDER BY a.archived_at LIMIT batch)
        LIMIT batch);
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;

-- The contract's: archives all that is older, in batches of one transaction.
CREATE FUNCTION archive_old_events(retention_days INTEGER DEFAULT 90, batch_size INTEGER DEFAULT 10000)
RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
    n BIGINT;
    total BIGINT := 0;
BEGIN
    LOOP
        n := muttd_archive_events(now() - retention_days * interval '1 day', greatest(batch_size, 1));
        EXIT WHEN n = 0;
        total := total + n;
    END LOOP;
    RETURN total;
END $$;

CREATE FUNCTION delete_old_archives(years INTEGER DEFAULT 7) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
    n BIGINT;
    total BIGINT := 0;
BEGIN
    LOOP
        n := muttd_purge_archive(now() - years * interval '1 year', 10000);
        EXIT WHEN n = 0;
        total := total + n;
    END LOOP;
    RETURN total;
END $$;

CREATE FUNCTION get_archive_statistics()
RETURNS TABLE (total_archived BIGINT, oldest_event TIMESTAMPTZ, newest_event TIMESTAMPTZ,
               last_archived_at TIMESTAMPTZ, archive_size TEXT, active_events BIGINT)
LANGUAGE sql STABLE AS $$
    SELECT count(*), min(event_timestamp), max(event_timestamp), max(archived_at),
           pg_size_pretty(pg_total_relation_size('event_audit_log_archive'::regclass)),
           (SELECT count(*) FROM event_audit_log)
    FROM event_audit_log_archive
$$;

CREATE VIEW partition_health_summary AS
    SELECT p.part AS partition_name,
           CASE WHEN NOT p.is_default THEN p.lower_bound END AS range_start,
           CASE WHEN NOT p.is_default THEN p.upper_bound END AS range_end,
           p.is_default,
           (SELECT coalesce(sum(c.rows), 0)::bigint FROM muttd_event_counts c WHERE c.part = p.part) AS row_count,
           pg_total_relation_size(p.relid) AS total_bytes,
           pg_size_pretty(pg_total_relation_size(p.relid)) AS total_size
    FROM muttd_audit_partitions() p
    ORDER BY p.is_default, p.lower_bound;
