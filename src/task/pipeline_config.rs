//! `PIPELINE_CONFIG`: a pipeline's definition in the workspace's repository.

use std::fs;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

use super::git::commit;
use super::{Failure, PipelineFile, say, write_whole};

const DIRECTORY: &str = "pipelines";

/// Writes the definition to `pipelines/<name>.yml` and commits it. A file that the pipeline had under another name is
/// removed in the same commit. May be run again after a crash at any point.
pub(super) fn run(file: &PipelineFile) -> Result<String, Failure> {
    fs::create_dir_all(DIRECTORY)?;
    let path = Path::new(DIRECTORY).join(format!("{}.yml", file.name));
    let yaml = serde_saphyr::to_string(&file.content)
        .map_err(|error| Failure::Said(format!("the definition cannot be written as YAML: {error}")))?;
    write_whole(&path, &format!("{}\n{yaml}", mark(&file.id)))?;
    say(format_args!("Wrote {}.", path.display()));
    for old in files_of(&file.id)?.into_iter().filter(|old| *old != path) {
        fs::remove_file(&old)?;
        say(format_args!("Removed {}: the pipeline has another name now.", old.display()));
    }
    commit(DIRECTORY, &format!("Configure pipeline {}", file.name))
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
        let Ok(file) = fs::File::open(&path) else { continue };
        let first = io::BufReader::new(file).lines().next();
        if first.is_some_and(|line| line.is_ok_and(|line| line == mark)) {
            found.push(path);
        }
    }
    Ok(found)
}
