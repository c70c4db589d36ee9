//! `PIPELINE_CONFIG`: a pipeline's definition in the workspace's repository, and what it uses in the Meltano project.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::git::{Change, Repository};
use super::meltano::{Meltano, Project};
use super::{Failure, PipelineFile, say, write_whole};

const DIRECTORY: &str = "pipelines";

/// Writes the definition to `pipelines/<name>.yml`, adds the data components and plugins to the project, installs them, and commits all
/// of that. A file that the pipeline had under another name is removed in the same commit. May be run again after a crash at any
/// point.
pub(super) fn run(file: &PipelineFile, meltano: &Meltano, scratch: &Path) -> Result<String, Failure> {
    let repository = Repository::open(scratch)?;
    let project = if file.uses_meltano() { configure(file, meltano, &repository, scratch)? } else { BTreeMap::new() };
    fs::create_dir_all(DIRECTORY)?;
    // Jobs can write here. What is written for them must not end up where a link of theirs points.
    if !fs::symlink_metadata(DIRECTORY)?.is_dir() {
        return Err(Failure::Said(format!("{DIRECTORY} is not a directory.")));
    }
    let path = Path::new(DIRECTORY).join(format!("{}.yml", file.name));
    let yaml = serde_saphyr::to_string(&file.content)
        .map_err(|error| Failure::Said(format!("the definition cannot be written as YAML: {error}")))?;
    let text = format!("{}\n{yaml}", mark(&file.id));
    write_whole(&path, &text)?;
    say(format_args!("Wrote {}.", path.display()));
    let old: Vec<PathBuf> = files_of(&file.id)?.into_iter().filter(|old| *old != path).collect();
    let mut changes = vec![Change::Write(&path, &text)];
    changes.extend(old.iter().map(|old| Change::Remove(old)));
    changes.extend(project.iter().map(|(path, content)| Change::Write(path, content)));
    let commit = repository.commit(&format!("Configure pipeline {}", file.name), &changes)?;
    Project::put_in_place(&project)?;
    // Last, so that after a crash before it the old names are still known.
    for old in &old {
        fs::remove_file(old)?;
        say(format_args!("Removed {}: the pipeline has another name now.", old.display()));
    }
    Ok(commit)
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

fn files_of(id: &str) -> io::Result<Vec<PathBuf>> {
    let mark = mark(id);
    let mut found = Vec::new();
    for entry in fs::read_dir(DIRECTORY)? {
        let path = entry?.path();
        // Jobs can write here: what is no file, such as a pipe that nobody writes to, is none of ours.
        if !fs::symlink_metadata(&path)?.is_file() {
            continue;
        }
        let Ok(file) = fs::File::open(&path) else { continue };
        let mut first = Vec::new();
        let length = u64::try_from(mark.len()).unwrap_or(u64::MAX);
        if file.take(length).read_to_end(&mut first).is_ok() && first == mark.as_bytes() {
            found.push(path);
        }
    }
    Ok(found)
}
