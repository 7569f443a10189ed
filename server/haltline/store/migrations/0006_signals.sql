-- What was folded of each agent's events up to `seq`: nothing in it that the log does not say, so it may be emptied at any time.
CREATE TABLE signals (
    agent_id  TEXT PRIMARY KEY REFERENCES agents (id),
    seq       INTEGER NOT NULL,
    time_zone TEXT NOT NULL,
    state     BLOB NOT NULL
) STRICT;
