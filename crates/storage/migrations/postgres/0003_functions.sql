-- The contract's functions and view, under the original's names and with its parameters and columns, in
-- place of the original's (of which archive_old_events could not run), and those the driver calls.

-- Puts a function or view of the contract in the place of what has its name. Rights stay, and what hangs
-- on an old one of another shape goes on using it, as <name>_before_muttd.
CREATE FUNCTION muttd_put(kind TEXT, its_name TEXT, definition TEXT) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
    old RECORD;
    rights TEXT := '';
BEGIN
    FOR old IN
        SELECT p.oid, p.oid::regprocedure::text AS called, p.proacl AS acl, p.proowner AS its_owner FROM pg_proc p
        WHERE kind = 'FUNCTION' AND p.pronamespace = current_schema()::regnamespace AND p.prokind = 'f'
          AND p.proname = its_name
        UNION ALL
        SELECT c.oid, c.oid::regclass::text, c.relacl, c.relowner FROM pg_class c
        WHERE kind = 'VIEW' AND c.relnamespace = current_schema()::regnamespace AND c.relname = its_name
    LOOP
        BEGIN
            EXECUTE format(definition, 'CREATE OR REPLACE');
            IF kind = 'VIEW' OR (SELECT count(*) FROM pg_proc p WHERE p.proname = its_name
                                 AND p.pronamespace = current_schema()::regnamespace) = 1 THEN
                RETURN;
            END IF;
            RAISE invalid_function_definition; -- the old one takes other types and is still there
        EXCEPTION WHEN invalid_function_definition OR invalid_table_definition THEN
            NULL;
        END;
        SELECT rights || coalesce(string_agg(
                   format('GRANT %s ON %s %s TO %s;', a.privilege_type, CASE kind WHEN 'VIEW' THEN 'TABLE' ELSE kind END,
                          CASE kind WHEN 'VIEW' THEN quote_ident(its_name) ELSE '%1$s' END,
                          CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END), ''), '')
            INTO rights FROM aclexplode(old.acl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
            WHERE a.grantee <> old.its_owner;
        BEGIN
            EXECUTE format('DROP %s %s', kind, old.called);
        EXCEPTION WHEN dependent_objects_still_exist THEN
            EXECUTE format('ALTER %s %s RENAME TO %I', kind, old.called, its_name || '_before_muttd');
        END;
    END LOOP;
    EXECUTE format(definition, 'CREATE');
    IF rights <> '' THEN
        EXECUTE format(rights, (SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.proname = its_name
                                AND p.pronamespace = current_schema()::regnamespace));
    END IF;
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

-- Makes the partition of the month (UTC) of `month_of` and gives its name. What other partitions cover
-- stays theirs, and a gap of less than a day to the neighbour (months made in another time zone) is
-- closed. Rows that the default partition has caught are moved; unless `may_move`, a month that has such
-- rows is not made. They are moved beside readers and writers: only what came meanwhile, and the
-- attaching, needs the default partition for itself.
CREATE FUNCTION muttd_make_month(month_of DATE, may_move BOOLEAN) RETURNS TEXT
LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '3s' SET timezone = 'UTC' AS $$
DECLARE
    first_day TIMESTAMPTZ;
    after_last TIMESTAMPTZ;
    new_part TEXT := 'event_audit_log_' || to_char(month_of, 'YYYY_MM');
    spare REGCLASS;
    edge TIMESTAMPTZ;
    names TEXT;
    caught BOOLEAN := false;
    moved BIGINT;
    total BIGINT := 0;
BEGIN
    IF month_of IS NULL OR month_of NOT BETWEEN '0001-01-01' AND '9998-12-31' THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = format(
            'create_monthly_partition wants a day of the years 1 to 9998, not %s', coalesce(month_of::text, 'NULL'));
    END IF;
    first_day := date_trunc('month', month_of::timestamp) AT TIME ZONE 'UTC';
    after_last := (date_trunc('month', month_of::timestamp) + interval '1 month') AT TIME ZONE 'UTC';
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
    IF spare IS NOT NULL THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE event_timestamp >= $1 AND event_timestamp < $2)', spare)
            INTO caught USING first_day, after_last;
        IF caught AND NOT may_move THEN
            RETURN NULL;
        END IF;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE event_audit_log INCLUDING ALL EXCLUDING IDENTITY)', new_part);
    DELETE FROM muttd_event_counts c WHERE c.part = new_part;
    INSERT INTO muttd_event_counts (part, org, rows) VALUES (new_part, '', 0);
    IF spare IS NOT NULL THEN
        SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO names FROM pg_attribute
            WHERE attrelid = 'event_audit_log'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '';
        PERFORM set_config('muttd.counts_itself', 'yes', true);
        -- Attaching fails as long as the default partition has rows of the month.
        FOR pass IN 1 .. 2 LOOP
            IF pass = 2 THEN
                EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', spare);
            END IF;
            EXECUTE format('WITH moved AS (DELETE FROM %1$s WHERE event_timestamp >= $1 AND event_timestamp < $2 '
                           'RETURNING %3$s) INSERT INTO %2$I (%3$s) SELECT %3$s FROM moved', spare, new_part, names)
                USING first_day, after_last;
            GET DIAGNOSTICS moved = ROW_COUNT;
            total := total + moved;
        END LOOP;
        PERFORM set_config('muttd.counts_itself', 'no', true);
        IF total > 0 THEN
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

SELECT muttd_put('FUNCTION', 'create_monthly_partition', $def$
%s FUNCTION create_monthly_partition(start_date DATE) RETURNS VOID LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM muttd_make_month(start_date, true);
END $$
$def$);

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
        EXCEPTION WHEN lock_not_available OR deadlock_detected OR insufficient_privilege THEN
            NULL; -- busy, or somebody else's: totals count its rows
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

-- All rows of an organisation. Through the log itself, since a partition may belong to whoever made it.
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
        SELECT p.relid, p.lower_bound, p.upper_bound FROM muttd_audit_partitions() p
        WHERE NOT EXISTS (SELECT FROM muttd_event_counts m WHERE m.org = '' AND m.part = p.part)
    LOOP
        -- The bounds only spare the other partitions.
        SELECT count(*) INTO n FROM event_audit_log e
            WHERE e.org = of_org AND e.tableoid = uncounted.relid
              AND e.event_timestamp BETWEEN uncounted.lower_bound AND uncounted.upper_bound;
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

-- Months that want a partition and have none: this one and the next three, and of thirteen back those
-- that the default partition has caught.
CREATE FUNCTION muttd_missing_months() RETURNS SETOF DATE
LANGUAGE plpgsql STABLE SET timezone = 'UTC' AS $$
DECLARE
    this_month TIMESTAMP := date_trunc('month', now() AT TIME ZONE 'UTC');
    spare OID := (SELECT partdefid FROM pg_partitioned_table WHERE partrelid = 'event_audit_log'::regclass);
    m TIMESTAMP;
BEGIN
    FOR n IN -13 .. 3 LOOP
        m := this_month + n * interval '1 month';
        CONTINUE WHEN EXISTS (SELECT FROM muttd_audit_partitions() p
                              WHERE p.part = 'event_audit_log_' || to_char(m, 'YYYY_MM'));
        IF n >= 0 OR EXISTS (SELECT FROM event_audit_log e
                             WHERE e.tableoid = spare AND e.event_timestamp >= m AT TIME ZONE 'UTC'
                               AND e.event_timestamp < (m + interval '1 month') AT TIME ZONE 'UTC') THEN
            RETURN NEXT m::date;
        END IF;
    END LOOP;
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

-- Drops every monthly partition that ended `retention_months` months ago, with its rows. A partition of
-- another name (a legal hold, years before the months) is somebody's decision and stays.
SELECT muttd_put('FUNCTION', 'drop_old_partitions', $def$
%s FUNCTION drop_old_partitions(retention_months INTEGER) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
    old RECORD;
BEGIN
    FOR old IN
        SELECT p.part AS name, p.relid::regclass AS tbl FROM muttd_audit_partitions() p
        WHERE NOT p.is_default AND p.part ~ '^event_audit_log_\d{4}_\d{2}$'
          AND p.upper_bound <= date_trunc('month', now()) - retention_months * interval '1 month' + interval '1 day'
    LOOP
        EXECUTE 'DROP TABLE ' || old.tbl;
        DELETE FROM muttd_event_counts c WHERE c.part = old.name;
    END LOOP;
END $$
$def$);

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
    extra TEXT; -- columns that a site has added to both
    n BIGINT;
BEGIN
    SELECT coalesce(string_agg(', ' || quote_ident(a.attname), ''), '') INTO extra
        FROM pg_attribute a JOIN pg_attribute b USING (attname)
        WHERE a.attrelid = 'event_audit_log'::regclass AND a.attnum > 0 AND NOT a.attisdropped
          AND b.attrelid = 'event_audit_log_archive'::regclass AND b.attnum > 0 AND NOT b.attisdropped
          AND attname NOT IN ('id', 'event_timestamp', 'hostname', 'matched_rule_id', 'handling_decision',
                              'forwarded_to_moog', 'raw_message', 'org', 'event_id', 'archived_at',
                              'archived_from_partition', 'original_id', 'original_partition_timestamp');
    PERFORM set_config('muttd.counts_itself', 'yes', true);
    EXECUTE format($sql$
    WITH chosen AS MATERIALIZED (
        (SELECT e.id, e.event_timestamp FROM event_audit_log e
            WHERE e.event_id < $1 ORDER BY e.event_id LIMIT $2)
        UNION ALL
        (SELECT e.id, e.event_timestamp FROM event_audit_log e
            WHERE e.event_id IS NULL AND e.event_timestamp < $3 ORDER BY e.event_timestamp LIMIT $2)
        LIMIT $2
    ), gone AS (
        DELETE FROM event_audit_log e USING chosen c WHERE e.id = c.id AND e.event_timestamp = c.event_timestamp
        RETURNING e.tableoid AS part, e.id, e.event_timestamp, e.hostname, e.matched_rule_id, e.handling_decision,
                  e.forwarded_to_moog, e.raw_message, e.org, e.event_id %1$s
    ), counted AS (
        INSERT INTO muttd_event_counts (part, org, rows)
            SELECT k.relname, g.org, -count(*) FROM gone g JOIN pg_class k ON k.oid = g.part GROUP BY k.relname, g.org
    ), kept AS (
        INSERT INTO event_audit_log_archive (event_timestamp, hostname, matched_rule_id, handling_decision,
                forwarded_to_moog, raw_message, archived_from_partition, original_id, original_partition_timestamp,
                org, event_id %1$s)
            SELECT g.event_timestamp, g.hostname, g.matched_rule_id, g.handling_decision, g.forwarded_to_moog,
                   g.raw_message, left(k.relname, 50), g.id, g.event_timestamp, g.org, g.event_id %1$s
            FROM gone g JOIN pg_class k ON k.oid = g.part
    )
    SELECT count(*) FROM gone
    $sql$, extra) INTO n USING first_kept, batch, before;
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
SELECT muttd_put('FUNCTION', 'archive_old_events', $def$
%s FUNCTION archive_old_events(retention_days INTEGER DEFAULT 90, batch_size INTEGER DEFAULT 10000)
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
END $$
$def$);

SELECT muttd_put('FUNCTION', 'delete_old_archives', $def$
%s FUNCTION delete_old_archives(retention_years INTEGER DEFAULT 7) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
    n BIGINT;
    total BIGINT := 0;
BEGIN
    LOOP
        n := muttd_purge_archive(now() - retention_years * interval '1 year', 10000);
        EXIT WHEN n = 0;
        total := total + n;
    END LOOP;
    RETURN total;
END $$
$def$);

SELECT muttd_put('FUNCTION', 'get_archive_statistics', $def$
%s FUNCTION get_archive_statistics() RETURNS TABLE (metric_name TEXT, metric_value TEXT) LANGUAGE sql STABLE AS $$
    SELECT m.name, m.value
    FROM (SELECT count(*) AS n, min(event_timestamp) AS oldest, max(event_timestamp) AS newest
          FROM event_audit_log_archive) a,
         LATERAL (VALUES
            ('Total Archived Events', a.n::text),
            ('Oldest Archived Event', a.oldest::text),
            ('Newest Archived Event', a.newest::text),
            ('Archive Table Size', pg_size_pretty(pg_total_relation_size('event_audit_log_archive'::regclass))),
            ('Active Events Count', (SELECT count(*)::text FROM event_audit_log)),
            ('Active Table Size', (SELECT pg_size_pretty(sum(pg_total_relation_size(p.relid)))
                                   FROM muttd_audit_partitions() p))) m (name, value)
$$
$def$);

-- The original's columns, then ours. row_count_estimate is what was counted.
SELECT muttd_put('VIEW', 'partition_health_summary', $def$
%s VIEW partition_health_summary AS
    SELECT p.part::name AS partition_name,
           (SELECT pg_get_expr(c.relpartbound, c.oid, true) FROM pg_class c WHERE c.oid = p.relid) AS partition_range,
           pg_size_pretty(pg_total_relation_size(p.relid)) AS partition_size,
           (SELECT coalesce(sum(c.rows), 0)::bigint FROM muttd_event_counts c WHERE c.part = p.part)
               AS row_count_estimate,
           CASE WHEN NOT p.is_default THEN p.lower_bound END AS range_start,
           CASE WHEN NOT p.is_default THEN p.upper_bound END AS range_end,
           p.is_default,
           pg_total_relation_size(p.relid) AS total_bytes
    FROM muttd_audit_partitions() p
    ORDER BY p.is_default, p.lower_bound
$def$);

DROP FUNCTION muttd_put(TEXT, TEXT, TEXT);
