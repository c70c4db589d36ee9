//! File operations below a directory that jobs can write to. No symbolic link below it is ever followed, also if a job
//! replaces a directory by a link between two operations: every operation resolves its path from the descriptor of the
//! directory, with `openat2` and `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`, and acts relative to the descriptor of the parent.
//!
//! An operation that writes a file never changes an existing inode that has another name: a hard link may lead out of the
//! directory. Errors name the path.

mod removal;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

pub use removal::remove_tree;

/// Name of a file until its content is complete.
const UNFINISHED: &str = ".jobstream-unfinished";
/// Start of the name that a directory gets when a file is written in its place.
pub const REPLACED: &str = ".jobstream-replaced-";
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC);
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// `openat2` fails with EAGAIN if something is renamed at the same time.
const TRIES: usize = 128;

/// A directory whose content is accessed without following links.
#[derive(Debug)]
pub struct ConfinedDirectory(OwnedFd);

/// What a path names. A link is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A FIFO, a socket or a device.
    Other,
}

/// What is known about a path without opening it.
#[derive(Debug)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// The length of a file.
    pub length: u64,
    modified: SystemTime,
}

impl Metadata {
    /// Time since the last change.
    pub fn age(&self) -> Duration {
        SystemTime::now().duration_since(self.modified).unwrap_or_default()
    }
}

/// When written data reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Before the operation returns.
    Now,
    /// When the caller calls [`ConfinedDirectory::flush_all`].
    Later,
}

impl ConfinedDirectory {
    /// Opens a directory. The path itself is trusted: links in it are followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        named(path, rustix::fs::open(path, DIRECTORY, Mode::empty())).map(Self)
    }

    /// Opens a directory below this one.
    pub fn directory(&self, path: &Path) -> io::Result<Self> {
        self.resolve(path, DIRECTORY | OFlags::NOFOLLOW).map(Self)
    }

    /// What a path names, or `None` if there is nothing. A link or a file in place of one of its directories is an error.
    pub fn metadata(&self, path: &Path) -> io::Result<Option<Metadata>> {
        let Some((parent, name)) = found(self.parent(path))? else { return Ok(None) };
        match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            stat => named(path, stat.map(|stat| Some(metadata(&stat)))),
        }
    }

    /// Opens a regular file for reading. Anything else in its place is an error; a FIFO is not waited for.
    pub fn file(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = self.resolve(path, flags)?;
        match metadata(&named(path, rustix::fs::fstat(&file))?).kind {
            Kind::File => Ok(file.into()),
            _ => Err(not_a_file(path)),
        }
    }

    /// Content of a regular file.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        named(path, self.file(path)?.read_to_end(&mut content))?;
        Ok(content)
    }

    /// Target of a symbolic link.
    pub fn link_target(&self, path: &Path) -> io::Result<OsString> {
        let (parent, name) = self.parent(path)?;
        let target = named(path, rustix::fs::readlinkat(&parent, name, Vec::new()))?;
        Ok(OsStr::from_bytes(target.as_bytes()).to_owned())
    }

    /// Names and kinds of the entries of a directory.
    pub fn entries(&self, path: &Path) -> io::Result<Vec<(OsString, Kind)>> {
        let directory = self.resolve(path, DIRECTORY | OFlags::NOFOLLOW)?;
        let mut entries = Vec::new();
        for entry in named(path, Dir::read_from(&directory))? {
            let entry = named(path, entry)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let stat = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW);
                    metadata(&named(path, stat)?).kind
                }
                known => kind(known),
            };
            entries.push((name.to_owned(), kind));
        }
        Ok(entries)
    }

    /// Creates a directory and its parents, where they do not exist.
    pub fn make_directories(&self, path: &Path) -> io::Result<Self> {
        self.make_directories_and(path, Flush::Now)
    }

    fn make_directories_and(&self, path: &Path, flush: Flush) -> io::Result<Self> {
        let mut directory = self.0.try_clone()?;
        for component in path.components() {
            let Component::Normal(name) = component else { return Err(outside(path)) };
            let next = match open_component(&directory, name) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&directory, name, Mode::RWXU) {
                        Ok(()) if flush == Flush::Now => named(path, rustix::fs::fsync(&directory))?,
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(naming(path, error.into())),
                    }
                    open_component(&directory, name)
                }
                opened => opened,
            };
            directory = next.map_err(|error| match error {
                Errno::NOTDIR | Errno::LOOP => not_a_directory(path, name),
                error => naming(path, error.into()),
            })?;
        }
        Ok(Self(directory))
    }

    /// Writes a file, and the directories it is in. The file has the old content or the new one, never a part of it.
    /// It replaces a file, a link or a FIFO of that name. A directory is moved aside, see [`REPLACED`].
    pub fn write(&self, path: &Path, content: &[u8], mode: Option<Mode>, flush: Flush) -> io::Result<()> {
        let (parent, name) = self.made_parent(path, flush)?;
        let write = || -> io::Result<()> {
            let mut file = create_unfinished(&parent)?;
            file.write_all(content)?;
            if let Some(mode) = mode {
                rustix::fs::fchmod(&file, mode)?;
            }
            if flush == Flush::Now {
                file.sync_all()?;
            }
            rename_over(&parent, OsStr::new(UNFINISHED), &parent, name)?;
            if flush == Flush::Now {
                rustix::fs::fsync(&parent)?;
            }
            Ok(())
        };
        named(path, write())
    }

    /// Creates a symbolic link, in place of a file or link of that name.
    pub fn write_link(&self, path: &Path, target: &[u8]) -> io::Result<()> {
        let (parent, name) = self.made_parent(path, Flush::Now)?;
        let unfinished = OsStr::new(UNFINISHED);
        let write = || -> io::Result<()> {
            clear(&parent, unfinished)?;
            rustix::fs::symlinkat(OsStr::from_bytes(target), &parent, unfinished)?;
            rename_over(&parent, unfinished, &parent, name)
        };
        named(path, write())
    }

    /// Creates a file that must not exist, as git creates its locks.
    pub fn create_new(&self, path: &Path) -> io::Result<File> {
        let (parent, name) = self.made_parent(path, Flush::Now)?;
        named(path, create(&parent, name))
    }

    /// Appends to a file, which is created if it does not exist. A file that has another name too is replaced by a new
    /// one: its inode may be that of a file outside of this directory. So is anything but a regular file.
    pub fn append(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let (parent, name) = self.made_parent(path, Flush::Now)?;
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = rustix::fs::openat(&parent, name, flags | OFlags::NOCTTY | OFlags::CLOEXEC, FILE_MODE);
        let file = match opened {
            Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::ACCESS) => None,
            opened => Some(named(path, opened)?),
        };
        if let Some(file) = file {
            let stat = named(path, rustix::fs::fstat(&file))?;
            if metadata(&stat).kind == Kind::File && stat.st_nlink == 1 {
                let mut file = File::from(file);
                return named(path, file.write_all(content).and_then(|()| file.sync_all()));
            }
        }
        self.write(path, content, Some(FILE_MODE), Flush::Now)
    }

    /// Moves a file of this directory's file system, or copies it, to this place.
    pub fn take(&self, from: &Path, path: &Path) -> io::Result<()> {
        let (parent, name) = self.made_parent(path, Flush::Now)?;
        let take = || -> io::Result<()> {
            File::open(from)?.sync_all()?;
            match rustix::fs::renameat(rustix::fs::CWD, from, &parent, name) {
                Err(Errno::XDEV) => {}
                renamed => return Ok(renamed?),
            }
            let mut file = create_unfinished(&parent)?;
            io::copy(&mut File::open(from)?, &mut file)?;
            rustix::fs::fchmod(&file, Mode::RUSR)?;
            file.sync_all()?;
            Ok(rustix::fs::renameat(&parent, UNFINISHED, &parent, name)?)
        };
        named(path, take())
    }

    /// Removes a file or a link. It is no error if nothing is there.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        match found(self.parent(path))? {
            Some((parent, name)) => named(path, remove_from(&parent, name)),
            None => Ok(()),
        }
    }

    /// Makes a name free that only the server uses. A directory that is not empty is moved aside, see [`REPLACED`].
    pub fn clear(&self, path: &Path) -> io::Result<()> {
        match found(self.parent(path))? {
            Some((parent, name)) => named(path, clear(&parent, name)),
            None => Ok(()),
        }
    }

    /// Gives a file or a directory another path.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (old, new) = (self.parent(from)?, self.made_parent(to, Flush::Now)?);
        named(to, rustix::fs::renameat(&old.0, old.1, &new.0, new.1))?;
        named(to, rustix::fs::fsync(&old.0).and_then(|()| rustix::fs::fsync(&new.0)))
    }

    /// Has a file take the place of whatever is at another path, as [`Self::write`] does.
    pub fn rename_over(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (old, new) = (self.parent(from)?, self.made_parent(to, Flush::Now)?);
        named(to, rename_over(&old.0, old.1, &new.0, new.1))?;
        named(to, rustix::fs::fsync(&old.0).and_then(|()| rustix::fs::fsync(&new.0)))
    }

    /// Puts `new` in the place of `old`, which gets the path `aside`: at once, where the file system can exchange two entries.
    pub fn replace(&self, old: &str, new: &str, aside: &str) -> io::Result<()> {
        use rustix::fs::{RenameFlags, renameat, renameat_with};
        let Self(fd) = self;
        match renameat_with(fd, new, fd, old, RenameFlags::EXCHANGE) {
            Ok(()) => named(Path::new(aside), renameat(fd, new, fd, aside))?,
            Err(Errno::NOENT) => named(Path::new(old), renameat(fd, new, fd, old))?,
            Err(Errno::INVAL | Errno::NOSYS) => {
                named(Path::new(aside), renameat(fd, old, fd, aside))?;
                named(Path::new(old), renameat(fd, new, fd, old))?;
            }
            Err(error) => return Err(naming(Path::new(old), error.into())),
        }
        self.flush()
    }

    /// Flushes the entries of this directory.
    pub fn flush(&self) -> io::Result<()> {
        named(Path::new("."), rustix::fs::fsync(&self.0))
    }

    /// Flushes everything that was written to the file system of this directory.
    pub fn flush_all(&self) -> io::Result<()> {
        named(Path::new("."), rustix::fs::syncfs(&self.0))
    }

    fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = last(path)?;
        let parent = self.resolve(path.parent().unwrap_or(Path::new("")), DIRECTORY | OFlags::NOFOLLOW)?;
        Ok((parent, name))
    }

    fn made_parent<'a>(&self, path: &'a Path, flush: Flush) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = last(path)?;
        let Self(parent) = self.make_directories_and(path.parent().unwrap_or(Path::new("")), flush)?;
        Ok((parent, name))
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        if path.as_os_str().is_empty() || path == Path::new(".") {
            return named(Path::new("."), rustix::fs::openat(&self.0, ".", flags, Mode::empty()));
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..TRIES {
            match rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Linux before 5.6, and sandboxes that do not know the call.
                Err(Errno::NOSYS | Errno::PERM) => return self.resolve_by_components(path, flags),
                opened => return opened.map_err(|error| refused(path, error)),
            }
        }
        Err(io::Error::other(format!("{} is changed all the time", path.display())))
    }

    fn resolve_by_components(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let name = last(path)?;
        let mut directory = self.0.try_clone()?;
        for component in path.parent().into_iter().flat_map(Path::components) {
            let Component::Normal(part) = component else { return Err(outside(path)) };
            directory = open_component(&directory, part).map_err(|error| refused(path, error))?;
        }
        let opened = rustix::fs::openat(&directory, name, flags | OFlags::NOFOLLOW, Mode::empty());
        opened.map_err(|error| refused(path, error))
    }
}

/// Creates a directory of the server's own, for temporary files of a task.
pub fn fresh_directory(path: &Path) -> io::Result<()> {
    match remove_tree(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir(path)
}

/// Opens a file to lock it, and creates it if it does not exist. What a job has planted in its place is removed: a FIFO would
/// be waited for.
pub fn lock_file(path: &Path) -> io::Result<File> {
    match path.symlink_metadata() {
        Ok(found) if !found.is_file() => remove_tree(path)?,
        _ => {}
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    File::options().create(true).append(true).custom_flags(flags.bits().cast_signed()).open(path)
}

fn last(path: &Path) -> io::Result<&OsStr> {
    match path.components().next_back() {
        Some(Component::Normal(name)) => Ok(name),
        _ => Err(outside(path)),
    }
}

fn open_component(directory: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(directory, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

fn create(parent: &OwnedFd, name: &OsStr) -> Result<File, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, FILE_MODE | Mode::RGRP | Mode::ROTH).map(File::from)
}

fn create_unfinished(parent: &OwnedFd) -> io::Result<File> {
    let name = OsStr::new(UNFINISHED);
    clear(parent, name)?; // of a task that was killed, or planted by a job
    Ok(create(parent, name)?)
}

/// Makes a name free. A directory that is not empty is moved aside: it may hold what a job has made, and it may be too
/// large to be removed now.
fn clear(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            Ok(rustix::fs::renameat(parent, name, parent, format!("{REPLACED}{}", now.as_nanos()))?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Renames a file to a name that is made free first if a directory has it.
fn rename_over(from: &OwnedFd, name: &OsStr, to: &OwnedFd, new: &OsStr) -> io::Result<()> {
    match rustix::fs::renameat(from, name, to, new) {
        Err(Errno::ISDIR) => {
            clear(to, new)?;
            Ok(rustix::fs::renameat(from, name, to, new)?)
        }
        renamed => Ok(renamed?),
    }
}

/// Has an error of the system name the path.
fn named<T, E: Into<io::Error>>(path: &Path, result: Result<T, E>) -> io::Result<T> {
    result.map_err(|error| naming(path, error.into()))
}

fn naming(path: &Path, error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(_) => io::Error::new(error.kind(), format!("{}: {error}", path.display())),
        None => error,
    }
}

fn remove_from(parent: &impl AsFd, name: &OsStr) -> io::Result<()> {
    let parent: BorrowedFd<'_> = parent.as_fd();
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        removed => Ok(removed?),
    }
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

fn metadata(stat: &Stat) -> Metadata {
    let seconds = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or_default());
    Metadata {
        kind: kind(FileType::from_raw_mode(stat.st_mode)),
        length: u64::try_from(stat.st_size).unwrap_or_default(),
        modified: SystemTime::UNIX_EPOCH + seconds,
    }
}

fn kind(type_: FileType) -> Kind {
    match type_ {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Link,
        _ => Kind::Other,
    }
}

/// Whether an error says that something else is in the place of a file or a directory: a link, for example.
pub fn is_misplaced(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::InvalidInput)
}

fn outside(path: &Path) -> io::Error {
    let message = format!("{} is not a path below the directory", path.display());
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

fn not_a_file(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not a regular file", path.display()))
}

fn not_a_directory(path: &Path, name: &OsStr) -> io::Error {
    let message = format!("{} cannot be reached: {} is not a directory", path.display(), name.display());
    io::Error::new(io::ErrorKind::NotADirectory, message)
}

/// An error that names the path where the system's message would mislead.
fn refused(path: &Path, error: Errno) -> io::Error {
    let reason = match error {
        Errno::LOOP => "symbolic links are not followed",
        Errno::XDEV => "it leads out of the directory",
        Errno::NOTDIR => "a part of it is not a directory",
        Errno::NXIO => return not_a_file(path), // a socket, or a FIFO
        error => return naming(path, error.into()),
    };
    io::Error::new(io::ErrorKind::NotADirectory, format!("{} cannot be opened: {reason}", path.display()))
}

#[cfg(test)]
mod tests;
