//! `PIPELINE_CONFIG`: a pipeline's definition in the workspace's repository, and what it uses in the Meltano project.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::git::{Change, Repository};
use super::meltano::{Meltano, Project};
use super::workplace::{Made, Workplace};
use super::{Failure, PipelineFile, say};

const DIRECTORY: &str = "pipelines";

/// Commits the definition as `pipelines/<name>.yml`, with the data components and plugins that it uses in the project, which are installed. A file
/// that the pipeline had under another name is removed in the same commit. May be run again after a crash at any point.
pub(super) fn run(file: &PipelineFile, meltano: &Meltano, place: &Workplace<'_>) -> Result<String, Failure> {
    let (path, text) = self::file(file)?;
    let mark = mark(&file.id);
    place.change_existing(|repository| {
        let scratch = place.scratch();
        let mut files =
            if file.uses_meltano() { configure(file, meltano, repository, scratch)? } else { BTreeMap::new() };
        files.insert(path.clone(), text.clone());
        let mut old = repository.files_with(&mark, DIRECTORY)?;
        old.retain(|old| *old != path);
        let mut changes: Vec<Change<'_>> = files.iter().map(|(path, content)| Change::Write(path, content)).collect();
        changes.extend(old.iter().map(|old| Change::Remove(old)));
        let commit = repository.commit(&format!("Configure pipeline {}", file.name), &changes)?;
        for old in old {
            say(format_args!("Removed {}: the pipeline has another name now.", old.display()));
        }
        Ok(Made { commit, files })
    })
}

/// The path and the content of a pipeline's file.
pub(super) fn file(file: &PipelineFile) -> Result<(PathBuf, String), Failure> {
    let path = Path::new(DIRECTORY).join(format!("{}.yml", file.name));
    let yaml = serde_saphyr::to_string(&file.content)
        .map_err(|error| Failure::Said(format!("the definition cannot be written as YAML: {error}")))?;
    Ok((path, format!("{}\n{yaml}", mark(&file.id))))
}

/// Whether a file with this content was written for a pipeline.
pub(super) fn is_marked(text: &str) -> bool {
    text.starts_with("# Jobstream pipeline ")
}

/// Whether this writes such a file.
pub(super) fn is_of_pipeline(path: &Path) -> bool {
    path.parent() == Some(Path::new(DIRECTORY)) && path.extension().is_some_and(|it| it == "yml")
}

/// The files of the Meltano project, with what the pipeline uses in it.
fn configure(
    file: &PipelineFile,
    meltano: &Meltano,
    repository: &Repository,
    scratch: &Path,
) -> Result<BTreeMap<PathBuf, String>, Failure> {
    if file.content.inline_script.is_none() {
        file.blocks()?;
    }
    let program = meltano.find()?;
    let project = Project::check_out(repository, meltano, &program, scratch)?;
    project.add(&meltano.in_scratch(&program, project.root()), &file.id, &file.plugins)?;
    meltano.for_pipeline(&program, project.root(), &file.id)?.install(&file.plugins)?;
    project.files()
}

/// The first line of the pipeline's file, by which it is told from those of others.
fn mark(id: &str) -> String {
    format!("# Jobstream pipeline {id}: this file is written by the server.")
}
