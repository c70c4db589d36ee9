DROP TABLE deliveries;
DROP TABLE webhooks;

CREATE TABLE status_changes (
  position        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  job             BLOB    NOT NULL,
  workspace       BLOB    NOT NULL,
  pipeline        BLOB,
  status          TEXT    NOT NULL,
  previous_status TEXT,
  attempt         INTEGER NOT NULL,
  at              INTEGER NOT NULL,
  deleted         INTEGER NOT NULL CHECK (deleted IN (0, 1))
) STRICT;

INSERT INTO status_changes (position, job, workspace, pipeline, status, previous_status, attempt, at, deleted)
  SELECT position, job, workspace, pipeline, status, previous_status, attempt, at, deleted FROM changes WHERE job IS NOT NULL;
DROP TABLE changes;
CREATE INDEX status_changes_job ON status_changes (job);
CREATE INDEX status_changes_pipeline ON status_changes (pipeline);
CREATE INDEX status_changes_workspace ON status_changes (workspace);

DROP TABLE encryption_keys;
DROP TABLE data_components;
DROP TABLE triggers;
DROP INDEX pipelines_next_run;
ALTER TABLE pipelines DROP COLUMN next_run;
ALTER TABLE jobs DROP COLUMN failure;
ALTER TABLE jobs DROP COLUMN cause_tick;
ALTER TABLE jobs DROP COLUMN cause_job;
ALTER TABLE jobs DROP COLUMN cause;
