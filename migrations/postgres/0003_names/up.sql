-- The name of a workspace or pipeline with its case folded: names that differ only in case are the same. The server computes it, for
-- the database cannot, and gives it at its start to every row that has none. Where an earlier version let two rows have the same one, the id of
-- the later row is part of its key.
ALTER TABLE workspaces ADD COLUMN name_key TEXT COLLATE "C";
CREATE UNIQUE INDEX workspaces_key_of_name ON workspaces (name_key) WHERE deleted IS NULL;

ALTER TABLE pipelines ADD COLUMN name_key TEXT COLLATE "C";
CREATE UNIQUE INDEX pipelines_key_of_name ON pipelines (workspace, name_key) WHERE deleted IS NULL;
