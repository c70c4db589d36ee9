//! The server's directories on disk: where everything that it keeps is, and what it shares with the other servers of its database.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;

use crate::confined::{ConfinedDirectory, remove_tree};
use crate::model::{HomeId, JobId, PipelineId, WorkspaceId};

/// How long a directory may still be held that belongs to nobody: what a server was starting when it was killed has it until it is another
/// program.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const NO_LINK: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();

/// The directory of the attempts' temporary directories.
const TEMPORARY: &str = "tmp";
/// How the names of temporary directories that are being removed begin.
const DISCARDED: &str = "removing-";

/// The directory, locked by this process for as long as a clone of this is kept.
#[derive(Debug, Clone)]
pub struct Directory {
    path: Arc<Path>,
    home: HomeId,
    shared: Option<Shared>,
    _lock: Arc<File>,
}

/// A directory that all servers of a database share.
#[derive(Debug, Clone)]
struct Shared {
    path: Arc<Path>,
    id: HomeId,
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
    /// That which is to be shared cannot be made or opened.
    #[error("{0} cannot be used as the shared directory: {1}")]
    UnusableShared(PathBuf, io::Error),
}

impl Directory {
    /// Makes the directory if need be, for this user only, and locks it.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let unusable = |error| DirectoryError::Unusable(path.to_owned(), error);
        let path = make_whole(path).map_err(unusable)?;
        // What a job has planted there is an error; a FIFO is not waited for.
        let lock = File::options().create(true).append(true).custom_flags(NO_LINK).open(path.join("lock"));
        let lock = lock.map_err(unusable)?;
        lock.set_permissions(fs::Permissions::from_mode(0o600)).map_err(unusable)?;
        let mut left = PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if left.is_zero() => return Err(DirectoryError::InUse(path)),
                Err(TryLockError::WouldBlock) => {
                    thread::sleep(LOOK_EVERY);
                    left = left.saturating_sub(LOOK_EVERY);
                }
                Err(TryLockError::Error(error)) => return Err(unusable(error)),
            }
        }
        for part in [
            "clones",
            "meltano/pipelines",
            "meltano/state",
            "plugins",
            "repositories",
            "spool",
            "tasks",
            "tmp",
            "unstored",
        ] {
            make(&path.join(part)).map_err(unusable)?;
        }
        let home = home(&path.join("id")).map_err(unusable)?;
        make(&path.join("clones").join(home.to_string())).map_err(unusable)?;
        Ok(Self { path: path.into(), home, shared: None, _lock: Arc::new(lock) })
    }

    /// The same directory beside one that the servers of its database share: this, or `shared` in it, which is enough for one server. It is made if
    /// need be.
    pub fn sharing(self, shared: Option<&Path>) -> Result<Self, DirectoryError> {
        let shared = shared.map_or_else(|| self.path.join("shared"), Path::to_owned);
        let unusable = |error| DirectoryError::UnusableShared(shared.clone(), error);
        let path = make_whole(&shared).map_err(unusable)?;
        for part in ["meltano-state", "plugins", "repositories"] {
            make(&path.join(part)).map_err(unusable)?;
        }
        let id = home(&path.join("id")).map_err(unusable)?;
        make(&self.path.join("clones").join(id.to_string())).map_err(unusable)?;
        Ok(Self { shared: Some(Shared { path: path.into(), id }), ..self })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What tells it from those of other servers, wherever they are.
    pub fn home(&self) -> HomeId {
        self.home
    }

    /// What tells the directory that it shares with others from every other such, if it shares one.
    pub fn shared(&self) -> Option<HomeId> {
        self.shared.as_ref().map(|shared| shared.id)
    }

    /// The embedded database.
    pub fn database(&self) -> PathBuf {
        self.path.join("jobstream.db")
    }

    /// A workspace's git repository.
    pub fn repository(&self, workspace: WorkspaceId) -> PathBuf {
        self.path.join("repositories").join(workspace.to_string())
    }

    /// The repository that the servers' clones of a workspace's come from and go to, where the repository here is a clone.
    pub fn origin(&self, workspace: WorkspaceId) -> Option<PathBuf> {
        let shared = self.shared.as_ref()?;
        Some(shared.path.join("repositories").join(format!("{workspace}.git")))
    }

    /// Everything that is kept of a workspace's repository, here and in the shared directory.
    pub fn all_of(&self, workspace: WorkspaceId) -> io::Result<Vec<PathBuf>> {
        let mut found = vec![self.repository(workspace), self.clone_lock(workspace), self.rebuild_marker(workspace)];
        if let Some(shared) = &self.shared {
            // The bare repository, and what is left of damaged ones.
            for entry in fs::read_dir(shared.path.join("repositories"))? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(&workspace.to_string()) {
                    found.push(entry.path());
                }
            }
        }
        Ok(found)
    }

    /// The file that is locked while a clone changes. Where there is one, the repository here is, or was, a clone.
    pub fn clone_lock(&self, workspace: WorkspaceId) -> PathBuf {
        self.clone_locks().join(workspace.to_string())
    }

    /// Where these files are. Clones of another database's repositories have theirs elsewhere.
    pub fn clone_locks(&self) -> PathBuf {
        self.path.join("clones").join(self.shared().unwrap_or(self.home).to_string())
    }

    /// The key that sensitive values are sealed with, unless the operator keeps it elsewhere.
    pub fn key(&self) -> PathBuf {
        self.shared.as_ref().map_or(&self.path, |shared| &shared.path).join("key")
    }

    /// Where the definitions of the operator's own data plugins are.
    pub fn plugins(&self) -> Vec<PathBuf> {
        let shared = self.shared.as_ref().map(|shared| &shared.path);
        shared.into_iter().chain([&self.path]).map(|it| it.join("plugins")).collect()
    }

    /// Meltano and what it needs: its own installation, and what it keeps for each pipeline.
    pub fn meltano(&self) -> PathBuf {
        self.path.join("meltano")
    }

    /// Where Meltano keeps how far pipelines have loaded, unless the operator keeps that elsewhere: where every server that may run them finds it.
    pub fn meltano_state(&self) -> PathBuf {
        match &self.shared {
            Some(shared) => shared.path.join("meltano-state"),
            None => self.meltano().join("state"),
        }
    }

    /// Where Meltano keeps the plugins of pipelines, and the files of their runs.
    pub fn meltano_pipelines(&self) -> PathBuf {
        self.meltano().join("pipelines")
    }

    /// What Meltano keeps for a pipeline: plugins, files of runs, how far it has loaded. None of it is anything to other pipelines.
    pub fn meltano_of(&self, pipeline: PipelineId) -> [PathBuf; 2] {
        let id = pipeline.to_string();
        [self.meltano_pipelines().join(&id), self.meltano_state().join(&id)]
    }

    /// Where lines of an attempt wait while the database is away; and where they are kept if they cannot be stored, because the attempt was
    /// over for everybody else by then.
    pub fn spool(&self, job: JobId, attempt: i32) -> [PathBuf; 2] {
        [self.path.join("spool").join(format!("{job}.{attempt}")), unstored(&self.path, job, attempt)]
    }

    /// The same of all lines that wait.
    pub fn spools(&self) -> io::Result<Vec<[PathBuf; 2]>> {
        let entries = fs::read_dir(self.path.join("spool"))?;
        let both = |entry: fs::DirEntry| {
            let kept = format!("{}.log", entry.file_name().display());
            [entry.path(), self.path.join("unstored").join(kept)]
        };
        entries.map(|entry| entry.map(both)).collect()
    }

    /// Where the temporary files of an attempt are while it runs.
    pub fn temporary(&self, job: JobId, attempt: i32) -> PathBuf {
        temporary(&self.path, job, attempt)
    }

    /// Makes that, empty and for this user only.
    pub fn make_temporary(&self, job: JobId, attempt: i32) -> io::Result<PathBuf> {
        make_temporary_parent(&self.path.join(TEMPORARY))?;
        let path = self.temporary(job, attempt);
        match remove_tree(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(path)
    }

    /// The same of every attempt that has, or had, one. Nothing else is listed, and nothing behind a symbolic link.
    pub fn temporary_directories(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match ConfinedDirectory::open(&self.path)?.entries(Path::new(TEMPORARY)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        Ok(entries.iter().filter_map(|(name, _)| self.temporary_called(name.to_str()?)).collect())
    }

    /// The temporary directory of an attempt, by its file name; or one that a killed server has
    /// discarded.
    fn temporary_called(&self, name: &str) -> Option<PathBuf> {
        if let Some(id) = name.strip_prefix(DISCARDED) {
            return id.parse::<HomeId>().ok().map(|id| self.discarded(id)).filter(|path| path.ends_with(name));
        }
        let (job, attempt) = name.split_once('.')?;
        let path = self.temporary(job.parse().ok()?, attempt.parse().ok()?);
        path.ends_with(name).then_some(path)
    }

    /// Gives a temporary directory that is to be removed a name that no attempt uses.
    pub fn discard_temporary(&self, path: &Path) -> io::Result<PathBuf> {
        let discarded = self.discarded(HomeId::random());
        fs::rename(path, &discarded)?;
        Ok(discarded)
    }

    fn discarded(&self, id: HomeId) -> PathBuf {
        self.path.join(TEMPORARY).join(format!("{DISCARDED}{id}"))
    }

    /// Where the workspaces' repositories are.
    pub fn repositories(&self) -> PathBuf {
        self.path.join("repositories")
    }

    /// Where system tasks have their directories, which are called by the ids of the jobs.
    pub fn tasks(&self) -> PathBuf {
        self.path.join("tasks")
    }

    /// Where a system task finds what it is to do, and leaves what came of it.
    pub fn task(&self, job: JobId) -> PathBuf {
        self.tasks().join(job.to_string())
    }

    /// The file that exists as long as a workspace's repository has to be rebuilt from the definitions of its pipelines.
    pub fn rebuild_marker(&self, workspace: WorkspaceId) -> PathBuf {
        self.tasks().join(format!("rebuild-{workspace}"))
    }
}

/// The id of a directory, if a server has been there.
pub fn id_of(path: &Path) -> Option<HomeId> {
    fs::read_to_string(path.join("id")).ok()?.trim().parse().ok()
}

/// Where a server that has this directory keeps lines that it could not store.
pub fn unstored(directory: &Path, job: JobId, attempt: i32) -> PathBuf {
    directory.join("unstored").join(format!("{job}.{attempt}.log"))
}

/// Where the temporary files of an attempt are, of a server that has this directory.
pub fn temporary(directory: &Path, job: JobId, attempt: i32) -> PathBuf {
    directory.join(TEMPORARY).join(format!("{job}.{attempt}"))
}

/// Makes the directory of all temporary directories again if a job removed it. A link in its place is not followed.
fn make_temporary_parent(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => {
            let message = format!("{} is not a directory. Symbolic links are not followed. Remove it.", path.display());
            Err(io::Error::new(io::ErrorKind::NotADirectory, message))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        Err(error) => Err(error),
    }
}

/// Makes a directory if need be, for this user only.
fn make(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The same, and answers its whole path.
fn make_whole(path: &Path) -> io::Result<PathBuf> {
    make(path)?;
    let path = path.canonicalize()?;
    if path.to_str().is_none() {
        return Err(io::Error::other("its path is not UTF-8"));
    }
    Ok(path)
}

/// The id of a directory, which is made with it. Several servers may make that of a shared one at the same time.
fn home(file: &Path) -> io::Result<HomeId> {
    if !file.exists() {
        let temporary = file.with_extension(HomeId::random().to_string());
        let mut new = File::create(&temporary)?;
        new.write_all(HomeId::random().to_string().as_bytes())?;
        new.sync_all()?; // a loss of power would leave an empty file
        // Whole or not at all, and never in the place of another.
        let linked = fs::hard_link(&temporary, file);
        fs::remove_file(&temporary)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if let Some(parent) = file.parent() {
            File::open(parent)?.sync_all()?;
        }
    }
    let text = fs::read_to_string(file)?;
    text.trim().parse().map_err(|_| io::Error::other(format!("{} holds no id", file.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn temporary_directories_are_those_of_attempts_and_none_behind_a_link() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = Directory::open(&scratch.path().join("data")).unwrap();
        let tmp = directory.path().join("tmp");
        let made = directory.make_temporary(JobId::random(), 2).unwrap();
        for other in ["notes", "1.2", "x.1"] {
            fs::create_dir(tmp.join(other)).unwrap();
        }
        fs::create_dir(tmp.join(format!("{}.01", JobId::random()))).unwrap();
        assert_eq!(directory.temporary_directories().unwrap(), std::slice::from_ref(&made));
        let discarded = directory.discard_temporary(&made).unwrap();
        assert_eq!(directory.temporary_directories().unwrap(), [discarded]);

        let elsewhere = scratch.path().join("elsewhere");
        fs::rename(&tmp, &elsewhere).unwrap();
        symlink(&elsewhere, &tmp).unwrap();
        assert!(directory.temporary_directories().is_err());
        let refused = directory.make_temporary(JobId::random(), 1).unwrap_err().to_string();
        assert!(refused.contains(tmp.to_str().unwrap()), "{refused}");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 5);

        fs::remove_file(&tmp).unwrap();
        assert!(directory.temporary_directories().unwrap().is_empty());
        assert!(directory.make_temporary(JobId::random(), 1).unwrap().is_dir());
        assert_eq!(tmp.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}
