DROP TABLE clock_jumps;
ALTER TABLE nodes DROP COLUMN lease_length;
ALTER TABLE pipelines DROP COLUMN last_tick;
DROP INDEX jobs_ready_for_repository;
CREATE INDEX jobs_ready_for_repository ON jobs (workspace, ready, id)
  WHERE ready IS NOT NULL AND type IN ('WORKSPACE_INIT', 'PIPELINE_CONFIG');
DROP INDEX jobs_ready_to_run;
CREATE INDEX jobs_ready_to_run ON jobs (workspace, ready, id)
  WHERE ready IS NOT NULL AND type IN ('PIPELINE_VERIFY', 'PIPELINE_RUN');
DROP INDEX workspaces_newest;
CREATE INDEX workspaces_newest ON workspaces (created DESC, id DESC);
DROP INDEX pipelines_newest;
CREATE INDEX pipelines_newest ON pipelines (workspace, created DESC, id DESC);
DROP INDEX jobs_newest;
CREATE INDEX jobs_newest ON jobs (created DESC, id DESC);
DROP INDEX jobs_newest_of_workspace;
CREATE INDEX jobs_newest_of_workspace ON jobs (workspace, created DESC, id DESC);
DROP INDEX jobs_newest_of_pipeline;
CREATE INDEX jobs_newest_of_pipeline ON jobs (pipeline, created DESC, id DESC);
DROP INDEX data_components_newest;
CREATE INDEX data_components_newest ON data_components (workspace, created DESC, id DESC);
DROP INDEX webhooks_newest;
CREATE INDEX webhooks_newest ON webhooks (workspace, created DESC, id DESC);
ALTER TABLE workspaces DROP COLUMN number;
ALTER TABLE pipelines DROP COLUMN number;
ALTER TABLE jobs DROP COLUMN number;
ALTER TABLE data_components DROP COLUMN number;
ALTER TABLE webhooks DROP COLUMN number;
