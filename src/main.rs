//! The `jobstream` program: reads its arguments and environment, and runs what they ask for.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use jobstream::config::{Command, CommandLine, Options};
use jobstream::secret;
use jobstream::server::Failure;
use tracing_subscriber::EnvFilter;

/// Answering GraphQL is many small allocations: a fifth of a profile's samples were in glibc's allocator. mimalloc was as fast as this one, but
/// kept 200 MiB when a million lines were read, for what one thread allocates is freed by another.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // First, for every subcommand: arguments, environment, memory and descriptors may hold secrets.
    let environment = match secret::protect() {
        Ok(environment) => environment,
        Err(error) => return failed(&error.into()),
    };
    let command_line = CommandLine::parse();
    let token = std::env::var_os(secret::TOKEN);
    environment.erase_secrets();
    let done = match command_line.command {
        Some(Command::Supervise { open_files }) => return jobstream::supervise(open_files),
        Some(Command::Task { directory }) => return jobstream::perform_task(&directory),
        Some(Command::Schema) => io::stdout().write_all(jobstream::schema().as_bytes()).map_err(Failure::from),
        Some(Command::Check { options }) => return check(options, token.as_ref()),
        Some(Command::RotateKey { options }) => rotate_key(options, token.as_ref()),
        Some(Command::Demo { once, options }) => serve(options, token.as_ref(), Some(once)),
        Some(Command::Serve { options }) => serve(options, token.as_ref(), None),
        None => serve(command_line.options, token.as_ref(), None),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &Failure) -> ExitCode {
    let _ = writeln!(io::stderr(), "jobstream: {error}");
    ExitCode::FAILURE
}

/// Says what is wrong, if anything is.
fn check(mut options: Options, token: Option<&OsString>) -> ExitCode {
    let checked = options.read_secrets(token).map_err(Failure::from).and_then(|secrets| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        Ok(runtime.block_on(jobstream::check::run(&options, &secrets, &mut io::stdout())))
    });
    match checked {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&error),
    }
}

/// Replaces the key that sensitive values are sealed with.
fn rotate_key(mut options: Options, token: Option<&OsString>) -> Result<(), Failure> {
    options.read_secrets(token)?;
    secret::keep_to_itself()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(jobstream::rotation::run(&options, &mut io::stdout()))
}

/// Serves; with the example if `demo` is given, which says whether to end after it.
fn serve(mut options: Options, token: Option<&OsString>, demo: Option<bool>) -> Result<(), Failure> {
    let secrets = options.read_secrets(token)?;
    secret::keep_to_itself()?;
    jobstream::raise_limit_of_open_files();
    let access = options.access(secrets.token.as_deref())?;
    let filter = EnvFilter::try_new(&options.log).map_err(|error| format!("--log {}: {error}", options.log))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    secret::warn_if_exposed(&secrets);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match demo {
            Some(once) => jobstream::demo::run(options, access, secrets.token, once).await,
            None => jobstream::server::Server::start(options, access).await?.serve_until_told().await,
        }
    })
}
