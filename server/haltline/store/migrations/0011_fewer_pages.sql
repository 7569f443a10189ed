-- What a call writes touches fewer pages. An event is found by its session among those of its agent, in the index alone;
-- the few that name a session and no agent have an index of their own.
DROP INDEX events_by_session;
DROP INDEX events_by_agent;
CREATE INDEX events_by_agent ON events (agent_id, seq, session_id) WHERE agent_id IS NOT NULL;
CREATE INDEX events_by_session ON events (session_id) WHERE agent_id IS NULL AND session_id IS NOT NULL;

-- In the order of the log, without an index beside it.
CREATE TABLE payloads_in_order (
    seq  INTEGER NOT NULL REFERENCES events (seq),
    part TEXT NOT NULL,
    salt BLOB NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (seq, part)
) STRICT, WITHOUT ROWID;
INSERT INTO payloads_in_order (seq, part, salt, data) SELECT seq, part, salt, data FROM payloads ORDER BY seq, part;
DROP TABLE payloads;
ALTER TABLE payloads_in_order RENAME TO payloads;
