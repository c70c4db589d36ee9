-- Nothing is ordered by a clock any more, and what a clock that was wrong has left behind can be
-- put right.

-- Lists are in the order of these numbers. A new row gets the next one from its trigger, a job from
-- the server: a trigger that changes the row would make it cost three times as much. A row from
-- before has the instant of its creation as its number, so that cursors from before still name its
-- place; new numbers begin after all of them.
CREATE TABLE numbers (last INTEGER NOT NULL) STRICT;

ALTER TABLE workspaces ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
UPDATE workspaces SET number = created;
ALTER TABLE pipelines ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
UPDATE pipelines SET number = created;
ALTER TABLE jobs ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
UPDATE jobs SET number = created;
ALTER TABLE data_components ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
UPDATE data_components SET number = created;
ALTER TABLE webhooks ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
UPDATE webhooks SET number = created;

INSERT INTO numbers (last) SELECT max(number) FROM (
  SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000000 AS number
  UNION ALL SELECT coalesce(max(number), 0) FROM workspaces
  UNION ALL SELECT coalesce(max(number), 0) FROM pipelines
  UNION ALL SELECT coalesce(max(number), 0) FROM jobs
  UNION ALL SELECT coalesce(max(number), 0) FROM data_components
  UNION ALL SELECT coalesce(max(number), 0) FROM webhooks);

CREATE TRIGGER workspaces_number AFTER INSERT ON workspaces BEGIN
  UPDATE numbers SET last = last + 1;
  UPDATE workspaces SET number = (SELECT last FROM numbers) WHERE id = NEW.id;
END;
CREATE TRIGGER pipelines_number AFTER INSERT ON pipelines BEGIN
  UPDATE numbers SET last = last + 1;
  UPDATE pipelines SET number = (SELECT last FROM numbers) WHERE id = NEW.id;
END;
CREATE TRIGGER data_components_number AFTER INSERT ON data_components BEGIN
  UPDATE numbers SET last = last + 1;
  UPDATE data_components SET number = (SELECT last FROM numbers) WHERE id = NEW.id;
END;
CREATE TRIGGER webhooks_number AFTER INSERT ON webhooks BEGIN
  UPDATE numbers SET last = last + 1;
  UPDATE webhooks SET number = (SELECT last FROM numbers) WHERE id = NEW.id;
END;

DROP INDEX workspaces_newest;
CREATE INDEX workspaces_newest ON workspaces (number DESC, id DESC);
DROP INDEX pipelines_newest;
CREATE INDEX pipelines_newest ON pipelines (workspace, number DESC, id DESC);
DROP INDEX jobs_newest;
CREATE INDEX jobs_newest ON jobs (number DESC, id DESC);
DROP INDEX jobs_newest_of_workspace;
CREATE INDEX jobs_newest_of_workspace ON jobs (workspace, number DESC, id DESC);
DROP INDEX jobs_newest_of_pipeline;
CREATE INDEX jobs_newest_of_pipeline ON jobs (pipeline, number DESC, id DESC);
DROP INDEX data_components_newest;
CREATE INDEX data_components_newest ON data_components (workspace, number DESC, id DESC);
DROP INDEX webhooks_newest;
CREATE INDEX webhooks_newest ON webhooks (workspace, number DESC, id DESC);
-- Of jobs that may start from the same instant on, the one that was queued first comes first.
DROP INDEX jobs_ready_for_repository;
CREATE INDEX jobs_ready_for_repository ON jobs (workspace, ready, number)
  WHERE ready IS NOT NULL AND type IN ('WORKSPACE_INIT', 'PIPELINE_CONFIG');
DROP INDEX jobs_ready_to_run;
CREATE INDEX jobs_ready_to_run ON jobs (workspace, ready, number)
  WHERE ready IS NOT NULL AND type IN ('PIPELINE_VERIFY', 'PIPELINE_RUN');

-- The latest tick of a pipeline's schedule that was taken when it came. A clock that is set back
-- does not make it come again.
ALTER TABLE pipelines ADD COLUMN last_tick INTEGER;

-- How long a lease of the node lasts, in microseconds. One that ends later than that was made by a
-- clock that was wrong. 0: not known.
ALTER TABLE nodes ADD COLUMN lease_length INTEGER NOT NULL DEFAULT 0;

-- The latest jumps of the clock.
CREATE TABLE clock_jumps (
  id       INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  expected INTEGER NOT NULL,   -- what the clock would have shown
  shown    INTEGER NOT NULL,   -- what it showed
  node     TEXT    NOT NULL    -- what people call the server that saw it
) STRICT;
