//! The file that holds the key: one line of base64. While the key is being replaced it holds two: the new one, then the old one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::Generate;
use zeroize::Zeroizing;

use super::Cipher;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or made.
    #[error("the key file {0} cannot be used: {1}")]
    Unusable(PathBuf, io::Error),
    /// What it holds is no key.
    #[error("the key file {0} does not hold a key: 32 bytes in base64")]
    NoKey(PathBuf),
    /// There is no file, and what is stored needs one.
    #[error(
        "there is no key file {0}, and the database holds sensitive values. Give the server their key with --key-file"
    )]
    Missing(PathBuf),
    /// What is stored was sealed with another key.
    #[error(
        "the key in {0} is not that of the sensitive values in the database. Give the server their key with --key-file"
    )]
    AnotherKey(PathBuf),
}

/// A key, as its file has it.
#[derive(Clone)]
pub struct Key {
    line: Zeroizing<String>,
    cipher: Cipher,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.cipher.fmt(f)
    }
}

/// A file with one key, or with two while the key is being replaced.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
    keys: Vec<Key>,
}

impl Key {
    /// A new one.
    pub fn generate() -> Option<Self> {
        let key = chacha20poly1305::aead::Key::<XChaCha20Poly1305>::generate();
        Self::parse(&Zeroizing::new(STANDARD.encode(key)))
    }

    fn parse(line: &str) -> Option<Self> {
        let bytes = Zeroizing::new(STANDARD.decode(line).ok()?);
        Some(Self { line: Zeroizing::new(line.to_owned()), cipher: Cipher::new(&bytes)? })
    }

    /// Seals and opens with it.
    pub fn cipher(&self) -> &Cipher {
        &self.cipher
    }
}

impl KeyFile {
    /// Reads a file, if it is there.
    pub fn read(path: &Path) -> Result<Option<Self>, KeyError> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(KeyError::Unusable(path.to_owned(), error)),
            Ok(text) => Zeroizing::new(text),
        };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys = lines.map(Key::parse).collect::<Option<Vec<Key>>>().filter(|keys| (1..=2).contains(&keys.len()));
        let keys = keys.ok_or_else(|| KeyError::NoKey(path.to_owned()))?;
        Ok(Some(Self { path: path.to_owned(), keys }))
    }

    /// Makes a file with a new key, whole or not at all. If another process has made it meanwhile, it is that one's.
    pub(super) fn make(path: &Path) -> Result<Self, KeyError> {
        let unusable = |error| KeyError::Unusable(path.to_owned(), error);
        let no_key = || KeyError::NoKey(path.to_owned());
        let key = Key::generate().ok_or_else(no_key)?;
        let temporary = write_beside(path, &[&key], None).map_err(unusable)?;
        let linked = fs::hard_link(&temporary, path);
        fs::remove_file(&temporary).map_err(unusable)?;
        sync_directory(path).map_err(unusable)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(unusable(error)),
            _ => Self::read(path)?.ok_or_else(no_key),
        }
    }

    /// The keys that the file held when it was read.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Replaces what the file holds, at once and for good. Its owner and its mode stay as they are.
    pub fn replace(&self, keys: &[&Key]) -> Result<(), KeyError> {
        let replace = || {
            // A link stays, and what it leads to changes.
            let path = self.path.canonicalize()?;
            let temporary = write_beside(&path, keys, Some(&path.metadata()?))?;
            fs::rename(&temporary, &path).inspect_err(|_| drop(fs::remove_file(&temporary)))?;
            sync_directory(&path)
        };
        replace().map_err(|error| KeyError::Unusable(self.path.clone(), error))
    }
}

/// Writes keys to a new file beside another, for the same users as that one, or for this user only.
fn write_beside(path: &Path, keys: &[&Key], like: Option<&fs::Metadata>) -> io::Result<PathBuf> {
    let mut temporary = path.to_owned().into_os_string();
    // Servers on several machines may do this at the same time, and have the same process ids.
    temporary.push(format!(".{}", uuid::Uuid::new_v4()));
    let temporary = PathBuf::from(temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let mut write = || {
        if let Some(like) = like {
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
                fchown(&file, Some(like.uid()), Some(like.gid()))?;
            }
            file.set_permissions(fs::Permissions::from_mode(like.mode() & 0o777))?;
        }
        for key in keys {
            writeln!(file, "{}", *key.line)?;
        }
        file.sync_all()
    };
    match write() {
        Ok(()) => Ok(temporary),
        Err(error) => {
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

/// What is sealed with a key must not outlive it.
fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) if directory.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_keys_serves_what_either_has_sealed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let old = KeyFile::make(&path).unwrap();
        let (old_key, new_key) = (old.keys()[0].clone(), Key::generate().unwrap());
        let (of_old, of_new) = (old_key.cipher().fingerprint().to_owned(), new_key.cipher().fingerprint().to_owned());
        old.replace(&[&new_key, &old_key]).unwrap();
        assert_eq!(Cipher::open(&path, Some(&of_old)).unwrap().fingerprint(), of_old);
        assert_eq!(Cipher::open(&path, Some(&of_new)).unwrap().fingerprint(), of_new);
        assert_eq!(Cipher::open(&path, None).unwrap().fingerprint(), of_new);
        old.replace(&[&new_key]).unwrap();
        assert!(matches!(Cipher::open(&path, Some(&of_old)), Err(KeyError::AnotherKey(_))));
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        fs::write(&path, format!("{0}\n{0}\n{0}\n", *new_key.line)).unwrap();
        assert!(matches!(KeyFile::read(&path), Err(KeyError::NoKey(_))));
    }

    #[test]
    fn a_file_that_a_link_leads_to_keeps_its_link_and_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("key"), directory.path().join("link"));
        KeyFile::make(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("key", &link).unwrap();
        let key = Key::generate().unwrap();
        KeyFile::read(&link).unwrap().unwrap().replace(&[&key]).unwrap();
        assert!(link.is_symlink());
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o640);
        assert_eq!(KeyFile::read(&path).unwrap().unwrap().keys()[0].cipher().fingerprint(), key.cipher().fingerprint());
    }
}
