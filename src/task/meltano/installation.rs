//! The Meltano that is there, or the one that the server installs for itself.
//!
//! It is a virtual environment that is made under a name of its own, and published by a link when it is whole. So nobody ever sees half of
//! one; what a failed or killed try has left is removed by the next.

use std::env;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Meltano, environment, network};
use crate::confined::{lock_file, remove_tree};
use crate::task::{Failure, say};

/// Meltano and all that it needs, in the versions that are installed.
const REQUIREMENTS: &str = include_str!("requirements.txt");
/// The uv that installs them.
const UV: &str = include_str!("requirements-uv.txt");
/// What a program that needs Python says to install.
const INSTALL_PYTHON: &str = "Install Python 3.10 or later with venv (Debian: apt-get install python3 python3-venv), or name a Meltano with --meltano.";

const SWITCHED_OFF: &str = "Meltano is needed, and switched off with --meltano none.";

/// A Meltano that can be run.
#[derive(Debug)]
pub(in crate::task) struct Program(PathBuf);

/// Why there is no Meltano.
#[derive(Debug)]
pub(in crate::task) enum Missing {
    /// There is none now, which only those who need one have to mind.
    Unavailable(String),
    /// The one that was named does not work, or something else is wrong that somebody has to look at.
    Broken(Failure),
}

impl From<Missing> for Failure {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Unavailable(why) => Self::Said(why),
            Missing::Broken(failure) => failure,
        }
    }
}

impl Program {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Meltano {
    /// Why no Meltano can be had, as far as that can be told without installing one.
    pub fn missing(&self) -> Option<String> {
        match self.command.as_deref() {
            Some("none") => Some(SWITCHED_OFF.to_owned()),
            Some(_) => None,
            None if on_path("meltano").is_some() => None,
            None if environment::look(&self.current(), "meltano").is_ok() => None,
            None => python().err(),
        }
    }

    /// Finds Meltano, or installs it.
    pub(in crate::task) fn find(&self) -> Result<Program, Missing> {
        match self.command.as_deref() {
            Some("none") => Err(Missing::Unavailable(SWITCHED_OFF.to_owned())),
            Some(command) => named(command),
            None => match on_path("meltano") {
                Some(program) => Ok(Program(program)),
                None => self.own(),
            },
        }
    }

    /// The server's own.
    fn own(&self) -> Result<Program, Missing> {
        let program = self.installed();
        if self.works().is_ok() {
            return Ok(Program(program));
        }
        let python = python().map_err(Missing::Unavailable)?;
        let _lock = self.lock().map_err(|error| Missing::Broken(error.into()))?;
        if let Err(why) = self.works() {
            if fs::symlink_metadata(self.current()).is_ok() {
                say(format_args!("The installed Meltano does not work: {why}. It is installed again."));
            }
            self.install(&python)?;
        }
        Ok(Program(program))
    }

    /// Whether the server's own Meltano works.
    fn works(&self) -> Result<(), String> {
        environment::check(&self.current(), "meltano", Some("--version"))
    }

    /// Has the next task check whether Meltano works, if this is the server's own.
    pub(super) fn doubt(&self) {
        environment::forget(&self.current());
    }

    fn current(&self) -> PathBuf {
        self.home.join("current")
    }

    fn installed(&self) -> PathBuf {
        self.current().join("bin/meltano")
    }

    /// One process at a time installs.
    fn lock(&self) -> io::Result<File> {
        let lock = lock_file(&self.home.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) => say("Another job is installing Meltano; waiting for it."),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        lock.lock()?;
        Ok(lock)
    }

    fn install(&self, python: &Path) -> Result<(), Missing> {
        self.remove_leftovers().map_err(|error| Missing::Broken(error.into()))?;
        say("Installing Meltano for the server: once, which takes some seconds to a minute.");
        let environment = self.home.join(format!("env-{}", uuid::Uuid::new_v4()));
        let installed = self.fill(python, &environment).and_then(|()| publish(&environment, &self.current()));
        if installed.is_err() {
            let _ = remove_tree(&environment); // else the next one does
        }
        installed
            .map_err(|why| Missing::Unavailable(format!("Meltano is needed, and could not be installed. {why}")))?;
        // The environment that did not work is not needed any more. If it cannot be removed, the next installation tries again.
        if let Err(error) = self.remove_leftovers() {
            say(format_args!("A former environment of Meltano cannot be removed: {error}."));
        }
        say("Meltano is installed.");
        Ok(())
    }

    fn fill(&self, python: &Path, environment: &Path) -> Result<(), Failure> {
        let requirements = environment.join("requirements.txt");
        let program = |name: &str| environment.join("bin").join(name);
        self.step("Making a virtual environment.", Command::new(python).args(["-m", "venv"]).arg(environment))?;
        fs::write(&requirements, REQUIREMENTS)?;
        let uv = environment.join("requirements-uv.txt");
        fs::write(&uv, UV)?;
        self.step(
            "Installing uv into it.",
            Command::new(program("python"))
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"])
                .arg("--requirement")
                .arg(&uv),
        )?;
        self.step(
            "Installing Meltano into it.",
            Command::new(program("uv"))
                .args(["pip", "install", "--quiet", "--require-hashes", "--python"])
                .arg(program("python"))
                .arg("--requirements")
                .arg(&requirements),
        )?;
        self.step("Looking whether it works.", Command::new(program("meltano")).arg("--version"))
    }

    fn step(&self, what: &str, command: &mut Command) -> Result<(), Failure> {
        say(what);
        let own = ["HOME", "LANG", "PATH", "TMPDIR", "JOBSTREAM_JOB_ID"].map(|name| (name, env::var_os(name)));
        command.env_clear().envs(own.into_iter().filter_map(|(name, value)| Some((name, value?)))).envs(network());
        let caches = [("UV_CACHE_DIR", "cache"), ("PIP_CACHE_DIR", "cache/pip")];
        command.envs(caches.map(|(name, place)| (name, self.home.join(place)))).stdin(Stdio::null());
        match command.status().map_err(|error| Failure::program(command.get_program().display(), error))? {
            status if status.success() => Ok(()),
            status => Err(Failure::Said(format!("This step failed ({status}): {what}"))),
        }
    }

    /// Removes every environment that is not the published one: those of killed installations, and one that did not work.
    fn remove_leftovers(&self) -> io::Result<()> {
        let published = fs::read_link(self.home.join("current")).ok();
        for entry in fs::read_dir(&self.home)? {
            let name = entry?.file_name();
            let is_own = name.to_str().is_some_and(|name| name.starts_with("env-"));
            if is_own && published.as_deref() != Some(Path::new(&name)) {
                remove_tree(&self.home.join(&name))?;
            }
        }
        Ok(())
    }
}

/// The link is there from one moment to the next, and leads to what is whole.
fn publish(environment: &Path, link: &Path) -> Result<(), Failure> {
    let name = environment.file_name().ok_or_else(|| Failure::Said("the environment has no name".to_owned()))?;
    let temporary = link.with_extension("new");
    let _ = fs::remove_file(&temporary); // a killed try's
    symlink(name, &temporary)?;
    fs::rename(&temporary, link)?;
    Ok(())
}

/// The Python that Meltano can be installed with, or why there is none.
fn python() -> Result<PathBuf, String> {
    let Some(python) = on_path("python3") else {
        return Err(format!("Meltano is needed, and Python 3 was not found on the PATH. {INSTALL_PYTHON}"));
    };
    let check = "import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))";
    if quietly(Command::new(&python).args(["-c", check])) {
        return Ok(python);
    }
    let python = python.display();
    Err(format!("Meltano is needed, and {python} is older than 3.10 or has no venv. {INSTALL_PYTHON}"))
}

fn named(command: &str) -> Result<Program, Missing> {
    let broken = |why: String| Missing::Broken(Failure::Said(why));
    let path = if command.contains('/') { Some(PathBuf::from(command)) } else { on_path(command) };
    let path = path.ok_or_else(|| broken(format!("--meltano {command} was not found on the PATH.")))?;
    if quietly(Command::new(&path).arg("--version")) {
        Ok(Program(path))
    } else {
        Err(broken(format!("--meltano {command} cannot be run.")))
    }
}

fn quietly(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The first program of this name on the PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(name)).find(|path| is_program(path))
}

/// Whether this is a file that may be executed.
pub(super) fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::{REQUIREMENTS, UV};

    #[test]
    fn what_is_installed_has_one_version_and_hashes() {
        let lines: Vec<&str> = REQUIREMENTS.lines().filter(|line| !line.starts_with('#')).collect();
        let mut requirements = 0;
        for (place, line) in lines.iter().enumerate().filter(|(_, line)| !line.starts_with(' ')) {
            requirements += 1;
            assert!(line.contains("==") && line.ends_with('\\'), "{line}");
            assert!(lines[place + 1].trim_start().starts_with("--hash=sha256:"), "{line}");
        }
        assert!(requirements > 40, "{requirements}");
        let uv = UV.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        assert!(uv.starts_with("uv==") && REQUIREMENTS.contains(&uv));
    }
}
