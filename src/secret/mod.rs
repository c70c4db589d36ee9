//! Secrets of the program: how they reach it, and how its processes keep them from other processes
//! of the same user.
//!
//! Jobs run as the same user as the server. The kernel lets processes of one user read each other's
//! memory, environment and descriptors through `/proc`, unless the process is "not dumpable".
//! [`protect`] makes the process not dumpable. It is the first thing that `main` does, for every
//! subcommand, so that supervisors, tasks and `jobstream check` are protected like the server.
//!
//! Between `exec` and that call the kernel treats the process as any other. Only the kernel can
//! close this window: it starts a program as not dumpable if the user cannot read the program's
//! file (`chmod 711`). `jobstream check` reports which of both holds. What a process was started
//! with (arguments, environment) is visible in the window; what it reads later is not, unless
//! another process opened `/proc/PID/mem` in the window. So secrets are best read from a
//! descriptor: see [`SecretOptions`].

mod sources;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use rustix::fs::Mode;
use rustix::io::FdFlags;
use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior, umask};

pub use sources::{SecretError, SecretOptions, Secrets, Source};

/// The variable with the token.
pub const TOKEN: &str = "JOBSTREAM_TOKEN";
/// The variable with the address of the database, which may hold a password.
pub(crate) const DATABASE_URL: &str = "JOBSTREAM_DATABASE_URL";

static PROTECTED_FROM_START: OnceLock<bool> = OnceLock::new();

/// Protects this process from other processes of the same user. Call it first in `main`, before
/// arguments and environment are read.
///
/// A process that is not dumpable cannot be traced by processes of the same user, does not dump
/// core, and its `environ`, `mem` and `fd` in `/proc` cannot be opened by them. The kernel undoes
/// this when the process executes another program: processes of jobs are dumpable.
pub fn protect() -> io::Result<InitialEnvironment> {
    // Opened first: afterwards these files belong to root.
    let environment = InitialEnvironment::open();
    let _ = PROTECTED_FROM_START.set(dumpable_behavior()? != DumpableBehavior::Dumpable);
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(environment)
}

/// Whether the kernel protected this process from its first instruction on.
pub(crate) fn is_protected_from_start() -> bool {
    PROTECTED_FROM_START.get().copied().unwrap_or(false)
}

/// Logs a warning if secrets came from a descriptor, which is safest, but other processes of this
/// user could open the memory of this process while it started.
pub fn warn_if_exposed(secrets: &Secrets) {
    let sources = [&secrets.token_source, &secrets.database_url_source];
    let from_descriptor = sources.into_iter().any(|it| matches!(it, Some(Source::Descriptor { .. })));
    if from_descriptor && !is_protected_from_start() && !rustix::process::geteuid().is_root() {
        tracing::warn!(
            "the memory of the server was open to other processes of this user at the start; install the program as a file of root with mode 711"
        );
    }
}

/// The environment that this process was started with, as `/proc/PID/environ` shows it.
#[derive(Debug)]
pub struct InitialEnvironment {
    /// The environment and the memory of this process. Nothing where the kernel protects the
    /// process from its start, or without `/proc`.
    files: Option<(File, File)>,
}

impl InitialEnvironment {
    fn open() -> Self {
        let environ = File::open("/proc/self/environ");
        let memory = File::options().write(true).open("/proc/self/mem");
        Self { files: environ.ok().zip(memory.ok()) }
    }

    /// Overwrites the variables that hold secrets, after they were read. Otherwise root, and
    /// whoever sees reports made by root, finds them in `/proc/PID/environ` for as long as the
    /// process runs.
    ///
    /// Call it before other threads are started: they may read the environment.
    pub fn erase_secrets(self) {
        // A failure leaves the variables visible to root, who can read the memory of this process
        // anyway.
        let _ = self.try_erase_secrets();
    }

    fn try_erase_secrets(self) -> io::Result<()> {
        let Some((mut environ, memory)) = self.files else { return Ok(()) };
        let mut content = Vec::new();
        environ.read_to_end(&mut content)?;
        let Some(start) = environment_address()? else { return Ok(()) };
        let mut offset = 0;
        for variable in content.split(|byte| *byte == 0) {
            let name = variable.split(|byte| *byte == b'=').next().unwrap_or_default();
            if [TOKEN, DATABASE_URL].iter().any(|it| it.as_bytes() == name) {
                memory.write_all_at(&vec![0; variable.len()], start + offset)?;
            }
            offset += u64::try_from(variable.len()).unwrap_or_default() + 1;
        }
        Ok(())
    }
}

/// The address of the initial environment in the memory of this process.
fn environment_address() -> io::Result<Option<u64>> {
    let stat = std::fs::read("/proc/self/stat")?;
    // Fields are counted from 1; the second is a name in parentheses that may hold anything;
    // `env_start` is the 50th.
    let end_of_name = stat.iter().rposition(|byte| *byte == b')').unwrap_or(0);
    let fields = String::from_utf8_lossy(&stat[end_of_name..]);
    Ok(fields.split_ascii_whitespace().nth(50 - 2).and_then(|field| field.parse().ok()).filter(|it| *it != 0))
}

/// Has this process listed under its own name, although it was started as `/proc/self/exe`.
pub fn be_listed_by_name() {
    let _ = rustix::thread::set_name(c"jobstream"); // it is a courtesy
}

/// Keeps the files that the server makes from other users, and the descriptors that it was started
/// with from the jobs.
pub fn keep_to_itself() -> io::Result<()> {
    umask(Mode::RWXG | Mode::RWXO);
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(descriptor) = entry?.file_name().to_str().and_then(|it| it.parse::<RawFd>().ok()) else { continue };
        if descriptor > 2 {
            close_on_exec(descriptor);
        }
    }
    Ok(())
}

#[allow(unsafe_code, reason = "a descriptor that came from outside has only its number")]
fn close_on_exec(descriptor: RawFd) {
    // SAFETY: it is borrowed for this call only; if it is not open, as the one that read the
    // directory is not by now, the call fails and nothing happens.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let _ = rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC);
}
