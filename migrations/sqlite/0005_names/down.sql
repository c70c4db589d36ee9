DROP INDEX pipelines_key_of_name;
ALTER TABLE pipelines DROP COLUMN name_key;
DROP INDEX workspaces_key_of_name;
ALTER TABLE workspaces DROP COLUMN name_key;
