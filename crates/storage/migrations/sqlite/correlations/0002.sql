-- Hits on their way to their groups. Those that were taken stay for a while, empty, so that none counts
-- twice. Ids are 16 bytes, high first; times are seconds since the epoch.
CREATE TABLE correlation_hits (
    event    BLOB NOT NULL CHECK (length(event) = 16),
    name     BLOB NOT NULL CHECK (length(name) = 16),
    org      TEXT NOT NULL,
    grp      BLOB NOT NULL CHECK (length(grp) = 16),
    hit      BLOB,
    about    BLOB,
    taken_at INTEGER,
    PRIMARY KEY (event, name, org)
) STRICT;

CREATE INDEX idx_correlation_hits_waiting ON correlation_hits (event, name, org) WHERE taken_at IS NULL;
CREATE INDEX idx_correlation_hits_taken ON correlation_hits (taken_at) WHERE taken_at IS NOT NULL;
