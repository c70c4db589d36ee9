-- Jobs are queued by users, by schedules and by each other; what happens is told to whoever follows it, also outside of the server; and
-- what they work with has names: data components.

-- Why a job was queued: a user asked, a schedule's tick came, or another job was COMPLETE.
ALTER TABLE jobs ADD COLUMN cause TEXT NOT NULL DEFAULT 'USER' CHECK (cause IN ('USER', 'SCHEDULE', 'TRIGGER'));
ALTER TABLE jobs ADD COLUMN cause_job BLOB;       -- the job whose completion triggered it; it may be gone
ALTER TABLE jobs ADD COLUMN cause_tick INTEGER;   -- the tick of the schedule
-- Why it ended with ERROR, as JSON.
ALTER TABLE jobs ADD COLUMN failure TEXT;

-- The next tick of a pipeline's schedule. The server sets it anew at its start, so here it is only told from "no schedule".
ALTER TABLE pipelines ADD COLUMN next_run INTEGER;
UPDATE pipelines SET next_run = 253402300799000000
  WHERE (SELECT json_extract(body, '$.schedule') FROM definitions WHERE definitions.id = pipelines.definition) IS NOT NULL;
CREATE INDEX pipelines_next_run ON pipelines (next_run) WHERE next_run IS NOT NULL AND deleted IS NULL;

-- The successful completion of one pipeline starts another. By ids, so that names may change. They stood in the definitions before.
CREATE TABLE triggers (
  pipeline BLOB    NOT NULL REFERENCES pipelines (id),   -- the one that is started
  source   BLOB    NOT NULL REFERENCES pipelines (id),   -- the one that it follows
  place    INTEGER NOT NULL,                             -- in the list that the user gave
  PRIMARY KEY (pipeline, source)
) STRICT, WITHOUT ROWID;

CREATE INDEX triggers_source ON triggers (source);

INSERT INTO triggers (pipeline, source, place)
  SELECT p.id, source.id, min(named.key)
  FROM pipelines p
  JOIN definitions d ON d.id = p.definition
  JOIN json_each(d.body, '$.triggered_by') named
  JOIN pipelines source ON source.workspace = p.workspace AND source.name = named.value AND source.deleted IS NULL
  WHERE p.deleted IS NULL AND source.id <> p.id
  GROUP BY p.id, source.id;

-- A data component is a workspace's named instance of a data plugin, with its settings as JSON. What is sensitive in them is sealed.
CREATE TABLE data_components (
  id            BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
  workspace     BLOB    NOT NULL REFERENCES workspaces (id),
  created       INTEGER NOT NULL,
  last_modified INTEGER NOT NULL,
  name          TEXT    NOT NULL,
  plugin        TEXT    NOT NULL,
  properties    TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX data_components_name ON data_components (workspace, name);
CREATE INDEX data_components_newest ON data_components (workspace, created DESC, id DESC);

-- Which key opens what is sealed. The key itself is outside of the database.
CREATE TABLE encryption_keys (
  fingerprint TEXT    NOT NULL PRIMARY KEY,
  created     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What happened, in order: a job's status changed, a job was deleted, or a run was skipped, which made no job and says why. It
-- outlives what it speaks of, so it refers to nothing. It takes the place of `status_changes`, and goes on with its numbers.
CREATE TABLE changes (
  position        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  workspace       BLOB    NOT NULL,
  pipeline        BLOB,
  job             BLOB,
  status          TEXT,
  previous_status TEXT,
  attempt         INTEGER,
  at              INTEGER NOT NULL,
  deleted         INTEGER NOT NULL CHECK (deleted IN (0, 1)),
  skipped         TEXT,
  CHECK ((job IS NULL) = (skipped IS NOT NULL)),
  CHECK ((job IS NULL) = (status IS NULL)),
  CHECK ((job IS NULL) = (attempt IS NULL))
) STRICT;

INSERT INTO changes (position, workspace, pipeline, job, status, previous_status, attempt, at, deleted)
  SELECT position, workspace, pipeline, job, status, previous_status, attempt, at, deleted FROM status_changes;
-- Also where the newest ones are not kept any more.
UPDATE sqlite_sequence SET seq = (SELECT seq FROM sqlite_sequence WHERE name = 'status_changes')
  WHERE name = 'changes' AND EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'status_changes');
DROP TABLE status_changes;

CREATE INDEX changes_job ON changes (job);
CREATE INDEX changes_pipeline ON changes (pipeline);
CREATE INDEX changes_workspace ON changes (workspace);

-- Who outside of the server is told what happens in a workspace, or to one of its pipelines. The secret is sealed.
CREATE TABLE webhooks (
  id            BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
  workspace     BLOB    NOT NULL REFERENCES workspaces (id),
  pipeline      BLOB    REFERENCES pipelines (id),
  created       INTEGER NOT NULL,
  last_modified INTEGER NOT NULL,
  url           TEXT    NOT NULL,
  level         TEXT    NOT NULL CHECK (level IN ('ALL', 'ERRORS')),
  secret        TEXT    NOT NULL,
  last_success  INTEGER,
  last_failure  INTEGER,
  last_error    TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX webhooks_newest ON webhooks (workspace, created DESC, id DESC);
CREATE INDEX webhooks_pipeline ON webhooks (pipeline) WHERE pipeline IS NOT NULL;

-- What has yet to be delivered to a webhook. A row is stored with the change that it tells of, and goes when it has arrived.
CREATE TABLE deliveries (
  id         BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
  webhook    BLOB    NOT NULL REFERENCES webhooks (id),
  position   INTEGER NOT NULL,           -- of the change
  created    INTEGER NOT NULL,
  attempt    INTEGER NOT NULL,           -- how often it was tried
  not_before INTEGER NOT NULL,           -- the next try
  body       TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX deliveries_due ON deliveries (not_before);
CREATE INDEX deliveries_webhook ON deliveries (webhook, position);
