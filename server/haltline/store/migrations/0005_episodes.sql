-- What alerts are about, as a person meets it: from the first of them until somebody or something resolved it.
CREATE TABLE episodes (
    id              INTEGER PRIMARY KEY,
    public_id       TEXT NOT NULL UNIQUE,
    about           TEXT NOT NULL,
    cause           TEXT NOT NULL,
    agent_id        TEXT,
    state           TEXT NOT NULL CHECK (state IN ('open', 'acknowledged', 'resolved')),
    severity        TEXT NOT NULL,
    count           INTEGER NOT NULL DEFAULT 1,
    opened_us       INTEGER NOT NULL,
    last_us         INTEGER NOT NULL,
    told_us         INTEGER NOT NULL,
    acknowledged_us INTEGER,
    acknowledged_by TEXT,
    acted_us        INTEGER,
    acted_by        TEXT,
    resolved_us     INTEGER,
    resolved_by     TEXT,
    route           TEXT,
    escalates_us    INTEGER,
    escalations     INTEGER NOT NULL DEFAULT 0,
    CHECK ((state = 'resolved') = (resolved_us IS NOT NULL)),
    CHECK (escalates_us IS NULL OR state = 'open')
) STRICT;
CREATE UNIQUE INDEX episodes_live ON episodes (about, cause) WHERE state <> 'resolved';
CREATE INDEX episodes_live_of_agent ON episodes (agent_id) WHERE state <> 'resolved' AND agent_id IS NOT NULL;
CREATE INDEX episodes_due ON episodes (escalates_us) WHERE escalates_us IS NOT NULL;
CREATE INDEX episodes_by_time ON episodes (opened_us);

ALTER TABLE alerts ADD COLUMN episode_id INTEGER REFERENCES episodes (id);
CREATE INDEX alerts_by_episode ON alerts (episode_id) WHERE episode_id IS NOT NULL;
