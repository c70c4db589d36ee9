//! The server's directory on disk: where everything that it keeps is.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::{HomeId, JobId, PipelineId, WorkspaceId};

/// The directory, locked by this process for as long as a clone of this is kept.
#[derive(Debug, Clone)]
pub struct Directory {
    path: Arc<Path>,
    home: HomeId,
    _lock: Arc<File>,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Another server has it.
    #[error("{0} is in use by another jobstream server. Stop that one, or choose another directory with --data-dir.")]
    InUse(PathBuf),
    /// It cannot be made or opened.
    #[error("{0} cannot be used as the data directory: {1}")]
    Unusable(PathBuf, io::Error),
}

impl Directory {
    /// Makes the directory if need be, for this user only, and locks it.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let unusable = |error| DirectoryError::Unusable(path.to_owned(), error);
        let make = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        make(path).map_err(unusable)?;
        let path = path.canonicalize().map_err(unusable)?;
        if path.to_str().is_none() {
            return Err(unusable(io::Error::other("its path is not UTF-8")));
        }
        let lock = File::options().create(true).append(true).open(path.join("lock")).map_err(unusable)?;
        lock.set_permissions(fs::Permissions::from_mode(0o600)).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DirectoryError::InUse(path)),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        for part in ["meltano/pipelines", "meltano/state", "plugins", "repositories", "spool", "tasks", "unstored"] {
            make(&path.join(part)).map_err(unusable)?;
        }
        let home = home(&path.join("id")).map_err(unusable)?;
        Ok(Self { path: path.into(), home, _lock: Arc::new(lock) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What tells it from those of other servers, wherever they are.
    pub fn home(&self) -> HomeId {
        self.home
    }

    /// The embedded database.
    pub fn database(&self) -> PathBuf {
        self.path.join("jobstream.db")
    }

    /// A workspace's git repository.
    pub fn repository(&self, workspace: WorkspaceId) -> PathBuf {
        self.path.join("repositories").join(workspace.to_string())
    }

    /// The key that sensitive values are sealed with, unless the operator keeps it elsewhere.
    pub fn key(&self) -> PathBuf {
        self.path.join("key")
    }

    /// The definitions of the operator's own data plugins.
    pub fn plugins(&self) -> PathBuf {
        self.path.join("plugins")
    }

    /// Meltano and what it needs: its own installation, and what it keeps for each pipeline.
    pub fn meltano(&self) -> PathBuf {
        self.path.join("meltano")
    }

    /// What Meltano keeps for a pipeline: plugins, files of runs, how far it has loaded. None of it is anything to other pipelines.
    pub fn meltano_of(&self, pipeline: PipelineId) -> [PathBuf; 2] {
        let id = pipeline.to_string();
        [self.meltano().join("pipelines").join(&id), self.meltano().join("state").join(&id)]
    }

    /// Where lines of an attempt wait while the database is away; and where they are kept if they cannot be stored, because the attempt was
    /// over for everybody else by then.
    pub fn spool(&self, job: JobId, attempt: i32) -> [PathBuf; 2] {
        [self.path.join("spool").join(format!("{job}.{attempt}")), unstored(&self.path, job, attempt)]
    }

    /// Where a system task finds what it is to do, and leaves what came of it.
    pub fn task(&self, job: JobId) -> PathBuf {
        self.path.join("tasks").join(job.to_string())
    }
}

/// Where a server that has this directory keeps lines that it could not store.
pub fn unstored(directory: &Path, job: JobId, attempt: i32) -> PathBuf {
    directory.join("unstored").join(format!("{job}.{attempt}.log"))
}

/// The id of a directory, which is made with it.
fn home(file: &Path) -> io::Result<HomeId> {
    match fs::read_to_string(file) {
        Ok(text) => text.trim().parse().map_err(|_| io::Error::other(format!("{} holds no id", file.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let home = HomeId::random();
            let temporary = file.with_extension("new");
            fs::write(&temporary, home.to_string())?;
            fs::rename(&temporary, file)?;
            Ok(home)
        }
        Err(error) => Err(error),
    }
}
