-- Which call an idempotency key was first used for, and its first answer, sealed, for as long as it is kept (R13).
-- Only keyed hashes: neither a key nor arguments can be read here.
CREATE TABLE replays (
    mark       BLOB PRIMARY KEY,                 -- of the agent, the method, the tool and the key
    digest     BLOB NOT NULL,                    -- of the arguments
    call_id    TEXT NOT NULL REFERENCES holds (id),
    answer     BLOB,
    kept_until INTEGER,
    CHECK ((answer IS NULL) = (kept_until IS NULL))
) STRICT;
CREATE INDEX replays_kept ON replays (kept_until) WHERE kept_until IS NOT NULL;
