-- What the workers of one process agree on and what must survive it. Times are microseconds since
-- the epoch (UTC).

-- Live settings.
CREATE TABLE settings (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Accepted events by unit (seconds: 60, 3600, 86400) and start of the unit (seconds since the epoch).
CREATE TABLE accepted (
    unit  INTEGER NOT NULL,
    start INTEGER NOT NULL,
    n     INTEGER NOT NULL,
    PRIMARY KEY (unit, start)
) STRICT, WITHOUT ROWID;

-- Unhandled events by where they came from and what they look like.
CREATE TABLE unhandled (
    org             TEXT NOT NULL,
    host            TEXT NOT NULL,
    shape           TEXT NOT NULL,
    count           INTEGER NOT NULL,
    first_at        INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    seen            INTEGER NOT NULL, -- grows with every touch: the order of eviction
    triggered_event BLOB,
    triggered_at    INTEGER,
    PRIMARY KEY (org, host, shape)
) STRICT, WITHOUT ROWID;

-- Which events were counted: one bit an event, 4096 events a block.
CREATE TABLE applied (
    run   INTEGER NOT NULL,
    block INTEGER NOT NULL,
    bits  BLOB NOT NULL,
    PRIMARY KEY (run, block)
) STRICT, WITHOUT ROWID;

-- Everything of a run below this block counts as counted.
CREATE TABLE applied_runs (
    run   INTEGER PRIMARY KEY,
    floor INTEGER NOT NULL,
    seen  INTEGER NOT NULL
) STRICT;
