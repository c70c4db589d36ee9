//! The Meltano project of a workspace: what the repository holds of it, and what Meltano changes in it.
//!
//! A task never lets Meltano change the working directory, where jobs run. It checks the newest commit out to a place of its own, has Meltano work
//! there, commits what came of that, and then puts the files where jobs find them. So it can be repeated after a crash at any point.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::plugins::Definition;
use super::{Access, Meltano, OWN, Plugin, Program, Runs};
use crate::confined::{ConfinedDirectory, Flush, Kind, REPLACED, remove_tree};
use crate::task::git::Repository;
use crate::task::{Failure, say};

const PROJECT_FILE: &str = "meltano.yml";

/// Whether a file is of a project that this makes.
pub(in crate::task) fn is_of_project(path: &Path) -> bool {
    let is_included = || path.to_str().is_some_and(|path| path.ends_with(".meltano.yml"));
    path == Path::new(PROJECT_FILE) || path.starts_with("plugins") || is_included()
}

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
        let _ = remove_tree(&root); // an earlier try's, if there is one
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
        if content.plugin(base).is_none_or(|it| !holds(it, definition.json)) {
            if let Some(type_) = content.type_of(base) {
                runs.quietly(&["remove", "--plugin-type", type_, base])?;
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
        if plugin.name != base {
            self.add_instance(runs, &plugin.name, &definition)?;
        }
        Ok(())
    }

    /// Adds an instance of a plugin that is there. One of another plugin, which had the name before it, goes.
    fn add_instance(&self, runs: &Runs<'_>, name: &str, definition: &Definition<'_>) -> Result<(), Failure> {
        let base = definition.name;
        let content = self.read()?;
        if content.plugin(name).is_none_or(|it| it["inherit_from"] != base) {
            if let Some(type_) = content.type_of(name) {
                runs.quietly(&["remove", "--plugin-type", type_, name])?;
                say(format_args!("Removed {name}: it is an instance of another plugin now."));
            }
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
                let type_ = entry.file_type()?;
                if type_.is_dir() {
                    directories.push(path);
                } else if type_.is_file() {
                    files.insert(path, fs::read_to_string(entry.path())?);
                }
            }
        }
        Ok(files)
    }

    /// Puts the files where jobs find them: what says that there is a project comes last.
    pub(in crate::task) fn put_in_place(files: &BTreeMap<PathBuf, String>) -> io::Result<()> {
        let (project, others): (Vec<_>, Vec<_>) = files.iter().partition(|(path, _)| *path == Path::new(PROJECT_FILE));
        let worktree = ConfinedDirectory::open(Path::new("."))?;
        for (path, content) in others.into_iter().chain(project) {
            if worktree.metadata(path)?.is_some_and(|found| found.kind == Kind::Directory) {
                let path = path.display();
                say(format_args!(
                    "{path} is a directory. It is moved aside, to a name beside it that begins with {REPLACED}."
                ));
            }
            worktree.write(path, content.as_bytes(), None, Flush::Now)?;
        }
        Ok(())
    }

    fn read(&self) -> Result<Content, Failure> {
        Content::of(&self.root)
    }
}

/// What meltano.yml says.
pub(super) struct Content(Value);

impl Content {
    /// Of the project in this directory.
    pub(super) fn of(root: &Path) -> Result<Self, Failure> {
        let unreadable = |error: String| Failure::Said(format!("{PROJECT_FILE} cannot be read: {error}"));
        let text = ConfinedDirectory::open(root).and_then(|root| root.read(Path::new(PROJECT_FILE)));
        let text = text.map_err(|error| unreadable(error.to_string()))?;
        let text = String::from_utf8(text).map_err(|error| unreadable(error.to_string()))?;
        Ok(Self(crate::yaml::read(&text).map_err(unreadable)?))
    }

    /// The entry of a plugin, or of an instance of one.
    pub(super) fn plugin(&self, name: &str) -> Option<&Value> {
        self.plugins().find(|(_, plugin)| plugin["name"] == name).map(|(_, plugin)| plugin)
    }

    /// The type of a plugin that is there: in the plural, which Meltano's commands take too.
    fn type_of(&self, name: &str) -> Option<&str> {
        self.plugins().find(|(_, plugin)| plugin["name"] == name).map(|(type_, _)| type_)
    }

    fn plugins(&self) -> impl Iterator<Item = (&str, &Value)> {
        let types = self.0.get("plugins").and_then(Value::as_object).into_iter().flatten();
        types.flat_map(|(type_, plugins)| plugins.as_array().into_iter().flatten().map(move |it| (type_.as_str(), it)))
    }

    fn has_environment(&self, name: &str) -> bool {
        let environments = self.0.get("environments").and_then(Value::as_array);
        environments.into_iter().flatten().any(|environment| environment["name"] == name)
    }
}

/// Whether an entry of meltano.yml says all that a definition does, and of what is installed and run nothing else.
pub(super) fn holds(entry: &Value, definition: &Value) -> bool {
    let keys = definition.as_object().into_iter().flat_map(|it| it.keys().map(String::as_str));
    // What is null, Meltano leaves out.
    let same = |key: &str| entry.get(key).unwrap_or(&Value::Null) == definition.get(key).unwrap_or(&Value::Null);
    keys.chain(["pip_url", "executable"]).filter(|key| *key != "plugin_type").all(same)
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
    let output = command.output().map_err(|error| Failure::program("meltano", error))?;
    if output.status.success() {
        return Ok(());
    }
    for printed in [output.stdout, output.stderr] {
        String::from_utf8_lossy(&printed).lines().for_each(say);
    }
    Err(Failure::Said(format!("{what} failed ({}).", output.status)))
}
