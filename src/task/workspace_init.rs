//! `WORKSPACE_INIT`: the workspace's repository.

use std::fs;
use std::path::Path;

use super::git::{clear_stale_locks, commit, git};
use super::{Failure, say, write_whole};

/// Makes the current directory the workspace's repository, with a first commit. May be run again after a crash at any point.
pub(super) fn run(workspace: &str) -> Result<String, Failure> {
    if Path::new(".git/HEAD").exists() {
        say("The repository is there already.");
    } else {
        say("Creating the repository.");
    }
    clear_stale_locks()?;
    git(&["init", "--quiet", "--initial-branch=main", "."])?;
    fs::create_dir_all("pipelines")?;
    if git(&["rev-parse", "--verify", "--quiet", "HEAD"]).is_err() {
        // Something to compare with, so that a first commit is made as every other.
        git(&["commit", "--quiet", "--allow-empty", "--message", "Create the workspace"])?;
    }
    if !Path::new("README.md").exists() {
        let text = format!(
            "# {workspace}\n\nThe repository of a Jobstream workspace. The server keeps the definitions of the workspace's \
             pipelines under `pipelines/`; jobs run here.\n"
        );
        write_whole(Path::new("README.md"), &text)?;
    }
    commit("README.md", "Describe the workspace")
}
