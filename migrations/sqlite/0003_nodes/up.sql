-- Several server processes may work on one database. SQLite's has one at a time; it is described in the same way, so that every query
-- is the same.

-- A server process, and until when what it says of its jobs holds. Whoever finds that it has ended takes its jobs over.
CREATE TABLE nodes (
  id            BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
  name          TEXT    NOT NULL,            -- what people call it
  started       INTEGER NOT NULL,
  lease_until   INTEGER NOT NULL,
  pid           INTEGER NOT NULL,            -- the process, as told by
  pid_start     INTEGER NOT NULL,            -- its start time (/proc/PID/stat, in ticks)
  machine       TEXT    NOT NULL,            -- and where both mean something: the machine's boot, and the namespace of its process ids
  home          BLOB    NOT NULL CHECK (length(home) = 16),   -- its data directory, which one process at a time has: by its id,
  directory     TEXT    NOT NULL,   -- and by its path
  shared        BLOB CHECK (length(shared) = 16)   -- the directory that it shares with the others; nobody shares this database
) STRICT, WITHOUT ROWID;

-- The queue of a workspace. Its row is what a change of the workspace's jobs locks, where there are locks.
CREATE TABLE queues (
  workspace BLOB    NOT NULL PRIMARY KEY REFERENCES workspaces (id),
  turn      INTEGER,                         -- since when it waits to have a job started; null if none may start
  served    INTEGER NOT NULL DEFAULT 0       -- when one was last
) STRICT, WITHOUT ROWID;

CREATE INDEX queues_turn ON queues (turn) WHERE turn IS NOT NULL;

-- From when on a queued job may start. Null while it waits for something that is PROVISIONING, and for user tasks.
ALTER TABLE jobs ADD COLUMN ready INTEGER;
UPDATE jobs SET ready = max(created, coalesce(not_before, 0))
  WHERE status = 'QUEUED' AND type IN ('WORKSPACE_INIT', 'PIPELINE_CONFIG', 'PIPELINE_VERIFY', 'PIPELINE_RUN')
    AND (type = 'WORKSPACE_INIT'
      OR NOT EXISTS (SELECT 1 FROM workspaces w WHERE w.id = jobs.workspace AND w.status = 'PROVISIONING'))
    AND (type IN ('WORKSPACE_INIT', 'PIPELINE_CONFIG')
      OR NOT EXISTS (SELECT 1 FROM pipelines p WHERE p.id = jobs.pipeline AND p.status = 'PROVISIONING'));
INSERT INTO queues (workspace, turn) SELECT id, (SELECT min(ready) FROM jobs WHERE jobs.workspace = workspaces.id) FROM workspaces;

-- What people call the server that runs it, or ran it last.
ALTER TABLE jobs ADD COLUMN node TEXT;

-- A workspace's queue, oldest first: what changes its repository, which is done by one job at a time, and the rest.
DROP INDEX jobs_queue;
DROP INDEX jobs_backoff;
CREATE INDEX jobs_ready_for_repository ON jobs (workspace, ready, id)
  WHERE ready IS NOT NULL AND type IN ('WORKSPACE_INIT', 'PIPELINE_CONFIG');
CREATE INDEX jobs_ready_to_run ON jobs (workspace, ready, id)
  WHERE ready IS NOT NULL AND type IN ('PIPELINE_VERIFY', 'PIPELINE_RUN');
CREATE INDEX jobs_ready ON jobs (ready) WHERE ready IS NOT NULL;
CREATE INDEX jobs_running ON jobs (workspace) WHERE status = 'RUNNING';
CREATE INDEX jobs_owner ON jobs (owner) WHERE owner IS NOT NULL;

-- A change has two numbers: one by which it arrives, and its position in the stream, which it gets when it is seen by everybody. With one
-- writer both are the same.
ALTER TABLE changes RENAME COLUMN position TO arrival;
ALTER TABLE changes ADD COLUMN position INTEGER GENERATED ALWAYS AS (arrival) VIRTUAL;
CREATE UNIQUE INDEX changes_position ON changes (position);
DROP INDEX changes_job;
DROP INDEX changes_pipeline;
DROP INDEX changes_workspace;
CREATE INDEX changes_job ON changes (job, position);
CREATE INDEX changes_pipeline ON changes (pipeline, position);
CREATE INDEX changes_workspace ON changes (workspace, position);
ALTER TABLE jobs RENAME COLUMN changed_position TO latest_change;
ALTER TABLE deliveries RENAME COLUMN position TO change;

-- What is active in a workspace, in the order of the latest changes; and how much of each kind there is, without a look at the jobs.
DROP INDEX jobs_active;
CREATE INDEX jobs_active ON jobs (workspace, latest_change, type, status) WHERE status IN ('QUEUED', 'RUNNING');

-- Where a workspace's repository comes from and goes to, if not to the server's own.
ALTER TABLE workspaces ADD COLUMN origin TEXT;
