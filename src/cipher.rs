//! Sealing: how sensitive values are stored. What is sealed can be opened only with a key that is kept outside of the database.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, Generate, Key, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::model::{Id, Sealed};

/// Seals and opens with one key. Clones share it.
#[derive(Clone)]
pub struct Cipher {
    aead: Arc<XChaCha20Poly1305>,
    fingerprint: Arc<str>,
}

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

impl Cipher {
    /// The cipher whose key is in this file, which has to have the fingerprint of what is sealed already. Where there is no file and nothing is,
    /// one is made with a new key, for this user only.
    pub fn open(path: &Path, wanted: Option<&str>) -> Result<Self, KeyError> {
        let unusable = |error| KeyError::Unusable(path.to_owned(), error);
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && wanted.is_some() => {
                return Err(KeyError::Missing(path.to_owned()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(path).map_err(unusable)?,
            text => text.map_err(unusable)?,
        };
        let no_key = || KeyError::NoKey(path.to_owned());
        let bytes = Zeroizing::new(STANDARD.decode(Zeroizing::new(text).trim()).map_err(|_| no_key())?);
        let aead = XChaCha20Poly1305::new_from_slice(&bytes).map_err(|_| no_key())?;
        // It tells one key from another, and nothing about either.
        let digest = Sha256::new_with_prefix(b"jobstream key fingerprint").chain_update(&*bytes).finalize();
        let fingerprint: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        if wanted.is_some_and(|wanted| wanted != fingerprint) {
            return Err(KeyError::AnotherKey(path.to_owned()));
        }
        Ok(Self { aead: Arc::new(aead), fingerprint: fingerprint.into() })
    }

    /// What tells the key from others.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Seals a value for the place where it will be stored: only there can it be opened.
    pub fn seal<T>(&self, owner: Id<T>, name: &str, value: &str) -> Result<Sealed, Error> {
        let nonce = XNonce::generate();
        let place = place(owner, name);
        let payload = Payload { msg: value.as_bytes(), aad: &place };
        let sealed = self.aead.encrypt(&nonce, payload).map_err(|_| Error::internal("a value cannot be sealed"))?;
        Ok(Sealed::from(STANDARD.encode([nonce.as_slice(), &sealed].concat())))
    }

    /// Opens what was sealed for this place.
    pub fn unseal<T>(&self, owner: Id<T>, name: &str, sealed: &Sealed) -> Result<Zeroizing<String>, Error> {
        let opened = || {
            let bytes = STANDARD.decode(sealed.as_str()).ok()?;
            let (nonce, sealed) = bytes.split_first_chunk::<24>()?;
            let place = place(owner, name);
            let value = self.aead.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &place }).ok()?;
            String::from_utf8(value).ok().map(Zeroizing::new)
        };
        opened().ok_or_else(|| Error::internal("a sealed value cannot be opened: it is damaged, or the key is another"))
    }
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cipher").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

fn place<T>(owner: Id<T>, name: &str) -> Vec<u8> {
    [owner.as_bytes(), name.as_bytes()].concat()
}

/// Writes a new key whole or not at all, and answers it. If somebody else has made the file meanwhile, it is that one's.
fn make(path: &Path) -> io::Result<String> {
    let key = Zeroizing::new(STANDARD.encode(Key::<XChaCha20Poly1305>::generate()));
    let mut temporary = path.to_owned().into_os_string();
    // Servers on several machines may do this at the same time, and have the same process ids.
    temporary.push(format!(".{}", uuid::Uuid::new_v4()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    writeln!(file, "{}", *key)?;
    file.sync_all()?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    // What is sealed with it must not outlive it.
    if let Some(directory) = path.parent() {
        File::open(if directory.as_os_str().is_empty() { Path::new(".") } else { directory })?.sync_all()?;
    }
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::read_to_string(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PipelineId;

    fn cipher() -> Cipher {
        let directory = tempfile::tempdir().unwrap();
        Cipher::open(&directory.path().join("key"), None).unwrap()
    }

    #[test]
    fn what_is_sealed_is_opened_in_its_place_only() {
        let (cipher, owner) = (cipher(), PipelineId::random());
        let sealed = cipher.seal(owner, "tap-x.password", "hunter2").unwrap();
        assert_eq!(*cipher.unseal(owner, "tap-x.password", &sealed).unwrap(), "hunter2");
        assert!(cipher.unseal(owner, "tap-x.user", &sealed).is_err());
        assert!(cipher.unseal(PipelineId::random(), "tap-x.password", &sealed).is_err());
        assert!(self::cipher().unseal(owner, "tap-x.password", &sealed).is_err());
        assert_ne!(cipher.seal(owner, "tap-x.password", "hunter2").unwrap().as_str(), sealed.as_str());
    }

    #[test]
    fn the_key_stays_what_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert!(matches!(Cipher::open(&path, Some("another")), Err(KeyError::Missing(_))));
        let first = Cipher::open(&path, None).unwrap();
        assert_eq!(first.fingerprint(), Cipher::open(&path, Some(first.fingerprint())).unwrap().fingerprint());
        assert!(matches!(Cipher::open(&path, Some("another")), Err(KeyError::AnotherKey(_))));
        fs::write(&path, "no key").unwrap();
        assert!(matches!(Cipher::open(&path, None), Err(KeyError::NoKey(_))));
    }
}
