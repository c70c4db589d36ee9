//! Jobstream: a GraphQL server that runs the jobs of a data platform and streams what they do.
//!
//! This page is the map of the crate. Who may call whom:
//!
//! ```text
//! http ──▶ graphql ──▶ jobs ──▶ store        jobs: the only writer of job state; it stores, then rings
//!    └───────────┴────────────▶ store        reads go straight to the store
//! runner, scheduler, clock ──▶ jobs ──▶ events      events: doorbells, for subscriptions, followed logs, and all that works by itself
//! webhooks ───────────▶ jobs, store          tells others what happens; what that is, jobs has stored
//! sweeper ────────────────────▶ store        removes what nobody can see any more
//! model, error, metrics, catalogue, cipher   leaves: everybody knows them; they know model and error at the most
//! ```
//!
//! Three ways through the house:
//!
//! - *createJob*: [`http`] → [`graphql`] (`api`, `mutation`) → [`jobs`] → [`store`], then [`events`], which wakes the [`runner`].
//! - *a log line*: a process under a [`supervisor`] → [`runner`] (`output`) → [`jobs`] → [`store`], then [`events`] → [`graphql`]
//!   (`subscription`, and `live`, which shares it among all who have subscribed to the same) → [`http`] (`websocket`, `sse`).
//! - *a list of jobs*: [`http`] → [`graphql`] (`api`, `query`) → [`store`], through loaders made for each request.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`model`] | the nouns: workspaces, pipelines, jobs, status changes, log lines |
//! | [`error`] | what can go wrong, with the codes that clients see |
//! | [`store`] | SQL, and nowhere else |
//! | [`jobs`] | what may happen to a job, a pipeline, a workspace: every write |
//! | [`events`] | doorbells: that there is something to read, never what |
//! | [`metrics`] | what is counted, for Prometheus |
//! | [`catalogue`] | the data plugins that there are |
//! | [`cipher`] | how sensitive values are stored |
//! | [`runner`] | claims jobs, collects what they print, stops and rescues them |
//! | [`clock`] | watches the clock: logs a jump, and has deadlines recomputed |
//! | [`scheduler`] | queues runs when their time has come |
//! | [`webhooks`] | tells whoever has asked for it, outside of the server, what happens |
//! | [`supervisor`] | the process that holds one job's processes |
//! | [`task`] | the process that does a system task: `WORKSPACE_INIT`, `PIPELINE_CONFIG`, `PIPELINE_VERIFY`; and a run that uses Meltano |
//! | [`zone`] | time zones, from the newer copy of the IANA database: the machine's, or the one that is compiled in |
//! | [`processes`], [`variables`], [`yaml`] | `/proc`; variables for an environment; YAML as Meltano reads it |
//! | [`reaper`] | waits for orphaned processes, where the server is process 1 |
//! | [`confined`] | file operations in directories that jobs can write to, which follow no symbolic link |
//! | [`sweeper`] | clears away what was deleted |
//! | [`graphql`] | types and resolvers; how every transport has operations carried out |
//! | [`http`] | the transports, and who may talk to them |
//! | [`directory`] | where everything is on disk |
//! | [`config`], [`secret`], [`server`] | the options; secrets, and how processes keep them; what is started in which order, and how it ends |
//! | [`lease`], [`relay`] | several servers on one database: until when what this one says of its jobs holds; the bells of one ring on the others |
//! | [`rotation`] | replaces the key that sensitive values are sealed with |
//! | [`check`] | what is wrong with a configuration, without changing anything |
//! | [`client`], [`demo`] | a client of the WebSocket, and the example that uses it |

pub mod check;
pub mod client;
pub mod config;
pub mod demo;
pub mod rotation;
pub mod secret;
pub mod server;

mod catalogue;
mod cipher;
mod clock;
mod confined;
mod directory;
mod error;
mod events;
mod graphql;
mod http;
mod jobs;
mod lease;
mod metrics;
mod model;
mod processes;
mod reaper;
mod relay;
mod runner;
mod scheduler;
mod store;
mod supervisor;
mod sweeper;
mod task;
mod variables;
mod webhooks;
mod yaml;
mod zone;

use std::path::Path;
use std::process::ExitCode;

/// The GraphQL schema, in the schema definition language.
pub fn schema() -> String {
    graphql::sdl()
}

/// Lets this process have as many files open as it may: every connection is one, and shells start programs with a limit of 1,024. Jobs
/// have the limit that there was.
pub fn raise_limit_of_open_files() {
    processes::raise_limit_of_open_files();
}

/// Holds the processes of one job after the other: the hidden subcommand `supervise`. They may have so many files open.
pub fn supervise(open_files: Option<u64>) -> ExitCode {
    if let Some(open_files) = open_files {
        processes::limit_open_files(open_files);
    }
    supervisor::run()
}

/// Does the system task that was left in a directory: the hidden subcommand `task`.
pub fn perform_task(directory: &Path) -> ExitCode {
    task::run(directory)
}
