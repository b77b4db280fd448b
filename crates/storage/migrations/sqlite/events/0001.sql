-- Events of one organisation and one day (UTC) of acceptance; the file's name is the day.

-- A lane is a stretch of 2^20 event numbers of one run of one accepting process:
-- prefix = run << 28 | number >> 20.
CREATE TABLE lanes (
    lane   INTEGER PRIMARY KEY,
    prefix INTEGER NOT NULL UNIQUE
) STRICT;

-- id = millisecond of the day (27 bits) << 36 | lane (16 bits) << 20 | number within the lane.
-- So the primary key is the order of acceptance, a range of time is a range of keys, and an event
-- that comes again meets itself without a second index.
CREATE TABLE events (
    id       INTEGER PRIMARY KEY,
    ts       INTEGER NOT NULL,
    input    INTEGER NOT NULL,
    severity INTEGER,
    rule_id  INTEGER,
    host     TEXT NOT NULL,
    raw      ANY NOT NULL
) STRICT;

-- Minutes since the epoch, of acceptance.
CREATE TABLE minutes (
    minute  INTEGER PRIMARY KEY,
    events  INTEGER NOT NULL,
    handled INTEGER NOT NULL
) STRICT;
