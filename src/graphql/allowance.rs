//! How much of logs one answer may bring.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Error;

/// How many logs may be read whole, as far as one read goes,
const WHOLE: u32 = 32;
const WHOLE_BYTES: usize = 1024 * 1024;
/// and of how many more the beginning, or the end.
const PARTS: u32 = 480;
const PART_BYTES: usize = 64 * 1024;

/// What is left for one answer. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct LogAllowance(Arc<AtomicU32>);

impl LogAllowance {
    /// How many bytes of text may be read of a log. [`Error::LimitExceeded`] if the answer brings so many already that it may
    /// not bring another.
    pub(super) fn take(&self) -> Result<usize, Error> {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            before if before < WHOLE => Ok(WHOLE_BYTES),
            before if before < WHOLE + PARTS => Ok(PART_BYTES),
            _ => Err(Error::LimitExceeded(format!("An answer brings lines of at most {} logs.", WHOLE + PARTS))),
        }
    }

    /// Another answer begins.
    pub(super) fn renew(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}
