//! Where a clone comes from and goes to, and how git gets there.
//!
//! Whatever goes over git's protocols is done from a git directory of its own, which has the objects of the clone and nothing else of it: jobs can
//! write to the clone's configuration, and nothing that they have put there is used. The address is on the command line; what nobody is to
//! read is in the environment.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::Failure;
use super::git::Repository;
use super::gitdir::{BRANCH, DETOURS, read_reference};
use super::meltano::is_of_network;
use super::plumbing::{Complaint, git_in, one_line, plumbing, private, run, run_quietly};
use crate::confined::{ConfinedDirectory, lock_file};
use crate::model::RepositoryUrl;

/// Variables of the server's that say how its user gets to other repositories.
const OF_USER: [&str; 6] = ["GIT_CONFIG_GLOBAL", "GIT_SSH_COMMAND", "HOME", "SSH_AUTH_SOCK", "USER", "XDG_CONFIG_HOME"];
/// What answers git when it asks for a password. It reads them from the environment.
const HELPER: &str = r#"!answer() { test "$1" = get && printf 'username=%s\npassword=%s\n' "$JOBSTREAM_GIT_USER" "$JOBSTREAM_GIT_PASSWORD"; }; answer"#;
/// Jobs of every workspace can write to the repositories that servers share: no hook is run there. Over a network they may seem to belong to
/// somebody else.
const CAREFUL: &str = "git -c core.hooksPath=/dev/null -c safe.directory='*' -c receive.autogc=false -c core.fsync=all";

/// The repository that a clone comes from and goes to. Its `Debug` hides what nobody is to read.
#[derive(Clone, Serialize, Deserialize)]
pub struct Origin {
    address: String,
    shown: String,
    protocols: String,
    user: Option<String>,
    password: Option<String>,
    /// What git finds in its environment. Nothing, where it needs nothing of the server's user.
    environment: Option<Vec<(String, String)>>,
    /// Where the servers keep a copy of it, beside it.
    copy: Option<PathBuf>,
    /// The file that is locked while the clone changes.
    lock: PathBuf,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Origin {
    /// A bare repository that servers share.
    pub fn shared(path: &Path, lock: PathBuf) -> Self {
        let shown = path.display().to_string();
        let (address, protocols) = (shown.clone(), "file".to_owned());
        Self { address, shown, protocols, user: None, password: None, environment: None, copy: None, lock }
    }

    /// A repository that a user has named. The servers keep a copy of it, if there is a place for that.
    pub fn at(url: &RepositoryUrl, copy: Option<PathBuf>, lock: PathBuf) -> Self {
        let access = url.access();
        let variables = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        let wanted = variables.filter(|(name, _)| OF_USER.contains(&name.as_str()) || is_of_network(name));
        Self {
            address: access.address,
            shown: url.to_string(),
            protocols: access.protocols.to_owned(),
            user: access.user,
            password: access.password.map(|it| it.to_string()),
            environment: Some(wanted.collect()),
            copy,
            lock,
        }
    }

    /// What no log may show.
    pub fn secret(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The copy that the servers keep of it, as an origin.
    pub(super) fn copy(&self) -> Option<Self> {
        self.copy.as_ref().map(|path| Self::shared(path, self.lock.clone()))
    }

    /// Waits until nobody else changes the clone, and keeps others from it for as long as the file is kept.
    pub(super) fn lock(&self) -> io::Result<File> {
        let lock = lock_file(&self.lock)?;
        lock.lock()?;
        Ok(lock)
    }

    /// Its newest commit, if that can be told without git.
    pub(super) fn seen(&self) -> Option<String> {
        let directory = ConfinedDirectory::open(self.shared_path()?).ok()?;
        read_reference(&directory, BRANCH).ok()?
    }

    /// Where it is, if it is the servers' own.
    pub(super) fn shared_path(&self) -> Option<&Path> {
        self.is_shared().then(|| Path::new(&self.address))
    }

    fn is_shared(&self) -> bool {
        self.environment.is_none()
    }

    /// Makes the repository, if it is the servers' to make.
    pub(super) fn make(&self) -> Result<(), Failure> {
        let Some(path) = self.shared_path() else { return Ok(()) };
        // Jobs can write there. The server uses only what it has made itself.
        match path.symlink_metadata() {
            Ok(found) if !found.is_dir() => {
                return Err(Failure::DamagedOrigin(format!("{} is not a directory", self.shown)));
            }
            Ok(_) => {
                if let Some(detour) = DETOURS.iter().find(|it| path.join(it).symlink_metadata().is_ok()) {
                    let why = format!("{}/{detour} leads to another repository", self.shown);
                    return Err(Failure::DamagedOrigin(why));
                }
            }
            Err(_) => {}
        }
        let mut command = plumbing();
        command.env("GIT_DIR", &self.address);
        command.args([
            "-c",
            "safe.directory=*",
            "-c",
            "core.fsync=all",
            "init",
            "--quiet",
            "--bare",
            "--initial-branch=main",
            "--template=",
        ]);
        run(&mut command, b"").map(drop).map_err(|said| self.damage("cannot be made", said))
    }

    /// Reads everything in the repository, if it is the servers' own. If it is damaged, that is the failure.
    pub(super) fn check_whole(&self) -> Result<(), Failure> {
        let Some(path) = self.shared_path() else { return Ok(()) };
        self.make()?;
        let directory = ConfinedDirectory::open(path)?;
        read_reference(&directory, BRANCH).map_err(|failure| match failure {
            Failure::Damaged(why) => Failure::DamagedOrigin(why),
            failure => failure,
        })?;
        let mut command = plumbing();
        command.env("GIT_DIR", path).current_dir(path);
        command.args(["-c", "safe.directory=*", "fsck", "--no-dangling", "--no-reflogs", "--no-progress"]);
        run(&mut command, b"").map(drop).map_err(|said| self.damage("cannot be read", said))
    }

    /// Whether all files of a commit can be read in the repository, if it is the servers' own. A push does not look at what is
    /// there already, so it would build on a damaged commit.
    pub(super) fn verify(&self, commit: &str, scratch: &Path) -> Result<(), Failure> {
        let Some(path) = self.shared_path() else { return Ok(()) };
        let reader = private(scratch.join("origin"), &[&path.join("objects")])?;
        let damage = |said| self.damage("cannot be read", said);
        let listed = run(git_in(&reader).args(["ls-tree", "-r", "-t", "--full-tree", commit]), b"").map_err(damage)?;
        let listed = String::from_utf8_lossy(&listed);
        let names = listed.lines().filter_map(|line| line.split_once('\t')?.0.split_once(' ')?.1.split_once(' '));
        // A repository in the repository is elsewhere.
        let names = names.filter(|(type_, _)| *type_ != "commit").map(|(_, name)| name);
        let asked: String = std::iter::once(commit).chain(names).flat_map(|name| [name, "\n"]).collect();
        let found = run(git_in(&reader).args(["cat-file", "--batch-check"]), asked.as_bytes()).map_err(damage)?;
        if let Some(line) = String::from_utf8_lossy(&found).lines().find(|line| line.ends_with(" missing")) {
            return Err(Failure::DamagedOrigin(format!("object {line}")));
        }
        // Of an object that was cut the beginning can be read, and that is all that a check reads.
        run_quietly(git_in(&reader).args(["cat-file", "--batch", "--buffer"]), asked.as_bytes()).map_err(damage)
    }

    /// What a complaint about the servers' own repository says of it.
    fn damage(&self, what: &str, said: Complaint) -> Failure {
        if said.is_passing {
            return self.failure(what, said);
        }
        Failure::DamagedOrigin(one_line(&said.said))
    }

    fn failure(&self, what: &str, said: Complaint) -> Failure {
        let hidden = said.said.replace(&self.address, &self.shown);
        Failure::Origin { shown: format!("The repository {} {what}. git says: {hidden}", self.shown), said }
    }
}

/// The way between a clone and its origin.
pub(super) struct Way<'a> {
    origin: &'a Origin,
    /// The git directory of the task's own, which has the objects of the clone and nothing else of it.
    directory: &'a Path,
}

impl<'a> Way<'a> {
    /// The way from the clone that is the current directory.
    pub(super) fn to(origin: &'a Origin, clone: &'a Repository) -> Self {
        Self { origin, directory: clone.private() }
    }

    /// The newest commit of the origin, if it has any.
    pub(super) fn newest(&self) -> Result<Option<String>, Failure> {
        let upload = format!("--upload-pack={CAREFUL} upload-pack");
        let listed = self.go(&["ls-remote", "--quiet", &upload, "--", &self.origin.address, BRANCH]);
        let listed = listed.map_err(|said| self.origin.failure("cannot be read", said))?;
        let listed = String::from_utf8_lossy(&listed);
        // What is asked for is taken for the end of a name.
        let found = listed.lines().filter_map(|line| line.split_once('\t')).find(|(_, name)| *name == BRANCH);
        Ok(found.map(|(commit, _)| commit.to_owned()))
    }

    /// Brings all that the origin's newest commit is made of to the clone, which has this one already, and answers it.
    pub(super) fn fetch(&self, have: Option<&str>) -> Result<String, Failure> {
        if let Some(have) = have {
            let _ = self.go(&["update-ref", "refs/heads/have", have]); // else more is fetched
        }
        let upload = format!("--upload-pack={CAREFUL} upload-pack");
        let branch = format!("+{BRANCH}:refs/origin/main");
        let what = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"];
        let arguments = [&what[..], &["--no-auto-maintenance", &upload, "--", &self.origin.address, &branch]].concat();
        let fetched = self.go(&arguments).and_then(|_| self.go(&["rev-parse", "--verify", "refs/origin/main"]));
        let fetched = fetched.map_err(|said| self.origin.failure("cannot be read", said))?;
        Ok(String::from_utf8_lossy(&fetched).trim().to_owned())
    }

    /// Has a commit be the origin's newest, if it follows what is.
    pub(super) fn push(&self, commit: &str) -> Result<(), Failure> {
        self.push_to(&format!("{commit}:{BRANCH}"))
    }

    /// Has a commit be the origin's newest, whatever is.
    pub(super) fn replace(&self, commit: &str) -> Result<(), Failure> {
        self.push_to(&format!("+{commit}:{BRANCH}"))
    }

    fn push_to(&self, what: &str) -> Result<(), Failure> {
        let receive = format!("--receive-pack={CAREFUL} receive-pack");
        let mut arguments = vec!["push", "--quiet", "--no-verify", "--no-signed", "--recurse-submodules=no"];
        if self.origin.is_shared() {
            arguments.push(&receive);
        }
        arguments.extend(["--", &self.origin.address, what]);
        self.go(&arguments).map(drop).map_err(|said| self.origin.failure("cannot be written", said))
    }

    fn go(&self, arguments: &[&str]) -> Result<Vec<u8>, Complaint> {
        let is_way = |it: &&&str| !it.starts_with("--upload-pack=");
        // Other repositories have programs of their own.
        let arguments = arguments.iter().filter(|it| self.origin.is_shared() || is_way(it));
        run(self.command().args(arguments), b"")
    }

    fn command(&self) -> Command {
        let mut command = plumbing();
        command
            .env("GIT_DIR", self.directory)
            .current_dir(self.directory)
            .env("GIT_ALLOW_PROTOCOL", &self.origin.protocols);
        let Some(environment) = &self.origin.environment else { return command };
        command.env_remove("GIT_CONFIG_NOSYSTEM").env_remove("GIT_CONFIG_GLOBAL");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let mut settings = Vec::new();
        if let Some(user) = &self.origin.user {
            settings.push(("username", user.as_str()));
        }
        if let Some(password) = &self.origin.password {
            settings.extend([("helper", ""), ("helper", HELPER)]); // instead of all others
            command.env("JOBSTREAM_GIT_USER", self.origin.user.as_deref().unwrap_or_default());
            command.env("JOBSTREAM_GIT_PASSWORD", password);
        }
        // They are for this server only, wherever it sends git.
        let server = url::Url::parse(&self.origin.address).map(|url| url.origin().ascii_serialization());
        let server = server.unwrap_or_default();
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (number, (name, value)) in settings.into_iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), format!("credential.{server}.{name}"));
            command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        command
    }
}
