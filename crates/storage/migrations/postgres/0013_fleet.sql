-- Organisations, tokens for agents (of which only the SHA-256 is kept), and the agents.
INSERT INTO muttd_meta (name, value) VALUES ('fleet_revision', 0);

-- `agents` counts those that are not revoked. Whoever enrols, revokes or removes one, or adds a token, holds the row.
CREATE TABLE muttd_orgs (
    id         TEXT COLLATE "C" PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
    title      TEXT NOT NULL DEFAULT '',
    created_at TIMESTAMPTZ NOT NULL,
    agents_max BIGINT,
    disabled   BOOLEAN NOT NULL DEFAULT false,
    agents     BIGINT NOT NULL DEFAULT 0
);
INSERT INTO muttd_orgs (id, created_at) VALUES ('default', now());

CREATE TABLE muttd_agent_tokens (
    id           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org          TEXT COLLATE "C" NOT NULL REFERENCES muttd_orgs (id),
    fingerprint  BYTEA NOT NULL UNIQUE CHECK (length(fingerprint) = 32),
    label        TEXT NOT NULL DEFAULT '',
    host         TEXT,
    legacy       BOOLEAN NOT NULL,
    created_at   TIMESTAMPTZ NOT NULL,
    created_by   TEXT NOT NULL,
    expires_at   TIMESTAMPTZ NOT NULL,
    uses_max     BIGINT,
    uses         BIGINT NOT NULL DEFAULT 0,
    last_used_at TIMESTAMPTZ,
    revoked_at   TIMESTAMPTZ,
    followed_by  BIGINT
);
CREATE INDEX idx_muttd_agent_tokens_org ON muttd_agent_tokens (org, id);

-- `old_name` is what an agent without a key calls itself. `epoch` and `acked_seq` are unsigned on the wire.
CREATE TABLE muttd_agents (
    id                  TEXT COLLATE "C" PRIMARY KEY,
    org                 TEXT COLLATE "C" NOT NULL REFERENCES muttd_orgs (id),
    host                TEXT COLLATE "C" NOT NULL,
    facts               JSONB NOT NULL,
    key                 BYTEA CHECK (length(key) = 32),
    old_name            TEXT COLLATE "C" CHECK ((old_name IS NULL) = (key IS NOT NULL)),
    token               BIGINT,
    enrolled_at         TIMESTAMPTZ NOT NULL,
    certificate_ends_at TIMESTAMPTZ,
    last_seen_at        TIMESTAMPTZ,
    connected           BOOLEAN NOT NULL DEFAULT false,
    silent              BOOLEAN NOT NULL DEFAULT false,
    revoked_at          TIMESTAMPTZ,
    revoked_why         TEXT,
    replaced_by         TEXT,
    epoch               BIGINT NOT NULL DEFAULT 0,
    acked_seq           BIGINT NOT NULL DEFAULT 0,
    status              TEXT
) WITH (fillfactor = 70);
CREATE INDEX idx_muttd_agents_host ON muttd_agents (org, host, id);
CREATE UNIQUE INDEX idx_muttd_agents_host_taken ON muttd_agents (org, host) WHERE revoked_at IS NULL;
CREATE UNIQUE INDEX idx_muttd_agents_key ON muttd_agents (org, key) WHERE key IS NOT NULL;
CREATE INDEX idx_muttd_agents_old_name ON muttd_agents (org, old_name) WHERE old_name IS NOT NULL;
CREATE INDEX idx_muttd_agents_seen ON muttd_agents (last_seen_at) WHERE revoked_at IS NULL AND NOT silent;
CREATE INDEX idx_muttd_agents_revoked ON muttd_agents (org, revoked_at) WHERE revoked_at IS NOT NULL;

-- Agents that are forgotten, as long as their certificates last.
CREATE TABLE muttd_agent_bars (
    org   TEXT COLLATE "C" NOT NULL,
    id    TEXT COLLATE "C" NOT NULL,
    until TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (org, id)
);
CREATE INDEX idx_muttd_agent_bars_until ON muttd_agent_bars (until);

-- As muttd_move_revision, for the fleet: what people decide, not what agents do.
CREATE FUNCTION muttd_move_fleet_revision() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    UPDATE muttd_meta SET value = value + 1 WHERE name = 'fleet_revision';
    RETURN NULL;
END $$;

CREATE TRIGGER muttd_fleet_revision AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE OF title, agents_max, disabled
    ON muttd_orgs FOR EACH STATEMENT EXECUTE FUNCTION muttd_move_fleet_revision();
CREATE TRIGGER muttd_fleet_revision AFTER INSERT OR TRUNCATE OR UPDATE OF expires_at, revoked_at, followed_by
    ON muttd_agent_tokens FOR EACH STATEMENT EXECUTE FUNCTION muttd_move_fleet_revision();
CREATE TRIGGER muttd_fleet_revision AFTER DELETE OR TRUNCATE OR UPDATE OF revoked_at
    ON muttd_agents FOR EACH STATEMENT EXECUTE FUNCTION muttd_move_fleet_revision();
