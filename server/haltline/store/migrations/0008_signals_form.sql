-- Which form a snapshot has, and a digest of it: one that this program cannot read, or that was damaged, is folded anew.
ALTER TABLE signals ADD COLUMN form TEXT NOT NULL DEFAULT '';
ALTER TABLE signals ADD COLUMN digest BLOB NOT NULL DEFAULT x'';
