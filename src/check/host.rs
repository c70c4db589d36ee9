//! What is checked of the options and of this machine.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access, statvfs};
use tracing_subscriber::EnvFilter;

use super::database::Key;
use super::{Findings, Places};
use crate::catalogue::Catalogue;
use crate::cipher::{Cipher, KeyFile};
use crate::config::Options;
use crate::task::on_path;
use crate::zone::{self, Source};

/// Less room than this on a disk is worth a remark.
const LITTLE_ROOM: u64 = 1 << 30;

pub(super) fn options(options: &Options, token: Option<&str>, findings: &mut Findings<'_>) {
    let before = findings.is_well;
    if let Err(error) = options.access(token) {
        findings.wrong(error.to_string());
    }
    if let Err(error) = EnvFilter::try_new(&options.log) {
        findings.wrong(format!("--log {}: {error}", options.log));
    }
    if let Err(error) = options.graphql.check() {
        findings.wrong(error.to_string());
    }
    if options.shared_dir.is_some() && options.database.database_url.is_none() {
        findings.remark("--shared-dir is for servers that share a PostgreSQL database, and there is no --database-url: it is not used");
    }
    if findings.is_well == before {
        findings.ok("the options can be used together");
    }
}

/// Which copy of the IANA database the time zone of schedules is from.
pub(super) fn time_zone(options: &Options, findings: &mut Findings<'_>) {
    let zone = &options.time_zone;
    let (version, source) = (zone.source().version(), zone.source());
    match source {
        Source::Program => findings.ok(format!(
            "the time zone {zone} is as in the IANA database {version}, which is compiled in; the machine has no newer one"
        )),
        Source::Machine(..) => findings.ok(format!(
            "the time zone {zone} is as in the machine's IANA database {version}, in {source}; {} is compiled in",
            zone::compiled_version()
        )),
    }
}

pub(super) fn listener(options: &Options, findings: &mut Findings<'_>) {
    for address in [Some(options.listen), options.admin_listen].into_iter().flatten() {
        can_listen(address, findings);
    }
}

fn can_listen(address: SocketAddr, findings: &mut Findings<'_>) {
    match TcpListener::bind(address) {
        Ok(_) => findings.ok(format!("{address} can be listened at")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            findings.remark(format!(
                "somebody listens at {address} already; a server that runs with these options, if one does"
            ));
        }
        Err(error) => findings.wrong(format!("{address} cannot be listened at: {error}")),
    }
}

pub(super) fn data_directory(places: &Places, findings: &mut Findings<'_>) {
    directory("the data directory", &places.data, findings);
    // Held for no longer than it takes to see that nobody else holds it.
    let lock = File::options().append(true).open(places.data.join("lock"));
    if lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock))) {
        findings.remark(format!(
            "a server is running on {}: another one needs a directory of its own",
            places.data.display()
        ));
    }
}

pub(super) fn shared_directory(options: &Options, places: &Places, findings: &mut Findings<'_>) {
    let Some(shared) = &places.shared else { return };
    if options.shared_dir.is_none() {
        findings.remark(format!(
            "there is no --shared-dir: {} is used, which is enough for one server. Several need one that all of them reach",
            shared.display()
        ));
    }
    directory("the shared directory", shared, findings);
}

/// Whether a directory can be used, or made.
fn directory(what: &str, path: &Path, findings: &mut Findings<'_>) {
    let shown = path.display();
    let Some(there) = path.ancestors().find(|it| it.exists()) else {
        return findings.wrong(format!("{what} {shown} cannot be made"));
    };
    if !there.is_dir() {
        findings.wrong(format!("{what} {shown} cannot be used: {} is not a directory", there.display()));
    } else if let Err(error) = access(there, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        findings.wrong(format!("{what} {shown} cannot be used: {} cannot be written: {error}", there.display()));
    } else if there == path {
        findings.ok(format!("{what} {shown} can be used"));
    } else {
        findings.ok(format!("{what} {shown} is not there yet; a server makes it"));
    }
    if let Ok(disk) = statvfs(there)
        && disk.f_bavail * disk.f_frsize < LITTLE_ROOM
    {
        findings.remark(format!("{} MiB are free on the disk of {shown}", (disk.f_bavail * disk.f_frsize) >> 20));
    }
}

pub(super) fn programs(options: &Options, places: &Places, findings: &mut Findings<'_>) {
    for (name, what_for) in [("git", "the workspaces' repositories are"), ("bash", "pipelines run")] {
        match on_path(name) {
            Some(path) => findings.ok(format!("{name} is {}", path.display())),
            None => findings.wrong(format!("there is no {name} on the PATH, with which {what_for}")),
        }
    }
    let plugins = places.shared.iter().chain([&places.data]).map(|it| it.join("plugins")).collect::<Vec<_>>();
    match Catalogue::read(&plugins) {
        Ok(_) => findings.ok("the definitions of data plugins can be read"),
        Err(error) => findings.wrong(error.to_string()),
    }
    let meltano = options.meltano.found_in(places.data.join("meltano"), places.data.join("meltano/state"));
    match meltano.missing() {
        None => findings.ok("Meltano is there, or can be installed"),
        Some(why) => findings.remark(format!("pipelines that load data cannot run; scripts can. {why}")),
    }
}

/// Whether the key is there that the database needs, and nobody else can read it.
pub(super) fn key_file(path: &Path, key: Key, findings: &mut Findings<'_>) {
    let shown = path.display();
    let wanted = match &key {
        Key::Needed(fingerprint) => Some(fingerprint.as_str()),
        Key::None | Key::Unknown => None,
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        // What follows from that if it is wanted, the cipher says. If nobody knows, it must not make one.
        Err(error) if error.kind() == ErrorKind::NotFound && wanted.is_none() => {
            return match key {
                Key::Unknown => findings.remark(format!("there is no key file {shown}")),
                _ => findings.ok(format!("there is no key file {shown} yet; a server makes it")),
            };
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return match Cipher::open(path, wanted) {
                Ok(_) => {}
                Err(error) => findings.wrong(error.to_string()),
            };
        }
        Err(error) => return findings.wrong(format!("the key file {shown} cannot be used: {error}")),
    };
    match Cipher::open(path, wanted) {
        Err(error) => findings.wrong(error.to_string()),
        Ok(cipher) if wanted.is_some() => {
            findings.ok(format!("the key in {shown} ({}) is that of the database", cipher.fingerprint()));
        }
        Ok(cipher) => findings.ok(format!("the key in {shown} ({}) can be used", cipher.fingerprint())),
    }
    if KeyFile::read(path).is_ok_and(|file| file.is_some_and(|file| file.keys().len() > 1)) {
        findings.remark(format!("{shown} holds two keys: a rotation was interrupted. Complete it with rotate-key"));
    }
    if metadata.mode() & 0o007 != 0 {
        findings.wrong(format!("everybody on this machine can reach the key in {shown}: chmod 600 {shown}"));
    } else if metadata.mode() & 0o070 != 0 {
        findings.remark(format!("the group {} can reach the key in {shown}", metadata.gid()));
    }
}
