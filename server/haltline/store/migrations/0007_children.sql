-- A session that another one opened for a sub-agent (R20): it ends with it, and draws on its caps too.
ALTER TABLE sessions ADD COLUMN parent_id TEXT REFERENCES sessions (id);
CREATE INDEX sessions_by_parent ON sessions (parent_id) WHERE parent_id IS NOT NULL;
