//! What the database takes of its disk.

use std::io;
use std::path::Path;

use crate::metrics::{DatabaseUsage, DiskUsage};

/// Looks at the files of the database at `path`, and the file system they are on. The disk may be slow to answer.
pub(super) fn usage(path: &Path) -> io::Result<DatabaseUsage> {
    let wal = path.with_extension("db-wal");
    let wal_bytes = match wal.metadata() {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let file_system = rustix::fs::statvfs(path)?;
    // What only the superuser may use is not free for us.
    let free_bytes = file_system.f_bavail.saturating_mul(file_system.f_frsize);
    Ok(DatabaseUsage { bytes: path.metadata()?.len(), disk: Some(DiskUsage { wal_bytes, free_bytes }) })
}
