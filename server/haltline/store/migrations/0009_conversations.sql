-- What an MCP session of the handshake era set for itself, so that a restart of the broker does not lose it: from which level
-- on it hears logs, and which resources it subscribed to. Of its id only a digest is kept.
CREATE TABLE conversations (
    id         BLOB PRIMARY KEY,
    credential TEXT NOT NULL,                    -- whose session it is
    log_level  TEXT,
    wishes     TEXT NOT NULL,                    -- [[uri, upstream, name that policies grant it by], …]
    changed_us INTEGER NOT NULL
) STRICT;
CREATE INDEX conversations_of ON conversations (credential, changed_us);
