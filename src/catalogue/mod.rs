//! The data plugins that there are: those that come with the program, and those that the operator adds as definition files.
//!
//! A definition is in Meltano's own form, as `meltano add --from-ref` reads it.

mod plugin;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use plugin::{DataPlugin, Setting, is_name};

/// The definitions that come with the program.
const SHIPPED: [(&str, &str); 3] = [
    ("tap-spreadsheets.yml", include_str!("tap-spreadsheets.yml")),
    ("target-csv.yml", include_str!("target-csv.yml")),
    ("target-jsonl.yml", include_str!("target-jsonl.yml")),
];

/// All data plugins, by name. Clones share them.
#[derive(Debug, Clone)]
pub struct Catalogue {
    plugins: Arc<BTreeMap<String, Arc<DataPlugin>>>,
}

/// Why the catalogue cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// A definition file, or the directory that they are in, cannot be read.
    #[error("{0} cannot be read: {1}")]
    Unreadable(PathBuf, io::Error),
    /// A definition is not one.
    #[error("{0} is not the definition of a data plugin: {1}")]
    NoDefinition(PathBuf, String),
}

impl Catalogue {
    /// The plugins that come with the program, and those that `*.yml` files in these directories define, which take the place of one of the
    /// program's that has their name. There need not be such directories.
    pub fn read(directories: &[PathBuf]) -> Result<Self, CatalogueError> {
        let mut plugins = BTreeMap::new();
        for (name, text) in SHIPPED {
            let plugin = parse(Path::new(name), text)?;
            plugins.insert(plugin.name.clone(), plugin);
        }
        let unreadable = |path: &Path, error| CatalogueError::Unreadable(path.to_owned(), error);
        let mut defined_in = BTreeMap::new();
        let mut files = Vec::new();
        for directory in directories {
            files.extend(definition_files(directory).map_err(|error| unreadable(directory, error))?);
        }
        for path in files {
            let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
            let plugin = parse(&path, &text)?;
            if let Some(other) = defined_in.insert(plugin.name.clone(), path.clone()) {
                let fault = format!("{} defines a plugin of the same name, {}", other.display(), plugin.name);
                return Err(CatalogueError::NoDefinition(path, fault));
            }
            plugins.insert(plugin.name.clone(), plugin);
        }
        Ok(Self { plugins: Arc::new(plugins) })
    }

    /// The plugin with this name.
    pub fn get(&self, name: &str) -> Option<&Arc<DataPlugin>> {
        self.plugins.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<DataPlugin>> {
        self.plugins.values()
    }
}

fn parse(path: &Path, text: &str) -> Result<Arc<DataPlugin>, CatalogueError> {
    let plugin = DataPlugin::parse(text).map_err(|fault| CatalogueError::NoDefinition(path.to_owned(), fault))?;
    Ok(Arc::new(plugin))
}

fn definition_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|it| it == "yml" || it == "yaml"));
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_with_the_program_can_be_read() {
        let catalogue = Catalogue::read(&["/nowhere".into()]).unwrap();
        let names: Vec<&str> = catalogue.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["tap-spreadsheets", "target-csv", "target-jsonl"]);
        assert!(
            catalogue.iter().all(|it| it.pip_url.as_ref().is_some_and(|url| url.contains("=="))),
            "versions are pinned"
        );
    }

    #[test]
    fn a_file_that_is_no_definition_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("x.yml"), "name: tap-x\nplugin_type: nonsense\n").unwrap();
        let error = Catalogue::read(&[directory.path().to_owned()]).unwrap_err().to_string();
        assert!(error.contains("x.yml") && error.contains("nonsense"), "{error}");
    }

    #[test]
    fn a_file_takes_the_place_of_what_comes_with_the_program_and_not_of_another_file() {
        let directory = tempfile::tempdir().unwrap();
        let definition = "name: target-jsonl\nplugin_type: loaders\nexecutable: mine\n";
        fs::write(directory.path().join("mine.yml"), definition).unwrap();
        let catalogue = Catalogue::read(&[directory.path().to_owned()]).unwrap();
        assert_eq!(catalogue.get("target-jsonl").unwrap().pip_url, None);
        assert_eq!(catalogue.iter().count(), SHIPPED.len());
        fs::write(directory.path().join("other.yml"), definition).unwrap();
        let error = Catalogue::read(&[directory.path().to_owned()]).unwrap_err().to_string();
        assert!(error.contains("mine.yml") && error.contains("other.yml"), "{error}");
    }
}
