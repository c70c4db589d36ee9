//! Replacing the key that sensitive values are sealed with: `jobstream rotate-key`.
//!
//! No server may be at work meanwhile: one that has the old key in memory would go on sealing with it. The steps, of which any may be the last:
//!
//! 1. The key file holds both keys. A server reads which of them is in use from the database, so it starts with either.
//! 2. One transaction seals every value with the new key, and notes that one in the database.
//! 3. The key file holds the new key alone.
//!
//! A rotation that was interrupted is completed by the next one.

use std::io::Write;
use std::path::Path;

use futures_util::FutureExt;
use serde_json::Value;

use crate::cipher::{Cipher, Key, KeyError, KeyFile};
use crate::config::Options;
use crate::directory::Directory;
use crate::error::Error;
use crate::jobs::WEBHOOK_SECRET;
use crate::metrics::Metrics;
use crate::model::{HomeId, Id, Sealed};
use crate::server::{Failure, explain, open_store};
use crate::store::{Conn, Store};

/// How many definitions are in memory at a time.
const DEFINITIONS: i64 = 500;

/// Replaces the key, and says what it has done.
pub async fn run(options: &Options, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let data = &options.data_dir;
    let known = if options.database.database_url.is_some() { data.clone() } else { data.join("jobstream.db") };
    if !known.exists() {
        return Err(format!(
            "{} does not exist: name the data directory of the server with --data-dir",
            known.display()
        )
        .into());
    }
    let directory = Directory::open(data)?;
    let store = open_store(&directory, options, &Metrics::default()).await?;
    let directory = if store.is_shared() { directory.sharing(options.shared_dir.as_deref())? } else { directory };
    let path = options.key_file.clone().unwrap_or_else(|| directory.key());
    let noted = store.read(|conn| conn.encryption_key().boxed()).await.map_err(explain)?;
    let Some(file) = KeyFile::read(&path)? else { return Err(missing(&path, noted.as_deref())) };

    let (new, old) = match Step::of(&file, noted.as_deref()) {
        None => return Err(KeyError::AnotherKey(path).into()),
        Some(Step::Finish(new)) => {
            file.replace(&[new])?;
            writeln!(out, "Completed the rotation that was interrupted: the old key was still in {}.", path.display())?;
            return Ok(());
        }
        Some(Step::Resume { new, old }) => {
            writeln!(out, "Resuming the rotation that was interrupted.")?;
            (new.clone(), old.clone())
        }
        Some(Step::Begin { old }) => {
            let new = Key::generate().ok_or("the operating system has no random numbers")?;
            (new, old.clone())
        }
    };
    file.replace(&[&new, &old])?;
    match reseal(&store, &old, &new, directory.home()).await {
        Ok(count) => writeln!(out, "Sealed {count} values with the new key.")?,
        // Whether it was committed is not known, so both keys stay.
        Err(error @ Error::Uncertain(_)) => {
            return Err(format!("{}. The key file holds both keys; run this again", text(&error)).into());
        }
        Err(error) => {
            file.replace(&[&old])?;
            return Err(text(&error).into());
        }
    }
    file.replace(&[&new])?;
    let fingerprint = new.cipher().fingerprint();
    writeln!(out, "The key in {} is new ({fingerprint}). Keep a copy of it, away from the database.", path.display())?;
    writeln!(out, "The old key ({}) still opens back-ups that were made before.", old.cipher().fingerprint())?;
    if store.is_shared() && options.key_file.is_some() {
        writeln!(out, "Servers with a key file of their own need a copy of this one before they start.")?;
    }
    Ok(())
}

/// What is to be done with a key file.
enum Step<'a> {
    /// There is one key.
    Begin { old: &'a Key },
    /// Both keys are there, and the values are sealed with the old one.
    Resume { new: &'a Key, old: &'a Key },
    /// Both keys are there, and the values are sealed with the new one.
    Finish(&'a Key),
}

impl<'a> Step<'a> {
    /// Nothing, if the key that the database needs is not in the file.
    fn of(file: &'a KeyFile, noted: Option<&str>) -> Option<Self> {
        let is_used = |key: &Key| noted.is_none_or(|noted| key.cipher().fingerprint() == noted);
        match file.keys() {
            [old] if is_used(old) => Some(Self::Begin { old }),
            [new, old] if is_used(old) => Some(Self::Resume { new, old }),
            [new, _] if is_used(new) => Some(Self::Finish(new)),
            _ => None,
        }
    }
}

fn missing(path: &Path, noted: Option<&str>) -> Failure {
    match noted {
        Some(_) => KeyError::Missing(path.to_owned()).into(),
        None => format!(
            "there is no key file {}, and nothing is sealed: a server makes a key when it starts",
            path.display()
        )
        .into(),
    }
}

/// Seals every value with the new key and notes that in the database: all, or nothing. Answers how many values there are.
async fn reseal(store: &Store, old: &Key, new: &Key, home: HomeId) -> Result<usize, Error> {
    let keys = Keys { old: old.cipher().clone(), new: new.cipher().clone() };
    let work = async move |conn: &mut Conn| {
        conn.lock_nodes().await?;
        no_server_is_registered(conn, home).await?;
        if conn.encryption_key().await?.is_some_and(|noted| noted != keys.old.fingerprint()) {
            return Err(Error::Conflict("the key was replaced by another process at the same time".to_owned()));
        }
        let mut count = 0;
        let mut last = None;
        loop {
            let definitions = conn.definitions_after(last, DEFINITIONS).await?;
            let Some((id, ..)) = definitions.last() else { break };
            last = Some(*id);
            for (id, pipeline, body) in definitions {
                let mut body: Value = serde_json::from_str(&body).map_err(Error::internal)?;
                let resealed = keys.reseal_properties(pipeline, &mut body["properties"])?;
                if resealed > 0 {
                    conn.rewrite_definition(id, &body.to_string()).await?;
                    count += resealed;
                }
            }
        }
        for (id, properties) in conn.all_component_properties().await? {
            let mut properties: Value = serde_json::from_str(&properties).map_err(Error::internal)?;
            let resealed = keys.reseal_properties(id, &mut properties)?;
            if resealed > 0 {
                conn.rewrite_component_properties(id, &properties.to_string()).await?;
                count += resealed;
            }
        }
        for (id, secret) in conn.all_webhook_secrets().await? {
            conn.rewrite_webhook_secret(id, &keys.reseal(id, WEBHOOK_SECRET, &secret)?).await?;
            count += 1;
        }
        // With no value that is sealed there is no key that the database needs.
        if count > 0 || conn.encryption_key().await?.is_some() {
            conn.replace_encryption_key(keys.new.fingerprint()).await?;
        }
        Ok(count)
    };
    store.write_at_length(move |conn| async move { work(conn).await }.boxed()).await
}

/// Refuses while a server may be at work that knows the old key. One on this data directory is gone: the directory is locked.
async fn no_server_is_registered(conn: &mut Conn, home: HomeId) -> Result<(), Error> {
    let (now, nodes) = (conn.now().await?, conn.nodes().await?);
    match nodes.iter().find(|node| node.home != home && !node.is_late(now)) {
        None => Ok(()),
        Some(node) => Err(Error::Conflict(format!(
            "the server {} is registered: stop all servers of the database first. If it is gone, its lease ends at {}",
            node.name, node.lease_until
        ))),
    }
}

struct Keys {
    old: Cipher,
    new: Cipher,
}

impl Keys {
    fn reseal<T>(&self, owner: Id<T>, name: &str, sealed: &Sealed) -> Result<Sealed, Error> {
        let value = self.old.unseal(owner, name, sealed).map_err(|_| {
            Error::internal(format!(
                "the value {name} of {owner} cannot be opened: it is damaged. Set it anew, then run this again"
            ))
        })?;
        self.new.seal(owner, name, &value)
    }

    /// Seals what is sealed among properties as they are stored, and answers how many there are.
    fn reseal_properties<T>(&self, owner: Id<T>, properties: &mut Value) -> Result<usize, Error> {
        let mut count = 0;
        for property in properties.as_array_mut().into_iter().flatten() {
            let (Some(name), Some(sealed)) = (property["name"].as_str(), property["sealed"].as_str()) else { continue };
            let resealed = self.reseal(owner, name, &Sealed::from(sealed.to_owned()))?;
            property["sealed"] = resealed.as_str().into();
            count += 1;
        }
        Ok(count)
    }
}

/// What an error says to the operator.
fn text(error: &Error) -> String {
    error.detail().map_or_else(|| error.to_string(), ToString::to_string)
}
