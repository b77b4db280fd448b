-- State of the correlations of detection rules: the parts of a group, in the order of `seq`.
CREATE TABLE correlation_state (
    org  TEXT NOT NULL,
    grp  BLOB NOT NULL CHECK (length(grp) = 16),
    seq  INTEGER NOT NULL,
    part BLOB NOT NULL,
    PRIMARY KEY (org, grp, seq)
) STRICT, WITHOUT ROWID;
