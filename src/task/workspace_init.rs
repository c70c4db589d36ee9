//! `WORKSPACE_INIT`: the workspace's repository.

use std::fs;
use std::path::Path;

use super::git::{Change, Repository};
use super::{Failure, say, write_whole};

/// Makes the current directory the workspace's repository, with a first commit. May be run again after a crash at any point.
pub(super) fn run(workspace: &str, scratch: &Path) -> Result<String, Failure> {
    let repository = Repository::open(scratch)?;
    fs::create_dir_all("pipelines")?;
    if let Some(head) = repository.head() {
        say(format_args!("The repository is there already, at commit {head}."));
        return Ok(head);
    }
    let readme = Path::new("README.md");
    let text = format!(
        "# {workspace}\n\nThe repository of a Jobstream workspace. The server keeps the definitions of the workspace's pipelines \
         under `pipelines/`; jobs run here.\n"
    );
    write_whole(readme, &text)?;
    repository.commit("Create the workspace", &[Change::Write(readme, &text)])
}
