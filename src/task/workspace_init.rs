//! `WORKSPACE_INIT`: the workspace's repository, with a Meltano project.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::git::{Change, Repository};
use super::meltano::{Meltano, Missing, Project};
use super::workplace::{Made, Workplace};
use super::{Failure, say};
use crate::confined::ConfinedDirectory;

pub(super) const README: &str = "README.md";
/// Files that the server writes.
const OWN: [&str; 4] = ["pipelines/*.yml", "meltano.yml", "plugins", "*.meltano.yml"];

/// Makes the current directory the workspace's repository, with a commit that holds a Meltano project. Where there is no Meltano now, it
/// makes the repository alone: scripts need no more, and a pipeline that does makes the project when it is configured. May be run again
/// after a crash at any point.
pub(super) fn run(workspace: &str, meltano: &Meltano, place: &Workplace<'_>) -> Result<String, Failure> {
    ConfinedDirectory::open(Path::new("."))?.make_directories(Path::new("pipelines"))?;
    place.change(|repository| {
        let mut files = left_behind(repository)?;
        if let Some(head) = repository.head()
            && files.is_empty()
            && Project::is_in(repository)?
        {
            say(format_args!("The repository is there already, at commit {head}."));
            return Ok(Made { commit: head.to_owned(), files: Project::committed(repository)? });
        }
        if !files.contains_key(Path::new("meltano.yml")) {
            files.extend(project(meltano, repository, place.scratch())?);
        }
        if repository.head().is_none() {
            let readme = format!(
                "# {workspace}\n\nThe repository of a Jobstream workspace. The server keeps the definitions of the workspace's pipelines \
                 under `pipelines/`; jobs run here.\n"
            );
            files.insert(README.into(), readme);
        }
        let changes: Vec<Change<'_>> = files.iter().map(|(path, content)| Change::Write(path, content)).collect();
        let commit = repository.commit("Create the workspace", &changes)?;
        Ok(Made { commit, files })
    })
}

/// The files of a project, if there can be one.
fn project(meltano: &Meltano, repository: &Repository, scratch: &Path) -> Result<BTreeMap<PathBuf, String>, Failure> {
    match meltano.find() {
        Ok(program) => Project::check_out(repository, meltano, &program, scratch)?.files(),
        Err(Missing::Unavailable(why)) => {
            say(why);
            say(
                "The workspace has no Meltano project yet. Scripts can be run; a pipeline that needs Meltano makes the project.",
            );
            Ok(BTreeMap::new())
        }
        Err(Missing::Broken(failure)) => Err(failure),
    }
}

/// What the server has written into the repository while that came from somewhere else, and that is not where it comes from now.
fn left_behind(repository: &Repository) -> Result<BTreeMap<PathBuf, String>, Failure> {
    let Some(left) = &repository.left else { return Ok(BTreeMap::new()) };
    let there = repository.files(&OWN)?;
    let paths = repository.files_of(left, &OWN)?.into_iter().filter(|path| !there.contains(path));
    paths.map(|path| repository.content_of(left, &path).map(|content| (path, content))).collect()
}
