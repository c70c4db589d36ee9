//! Removal of trees that jobs have shaped.
//!
//! A job can nest directories so deep that a recursive removal overflows the stack of its thread, which ends the process, and that
//! no path reaches them. So every directory is moved up into the top one before it is emptied: never is a directory
//! opened that is deeper than two levels, and the stack and the number of open files do not depend on the tree.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;

use super::DIRECTORY;

/// Prefix of the names of directories that were moved up.
const MOVED: &str = ".jobstream-removing-";

/// Removes a directory with all that jobs have put there, also below directories that they made read-only; or a file, or a
/// link. The path itself is trusted; no link below it is followed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let name = super::last(path)?;
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let parent = rustix::fs::open(parent, DIRECTORY, Mode::empty())?;
    let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Ok(unlinkat(&parent, name, AtFlags::empty())?);
    }
    unlock(&parent, name)?;
    let top = Top {
        directory: openat(&parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?,
        moved: 0,
        pending: Vec::new(),
    };
    top.clear()?;
    Ok(unlinkat(&parent, name, AtFlags::REMOVEDIR)?)
}

/// The directory that is to be removed.
struct Top {
    directory: OwnedFd,
    /// How many directories were moved up.
    moved: u64,
    /// The numbers of those that are to be emptied next.
    pending: Vec<u64>,
}

impl Top {
    /// Removes what is in it, level by level.
    fn clear(mut self) -> io::Result<()> {
        loop {
            let mut changed = false;
            for entry in Dir::read_from(&self.directory)? {
                let entry = entry?;
                let name = entry.file_name();
                if is_dots(name) {
                    continue;
                }
                changed |= match is_directory(&self.directory, name, entry.file_type())? {
                    Some(true) => self.clear_subtree(name)?,
                    Some(false) => is_done(unlinkat(&self.directory, name, AtFlags::empty()))?,
                    None => false,
                };
            }
            // Something may have been added meanwhile, or was not read. If nothing can be done, the last step fails and says why.
            if !changed {
                return Ok(());
            }
        }
    }

    /// Removes a directory, and those that are moved up from it.
    fn clear_subtree(&mut self, name: &CStr) -> io::Result<bool> {
        let mut changed = self.clear_directory(name)?;
        while let Some(number) = self.pending.pop() {
            changed |= self.clear_directory(format!("{MOVED}{number}").as_str())?;
        }
        Ok(changed)
    }

    /// Removes the files in a directory below this one, moves its directories up, and removes it. Says whether anything
    /// changed.
    fn clear_directory(&mut self, name: impl Arg + Copy) -> io::Result<bool> {
        let Some(()) = found(unlock(&self.directory, name))? else { return Ok(false) };
        let opened = openat(&self.directory, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
        let Some(directory) = found(opened)? else { return Ok(false) };
        let mut changed = false;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dots(name) {
                continue;
            }
            changed |= match is_directory(&directory, name, entry.file_type())? {
                Some(true) => self.move_up(&directory, name)?,
                Some(false) => is_done(unlinkat(&directory, name, AtFlags::empty()))?,
                None => false,
            };
        }
        match unlinkat(&self.directory, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(changed), // the next pass sees what is left
            removed => Ok(is_done(removed)? || changed),
        }
    }

    fn move_up(&mut self, from: &OwnedFd, name: &CStr) -> io::Result<bool> {
        // An empty one needs not be moved. Another has to be writable, as its entry `..` changes.
        match unlinkat(from, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS | Errno::PERM) => {}
            removed => return Ok(is_done(removed)?),
        }
        let Some(()) = found(unlock(from, name))? else { return Ok(false) };
        loop {
            let new = format!("{MOVED}{}", self.moved);
            self.moved += 1;
            match renameat(from, name, &self.directory, &new) {
                // Another removal that was interrupted, or a job, has made something of this name.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                // It has to wait until some of the others are removed.
                Err(Errno::MLINK) => return Ok(false),
                moved => {
                    let moved = is_done(moved)?;
                    self.pending.extend(moved.then_some(self.moved - 1));
                    return Ok(moved);
                }
            }
        }
    }
}

/// Lets the owner read and change a directory. One that cannot be read can be opened as a path only.
fn unlock(parent: &OwnedFd, name: impl Arg) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(parent, name, flags, Mode::empty())?;
    if !Mode::from_raw_mode(fstat(&directory)?.st_mode).contains(Mode::RWXU) {
        // If it belongs to somebody else, what comes next fails.
        let _ = rustix::fs::chmod(format!("/proc/self/fd/{}", directory.as_raw_fd()), Mode::RWXU);
    }
    Ok(())
}

/// Whether an entry is a directory; `None` if it is gone.
fn is_directory(parent: impl AsFd, name: &CStr, type_: FileType) -> Result<Option<bool>, Errno> {
    match type_ {
        FileType::Unknown => {
            let stat = found(statat(parent, name, AtFlags::SYMLINK_NOFOLLOW))?;
            Ok(stat.map(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory))
        }
        known => Ok(Some(known == FileType::Directory)),
    }
}

fn is_dots(name: &CStr) -> bool {
    name == c"." || name == c".."
}

/// Nothing, if something is gone already.
fn found<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Err(Errno::NOENT) => Ok(None),
        result => result.map(Some),
    }
}

fn is_done(result: Result<(), Errno>) -> Result<bool, Errno> {
    Ok(found(result)?.is_some())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn nest(top: &Path, levels: usize) {
        fs::create_dir(top).unwrap();
        let mut directory = rustix::fs::open(top, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..levels {
            rustix::fs::mkdirat(&directory, "d", Mode::RWXU).unwrap();
            drop(fs::File::from(openat(&directory, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap()));
            directory = openat(&directory, "d", DIRECTORY, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn a_tree_that_no_path_reaches_is_removed_on_a_small_stack() {
        let root = tempfile::tempdir().unwrap();
        let top = root.path().join("top");
        nest(&top, 20_000);
        let removed = top.clone();
        let thread = std::thread::Builder::new().stack_size(128 << 10).spawn(move || remove_tree(&removed));
        thread.unwrap().join().unwrap().unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn links_planted_names_and_read_only_directories_are_removed_and_nothing_outside() {
        let root = tempfile::tempdir().unwrap();
        let (top, outside) = (root.path().join("top"), root.path().join("outside"));
        fs::create_dir_all(top.join("a/b/c/d")).unwrap();
        fs::create_dir_all(top.join("a/e/f")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        symlink(&outside, top.join("a/b/link")).unwrap();
        symlink(&outside, top.join("link")).unwrap();
        symlink(&outside, top.join(format!("{MOVED}0"))).unwrap();
        fs::create_dir_all(top.join(format!("{MOVED}1/{MOVED}2/x"))).unwrap();
        fs::write(top.join(format!("{MOVED}3")), "").unwrap();
        for path in ["a/b/c", "a/b", "a", ""] {
            fs::set_permissions(top.join(path), fs::Permissions::from_mode(0o000)).unwrap();
        }
        remove_tree(&top).unwrap();
        assert!(!top.exists() && outside.join("kept").exists());
        symlink(&outside, &top).unwrap();
        remove_tree(&top).unwrap();
        assert!(top.symlink_metadata().is_err() && outside.join("kept").exists());
        assert_eq!(remove_tree(&top).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
