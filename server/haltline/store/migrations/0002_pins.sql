-- One row for each tool of each upstream that was ever seen: what was approved, and what it shows now.
CREATE TABLE pins (
    upstream         TEXT NOT NULL,
    tool             TEXT NOT NULL,              -- the upstream's own name for it
    name             TEXT NOT NULL,              -- as agents see it
    state            TEXT NOT NULL CHECK (state IN ('pinned', 'quarantined')),
    pinned           TEXT,                       -- digest; NULL: never approved
    pinned_text      TEXT,                       -- the definition of that digest, for the diff; NULL where too long to keep
    seen             TEXT NOT NULL,              -- digest of what it showed last
    seen_text        TEXT,
    why              TEXT NOT NULL DEFAULT '[]', -- what in what it shows must be looked at
    first_us         INTEGER NOT NULL,
    seen_us          INTEGER NOT NULL,
    pinned_us        INTEGER,
    pinned_by        TEXT,
    PRIMARY KEY (upstream, tool),
    CHECK (state = 'quarantined' OR pinned = seen)
) STRICT;
