//! Sealing: how sensitive values are stored. What is sealed can be opened only with a key that is kept outside of the database.

mod key_file;

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, Generate, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::model::{Id, Sealed};

pub use key_file::{Key, KeyError, KeyFile};

/// Seals and opens with one key. Clones share it.
#[derive(Clone)]
pub struct Cipher {
    aead: Arc<XChaCha20Poly1305>,
    fingerprint: Arc<str>,
}

impl Cipher {
    /// The cipher whose key is in this file, which has to have the fingerprint of what is sealed already. Where there is no file and nothing is,
    /// one is made with a new key, for this user only.
    pub fn open(path: &Path, wanted: Option<&str>) -> Result<Self, KeyError> {
        let file = match KeyFile::read(path)? {
            Some(file) => file,
            None if wanted.is_some() => return Err(KeyError::Missing(path.to_owned())),
            None => KeyFile::make(path)?,
        };
        // There are two while the key is being replaced. The database says which of them is in use.
        let used = file.keys().iter().find(|key| wanted.is_none_or(|wanted| key.cipher().fingerprint() == wanted));
        used.map(|key| key.cipher().clone()).ok_or_else(|| KeyError::AnotherKey(path.to_owned()))
    }

    fn new(key: &[u8]) -> Option<Self> {
        let aead = XChaCha20Poly1305::new_from_slice(key).ok()?;
        // It tells one key from another, and nothing about either.
        let digest = Sha256::new_with_prefix(b"jobstream key fingerprint").chain_update(key).finalize();
        let fingerprint: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Self { aead: Arc::new(aead), fingerprint: fingerprint.into() })
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

#[cfg(test)]
mod tests {
    use std::fs;

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
