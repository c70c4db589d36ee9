DROP TABLE log_chunks;
DROP TABLE status_changes;
DROP TABLE jobs;
DROP TABLE invitations;
DROP TABLE definitions;
DROP TABLE pipelines;
DROP TABLE workspaces;
