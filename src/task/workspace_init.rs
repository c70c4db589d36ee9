//! `WORKSPACE_INIT`: the workspace's repository, with a Meltano project.

use std::fs;
use std::path::Path;

use super::git::{Change, Repository};
use super::meltano::{Meltano, Missing, Project};
use super::{Failure, say, write_whole};

const README: &str = "README.md";

/// Makes the current directory the workspace's repository, with a commit that holds a Meltano project. Where there is no Meltano now, it
/// makes the repository alone: scripts need no more, and a pipeline that does makes the project when it is configured. May be run again
/// after a crash at any point.
pub(super) fn run(workspace: &str, meltano: &Meltano, scratch: &Path) -> Result<String, Failure> {
    let repository = Repository::open(scratch)?;
    fs::create_dir_all("pipelines")?;
    let head = repository.head();
    if let Some(head) = &head
        && Project::is_in(&repository)?
    {
        say(format_args!("The repository is there already, at commit {head}."));
        Project::put_in_place(&Project::committed(&repository)?)?;
        return Ok(head.clone());
    }
    let files = match meltano.find() {
        Ok(program) => Project::check_out(&repository, meltano, &program, scratch)?.files()?,
        Err(Missing::Unavailable(why)) => {
            say(why);
            say(
                "The workspace has no Meltano project yet. Scripts can be run; a pipeline that needs Meltano makes the project.",
            );
            Default::default()
        }
        Err(Missing::Broken(failure)) => return Err(failure),
    };
    let readme = format!(
        "# {workspace}\n\nThe repository of a Jobstream workspace. The server keeps the definitions of the workspace's pipelines \
         under `pipelines/`; jobs run here.\n"
    );
    let mut changes: Vec<Change<'_>> = files.iter().map(|(path, content)| Change::Write(path, content)).collect();
    if head.is_none() {
        write_whole(Path::new(README), &readme)?;
        changes.push(Change::Write(Path::new(README), &readme));
    }
    let commit = repository.commit("Create the workspace", &changes)?;
    Project::put_in_place(&files)?;
    Ok(commit)
}
