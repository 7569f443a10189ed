-- From the event after this one on, the event that admits a call says what of its price its hold keeps: read-only, charged
-- on an error.
CREATE TABLE terms (since INTEGER NOT NULL) STRICT;
INSERT INTO terms (since) SELECT coalesce(max(seq), 0) FROM events;
