-- Documents of detection rules, their versions, and what is said about single rules.

INSERT INTO meta (name, value) VALUES ('detection_revision', 0);

-- Versions of a new document begin above the floor: that of removed ones that are forgotten.
CREATE TABLE detection_orgs (
    org           TEXT PRIMARY KEY,
    version_floor INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- Removed ones stay for their version.
CREATE TABLE detection_documents (
    org        TEXT NOT NULL,
    name       TEXT NOT NULL,
    version    INTEGER NOT NULL,
    sha256     BLOB CHECK (length(sha256) = 32),
    bytes      INTEGER NOT NULL,
    removed_at INTEGER,
    PRIMARY KEY (org, name),
    CHECK ((sha256 IS NULL) = (removed_at IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX idx_detection_documents_removed ON detection_documents (org, removed_at, name)
    WHERE removed_at IS NOT NULL;

-- The text of a document is that of its version; none: with this version it was removed.
CREATE TABLE detection_versions (
    org        TEXT NOT NULL,
    name       TEXT NOT NULL,
    version    INTEGER NOT NULL,
    text       TEXT,
    changed_at INTEGER NOT NULL,
    changed_by TEXT NOT NULL,
    reason     TEXT,
    PRIMARY KEY (org, name, version),
    FOREIGN KEY (org, name) REFERENCES detection_documents (org, name) ON DELETE CASCADE
) STRICT;

CREATE TABLE detection_settings (
    org      TEXT NOT NULL,
    rule_uid TEXT NOT NULL,
    state    TEXT CHECK (state IN ('off', 'dry-run', 'on')),
    level    TEXT CHECK (level IN ('informational', 'low', 'medium', 'high', 'critical')),
    team     TEXT,
    PRIMARY KEY (org, rule_uid)
) STRICT, WITHOUT ROWID;
