//! The settings of a pipeline, as a task is handed them.
//!
//! A property can become any variable, also one that the loader, a shell, git or Python obeys. So a task does not find the settings in its
//! environment but on its standard input, and sets them for what the pipeline runs only.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::OnceLock;

use zeroize::Zeroizing;

use crate::variables::Variables;

static SETTINGS: OnceLock<Variables> = OnceLock::new();

/// Reads the settings from the standard input, which is empty from then on.
pub(super) fn read() -> io::Result<()> {
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let length = usize::try_from(input.metadata()?.len()).unwrap_or(0);
    // It never grows, which would leave a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length + 1));
    input.read_to_end(&mut bytes)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let _ = SETTINGS.set(Variables::decode(&bytes));
    Ok(())
}

/// The settings that were read.
pub(super) fn settings() -> &'static Variables {
    static NONE: OnceLock<Variables> = OnceLock::new();
    SETTINGS.get().unwrap_or_else(|| NONE.get_or_init(Variables::default))
}
