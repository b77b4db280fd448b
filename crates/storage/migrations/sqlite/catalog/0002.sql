-- Users of the Web API and their keys, of which only the SHA-256 is kept.

CREATE TABLE users (
    org        TEXT NOT NULL DEFAULT 'default',
    name       TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
    role       TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (org, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE user_keys (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    org          TEXT NOT NULL,
    user_name    TEXT NOT NULL,
    fingerprint  BLOB NOT NULL UNIQUE CHECK (length(fingerprint) = 32),
    label        TEXT NOT NULL DEFAULT '' CHECK (length(label) <= 100),
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER,
    expires_at   INTEGER,
    revoked_at   INTEGER,
    FOREIGN KEY (org, user_name) REFERENCES users (org, name) ON DELETE CASCADE
) STRICT;

CREATE INDEX idx_user_keys_user ON user_keys (org, user_name, id);
