//! Options, from the command line and the environment, validated once.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;

use crate::graphql::Settings;
use crate::http::{Access, AllowedHost, AllowedOrigin, Bounds, Token, trusted_proxy};
use crate::jobs::{MissedTicks, Rules};
use crate::lease::Terms;
use crate::runner::Limits;
use crate::secret::{SecretError, SecretOptions, Secrets};
use crate::store::{DatabaseUrl, Synchronous};
use crate::task::MeltanoOptions;
use crate::webhooks::WebhookOptions;
use crate::zone::Zone;

const AFTER_HELP: &str = "Seconds may have a fraction, as in 0.5. The bearer token that clients must show, if there is to be one, has 16 \
    characters or more. It is given with --token-fd, with --token-file, or in the environment variable JOBSTREAM_TOKEN.";

/// Runs the jobs of a data platform, and streams what they do over GraphQL.
///
/// Without a command it serves. No argument takes the bearer token that clients must show: every user of the machine could read it.
/// Use --token-fd, --token-file, or the environment variable JOBSTREAM_TOKEN.
#[derive(Debug, Parser)]
#[command(name = "jobstream", version, after_help = AFTER_HELP, args_conflicts_with_subcommands = true, max_term_width = 100)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The options of the server, where no command is given.
    #[command(flatten)]
    pub options: Options,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve: what is done without a command too.
    Serve {
        /// The options of the server.
        #[command(flatten)]
        options: Options,
    },
    /// Serve, and run example pipelines on real data, printing what they do as it arrives over a WebSocket.
    Demo {
        /// End after the runs: with exit code 0 if every job is COMPLETE, else 1.
        #[arg(long)]
        once: bool,
        /// The options of the server.
        #[command(flatten)]
        options: Options,
    },
    /// Say what is wrong with a configuration, its directories and its database, without changing anything: one line for each finding. The exit code
    /// is 0 if nothing is.
    Check {
        /// The options of the server.
        #[command(flatten)]
        options: Options,
    },
    /// Replace the key that sensitive values are sealed with, and seal every value with the new one. Stop all servers of the database first. If it is
    /// interrupted, servers start with the key file as it is, and the next `rotate-key` completes the replacement.
    RotateKey {
        /// The options of the server.
        #[command(flatten)]
        options: Options,
    },
    /// Print the GraphQL schema.
    Schema,
    /// Hold the processes of one job. The server starts this itself.
    #[command(hide = true)]
    Supervise {
        /// How many files they may have open.
        #[arg(long)]
        open_files: Option<u64>,
    },
    /// Do a system task. The server starts this itself.
    #[command(hide = true)]
    Task {
        /// Where the task was left.
        directory: PathBuf,
    },
}

/// The options of the server.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The address to listen at. Any but a loopback address needs JOBSTREAM_TOKEN.
    #[arg(long, env = "JOBSTREAM_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// A second address to listen at, for /healthz, /readyz and /metrics only. Clients of the first one cannot take its connections.
    #[arg(long, env = "JOBSTREAM_ADMIN_LISTEN", value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<SocketAddr>,

    /// Where everything is kept: the database, and the workspaces' repositories. One server at a time uses it.
    #[arg(long, env = "JOBSTREAM_DATA_DIR", value_name = "DIRECTORY", default_value = "jobstream-data")]
    pub data_dir: PathBuf,

    /// The directory that all servers of a PostgreSQL database share, as over NFS: with the repositories that their own are clones of, the key, and how
    /// far Meltano has loaded. Without it, `shared` in the data directory: enough for one server.
    #[arg(long, env = "JOBSTREAM_SHARED_DIR", value_name = "DIRECTORY")]
    pub shared_dir: Option<PathBuf>,

    /// Lets the repository of a workspace come from, and go to, the disk of the server (`file:` URLs).
    #[arg(long, env = "JOBSTREAM_ALLOW_FILE_REPOSITORIES")]
    pub allow_file_repositories: bool,

    /// What this server is called among others of its database: the name of the machine unless it is said here.
    #[arg(long, env = "JOBSTREAM_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,

    /// How many jobs run at a time. With 0 this process only serves.
    #[arg(long, env = "JOBSTREAM_SLOTS", value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u16).range(..=1024))]
    pub slots: u16,

    /// How many jobs of one workspace run at a time, over all servers of a database. There is no limit unless it is said here.
    #[arg(long, env = "JOBSTREAM_WORKSPACE_SLOTS", value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub workspace_slots: Option<u32>,

    /// How many bytes of output a job's log keeps, over all attempts. What comes after is discarded; the job goes on.
    #[arg(long, env = "JOBSTREAM_MAX_LOG_BYTES", value_name = "BYTES", default_value_t = 1 << 30, value_parser = clap::value_parser!(i64).range(0..=1 << 31))]
    pub max_log_bytes: i64,

    /// How long a job that is told to end (TERM) may take before it is killed (KILL).
    #[arg(long, env = "JOBSTREAM_STOP_GRACE", value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub stop_grace: Duration,

    /// How long running jobs may take to end by themselves when the server is told to end (TERM). Then they are ended, and queued again.
    #[arg(long, env = "JOBSTREAM_SHUTDOWN_GRACE", value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub shutdown_grace: Duration,

    /// The wait before a failed run is tried again. It doubles with every further attempt, up to a minute. A run that was lost in a
    /// crash is tried again at once.
    #[arg(long, env = "JOBSTREAM_RETRY_BACKOFF", value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub retry_backoff: Duration,

    /// How many changes of jobs' statuses are kept for subscribers to go on from.
    #[arg(long, env = "JOBSTREAM_KEEP_STATUS_CHANGES", value_name = "NUMBER", default_value_t = 1_000_000, value_parser = clap::value_parser!(i64).range(1..))]
    pub keep_status_changes: i64,

    /// The time zone of schedules: a name of the IANA database, such as `Europe/Berlin`. Its rules
    /// are from the newer of two copies of that: the one that is compiled in, and the machine's in
    /// TZDIR or /usr/share/zoneinfo.
    #[arg(long, env = "JOBSTREAM_TIME_ZONE", value_name = "NAME", default_value = "UTC")]
    pub time_zone: Zone,

    /// What becomes of the ticks of schedules that come while no server is up.
    #[arg(long, env = "JOBSTREAM_MISSED_TICKS", value_name = "WHAT", value_enum, default_value_t = MissedTicks::Skip)]
    pub missed_ticks: MissedTicks,

    /// The file with the key that sensitive values are sealed with, in the data directory, or the shared one, unless it is said here. It is
    /// made when it is not there. Without it nobody can read them: keep a copy, away from the database.
    #[arg(long, env = "JOBSTREAM_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// Names by which clients may call the server, beside addresses and localhost: repeated, or separated by commas.
    #[arg(long, env = "JOBSTREAM_ALLOW_HOST", value_name = "NAME", value_delimiter = ',')]
    pub allow_host: Vec<AllowedHost>,

    /// Origins, such as `https://app.example.com`, whose pages may talk to the server, beside the server's own and this machine's:
    /// repeated, or separated by commas. `*` is any, and needs JOBSTREAM_TOKEN.
    #[arg(long, env = "JOBSTREAM_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub allow_origin: Vec<AllowedOrigin>,

    /// Addresses or networks of proxies, such as `10.0.0.7` or `10.0.0.0/8`, whose X-Forwarded-For and Forwarded headers name the
    /// client: repeated, or separated by commas.
    #[arg(long, env = "JOBSTREAM_TRUSTED_PROXY", value_name = "ADDRESS", value_delimiter = ',', value_parser = trusted_proxy)]
    pub trusted_proxy: Vec<IpNet>,

    /// What the server logs of itself, to standard error: a level, or tracing's directives such as `info,jobstream::http=debug`.
    #[arg(long, env = "JOBSTREAM_LOG", value_name = "DIRECTIVES", default_value = "info")]
    pub log: String,

    /// What clients may hold of the server.
    #[command(flatten)]
    pub bounds: Bounds,

    /// What they may ask of it.
    #[command(flatten)]
    pub graphql: Settings,

    /// Who is told what happens.
    #[command(flatten)]
    pub webhooks: WebhookOptions,

    /// What jobs load with.
    #[command(flatten)]
    pub meltano: MeltanoOptions,

    /// Where everything is stored.
    #[command(flatten)]
    pub database: DatabaseOptions,

    /// Where secrets come from.
    #[command(flatten)]
    pub secrets: SecretOptions,
}

/// Where everything is stored.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseOptions {
    /// A PostgreSQL database, which any number of servers may share: `postgres://user:password@host:port/name`, with `sslmode` and
    /// `sslrootcert`. Without it, SQLite in the data directory.
    // Other users of the machine can read arguments, but not this variable. `SecretOptions` has safer ways.
    #[arg(long, env = "JOBSTREAM_DATABASE_URL", value_name = "URL", hide_env_values = true, value_parser = Location)]
    pub database_url: Option<DatabaseUrl>,

    /// How long this server's jobs go on when it cannot reach PostgreSQL any more. Then they are ended, and after that others may take them.
    #[arg(long, env = "JOBSTREAM_LEASE_MARGIN", value_name = "SECONDS", default_value = "30", value_parser = margin)]
    pub lease_margin: Duration,

    /// How many bytes of each job's output, compressed, wait on this server's disk while it cannot reach PostgreSQL. Beyond that the job waits.
    #[arg(long, env = "JOBSTREAM_SPOOL_BYTES", value_name = "BYTES", default_value_t = 64 << 20)]
    pub spool_bytes: u64,

    /// Hears no notifications: to show that all works without them.
    #[cfg(debug_assertions)]
    #[arg(long, hide = true)]
    pub deaf: bool,

    /// Writes to jobs that others have taken over: to show that tests notice.
    #[cfg(debug_assertions)]
    #[arg(long, hide = true)]
    pub unfenced: bool,

    /// How many connections to PostgreSQL this server has at the most, beside one for notifications.
    #[arg(long, env = "JOBSTREAM_DATABASE_CONNECTIONS", value_name = "NUMBER", default_value_t = 16, value_parser = clap::value_parser!(u16).range(4..=1000))]
    pub database_connections: u16,

    /// What a commit waits for.
    #[arg(long, env = "JOBSTREAM_SQLITE_SYNCHRONOUS", value_name = "MODE", value_enum, default_value_t = Synchronous::Normal)]
    pub sqlite_synchronous: Synchronous,
}

/// Why the options cannot be used together.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The server could be reached from elsewhere, by anybody.
    #[error(
        "{0}, where the server would listen, can be reached from other machines, and whoever reaches the server can run anything here. \
         Set JOBSTREAM_TOKEN, or use --token-fd, to give a secret that clients must show, or listen at 127.0.0.1."
    )]
    TokenNeeded(SocketAddr),
    /// Any page that somebody here looks at could run anything here.
    #[error("--allow-origin '*' lets the pages of any site talk to the server: it needs JOBSTREAM_TOKEN.")]
    OriginsNeedToken,
    /// A token that can be guessed is none.
    #[error("The token has to have at least 16 characters, and no white space.")]
    WeakToken,
    /// A token that no client could show.
    #[error(
        "The token has characters that cannot be sent in an HTTP header: it may have visible ASCII characters only."
    )]
    UnsendableToken,
}

impl Options {
    /// Reads the secrets that the options lead to. `token` is the value of `JOBSTREAM_TOKEN`.
    pub fn read_secrets(&mut self, token: Option<&OsString>) -> Result<Secrets, SecretError> {
        Secrets::read(&self.secrets, token, &mut self.database.database_url)
    }

    /// Checks what clap cannot, and says what is asked of clients.
    pub fn access(&self, token: Option<&str>) -> Result<Access, ConfigError> {
        let listens = [Some(self.listen), self.admin_listen];
        let outside = listens.into_iter().flatten().find(|it| !it.ip().is_loopback());
        match (token, outside) {
            (None, Some(address)) => return Err(ConfigError::TokenNeeded(address)),
            (None, None) if self.allow_origin.contains(&AllowedOrigin::Any) => {
                return Err(ConfigError::OriginsNeedToken);
            }
            (Some(token), _) if token.len() < 16 || token.contains(char::is_whitespace) => {
                return Err(ConfigError::WeakToken);
            }
            (Some(token), _) if !token.bytes().all(|it| it.is_ascii_graphic()) => {
                return Err(ConfigError::UnsendableToken);
            }
            _ => {}
        }
        Ok(Access {
            token: token.map(Token::new),
            hosts: self.allow_host.clone(),
            origins: self.allow_origin.clone(),
            proxies: self.trusted_proxy.clone().into(),
        })
    }

    /// What is said about jobs.
    pub fn rules(&self) -> Rules {
        Rules {
            retry_backoff: self.retry_backoff,
            fenced: self.is_fenced(),
            workspace_slots: self.workspace_slots,
            zone: self.time_zone.rules().clone(),
            missed_ticks: self.missed_ticks,
            private_webhooks: self.webhooks.allow_private_webhooks,
            file_repositories: self.allow_file_repositories,
        }
    }

    /// Whether a server lets go of jobs that others have taken over. Each does, but for one that shows that tests notice.
    fn is_fenced(&self) -> bool {
        #[cfg(debug_assertions)]
        return !self.database.unfenced;
        #[cfg(not(debug_assertions))]
        true
    }

    /// Whether the server heeds what others announce. Each does, but for one that shows that all works without that.
    pub fn hears(&self) -> bool {
        #[cfg(debug_assertions)]
        return !self.database.deaf;
        #[cfg(not(debug_assertions))]
        true
    }

    /// How long leases are.
    pub fn terms(&self) -> Terms {
        Terms { margin: self.database.lease_margin, stop_grace: self.stop_grace }
    }

    /// What bounds a job.
    pub fn limits(&self) -> Limits {
        Limits {
            stop_grace: self.stop_grace,
            max_log_bytes: self.max_log_bytes,
            spool_bytes: self.database.spool_bytes,
        }
    }
}

/// Seconds in which a lease can be renewed several times.
fn margin(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        margin if margin < Duration::from_secs(1) => Err("it is at least 1".to_owned()),
        margin => Ok(margin),
    }
}

/// Reads where the database is. What clap says of a wrong value shows it, and there is a password in this one.
#[derive(Debug, Clone)]
struct Location;

impl TypedValueParser for Location {
    type Value = DatabaseUrl;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<DatabaseUrl, clap::Error> {
        let read = value.to_str().ok_or_else(|| "it is not UTF-8".to_owned()).and_then(str::parse);
        read.map_err(|why| {
            let why = format!("the value of '--database-url' or JOBSTREAM_DATABASE_URL cannot be used: {why}\n");
            clap::Error::raw(ErrorKind::ValueValidation, why).with_cmd(command)
        })
    }
}

/// Seconds, with a fraction if wanted.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is a number of seconds, such as 10 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
