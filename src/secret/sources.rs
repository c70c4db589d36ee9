//! Where the token and the address of the database come from.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::mem::ManuallyDrop;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::io::FdFlags;
use zeroize::Zeroizing;

use super::TOKEN;
use crate::store::DatabaseUrl;

/// The most bytes that are read for a secret.
const MAX_BYTES: u64 = 64 * 1024;
const STDOUT: RawFd = 1;
const STDERR: RawFd = 2;

/// Secret options
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Secrets")]
pub struct SecretOptions {
    /// Read the token from this open file descriptor, as in `--token-fd 0 < FILE`, and close it.
    /// The safest way: root opens a file that only root can read, for example with
    /// `StandardInput=file:FILE` in a systemd unit.
    #[arg(long, env = "JOBSTREAM_TOKEN_FD", value_name = "NUMBER", value_parser = descriptor_number)]
    pub token_fd: Option<RawFd>,

    /// Read the token from this file, which other users must not be able to read. Jobs can, as they
    /// run as the user of the server.
    #[arg(long, env = "JOBSTREAM_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Read the value of --database-url from this open file descriptor. If it is the same as
    /// --token-fd, the first line is the token and the second line the URL.
    #[arg(long, env = "JOBSTREAM_DATABASE_URL_FD", value_name = "NUMBER", value_parser = descriptor_number)]
    pub database_url_fd: Option<RawFd>,

    /// Read the value of --database-url from this file, which other users must not be able to read.
    /// Jobs can.
    #[arg(long, env = "JOBSTREAM_DATABASE_URL_FILE", value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,
}

/// The secrets that the program was given. Its `Debug` hides them.
#[derive(Default)]
pub struct Secrets {
    /// The token that clients must show.
    pub token: Option<String>,
    /// Where the token came from.
    pub token_source: Option<Source>,
    /// Where the address of the database came from.
    pub database_url_source: Option<Source>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { token: _, token_source, database_url_source } = self;
        f.debug_struct("Secrets")
            .field("token_source", token_source)
            .field("database_url_source", database_url_source)
            .finish_non_exhaustive()
    }
}

/// Where a secret came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Argument,
    /// An environment variable.
    Variable,
    /// A file that the program opened.
    File(PathBuf),
    /// A descriptor that was open when the program started.
    Descriptor {
        /// Its number.
        number: RawFd,
        /// Whether it leads to a file that this user can open too.
        can_be_opened: bool,
    },
}

/// Why secrets cannot be read. No message shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Two options give the same secret.
    #[error("{one} and {other} both give {what}: use one of them")]
    GivenTwice {
        /// What they give.
        what: &'static str,
        /// One of them.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// A secret cannot be read.
    #[error("{option}: {why}")]
    Unreadable {
        /// The option, with its value.
        option: String,
        /// Why.
        why: String,
    },
}

/// An option that gives a secret.
enum SecretLocation<'a> {
    Variable(&'a OsString),
    File(&'static str, &'a Path),
    Descriptor(&'static str, RawFd),
}

impl SecretLocation<'_> {
    /// How messages name the option.
    fn option(&self) -> String {
        match self {
            Self::Variable(_) => TOKEN.to_owned(),
            Self::File(option, path) => format!("{option} {}", path.display()),
            Self::Descriptor(option, number) => format!("{option} {number}"),
        }
    }

    fn failed(&self, why: impl ToString) -> SecretError {
        SecretError::Unreadable { option: self.option(), why: why.to_string() }
    }
}

impl Secrets {
    /// Reads the secrets. `token` is the value of `JOBSTREAM_TOKEN`; `url` is the address of the
    /// database, if an argument or a variable gave it, and is set if a descriptor or a file gives
    /// it.
    ///
    /// Call it before the program opens descriptors of its own.
    pub fn read(
        options: &SecretOptions,
        token: Option<&OsString>,
        url: &mut Option<DatabaseUrl>,
    ) -> Result<Self, SecretError> {
        let SecretOptions { token_fd, token_file, database_url_fd, database_url_file } = options;
        let variable = token.map(|it| (TOKEN, SecretLocation::Variable(it)));
        let file = token_file.as_deref().map(|it| ("--token-file", SecretLocation::File("--token-file", it)));
        let descriptor = token_fd.map(|it| ("--token-fd", SecretLocation::Descriptor("--token-fd", it)));
        let token = only("the token", [variable, file, descriptor])?;
        let file = database_url_file
            .as_deref()
            .map(|it| ("--database-url-file", SecretLocation::File("--database-url-file", it)));
        let descriptor =
            database_url_fd.map(|it| ("--database-url-fd", SecretLocation::Descriptor("--database-url-fd", it)));
        let database_url = only("the address of the database", [file, descriptor])?;
        if let (Some(_), Some(place)) = (&url, &database_url) {
            let what = "the address of the database";
            return Err(
                place.failed(format!("--database-url or JOBSTREAM_DATABASE_URL gives {what} too: use one of them"))
            );
        }

        let mut found = Self { database_url_source: url.as_ref().map(|_| source_of_database_url()), ..Self::default() };
        let shares_descriptor = token_fd.is_some() && token_fd == database_url_fd;
        let mut second_line = None;
        if let Some(place) = token {
            let (mut lines, source) = place.read(if shares_descriptor { 2 } else { 1 })?;
            second_line = shares_descriptor.then(|| lines.pop()).flatten().map(|line| (line, source.clone()));
            found.token = lines.pop().map(|line| line.to_string());
            found.token_source = Some(source);
        }
        if let Some(place) = database_url {
            let (line, source) = match second_line {
                Some(second) => second,
                None => {
                    let (mut lines, source) = place.read(1)?;
                    (lines.pop().unwrap_or_default(), source)
                }
            };
            *url = Some(line.parse().map_err(|why: String| place.failed(why))?);
            found.database_url_source = Some(source);
        }
        Ok(found)
    }
}

/// The one option of these that was used.
fn only<'a, const N: usize>(
    what: &'static str,
    options: [Option<(&'static str, SecretLocation<'a>)>; N],
) -> Result<Option<SecretLocation<'a>>, SecretError> {
    let mut found = options.into_iter().flatten();
    match (found.next(), found.next()) {
        (Some((one, _)), Some((other, _))) => Err(SecretError::GivenTwice { what, one, other }),
        (found, _) => Ok(found.map(|(_, place)| place)),
    }
}

/// Whether the address of the database was an argument or a variable. An argument takes precedence.
fn source_of_database_url() -> Source {
    let is_it = |argument: OsString| {
        let argument = argument.to_string_lossy();
        argument == "--database-url" || argument.starts_with("--database-url=")
    };
    if std::env::args_os().any(is_it) { Source::Argument } else { Source::Variable }
}

impl SecretLocation<'_> {
    /// Reads this many lines, and nothing must come after them.
    fn read(&self, count: usize) -> Result<(Vec<Zeroizing<String>>, Source), SecretError> {
        let (file, source) = match self {
            Self::Variable(value) => {
                let value = value.to_str().ok_or_else(|| self.failed("the value is not UTF-8"))?;
                return Ok((vec![Zeroizing::new(value.to_owned())], Source::Variable));
            }
            Self::File(_, path) => {
                let file = File::open(path).map_err(|error| self.failed(error))?;
                let mode = file.metadata().map_err(|error| self.failed(error))?.mode();
                if mode & 0o007 != 0 {
                    let why =
                        format!("every user of this machine can open the file (mode {:03o}): chmod 600", mode & 0o777);
                    return Err(self.failed(why));
                }
                (file, Source::File(path.to_path_buf()))
            }
            Self::Descriptor(_, number) => {
                let file = inherited(*number).map_err(|error| self.failed(error))?;
                let can_be_opened = file.metadata().is_ok_and(|it| can_be_opened(&it));
                (file, Source::Descriptor { number: *number, can_be_opened })
            }
        };
        let mut text = Zeroizing::new(String::new());
        let read = file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| self.failed(error))?;
        if u64::try_from(read).unwrap_or(u64::MAX) > MAX_BYTES {
            return Err(self.failed("there are more than 64 KiB"));
        }
        let lines: Vec<_> = text.trim_end().lines().map(|line| Zeroizing::new(line.trim_end().to_owned())).collect();
        match (lines.len(), count) {
            (found, wanted) if found == wanted => Ok((lines, source)),
            (0, _) => Err(self.failed("there is nothing to read")),
            (found, 1) => Err(self.failed(format!("there are {found} lines where one is expected"))),
            (found, _) => {
                let expected = "two are expected, the token and the address of the database";
                Err(self.failed(format!("the number of lines is {found} where {expected}")))
            }
        }
    }
}

/// Takes a descriptor that was open when the program started.
#[allow(unsafe_code, reason = "a descriptor that came from outside has only its number")]
fn inherited(number: RawFd) -> io::Result<File> {
    let not_open = || io::Error::other("the descriptor is not open");
    // SAFETY: it is borrowed for this call only; if it is not open, the call fails and nothing
    // happens.
    let flags = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).map_err(|_| not_open())?;
    // What the program opened itself has this flag, with which it would not have survived the exec.
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(not_open());
    }
    // SAFETY: the descriptor is open, and was inherited, so nothing in this program owns it.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    if number != 0 {
        return Ok(File::from(owned));
    }
    // Standard input stays open, as /dev/null: another file must not get its number.
    let mut standard_input = ManuallyDrop::new(owned);
    let copy = File::from(standard_input.try_clone()?);
    rustix::io::dup2(File::open("/dev/null")?, &mut standard_input)?;
    Ok(copy)
}

/// Whether this user can open the file by its name: then jobs can read the secret too. Nothing else
/// can be read a second time.
fn can_be_opened(metadata: &Metadata) -> bool {
    let user = rustix::process::geteuid();
    let groups = rustix::process::getgroups().unwrap_or_default();
    let is_in_group = groups.into_iter().chain([rustix::process::getegid()]).any(|it| it.as_raw() == metadata.gid());
    let mode = metadata.mode();
    let may_open =
        user.is_root() || metadata.uid() == user.as_raw() || mode & 0o004 != 0 || (is_in_group && mode & 0o040 != 0);
    metadata.is_file() && metadata.nlink() > 0 && may_open
}

/// Reads a number that may be that of a descriptor with a secret.
fn descriptor_number(text: &str) -> Result<RawFd, String> {
    match text.parse() {
        Ok(STDOUT | STDERR) => Err("1 and 2 are standard output and standard error".to_owned()),
        Ok(number) if number >= 0 => Ok(number),
        _ => Err("it is the number of an open file descriptor, such as 0".to_owned()),
    }
}
