-- Documents of detection rules, their versions, and what is said about single rules.
INSERT INTO muttd_meta (name, value) VALUES ('detection_revision', 0);

-- Versions of a new document begin above the floor: that of removed ones that are forgotten. Whoever
-- changes an organisation's documents or settings holds its row.
CREATE TABLE muttd_detection_orgs (
    org           TEXT PRIMARY KEY,
    version_floor BIGINT NOT NULL DEFAULT 0
);

-- Removed ones stay for their version.
CREATE TABLE muttd_detection_documents (
    org        TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    version    BIGINT NOT NULL,
    sha256     BYTEA CHECK (length(sha256) = 32),
    bytes      BIGINT NOT NULL,
    removed_at TIMESTAMPTZ,
    PRIMARY KEY (org, name),
    CHECK ((sha256 IS NULL) = (removed_at IS NOT NULL))
);
CREATE INDEX idx_muttd_detection_documents_removed ON muttd_detection_documents (org, removed_at, name)
    WHERE removed_at IS NOT NULL;

-- The text of a document is that of its version; none: with this version it was removed.
CREATE TABLE muttd_detection_versions (
    org        TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    version    BIGINT NOT NULL,
    text       TEXT,
    changed_at TIMESTAMPTZ NOT NULL,
    changed_by TEXT NOT NULL,
    reason     TEXT,
    PRIMARY KEY (org, name, version),
    FOREIGN KEY (org, name) REFERENCES muttd_detection_documents (org, name) ON DELETE CASCADE
);

CREATE TABLE muttd_detection_settings (
    org      TEXT COLLATE "C" NOT NULL,
    rule_uid TEXT COLLATE "C" NOT NULL,
    state    TEXT CHECK (state IN ('off', 'dry-run', 'on')),
    level    TEXT CHECK (level IN ('informational', 'low', 'medium', 'high', 'critical')),
    team     TEXT,
    PRIMARY KEY (org, rule_uid)
);

-- As muttd_move_revision, for detection rules.
CREATE FUNCTION muttd_move_detection_revision() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    UPDATE muttd_meta SET value = value + 1 WHERE name = 'detection_revision';
    RETURN NULL;
END $$;

CREATE TRIGGER muttd_detection_revision AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON muttd_detection_documents
    FOR EACH STATEMENT EXECUTE FUNCTION muttd_move_detection_revision();
CREATE TRIGGER muttd_detection_revision AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON muttd_detection_settings
    FOR EACH STATEMENT EXECUTE FUNCTION muttd_move_detection_revision();
