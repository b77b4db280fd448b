-- What correlations know, for several workers: shards of groups with their holders, the groups, and hits
-- on their way to them.
CREATE TABLE muttd_correlation_workers (
    worker      UUID PRIMARY KEY,
    alive_until TIMESTAMPTZ NOT NULL
);

-- The epoch grows with every new holder.
CREATE TABLE muttd_correlation_shards (
    shard  INTEGER PRIMARY KEY,
    worker UUID,
    epoch  BIGINT NOT NULL
);
INSERT INTO muttd_correlation_shards (shard, epoch) SELECT n, 0 FROM generate_series(0, 7) n;

CREATE TABLE muttd_correlation_state (
    shard INTEGER NOT NULL,
    org   TEXT COLLATE "C" NOT NULL,
    grp   UUID NOT NULL,
    seq   BIGINT GENERATED ALWAYS AS IDENTITY,
    part  BYTEA NOT NULL,
    PRIMARY KEY (shard, org, grp, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- Those that were taken stay for a while, empty, so that none counts twice.
CREATE TABLE muttd_correlation_hits (
    shard    INTEGER NOT NULL,
    event    UUID NOT NULL,
    name     UUID NOT NULL,
    org      TEXT COLLATE "C" NOT NULL,
    grp      UUID NOT NULL,
    hit      BYTEA,
    about    BYTEA,
    taken_at TIMESTAMPTZ,
    PRIMARY KEY (shard, event, name, org)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX idx_muttd_correlation_hits_waiting ON muttd_correlation_hits (shard, event, name, org)
    WHERE taken_at IS NULL;
CREATE INDEX idx_muttd_correlation_hits_taken ON muttd_correlation_hits (taken_at) WHERE taken_at IS NOT NULL;
