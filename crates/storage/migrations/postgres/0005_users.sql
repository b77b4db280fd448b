-- Users of the Web API and their keys, of which only the SHA-256 is kept.
CREATE TABLE muttd_users (
    org        TEXT NOT NULL DEFAULT 'default',
    name       TEXT COLLATE "C" NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
    role       TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (org, name)
);

CREATE TABLE muttd_user_keys (
    id           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org          TEXT NOT NULL,
    user_name    TEXT COLLATE "C" NOT NULL,
    fingerprint  BYTEA NOT NULL UNIQUE CHECK (length(fingerprint) = 32),
    label        TEXT NOT NULL DEFAULT '' CHECK (length(label) <= 100),
    created_at   TIMESTAMPTZ NOT NULL,
    last_used_at TIMESTAMPTZ,
    expires_at   TIMESTAMPTZ,
    revoked_at   TIMESTAMPTZ,
    FOREIGN KEY (org, user_name) REFERENCES muttd_users (org, name) ON DELETE CASCADE
);
CREATE INDEX idx_muttd_user_keys_user ON muttd_user_keys (org, user_name, id);
