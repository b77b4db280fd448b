-- Grants of the shared windows, so that a restart grants no more than the limit. Not worth an fsync.
CREATE TABLE grants (
    name  TEXT NOT NULL,
    at    INTEGER NOT NULL, -- not before the last use of these units, microseconds since the epoch
    units INTEGER NOT NULL,
    PRIMARY KEY (name, at)
) STRICT, WITHOUT ROWID;
