//! The Meltano project of a workspace: what the repository holds of it, and what Meltano changes in it.
//!
//! A task never lets Meltano change the working directory, where jobs run. It checks the newest commit out to a place of its own, has Meltano work
//! there, commits what came of that, and then puts the files where jobs find them. So it can be repeated after a crash at any point.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Access, Meltano, OWN, Plugin, Program, Runs};
use crate::task::git::Repository;
use crate::task::{Failure, say, write_in_place};

const PROJECT_FILE: &str = "meltano.yml";

/// A project, checked out.
#[derive(Debug)]
pub(in crate::task) struct Project {
    root: PathBuf,
    /// The files of the newest commit.
    committed: BTreeMap<PathBuf, String>,
}

impl Project {
    /// Whether the newest commit holds a project.
    pub(in crate::task) fn is_in(repository: &Repository) -> Result<bool, Failure> {
        Ok(!repository.files(&[PROJECT_FILE])?.is_empty())
    }

    /// What the newest commit holds of the project.
    pub(in crate::task) fn committed(repository: &Repository) -> Result<BTreeMap<PathBuf, String>, Failure> {
        let paths = repository.files(&[PROJECT_FILE, "plugins", "*.meltano.yml"])?;
        paths.into_iter().map(|path| repository.content(&path).map(|content| (path, content))).collect()
    }

    /// Checks the project out, or makes one where there is none.
    pub(in crate::task) fn check_out(
        repository: &Repository,
        meltano: &Meltano,
        program: &Program,
        scratch: &Path,
    ) -> Result<Self, Failure> {
        let root = scratch.join("project");
        let _ = fs::remove_dir_all(&root); // an earlier try's, if there is one
        fs::create_dir(&root)?;
        let committed = Self::committed(repository)?;
        for (path, content) in &committed {
            let place = root.join(path);
            fs::create_dir_all(place.parent().unwrap_or(&root))?;
            fs::write(place, content)?;
        }
        let project = Self { root, committed };
        if !project.root.join(PROJECT_FILE).exists() {
            meltano.in_scratch(program, &project.root).initialize()?;
            say("Made a Meltano project.");
        }
        Ok(project)
    }

    /// The directory it is checked out to.
    pub(in crate::task) fn root(&self) -> &Path {
        &self.root
    }

    /// Adds what a pipeline uses: plugins, data components, and an environment of its own. What is there already stays.
    pub(in crate::task) fn add(&self, runs: &Runs<'_>, pipeline: &str, plugins: &[Plugin]) -> Result<(), Failure> {
        for plugin in plugins {
            self.add_plugin(runs, plugin)?;
        }
        if !self.read()?.has_environment(pipeline) {
            runs.quietly(&["environment", "add", pipeline])?;
            say(format_args!("Added the environment {pipeline}."));
        }
        // Meltano exits with 0 also where it has done nothing.
        let content = self.read()?;
        for Plugin { name, .. } in plugins {
            if content.plugin(name).is_none() {
                return Err(Failure::Said(format!("Meltano has not added {name} to the project.")));
            }
        }
        if content.has_environment(pipeline) {
            Ok(())
        } else {
            Err(Failure::Said(format!("Meltano has not added the environment {pipeline} to the project.")))
        }
    }

    fn add_plugin(&self, runs: &Runs<'_>, plugin: &Plugin) -> Result<(), Failure> {
        let definition = plugin.definition()?;
        let base = definition.name;
        let content = self.read()?;
        let there = content.plugin(base);
        if there.is_none_or(|it| !holds(it, definition.json)) {
            if there.is_some() {
                runs.quietly(&["remove", "--plugin-type", definition.kind, base])?;
                say(format_args!("Removed {base}: its definition is another now."));
            }
            let file = self.root.with_extension("definition.yml");
            // JSON is YAML too.
            fs::write(&file, serde_json::to_vec(definition.json)?)?;
            let path =
                file.to_str().ok_or_else(|| Failure::Said("the data directory's path is not UTF-8".to_owned()))?;
            runs.quietly(&["add", "--plugin-type", definition.kind, "--from-ref", path, "--no-install", base])?;
            say(format_args!("Added {} {base}.", definition.kind));
        }
        if plugin.name != base && self.read()?.plugin(&plugin.name).is_none() {
            let name = &plugin.name;
            runs.quietly(&["add", "--plugin-type", definition.kind, "--inherit-from", base, "--no-install", name])?;
            say(format_args!("Added {} {name}, an instance of {base}.", definition.kind));
        }
        Ok(())
    }

    /// The files that are to be in the repository: those of the newest commit, and what Meltano has made of them.
    pub(in crate::task) fn files(&self) -> Result<BTreeMap<PathBuf, String>, Failure> {
        let mut files = self.committed.clone();
        let mut directories = vec![PathBuf::new()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(self.root.join(&directory))? {
                let entry = entry?;
                let path = directory.join(entry.file_name());
                // The page that Meltano writes is about Meltano, not about the workspace.
                if path == Path::new(OWN) || path == Path::new("README.md") {
                    continue;
                }
                if entry.file_type()?.is_dir() {
                    directories.push(path);
                } else {
                    files.insert(path, fs::read_to_string(entry.path())?);
                }
            }
        }
        Ok(files)
    }

    /// Puts the files where jobs find them: what says that there is a project comes last.
    pub(in crate::task) fn put_in_place(files: &BTreeMap<PathBuf, String>) -> io::Result<()> {
        let (project, others): (Vec<_>, Vec<_>) = files.iter().partition(|(path, _)| *path == Path::new(PROJECT_FILE));
        others.into_iter().chain(project).try_for_each(|(path, content)| write_in_place(path, content))
    }

    fn read(&self) -> Result<Content, Failure> {
        let text = fs::read_to_string(self.root.join(PROJECT_FILE))?;
        let read = crate::yaml::read(&text);
        Ok(Content(read.map_err(|error| Failure::Said(format!("{PROJECT_FILE} cannot be read: {error}")))?))
    }
}

/// What meltano.yml says.
struct Content(Value);

impl Content {
    fn plugin(&self, name: &str) -> Option<&Value> {
        let types = self.0.get("plugins")?.as_object()?;
        types.values().filter_map(Value::as_array).flatten().find(|plugin| plugin["name"] == name)
    }

    fn has_environment(&self, name: &str) -> bool {
        let environments = self.0.get("environments").and_then(Value::as_array);
        environments.into_iter().flatten().any(|environment| environment["name"] == name)
    }
}

/// Whether an entry of meltano.yml says all that a definition does.
fn holds(entry: &Value, definition: &Value) -> bool {
    let definition = definition.as_object().into_iter().flatten();
    definition.filter(|(key, _)| *key != "plugin_type").all(|(key, value)| entry.get(key) == Some(value))
}

impl Runs<'_> {
    /// Makes a project in the root, which is empty.
    fn initialize(&self) -> Result<(), Failure> {
        let mut command = self.command(Access::None, &["init", ".", "--no-usage-stats"]);
        command.env_remove("MELTANO_PROJECT_ROOT").current_dir(&self.root);
        shown_if_failed("meltano init", &mut command)
    }

    /// Runs Meltano, and shows what it prints only if it fails.
    fn quietly(&self, arguments: &[&str]) -> Result<(), Failure> {
        let what = format!("meltano {}", arguments.join(" "));
        shown_if_failed(&what, self.command(Access::None, arguments).current_dir(&self.root))
    }
}

fn shown_if_failed(what: &str, command: &mut std::process::Command) -> Result<(), Failure> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    for printed in [output.stdout, output.stderr] {
        String::from_utf8_lossy(&printed).lines().for_each(say);
    }
    Err(Failure::Said(format!("{what} failed ({}).", output.status)))
}
