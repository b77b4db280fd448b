-- event_audit_log: partitioned by month, adopted with every row it holds.

-- A log that is not partitioned is set aside as event_audit_log_unpartitioned, and the new one is made
-- after its image, with all columns a site has added; 0004 moves the rows. Indexes and triggers of the
-- site's own are made again once the rows are there.
DO $$
DECLARE
    old REGCLASS := to_regclass('event_audit_log');
    kind "char";
    views TEXT;
    item RECORD;
    again TEXT := '';
BEGIN
    IF old IS NULL THEN
        CREATE TABLE event_audit_log (
            id                BIGSERIAL,
            event_timestamp   TIMESTAMPTZ NOT NULL,
            hostname          VARCHAR(255) NOT NULL,
            matched_rule_id   INTEGER NOT NULL,
            handling_decision VARCHAR(100) NOT NULL,
            forwarded_to_moog BOOLEAN NOT NULL DEFAULT false,
            raw_message       TEXT,
            CONSTRAINT event_audit_log_pkey PRIMARY KEY (id, event_timestamp)
        ) PARTITION BY RANGE (event_timestamp);
        RETURN;
    END IF;
    SELECT relkind INTO kind FROM pg_class WHERE oid = old;
    IF kind = 'p' THEN
        IF pg_get_partkeydef(old) <> 'RANGE (event_timestamp)' THEN
            RAISE EXCEPTION USING ERRCODE = 'P0001', MESSAGE =
                'event_audit_log is partitioned by ' || pg_get_partkeydef(old) ||
                '; only RANGE (event_timestamp) can be adopted';
        END IF;
        RETURN;
    END IF;
    IF kind <> 'r' THEN
        RAISE EXCEPTION USING ERRCODE = 'P0001', MESSAGE = 'event_audit_log is not a table';
    END IF;
    SELECT string_agg(DISTINCT r.ev_class::regclass::text, ', ') INTO views
        FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
        WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = old AND r.ev_class <> old;
    IF views IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'P0001', MESSAGE =
            'event_audit_log must become a partitioned table, but these views hang on it: ' || views ||
            '; drop them, start again, and create them again afterwards';
    END IF;
    -- Their names are needed for the new table.
    FOR item IN SELECT conname FROM pg_constraint WHERE conrelid = old AND contype IN ('p', 'u', 'f', 'x') LOOP
        EXECUTE format('ALTER TABLE event_audit_log DROP CONSTRAINT %I', item.conname);
    END LOOP;
    FOR item IN SELECT i.indexrelid::regclass AS name, i.indisunique, c.relname, pg_get_indexdef(i.indexrelid) AS def
                FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = old LOOP
        IF NOT item.indisunique AND item.relname NOT LIKE 'idx\_audit\_log\_%' THEN
            again := again || item.def || ';';
        END IF;
        EXECUTE format('DROP INDEX %s', item.name);
    END LOOP;
    FOR item IN SELECT pg_get_triggerdef(t.oid) AS def FROM pg_trigger t WHERE t.tgrelid = old AND NOT t.tgisinternal LOOP
        again := again || item.def || ';';
    END LOOP;
    PERFORM set_config('muttd.again', again, true);
    ALTER TABLE event_audit_log RENAME TO event_audit_log_unpartitioned;
    IF to_regclass('event_audit_log_id_seq') IS NOT NULL THEN
        ALTER SEQUENCE event_audit_log_id_seq RENAME TO event_audit_log_unpartitioned_id_seq;
    END IF;
    CREATE TABLE event_audit_log (LIKE event_audit_log_unpartitioned INCLUDING ALL EXCLUDING IDENTITY)
        PARTITION BY RANGE (event_timestamp);
    -- The old sequence goes with the old table.
    CREATE SEQUENCE event_audit_log_id_seq OWNED BY event_audit_log.id;
    ALTER TABLE event_audit_log ALTER COLUMN id TYPE BIGINT,
        ALTER COLUMN id SET DEFAULT nextval('event_audit_log_id_seq');
END $$;

-- History outlives rules: no foreign key, neither of the log nor of one of its partitions.
DO $$
DECLARE
    fk RECORD;
BEGIN
    FOR fk IN
        SELECT c.conrelid::regclass AS tbl, c.conname FROM pg_constraint c
        WHERE c.contype = 'f' AND c.conparentid = 0 AND c.confrelid = 'alert_rules'::regclass
          AND (c.conrelid = 'event_audit_log'::regclass
               OR c.conrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'event_audit_log'::regclass))
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', fk.tbl, fk.conname);
    END LOOP;
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'event_audit_log'::regclass AND contype = 'p') THEN
        ALTER TABLE event_audit_log ADD CONSTRAINT event_audit_log_pkey PRIMARY KEY (id, event_timestamp);
    END IF;
END $$;

ALTER TABLE event_audit_log ADD COLUMN IF NOT EXISTS org TEXT NOT NULL DEFAULT 'default';
-- NULL: written by another program. The first 48 bits are the milliseconds of acceptance.
ALTER TABLE event_audit_log ADD COLUMN IF NOT EXISTS event_id UUID;

-- The contract's names, wide enough to answer a page or a count alone.
DROP INDEX IF EXISTS idx_audit_log_hostname;
DROP INDEX IF EXISTS idx_audit_log_rule_id;
CREATE INDEX idx_audit_log_hostname ON event_audit_log (hostname, event_timestamp, id, org);
CREATE INDEX idx_audit_log_rule_id ON event_audit_log (matched_rule_id, event_timestamp, id, org);
CREATE INDEX IF NOT EXISTS idx_audit_log_timestamp ON event_audit_log (event_timestamp);
CREATE INDEX idx_audit_log_page ON event_audit_log (org, event_timestamp, id);
CREATE INDEX idx_audit_log_foreign ON event_audit_log (event_timestamp) WHERE event_id IS NULL;
-- A row once: an event has one timestamp, so the partition key takes nothing from the promise.
CREATE UNIQUE INDEX idx_audit_log_event ON event_audit_log (event_id, matched_rule_id, org, event_timestamp);

-- Rows of wrong clocks, and of months whose partition could not be made yet.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_partitioned_table
                   WHERE partrelid = 'event_audit_log'::regclass AND partdefid <> 0) THEN
        CREATE TABLE event_audit_log_default PARTITION OF event_audit_log DEFAULT;
    END IF;
END $$;

-- Rows of event_audit_log by partition and organisation, as differences to add up: the unfiltered
-- total need not count them, and writers never wait for one another. Keyed by partition, so that a
-- dropped one takes its number along. `org` = '' says that the partition has been counted once.
CREATE TABLE muttd_event_counts (
    part TEXT NOT NULL,
    org  TEXT NOT NULL,
    rows BIGINT NOT NULL
);
CREATE INDEX idx_muttd_event_counts ON muttd_event_counts (org, part);

-- Other programs do not count. We do it ourselves: rows we insert have an event id, and we say so
-- when we delete.
CREATE FUNCTION muttd_count_row() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO muttd_event_counts (part, org, rows) VALUES (TG_TABLE_NAME, NEW.org, 1);
    ELSE
        INSERT INTO muttd_event_counts (part, org, rows) VALUES (TG_TABLE_NAME, OLD.org, -1);
    END IF;
    RETURN NULL;
END $$;
CREATE TABLE IF NOT EXISTS event_audit_log_archive (
    id                           BIGSERIAL PRIMARY KEY,
    event_timestamp              TIMESTAMPTZ NOT NULL,
    hostname                     VARCHAR(255) NOT NULL,
    matched_rule_id              INTEGER NOT NULL,
    handling_decision            VARCHAR(100) NOT NULL,
    forwarded_to_moog            BOOLEAN NOT NULL DEFAULT false,
    raw_message                  TEXT,
    archived_at                  TIMESTAMPTZ NOT NULL DEFAULT now(),
    archived_from_partition      VARCHAR(50),
    original_id                  BIGINT,
    original_partition_timestamp TIMESTAMPTZ
);
ALTER TABLE event_audit_log_archive ADD COLUMN IF NOT EXISTS org TEXT NOT NULL DEFAULT 'default';
ALTER TABLE event_audit_log_archive ADD COLUMN IF NOT EXISTS event_id UUID;
CREATE INDEX IF NOT EXISTS idx_audit_archive_timestamp ON event_audit_log_archive (event_timestamp);
CREATE INDEX IF NOT EXISTS idx_audit_archive_hostname ON event_audit_log_archive (hostname);
CREATE INDEX IF NOT EXISTS idx_audit_archive_rule_id ON event_audit_log_archive (matched_rule_id);
CREATE INDEX IF NOT EXISTS idx_audit_archive_archived_at ON event_audit_log_archive (archived_at);
CREATE INDEX IF NOT EXISTS idx_audit_archive_event ON event_audit_log_archive (event_id);
CREATE INDEX IF NOT EXISTS idx_audit_archive_foreign ON event_audit_log_archive (archived_at) WHERE event_id IS NULL;

DO $$
DECLARE
    fk RECORD;
BEGIN
    FOR fk IN SELECT conname FROM pg_constraint
              WHERE contype = 'f' AND conrelid = 'event_audit_log_archive'::regclass LOOP
        EXECUTE format('ALTER TABLE event_audit_log_archive DROP CONSTRAINT %I', fk.conname);
    END LOOP;
END $$;

-- Columns that a site has added to the log are kept in the archive, too.
DO $$
DECLARE
    extra RECORD;
BEGIN
    FOR extra IN
        SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type FROM pg_attribute a
        WHERE a.attrelid = 'event_audit_log'::regclass AND a.attnum > 0 AND NOT a.attisdropped
    LOOP
        EXECUTE format('ALTER TABLE event_audit_log_archive ADD COLUMN IF NOT EXISTS %I %s', extra.attname, extra.type);
    END LOOP;
END $$;
