-- Organisations, tokens for agents (of which only the SHA-256 is kept), and the agents.
INSERT INTO meta (name, value) VALUES ('fleet_revision', 0);

-- `agents` counts those that are not revoked.
CREATE TABLE orgs (
    id         TEXT PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
    title      TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL,
    agents_max INTEGER,
    disabled   INTEGER NOT NULL DEFAULT 0,
    agents     INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
INSERT INTO orgs (id, created_at) VALUES ('default', CAST(strftime('%s', 'now') AS INTEGER) * 1000000);

CREATE TABLE agent_tokens (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    org          TEXT NOT NULL REFERENCES orgs (id),
    fingerprint  BLOB NOT NULL UNIQUE CHECK (length(fingerprint) = 32),
    label        TEXT NOT NULL DEFAULT '',
    host         TEXT,
    legacy       INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    created_by   TEXT NOT NULL,
    expires_at   INTEGER NOT NULL,
    uses_max     INTEGER,
    uses         INTEGER NOT NULL DEFAULT 0,
    last_used_at INTEGER,
    revoked_at   INTEGER,
    followed_by  INTEGER
) STRICT;
CREATE INDEX idx_agent_tokens_org ON agent_tokens (org, id);

-- `old_name` is what an agent without a key calls itself. `epoch` and `acked_seq` are unsigned on the wire.
CREATE TABLE agents (
    id                  TEXT NOT NULL UNIQUE,
    org                 TEXT NOT NULL REFERENCES orgs (id),
    host                TEXT NOT NULL,
    facts               TEXT NOT NULL,
    key                 BLOB CHECK (length(key) = 32),
    old_name            TEXT CHECK ((old_name IS NULL) = (key IS NOT NULL)),
    token               INTEGER,
    enrolled_at         INTEGER NOT NULL,
    certificate_ends_at INTEGER,
    last_seen_at        INTEGER,
    connected           INTEGER NOT NULL DEFAULT 0,
    silent              INTEGER NOT NULL DEFAULT 0,
    revoked_at          INTEGER,
    revoked_why         TEXT,
    replaced_by         TEXT,
    epoch               INTEGER NOT NULL DEFAULT 0,
    acked_seq           INTEGER NOT NULL DEFAULT 0,
    status              TEXT
) STRICT;
CREATE INDEX idx_agents_host ON agents (org, host, id);
CREATE UNIQUE INDEX idx_agents_host_taken ON agents (org, host) WHERE revoked_at IS NULL;
CREATE UNIQUE INDEX idx_agents_key ON agents (org, key) WHERE key IS NOT NULL;
CREATE INDEX idx_agents_old_name ON agents (org, old_name) WHERE old_name IS NOT NULL;
CREATE INDEX idx_agents_seen ON agents (last_seen_at) WHERE revoked_at IS NULL AND silent = 0;
CREATE INDEX idx_agents_revoked ON agents (org, revoked_at) WHERE revoked_at IS NOT NULL;

-- Agents that are forgotten, as long as their certificates last.
CREATE TABLE agent_bars (
    org   TEXT NOT NULL,
    id    TEXT NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (org, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX idx_agent_bars_until ON agent_bars (until);
