-- A hold is found by its session among those of its agent since the session was opened, in the index alone: one page less for
-- each call of each session that calls at the same time.
DROP INDEX holds_by_session;
DROP INDEX holds_by_agent;
CREATE INDEX holds_by_agent ON holds (agent_id, admitted_us, session_id);

-- Kinds are looked for to find what is rare. The two of nearly every call are found where they are: everywhere.
DROP INDEX events_by_kind;
CREATE INDEX events_by_kind ON events (kind, seq) WHERE kind NOT IN ('call.allowed', 'call.succeeded');
