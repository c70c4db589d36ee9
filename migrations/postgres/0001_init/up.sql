-- Ids are version 4 UUIDs. Instants are of the database's clock.
-- A row that has been `deleted` is gone for users; it stays until what runs has ended and what it owns is cleared away.
-- The tables are those of SQLite's schema; what is said here in addition is about many writers at a time.

-- A workspace owns pipelines and jobs, and one git repository.
CREATE TABLE workspaces (
  id            UUID        NOT NULL PRIMARY KEY,
  created       TIMESTAMPTZ NOT NULL,
  last_modified TIMESTAMPTZ NOT NULL,
  name          TEXT COLLATE "C" NOT NULL,
  alias         TEXT        NOT NULL,
  status        TEXT        NOT NULL CHECK (status IN ('PROVISIONING', 'READY', 'FAILED')),
  deleted       TIMESTAMPTZ,
  origin        TEXT                          -- where its repository comes from and goes to, if not to the servers' own
);

-- A deleted workspace's name is free at once.
CREATE UNIQUE INDEX workspaces_name ON workspaces (name) WHERE deleted IS NULL;
CREATE INDEX workspaces_newest ON workspaces (created DESC, id DESC);
CREATE INDEX workspaces_deleted ON workspaces (deleted) WHERE deleted IS NOT NULL;

-- The queue of a workspace. Whoever changes the workspace's jobs locks its row first: so what a rule looks at stays as it is until
-- what follows from it is stored.
CREATE TABLE queues (
  workspace UUID        NOT NULL PRIMARY KEY REFERENCES workspaces (id),
  turn      TIMESTAMPTZ,                      -- since when it waits to have a job started; null if none may start
  served    TIMESTAMPTZ NOT NULL DEFAULT 'epoch'  -- when one was last
) WITH (fillfactor = 50);

CREATE INDEX queues_turn ON queues (turn) WHERE turn IS NOT NULL;

-- A pipeline is a name for a definition, which changes as the pipeline is updated.
CREATE TABLE pipelines (
  id            UUID        NOT NULL PRIMARY KEY,
  workspace     UUID        NOT NULL REFERENCES workspaces (id),
  created       TIMESTAMPTZ NOT NULL,
  last_modified TIMESTAMPTZ NOT NULL,
  name          TEXT COLLATE "C" NOT NULL,
  status        TEXT        NOT NULL CHECK (status IN ('PROVISIONING', 'READY', 'FAILED')),
  definition    UUID        NOT NULL,
  deleted       TIMESTAMPTZ,
  next_run      TIMESTAMPTZ                   -- the next tick of its schedule
);

CREATE UNIQUE INDEX pipelines_name ON pipelines (workspace, name) WHERE deleted IS NULL;
CREATE INDEX pipelines_newest ON pipelines (workspace, created DESC, id DESC);
CREATE INDEX pipelines_deleted ON pipelines (deleted) WHERE deleted IS NOT NULL;
CREATE INDEX pipelines_next_run ON pipelines (next_run, id) WHERE next_run IS NOT NULL AND deleted IS NULL;

-- What a pipeline is to do, as JSON. A row never changes: a job that was queued with it runs it as it was.
CREATE TABLE definitions (
  id       UUID NOT NULL PRIMARY KEY,
  pipeline UUID NOT NULL REFERENCES pipelines (id),
  body     TEXT NOT NULL
);

CREATE INDEX definitions_pipeline ON definitions (pipeline);

-- The successful completion of one pipeline starts another.
CREATE TABLE triggers (
  pipeline UUID    NOT NULL REFERENCES pipelines (id),   -- the one that is started
  source   UUID    NOT NULL REFERENCES pipelines (id),   -- the one that it follows
  place    INTEGER NOT NULL,                             -- in the list that the user gave
  PRIMARY KEY (pipeline, source)
);

CREATE INDEX triggers_source ON triggers (source);

-- A data component is a workspace's named instance of a data plugin, with its settings as JSON. What is sensitive in them is sealed.
CREATE TABLE data_components (
  id            UUID        NOT NULL PRIMARY KEY,
  workspace     UUID        NOT NULL REFERENCES workspaces (id),
  created       TIMESTAMPTZ NOT NULL,
  last_modified TIMESTAMPTZ NOT NULL,
  name          TEXT COLLATE "C" NOT NULL,
  plugin        TEXT        NOT NULL,
  properties    TEXT        NOT NULL
);

CREATE UNIQUE INDEX data_components_name ON data_components (workspace, name);
CREATE INDEX data_components_newest ON data_components (workspace, created DESC, id DESC);

-- Which key opens what is sealed: one for all. The key itself is outside of the database.
CREATE TABLE encryption_keys (
  fingerprint TEXT        NOT NULL PRIMARY KEY,
  created     TIMESTAMPTZ NOT NULL
);

CREATE UNIQUE INDEX encryption_keys_one ON encryption_keys ((true));

-- Somebody was asked to join a workspace.
CREATE TABLE invitations (
  id        UUID        NOT NULL PRIMARY KEY,
  workspace UUID        NOT NULL REFERENCES workspaces (id),
  created   TIMESTAMPTZ NOT NULL,
  email     TEXT        NOT NULL
);

CREATE INDEX invitations_workspace ON invitations (workspace);

-- A server process, and until when what it says of its jobs holds. Whoever finds that it has ended takes its jobs over.
CREATE TABLE nodes (
  id            UUID        NOT NULL PRIMARY KEY,
  name          TEXT        NOT NULL,          -- what people call it
  started       TIMESTAMPTZ NOT NULL,
  lease_until   TIMESTAMPTZ NOT NULL,
  pid           INTEGER     NOT NULL,          -- the process, as told by
  pid_start     BIGINT      NOT NULL,          -- its start time (/proc/PID/stat, in ticks)
  machine       TEXT        NOT NULL,          -- and where both mean something: the machine's boot, and the namespace of its process ids
  home          UUID        NOT NULL,   -- its data directory, which one process at a time has: by its id,
  directory     TEXT        NOT NULL,   -- and by its path
  shared        UUID                    -- the directory that it shares with the others, which all have to have
);

-- A job, its state, and who holds it.
CREATE TABLE jobs (
  id                UUID        NOT NULL PRIMARY KEY,
  workspace         UUID        NOT NULL REFERENCES workspaces (id),
  pipeline          UUID        REFERENCES pipelines (id),
  definition        UUID        REFERENCES definitions (id),
  type              TEXT        NOT NULL,
  created           TIMESTAMPTZ NOT NULL,
  max_attempts      INTEGER     NOT NULL CHECK (max_attempts >= 1),

  status            TEXT        NOT NULL CHECK (status IN ('QUEUED', 'RUNNING', 'COMPLETE', 'ERROR', 'STOPPED')),
  attempt           INTEGER     NOT NULL CHECK (attempt BETWEEN 1 AND max_attempts),
  not_before        TIMESTAMPTZ,               -- another try waits until then
  ready             TIMESTAMPTZ,               -- from when on it may start; null while it waits for something that is PROVISIONING
  start_time        TIMESTAMPTZ,
  end_time          TIMESTAMPTZ,
  exit_code         INTEGER,
  commit_id         TEXT,
  stop_requested    TIMESTAMPTZ,
  stop_reason       TEXT CHECK (stop_reason IN ('REQUESTED', 'TIMEOUT')),
  deleted           TIMESTAMPTZ,

  owner             UUID,                      -- the server process that runs it
  supervisor_pid    INTEGER,                   -- the process that holds what it started, as told by
  supervisor_start  BIGINT,                    -- its start time (/proc/PID/stat, in ticks) and
  supervisor_boot   TEXT,                      -- the machine's boot

  latest_change     BIGINT      NOT NULL,      -- its latest change, by the number by which that arrived
  changed_at        TIMESTAMPTZ NOT NULL,
  previous_status   TEXT,

  log_lines         BIGINT      NOT NULL DEFAULT 0,   -- over all attempts
  log_bytes         BIGINT      NOT NULL DEFAULT 0,

  cause             TEXT        NOT NULL DEFAULT 'USER' CHECK (cause IN ('USER', 'SCHEDULE', 'TRIGGER')),
  cause_job         UUID,                      -- the job whose completion triggered it; it may be gone
  cause_tick        TIMESTAMPTZ,               -- the tick of the schedule
  failure           TEXT,                      -- why it ended with ERROR, as JSON
  node              TEXT,                      -- what people call the server that runs it, or ran it last

  -- A job has an owner while it runs, and only then; it has ended when it is final, and only then.
  CHECK ((status = 'RUNNING') = (owner IS NOT NULL)),
  CHECK ((status IN ('COMPLETE', 'ERROR', 'STOPPED')) = (end_time IS NOT NULL))
) WITH (fillfactor = 70);                      -- a running job's row is written with every batch of its log

-- Lists, newest first: of everything, of a workspace, of a pipeline.
CREATE INDEX jobs_newest ON jobs (created DESC, id DESC);
CREATE INDEX jobs_newest_of_workspace ON jobs (workspace, created DESC, id DESC);
CREATE INDEX jobs_newest_of_pipeline ON jobs (pipeline, created DESC, id DESC);
-- A workspace's queue, oldest first: what changes its repository, which is done by one job at a time, and the rest.
CREATE INDEX jobs_ready_for_repository ON jobs (workspace, ready, id)
  WHERE ready IS NOT NULL AND type IN ('WORKSPACE_INIT', 'PIPELINE_CONFIG');
CREATE INDEX jobs_ready_to_run ON jobs (workspace, ready, id)
  WHERE ready IS NOT NULL AND type IN ('PIPELINE_VERIFY', 'PIPELINE_RUN');
CREATE INDEX jobs_ready ON jobs (ready) WHERE ready IS NOT NULL;
CREATE INDEX jobs_running ON jobs (workspace) WHERE status = 'RUNNING';
CREATE INDEX jobs_owner ON jobs (owner) WHERE owner IS NOT NULL;
-- What is active in a workspace, in the order of the latest changes; and how much of each kind there is, without a look at the jobs.
CREATE INDEX jobs_active ON jobs (workspace, latest_change, type, status) WHERE status IN ('QUEUED', 'RUNNING');
-- Which versions of a definition are still wanted.
CREATE INDEX jobs_definition ON jobs (definition);
-- What waits to be cleared away.
CREATE INDEX jobs_deleted ON jobs (deleted) WHERE deleted IS NOT NULL;
-- Only one run of a pipeline is active at any time.
CREATE UNIQUE INDEX jobs_one_active_run ON jobs (pipeline)
  WHERE type = 'PIPELINE_RUN' AND status IN ('QUEUED', 'RUNNING');

-- What happened, in order: a job's status changed, a job was deleted, or a run was skipped, which made no job and says why. It
-- outlives what it speaks of, so it refers to nothing.
--
-- What arrives first may be committed last, and who reads in the order of arrival would pass it over. So a change has no position in the
-- stream until it is committed, and readers read only what has one.
CREATE TABLE changes (
  arrival         BIGINT      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  position        BIGINT,
  workspace       UUID        NOT NULL,
  pipeline        UUID,
  job             UUID,
  status          TEXT,
  previous_status TEXT,
  attempt         INTEGER,
  at              TIMESTAMPTZ NOT NULL,
  deleted         BOOLEAN     NOT NULL,
  skipped         TEXT,
  CHECK ((job IS NULL) = (skipped IS NOT NULL)),
  CHECK ((job IS NULL) = (status IS NULL)),
  CHECK ((job IS NULL) = (attempt IS NULL))
) WITH (fillfactor = 70);                      -- every row is written twice

CREATE UNIQUE INDEX changes_position ON changes (position);
CREATE INDEX changes_unnumbered ON changes (arrival) WHERE position IS NULL;
CREATE INDEX changes_job ON changes (job, position);
CREATE INDEX changes_pipeline ON changes (pipeline, position);
CREATE INDEX changes_workspace ON changes (workspace, position);

-- Gives positions to all changes that are committed and have none. One at a time does that, and each sees what those before it have done. The
-- changes of one job arrive in their order, so they keep it.
CREATE FUNCTION number_changes() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('jobstream changes'));
  UPDATE changes SET position = numbered.position
    FROM (
      SELECT arrival, (SELECT coalesce(max(position), 0) FROM changes) + row_number() OVER (ORDER BY arrival) AS position
      FROM changes WHERE position IS NULL
    ) numbered
    WHERE changes.arrival = numbered.arrival;
END
$$;

-- Log lines, many to a row and compressed; keyed by the last, so that a range scan finds "from line N on".
CREATE TABLE log_chunks (
  job            UUID   NOT NULL REFERENCES jobs (id),
  last_sequence  BIGINT NOT NULL,
  first_sequence BIGINT NOT NULL CHECK (first_sequence BETWEEN 0 AND last_sequence),
  bytes          BYTEA  NOT NULL,
  PRIMARY KEY (job, last_sequence)
);

-- They are compressed already.
ALTER TABLE log_chunks ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- Who outside of the server is told what happens in a workspace, or to one of its pipelines. The secret is sealed.
CREATE TABLE webhooks (
  id            UUID        NOT NULL PRIMARY KEY,
  workspace     UUID        NOT NULL REFERENCES workspaces (id),
  pipeline      UUID        REFERENCES pipelines (id),
  created       TIMESTAMPTZ NOT NULL,
  last_modified TIMESTAMPTZ NOT NULL,
  url           TEXT        NOT NULL,
  level         TEXT        NOT NULL CHECK (level IN ('ALL', 'ERRORS')),
  secret        TEXT        NOT NULL,
  last_success  TIMESTAMPTZ,
  last_failure  TIMESTAMPTZ,
  last_error    TEXT
);

CREATE INDEX webhooks_newest ON webhooks (workspace, created DESC, id DESC);
CREATE INDEX webhooks_pipeline ON webhooks (pipeline) WHERE pipeline IS NOT NULL;

-- What has yet to be delivered to a webhook. A row is stored with the change that it tells of, and goes when it has arrived.
CREATE TABLE deliveries (
  id         UUID        NOT NULL PRIMARY KEY,
  webhook    UUID        NOT NULL REFERENCES webhooks (id),
  change     BIGINT      NOT NULL,             -- the change, by the number by which it arrived
  created    TIMESTAMPTZ NOT NULL,
  attempt    INTEGER     NOT NULL,             -- how often it was tried
  not_before TIMESTAMPTZ NOT NULL,             -- the next try
  body       TEXT        NOT NULL
);

CREATE INDEX deliveries_due ON deliveries (not_before);
CREATE INDEX deliveries_webhook ON deliveries (webhook, change);
