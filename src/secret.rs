//! What the process keeps to itself, first of all the token.
//!
//! What a process was started with can be read in `/proc/PID/environ` by every process of the same user, jobs included, for as long
//! as it lives; removing the variable changes nothing there. So the program starts itself again without it, and hands the token
//! over through a pipe.

use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::fs::Mode;
use rustix::io::FdFlags;
use rustix::process::{DumpableBehavior, set_dumpable_behavior, umask};

const TOKEN: &str = "JOBSTREAM_TOKEN";
const ON_STDIN: &str = "JOBSTREAM_TOKEN_ON_STDIN";

/// The token, if there is one. Where it is still in the environment, this starts the program again and does not return.
pub fn take_token() -> io::Result<Option<String>> {
    if let Some(token) = std::env::var_os(TOKEN) {
        let (reader, mut writer) = io::pipe()?;
        // A pipe holds far more than a token, so nobody needs to read yet.
        writer.write_all(token.as_encoded_bytes())?;
        drop(writer);
        let mut arguments = std::env::args_os();
        let mut again = Command::new("/proc/self/exe");
        again.arg0(arguments.next().unwrap_or_else(|| "jobstream".into())).args(arguments);
        return Err(again.env_remove(TOKEN).env(ON_STDIN, "1").stdin(Stdio::from(reader)).exec());
    }
    if std::env::var_os(ON_STDIN).is_none() {
        return Ok(None);
    }
    let mut token = String::new();
    io::stdin().read_to_string(&mut token)?;
    Ok(Some(token))
}

/// Has this process listed under its own name, although it was started as `/proc/self/exe`.
pub fn be_listed_by_name() {
    let _ = rustix::thread::set_name(c"jobstream"); // it is a courtesy
}

/// Keeps what this process holds to itself: its memory from other processes of the same user, its files from other users, and the
/// descriptors that it was started with from the jobs.
pub fn keep_to_itself() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
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
    // SAFETY: it is borrowed for this call only; if it is not open, as the one that read the directory is not by now, the call
    // fails and nothing happens.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let _ = rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC);
}
