-- A call whose upstream asked for input, while it waits for its client (R14). The state is valid once: its nonce is here.
CREATE TABLE rounds (
    call_id     TEXT PRIMARY KEY REFERENCES holds (id),
    nonce       TEXT NOT NULL,
    digest      TEXT NOT NULL,
    deadline_us INTEGER NOT NULL
) STRICT;
