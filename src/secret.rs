//! The token's way out of the environment.
//!
//! What a process was started with can be read in `/proc/PID/environ` by every process of the same user, jobs included, for as long
//! as it lives; removing the variable changes nothing there. So the program starts itself again without it, and hands the token
//! over through a pipe.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

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

/// Keeps this process's memory from other processes of the same user.
pub fn hide_memory() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
