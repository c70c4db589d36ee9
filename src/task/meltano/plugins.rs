//! The plugins that a pipeline uses: what runs them, and how they are installed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::installation::{is_program, on_path};
use super::project::{Content, holds};
use super::{Access, Plugin, Runs, environment};
use crate::confined::{ConfinedDirectory, Flush, lock_file, remove_tree};
use crate::task::{Failure, say};

/// What a definition says that a task has to know.
pub(super) struct Definition<'a> {
    pub(super) name: &'a str,
    /// In the singular, as commands have it; in the plural, as directories do.
    pub(super) kind: &'static str,
    directory: &'static str,
    pub(super) json: &'a Value,
}

/// A plugin as the project has it: what is installed, and what is run.
struct Entry<'a> {
    name: &'a str,
    directory: &'static str,
    executable: &'a str,
    is_installed: bool,
    json: &'a Value,
}

/// What is installed.
const STAMP: &str = "installed.json";

const KINDS: [(&str, &str); 6] = [
    ("extractor", "extractors"),
    ("loader", "loaders"),
    ("mapper", "mappers"),
    ("orchestrator", "orchestrators"),
    ("transformer", "transformers"),
    ("utility", "utilities"),
];

impl Plugin {
    /// Its definition, which has to be there.
    pub(super) fn definition(&self) -> Result<Definition<'_>, Failure> {
        let missing = || {
            Failure::Said(format!("There is no data component \"{0}\", and no data plugin of that name.", self.name))
        };
        let json = self.definition.as_ref().ok_or_else(missing)?;
        let text = |key: &str| json.get(key).and_then(Value::as_str);
        let name = text("name").ok_or_else(missing)?;
        let type_ = text("plugin_type").unwrap_or_default();
        let kind = KINDS.into_iter().find(|(one, many)| type_ == *one || type_ == *many);
        let (kind, directory) = kind.ok_or_else(missing)?;
        Ok(Definition { name, kind, directory, json })
    }

    /// Whether it reads from a source.
    pub(in crate::task) fn is_extractor(&self) -> bool {
        self.definition().is_ok_and(|it| it.kind == "extractor")
    }

    /// Whether it writes to a destination.
    pub(in crate::task) fn is_loader(&self) -> bool {
        self.definition().is_ok_and(|it| it.kind == "loader")
    }
}

impl Runs<'_> {
    /// Sees to it that the plugins are installed, as the project has them. That is quick where they are.
    pub(in crate::task) fn install(&self, plugins: &[Plugin]) -> Result<(), Failure> {
        let project = Content::of(&self.root)?;
        let entries = plugins.iter().map(|plugin| entry(&project, plugin)).collect::<Result<Vec<_>, _>>()?;
        fs::create_dir_all(&self.system)?;
        // A run and a verification may both find that something is missing.
        let lock = self.lock_file("installing")?;
        lock.lock()?;
        // What was installed: another version is another entry.
        let stamp = self.system.join(STAMP);
        let wanted = serde_json::to_string(&entries.iter().map(|it| it.json).collect::<Vec<_>>())?;
        let stands = fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted);
        let broken: Vec<(&Entry<'_>, String)> =
            entries.iter().filter_map(|it| self.works(it).err().map(|why| (it, why))).collect();
        if stands && broken.is_empty() {
            return Ok(());
        }
        for (entry, why) in broken.iter().filter(|(entry, _)| entry.is_installed) {
            let environment = self.environment_of(entry);
            if environment.symlink_metadata().is_ok() {
                say(format_args!("{} does not work: {why}. It is installed again.", entry.name));
                remove_tree(&environment)?;
            }
        }
        let names: Vec<&str> = plugins
            .iter()
            .zip(&entries)
            .filter(|(_, entry)| entry.is_installed)
            .map(|(plugin, _)| plugin.name.as_str())
            .collect();
        if !names.is_empty() {
            say(format_args!("Installing {}.", names.join(", ")));
            self.run(Access::Network, &[&["install"], &names[..]].concat())?;
        }
        // Meltano exits with 0 also where it has installed nothing.
        if let Some((Entry { name, executable, .. }, why)) =
            entries.iter().find_map(|it| self.works(it).err().map(|why| (it, why)))
        {
            return Err(Failure::Said(format!("The program of {name}, {executable}, is not there. {why}.")));
        }
        let system = ConfinedDirectory::open(&self.system)?;
        Ok(system.write(Path::new(STAMP), wanted.as_bytes(), None, Flush::Now)?)
    }

    fn environment_of(&self, entry: &Entry<'_>) -> PathBuf {
        self.system.join(entry.directory).join(entry.name).join("venv")
    }

    /// Whether the program of a plugin can be started.
    fn works(&self, entry: &Entry<'_>) -> Result<(), String> {
        let executable = entry.executable;
        if entry.is_installed {
            return environment::check(&self.environment_of(entry), executable, None);
        }
        // A path is one in the project, which jobs find in the directory that they run in.
        if executable.contains('/') && is_program(Path::new(executable)) || on_path(executable).is_some() {
            return Ok(());
        }
        let place = if executable.contains('/') { "in the project" } else { "on the PATH" };
        Err(format!("No program of this name was found {place}"))
    }

    /// Says, for as long as the file is kept, that plugins are being run: what a run has left is not cleared away meanwhile.
    pub(in crate::task) fn in_use(&self) -> Result<File, Failure> {
        let lock = self.lock_file("in-use")?;
        lock.lock_shared()?;
        Ok(lock)
    }

    fn lock_file(&self, name: &str) -> io::Result<File> {
        lock_file(&self.system.join(name))
    }

    /// Removes what a killed run has left: configurations with sensitive values, and the lock of its state.
    pub(in crate::task) fn clear(&self, pipeline: &str) -> Result<(), Failure> {
        let lock = self.lock_file("in-use")?;
        if lock.try_lock().is_ok() {
            clear_configurations(&self.system.join("run"))?;
        }
        for state in fs::read_dir(self.meltano.state_of(pipeline)).into_iter().flatten() {
            let _ = fs::remove_file(state?.path().join("lock")); // most have none
        }
        Ok(())
    }
}

/// A plugin as the project has it. Its definition may have changed since the pipeline was configured, and then is not what is run.
fn entry<'a>(project: &'a Content, plugin: &'a Plugin) -> Result<Entry<'a>, Failure> {
    let definition = plugin.definition()?;
    let Definition { name, directory, .. } = definition;
    let json = project
        .plugin(name)
        .ok_or_else(|| Failure::Said(format!("The workspace's Meltano project has no plugin \"{name}\" any more.")))?;
    if !holds(json, definition.json) {
        say(format_args!(
            "The definition of {name} has changed since the pipeline was configured; it is run as it was then."
        ));
    }
    let text = |key: &str| json.get(key).and_then(Value::as_str);
    let executable = text("executable").unwrap_or(name);
    Ok(Entry { name, directory, executable, is_installed: text("pip_url").is_some(), json })
}

/// Removes the configurations that plugins were run with, which stand in a directory each.
fn clear_configurations(run: &Path) -> io::Result<()> {
    for plugin in fs::read_dir(run).into_iter().flatten() {
        for file in fs::read_dir(plugin?.path()).into_iter().flatten() {
            let file = file?;
            if file.file_name().to_string_lossy().ends_with("config.json") {
                fs::remove_file(file.path())?;
            }
        }
    }
    Ok(())
}
