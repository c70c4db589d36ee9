-- Ids are version 4 UUIDs, kept as their 16 bytes. Instants are microseconds since 1970, UTC.
-- A row that has been `deleted` is gone for users; it stays until what runs has ended and what it owns is cleared away.

-- A workspace owns pipelines and jobs, and one git repository on disk.
CREATE TABLE workspaces (
  id            BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
  created       INTEGER NOT NULL,
  last_modified INTEGER NOT NULL,
  name          TEXT    NOT NULL,
  alias         TEXT    NOT NULL,
  status        TEXT    NOT NULL CHECK (status IN ('PROVISIONING', 'READY', 'FAILED')),
  deleted       INTEGER
) STRICT, WITHOUT ROWID;

-- A deleted workspace's name is free at once.
CREATE UNIQUE INDEX workspaces_name ON workspaces (name) WHERE deleted IS NULL;
CREATE INDEX workspaces_newest ON workspaces (created DESC, id DESC);
CREATE INDEX workspaces_deleted ON workspaces (deleted) WHERE deleted IS NOT NULL;

-- A pipeline is a name for a definition, which changes as the pipeline is updated.
CREATE TABLE pipelines (
  id            BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
  workspace     BLOB    NOT NULL REFERENCES workspaces (id),
  created       INTEGER NOT NULL,
  last_modified INTEGER NOT NULL,
  name          TEXT    NOT NULL,
  status        TEXT    NOT NULL CHECK (status IN ('PROVISIONING', 'READY', 'FAILED')),
  definition    BLOB    NOT NULL,
  deleted       INTEGER
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX pipelines_name ON pipelines (workspace, name) WHERE deleted IS NULL;
CREATE INDEX pipelines_newest ON pipelines (workspace, created DESC, id DESC);
CREATE INDEX pipelines_deleted ON pipelines (deleted) WHERE deleted IS NOT NULL;

-- What a pipeline is to do, as JSON. A row never changes: a job that was queued with it runs it as it was.
CREATE TABLE definitions (
  id       BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
  pipeline BLOB NOT NULL REFERENCES pipelines (id),
  body     TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX definitions_pipeline ON definitions (pipeline);

-- Somebody was asked to join a workspace.
CREATE TABLE invitations (
  id        BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
  workspace BLOB    NOT NULL REFERENCES workspaces (id),
  created   INTEGER NOT NULL,
  email     TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX invitations_workspace ON invitations (workspace);

-- A job, its state, and who holds it.
CREATE TABLE jobs (
  id                BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
  workspace         BLOB    NOT NULL REFERENCES workspaces (id),
  pipeline          BLOB    REFERENCES pipelines (id),
  definition        BLOB    REFERENCES definitions (id),
  type              TEXT    NOT NULL,
  created           INTEGER NOT NULL,
  max_attempts      INTEGER NOT NULL CHECK (max_attempts >= 1),

  status            TEXT    NOT NULL CHECK (status IN ('QUEUED', 'RUNNING', 'COMPLETE', 'ERROR', 'STOPPED')),
  attempt           INTEGER NOT NULL CHECK (attempt BETWEEN 1 AND max_attempts),
  not_before        INTEGER,             -- another try waits until then
  start_time        INTEGER,
  end_time          INTEGER,
  exit_code         INTEGER,
  commit_id         TEXT,
  stop_requested    INTEGER,
  stop_reason       TEXT CHECK (stop_reason IN ('REQUESTED', 'TIMEOUT')),
  deleted           INTEGER,

  owner             BLOB,                -- the server process that runs it
  supervisor_pid    INTEGER,             -- the process that holds what it started, as told by
  supervisor_start  INTEGER,             -- its start time (/proc/PID/stat, in ticks) and
  supervisor_boot   TEXT,                -- the machine's boot

  changed_position  INTEGER NOT NULL,    -- its latest change in the status stream
  changed_at        INTEGER NOT NULL,
  previous_status   TEXT,

  log_lines         INTEGER NOT NULL DEFAULT 0,   -- over all attempts
  log_bytes         INTEGER NOT NULL DEFAULT 0,

  -- A job has an owner while it runs, and only then; it has ended when it is final, and only then.
  CHECK ((status = 'RUNNING') = (owner IS NOT NULL)),
  CHECK ((status IN ('COMPLETE', 'ERROR', 'STOPPED')) = (end_time IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- Lists, newest first: of everything, of a workspace, of a pipeline.
CREATE INDEX jobs_newest ON jobs (created DESC, id DESC);
CREATE INDEX jobs_newest_of_workspace ON jobs (workspace, created DESC, id DESC);
CREATE INDEX jobs_newest_of_pipeline ON jobs (pipeline, created DESC, id DESC);
-- The queue, oldest first: without the user tasks, of which every workspace may leave two for ever.
CREATE INDEX jobs_queue ON jobs (created, id)
  WHERE status = 'QUEUED' AND type IN ('WORKSPACE_INIT', 'PIPELINE_CONFIG', 'PIPELINE_VERIFY', 'PIPELINE_RUN');
-- What waits for another try, by when that is due.
CREATE INDEX jobs_backoff ON jobs (not_before) WHERE not_before IS NOT NULL;
-- What is active in a workspace, in the order of the latest changes.
CREATE INDEX jobs_active ON jobs (workspace, changed_position) WHERE status IN ('QUEUED', 'RUNNING');
-- Which versions of a definition are still wanted.
CREATE INDEX jobs_definition ON jobs (definition);
-- What waits to be cleared away.
CREATE INDEX jobs_deleted ON jobs (deleted) WHERE deleted IS NOT NULL;
-- Only one run of a pipeline is active at any time.
CREATE UNIQUE INDEX jobs_one_active_run ON jobs (pipeline)
  WHERE type = 'PIPELINE_RUN' AND status IN ('QUEUED', 'RUNNING');

-- The status stream. It outlives the jobs it speaks of, so it refers to nothing.
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

CREATE INDEX status_changes_job ON status_changes (job);
CREATE INDEX status_changes_pipeline ON status_changes (pipeline);
CREATE INDEX status_changes_workspace ON status_changes (workspace);

-- Log lines, many to a row and compressed; keyed by the last, so that a range scan finds "from line N on".
CREATE TABLE log_chunks (
  job            BLOB    NOT NULL REFERENCES jobs (id),
  last_sequence  INTEGER NOT NULL,
  first_sequence INTEGER NOT NULL CHECK (first_sequence BETWEEN 0 AND last_sequence),
  bytes          BLOB    NOT NULL,
  PRIMARY KEY (job, last_sequence)
) STRICT;
