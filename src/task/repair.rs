//! Repair of a repository that is damaged, by a loss of power or by a job.
//!
//! The damaged `.git` directory is kept beside a new one, which has the newest commit that can be read with all that it
//! follows. The files that jobs work with stay where they are. What the workspace's pipelines are, the database knows.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::git::{Change, Repository};
use super::gitdir::{BRANCH, GitDirectory, PLACED};
use super::meltano::{Meltano, Missing, Project};
use super::origin::Origin;
use super::plumbing::{git_in, private, run};
use super::workplace::Made;
use super::workspace_init::README;
use super::{Failure, PipelineFile, pipeline_config, say};
use crate::confined::{ConfinedDirectory, fresh_directory, lock_file};

/// Name of a new `.git` directory until it is complete.
const NEW: &str = ".git-jobstream-new";
/// How many of the newest commits are tried.
const TRIED_COMMITS: usize = 50;

/// Puts a new `.git` directory in the place of the damaged one, which is kept. With `salvage`, the newest commit that can be
/// read is the new one's; a clone gets its commits from its origin.
pub(super) fn replace_repository(why: &str, salvage: bool, scratch: &Path, workspace: &str) -> Result<(), Failure> {
    let worktree = ConfinedDirectory::open(Path::new("."))?;
    let former = GitDirectory::former_commits(&worktree, workspace);
    let objects = scratch.join("salvaged");
    let salvaged = if salvage { salvage_objects(&former, scratch, &objects)? } else { None };
    remove_unfinished(&worktree)?;
    let new = GitDirectory::create(&worktree, NEW, workspace)?;
    if let Some(commit) = &salvaged {
        new.take_objects(&objects)?;
        new.set(BRANCH, commit, None)?;
    }
    // A clone has this commit again once it has fetched; until then it counts as none.
    let placed = if salvage { salvaged.clone() } else { GitDirectory::placed(&worktree, workspace) };
    if let Some(placed) = placed {
        new.set(PLACED, &placed, None)?;
    }
    let aside = format!(".git-damaged-{}", timestamp());
    worktree.replace(".git", NEW, &aside)?;
    say(format_args!("The workspace's repository was damaged: {why}. What is left of it is kept in {aside}."));
    match salvaged {
        Some(commit) => say(format_args!("The new repository has the history up to commit {commit}.")),
        None if salvage => say("No commit of it could be read: the new repository begins without history."),
        None => say("It is cloned again."),
    }
    Ok(())
}

/// Copies everything that the newest of these commits that can be read is made of. Files of it that cannot be read may be in the
/// working directory still.
fn salvage_objects(former: &[String], scratch: &Path, objects: &Path) -> Result<Option<String>, Failure> {
    let worktree = ConfinedDirectory::open(Path::new("."))?;
    let restored = private(scratch.join("restored"), &[])?;
    let damaged = std::env::current_dir()?.join(".git/objects");
    let private = private(scratch.join("salvage"), &[&restored.join("objects"), &damaged])?;
    for commit in former.iter().take(TRIED_COMMITS) {
        if pack(&private, commit, objects)? {
            return Ok(Some(commit.clone()));
        }
        if restore_files(&private, commit, &worktree, &restored)? && pack(&private, commit, objects)? {
            return Ok(Some(commit.clone()));
        }
    }
    Ok(None)
}

/// Packs everything that a commit follows, and says whether all of it could be read.
fn pack(private: &Path, commit: &str, objects: &Path) -> Result<bool, Failure> {
    fresh_directory(objects)?;
    fs::create_dir(objects.join("pack"))?;
    let mut command = git_in(private);
    command.args(["pack-objects", "--quiet", "--revs", "--no-reuse-delta", "--no-reuse-object"]);
    command.arg(objects.join("pack/pack"));
    match run(&mut command, format!("{commit}\n").as_bytes()) {
        Ok(_) => Ok(true),
        // Nothing is given up because the disk is full.
        Err(said) if said.is_passing => Err(Failure::Git { command: "pack-objects".to_owned(), said }),
        Err(_) => Ok(false),
    }
}

/// Restores files of a commit that cannot be read from those in the working directory, and says whether there are any.
fn restore_files(private: &Path, commit: &str, worktree: &ConfinedDirectory, restored: &Path) -> Result<bool, Failure> {
    let Ok(listed) = run(git_in(private).args(["ls-tree", "-r", "-z", "--full-tree", commit]), b"") else {
        return Ok(false);
    };
    let listed = String::from_utf8_lossy(&listed);
    let entries = listed.split('\0').filter_map(|line| line.split_once('\t'));
    let blobs: Vec<(&str, &str)> =
        entries.filter_map(|(entry, path)| Some((entry.split_once(" blob ")?.1, path))).collect();
    let asked: String = blobs.iter().flat_map(|(name, _)| [name, "\n"]).collect();
    let Ok(found) = run(git_in(private).args(["cat-file", "--batch-check"]), asked.as_bytes()) else {
        return Ok(false);
    };
    let found = String::from_utf8_lossy(&found);
    let missing: Vec<&str> = found.lines().filter_map(|line| line.strip_suffix(" missing")).collect();
    let mut any = false;
    for (_, path) in blobs.iter().filter(|(name, _)| missing.contains(name)) {
        let Ok(content) = worktree.read(Path::new(path)) else { continue };
        any |= run(git_in(restored).args(["hash-object", "-w", "--no-filters", "--stdin"]), &content).is_ok();
    }
    Ok(any)
}

/// A repair that was killed leaves a part of a new directory.
fn remove_unfinished(worktree: &ConfinedDirectory) -> io::Result<()> {
    match worktree.metadata(Path::new(NEW))? {
        Some(_) => worktree.rename(Path::new(NEW), &PathBuf::from(format!(".git-damaged-{}-unfinished", timestamp()))),
        None => Ok(()),
    }
}

fn timestamp() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_millis().to_string()
}

/// Makes a commit that has the definitions of all these pipelines, and what they use.
pub(super) fn rebuild(
    definitions: &[PipelineFile],
    meltano: &Meltano,
    repository: &Repository,
    scratch: &Path,
) -> Result<Made, Failure> {
    let mut files = project(definitions, meltano, repository, scratch)?;
    let mut old = repository.files(&["pipelines/*.yml"])?;
    for definition in definitions {
        let (path, text) = pipeline_config::file(definition)?;
        files.insert(path, text);
    }
    if repository.head().is_none()
        && let Ok(readme) = repository.worktree().read(Path::new(README)).map(String::from_utf8)
        && let Ok(readme) = readme
    {
        files.insert(README.into(), readme);
    }
    // Of a pipeline that was renamed or deleted since.
    old.retain(|path| !files.contains_key(path));
    let mut gone = Vec::new();
    for path in old {
        if repository.content(&path).is_ok_and(|text| pipeline_config::is_marked(&text)) {
            gone.push(path);
        }
    }
    let mut changes: Vec<Change<'_>> = files.iter().map(|(path, content)| Change::Write(path, content)).collect();
    changes.extend(gone.iter().map(|path| Change::Remove(path)));
    let commit = repository.commit("Rebuild the repository from the definitions of its pipelines", &changes)?;
    say(format_args!("The repository has the definitions of {} pipelines.", definitions.len()));
    Ok(Made { commit, files })
}

/// The Meltano project, with what all these pipelines use. Where there is no Meltano now, it is as it was.
fn project(
    definitions: &[PipelineFile],
    meltano: &Meltano,
    repository: &Repository,
    scratch: &Path,
) -> Result<BTreeMap<PathBuf, String>, Failure> {
    let program = match meltano.find() {
        Ok(program) => program,
        Err(Missing::Unavailable(_)) => return Project::committed(repository),
        Err(Missing::Broken(failure)) => return Err(failure),
    };
    let project = Project::check_out(repository, meltano, &program, scratch)?;
    for pipeline in definitions.iter().filter(|it| it.uses_meltano()) {
        // A plugin whose definition is gone is nothing that the other pipelines need.
        if let Err(failure) =
            project.add(&meltano.in_scratch(&program, project.root()), &pipeline.id, &pipeline.plugins)
        {
            say(format_args!("What pipeline {} uses is not in the project: {failure}", pipeline.name));
        }
    }
    project.files()
}

/// Sets a damaged repository of the servers' aside. What the clone has is the new one's.
pub(super) fn replace_origin(origin: &Origin, why: &str) -> Result<(), Failure> {
    let Some(path) = origin.shared_path() else { return Err(Failure::DamagedOrigin(why.to_owned())) };
    let lock = lock_file(&path.with_extension("repair"))?;
    lock.lock()?;
    // Another server may have repaired it already.
    let Err(Failure::DamagedOrigin(why)) = origin.check_whole() else { return Ok(()) };
    let aside = path.with_extension(format!("git-damaged-{}", timestamp()));
    fs::rename(path, &aside)?;
    say(format_args!("The servers' repository of the workspace was damaged: {why}."));
    say(format_args!("What is left of it is kept in {}.", aside.display()));
    origin.make()
}
