-- Money is integer micro-units, times are integer microseconds since the epoch (UTC), JSON columns hold canonical JSON.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE agents (
    id         TEXT PRIMARY KEY,
    handle     TEXT NOT NULL UNIQUE,
    tier       TEXT NOT NULL,
    owner      TEXT NOT NULL DEFAULT '',
    scopes     TEXT NOT NULL DEFAULT '[]',
    hours      TEXT,
    caps       TEXT NOT NULL DEFAULT '{}',
    state      TEXT NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'revoked')),
    created_us INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    id           TEXT PRIMARY KEY,
    agent_id     TEXT NOT NULL REFERENCES agents (id),
    task         TEXT NOT NULL,
    tools        TEXT,
    caps         TEXT NOT NULL DEFAULT '{}',
    state        TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'revoked')),
    opened_by    TEXT NOT NULL,
    opened_us    INTEGER NOT NULL,
    expires_us   INTEGER NOT NULL,
    last_used_us INTEGER NOT NULL,
    ended_us     INTEGER,
    -- set where an agent credential opened it (R24): that credential, and the MCP session it serves ('' for 2026-07-28)
    auto_credential TEXT,
    auto_key        TEXT
) STRICT;
CREATE INDEX sessions_by_agent ON sessions (agent_id, state, expires_us);
CREATE INDEX sessions_auto ON sessions (auto_credential, auto_key, opened_us) WHERE auto_credential IS NOT NULL;

CREATE TABLE credentials (
    id         TEXT PRIMARY KEY,
    class      TEXT NOT NULL CHECK (class IN ('s', 'a', 'o')),
    hash       BLOB NOT NULL,
    agent_id   TEXT REFERENCES agents (id),
    session_id TEXT REFERENCES sessions (id),
    operator   TEXT REFERENCES operators (name),
    created_us INTEGER NOT NULL,
    revoked_us INTEGER
) STRICT;
CREATE INDEX credentials_by_agent ON credentials (agent_id) WHERE agent_id IS NOT NULL;
CREATE INDEX credentials_by_session ON credentials (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX credentials_by_operator ON credentials (operator) WHERE operator IS NOT NULL;

CREATE TABLE operators (
    name       TEXT PRIMARY KEY,
    class      TEXT NOT NULL CHECK (class IN ('person', 'local')),
    state      TEXT NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'revoked')),
    created_us INTEGER NOT NULL
) STRICT;

CREATE TABLE halts (
    id          INTEGER PRIMARY KEY,
    scope       TEXT NOT NULL CHECK (scope IN ('session', 'agent', 'everything')),
    subject_id  TEXT NOT NULL,
    code        TEXT NOT NULL,
    text        TEXT NOT NULL,
    cap         TEXT,
    by          TEXT NOT NULL,
    set_us      INTEGER NOT NULL,
    lifted_us   INTEGER,
    lifted_by   TEXT,
    lift_reason TEXT
) STRICT;
CREATE UNIQUE INDEX halts_set ON halts (scope, subject_id) WHERE lifted_us IS NULL;

CREATE TABLE allowances (
    id         INTEGER PRIMARY KEY,
    scope      TEXT NOT NULL CHECK (scope IN ('session', 'agent')),
    subject_id TEXT NOT NULL,
    cap        TEXT NOT NULL,
    amount     INTEGER NOT NULL CHECK (amount > 0),
    until_us   INTEGER NOT NULL,
    by         TEXT NOT NULL,
    granted_us INTEGER NOT NULL
) STRICT;
CREATE INDEX allowances_by_subject ON allowances (subject_id, until_us);

-- One row per admitted call: its hold, and how it ended (P7).
CREATE TABLE holds (
    id              TEXT PRIMARY KEY,
    agent_id        TEXT NOT NULL REFERENCES agents (id),
    session_id      TEXT NOT NULL REFERENCES sessions (id),
    tool            TEXT NOT NULL,
    upstream        TEXT NOT NULL,
    amount_micros   INTEGER NOT NULL CHECK (amount_micros >= 0),
    charged_micros  INTEGER CHECK (charged_micros >= 0),
    state           TEXT NOT NULL CHECK (state IN ('held', 'settled', 'voided', 'in_doubt')),
    charge_on_error INTEGER NOT NULL,
    read_only       INTEGER NOT NULL,
    admitted_us     INTEGER NOT NULL,
    ended_us        INTEGER,
    doubt_us        INTEGER,
    charges_at_us   INTEGER,
    why             TEXT,
    CHECK ((state = 'settled') = (charged_micros IS NOT NULL)),
    CHECK ((state = 'in_doubt') = (charges_at_us IS NOT NULL))
) STRICT;
CREATE INDEX holds_by_agent ON holds (agent_id, admitted_us);
CREATE INDEX holds_by_session ON holds (session_id);
-- SQLite uses a partial index only where the query repeats its condition.
CREATE INDEX holds_open ON holds (agent_id, state) WHERE state IN ('held', 'in_doubt');
CREATE INDEX holds_due ON holds (charges_at_us) WHERE charges_at_us IS NOT NULL;

CREATE TABLE events (
    seq        INTEGER PRIMARY KEY,
    at_us      INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    agent_id   TEXT,
    session_id TEXT,
    call_id    TEXT,
    tool       TEXT,
    body       BLOB NOT NULL,
    hash       BLOB NOT NULL
) STRICT;
CREATE INDEX events_by_agent ON events (agent_id, seq) WHERE agent_id IS NOT NULL;
CREATE INDEX events_by_session ON events (session_id, seq) WHERE session_id IS NOT NULL;
CREATE INDEX events_by_call ON events (call_id) WHERE call_id IS NOT NULL;
CREATE INDEX events_by_kind ON events (kind, seq);
CREATE TRIGGER events_keep_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'history is only added to'); END;
CREATE TRIGGER events_keep_delete BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'history is only added to'); END;

-- What an event says by salted digest, apart so that erasing it keeps the chain (R31).
CREATE TABLE payloads (
    seq  INTEGER NOT NULL REFERENCES events (seq),
    part TEXT NOT NULL,
    salt BLOB NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE INDEX payloads_by_seq ON payloads (seq);

CREATE TABLE alerts (
    id         INTEGER PRIMARY KEY,
    public_id  TEXT NOT NULL UNIQUE,
    event_seq  INTEGER NOT NULL REFERENCES events (seq),
    at_us      INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    agent_id   TEXT,
    session_id TEXT,
    body       BLOB NOT NULL
) STRICT;

-- One row per alert and channel. Within a lane (an agent) a channel gets them one after the other.
CREATE TABLE deliveries (
    id         INTEGER PRIMARY KEY,
    alert_id   INTEGER NOT NULL REFERENCES alerts (id),
    channel    TEXT NOT NULL,
    lane       TEXT NOT NULL,
    state      TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'parked')),
    attempts   INTEGER NOT NULL DEFAULT 0,
    next_us    INTEGER NOT NULL,
    last_error TEXT,
    ended_us   INTEGER,
    CHECK ((state = 'pending') = (ended_us IS NULL))
) STRICT;
CREATE INDEX deliveries_by_alert ON deliveries (alert_id);
CREATE INDEX deliveries_waiting ON deliveries (channel, lane, id) WHERE state = 'pending';
CREATE INDEX deliveries_parked ON deliveries (alert_id) WHERE state = 'parked';
