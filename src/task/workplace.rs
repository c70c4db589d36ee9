//! The repository that a task works on, and what it has to do with others.
//!
//! Where there is an origin, the repository here is a clone: it is brought up to date first, and a commit counts once the origin has it. Until then
//! nothing of it is seen here, so a task that is killed can be repeated, here or elsewhere. Where there is none, the repository here is all there is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::git::{BRANCH, PLACED, Repository, loose};
use super::meltano::Project;
use super::origin::{Origin, Way};
use super::place::place;
use super::{Failure, say};

/// How often a commit is made anew because somebody else has pushed another.
const TRIES: usize = 5;

/// The current directory, which is to be a workspace's repository.
pub(super) struct Workplace<'a> {
    origin: Option<&'a Origin>,
    scratch: &'a Path,
}

/// What a task has made.
pub(super) struct Made {
    /// The commit.
    pub(super) commit: String,
    /// Files of it that are to be in place, whatever is there.
    pub(super) files: BTreeMap<PathBuf, String>,
}

impl<'a> Workplace<'a> {
    /// The current directory. What git needs beside it is kept in `scratch`.
    pub(super) fn new(origin: Option<&'a Origin>, scratch: &'a Path) -> Self {
        Self { origin, scratch }
    }

    /// Where what git and others need is kept.
    pub(super) fn scratch(&self) -> &'a Path {
        self.scratch
    }

    /// Brings the clone up to date, if it is one. Jobs may be using it.
    pub(super) fn update(&self) -> Result<(), Failure> {
        let Some(origin) = self.origin else { return Ok(()) };
        // Most often nothing is new, and that is to cost next to nothing.
        let seen = origin.seen();
        if seen.is_some() && [PLACED, BRANCH].iter().all(|it| loose(Path::new(".git"), it) == seen) {
            return Ok(());
        }
        let _lock = origin.lock()?;
        let repository = Repository::find(self.scratch)?;
        let head = repository.head().map(str::to_owned);
        let way = Way::to(origin, self.scratch)?;
        match way.newest()? {
            None if head.is_none() => Err(Failure::Said(format!("The repository {origin:?} is empty."))),
            None => Ok(()),
            newest if newest == head => self.settle(&repository, head.as_deref(), &BTreeMap::new()),
            Some(_) => {
                let newest = way.fetch(head.as_deref())?;
                self.settle(&repository, Some(&newest), &BTreeMap::new())
            }
        }
    }

    /// Has a commit made on top of what is newest, and brings it where it is to be. It may be made several times.
    pub(super) fn change(&self, make: impl Fn(&Repository) -> Result<Made, Failure>) -> Result<String, Failure> {
        let Some(origin) = self.origin else {
            let repository = Repository::open(self.scratch)?;
            let made = make(&repository)?;
            let head = repository.head().filter(|head| *head != made.commit);
            note_what_is_in_place(&repository, head)?;
            repository.advance(&made.commit)?;
            self.settle(&repository, Some(&made.commit), &made.files)?;
            return Ok(made.commit);
        };
        origin.make()?;
        for _ in 0..TRIES {
            let (repository, newest) = self.newest(origin)?;
            let made = make(&repository)?;
            let way = Way::to(origin, self.scratch)?;
            if let Err(refused) = way.push(&made.commit) {
                let now = way.newest()?;
                if now == newest {
                    return Err(refused);
                }
                if now.as_ref() != Some(&made.commit) {
                    say("Somebody else has changed the repository meanwhile: doing it again on top of that.");
                    continue;
                }
            }
            say(format_args!("The repository {origin:?} has it."));
            let _lock = origin.lock()?;
            // Another job may have brought the clone to a later one already.
            let past =
                repository.resolve(BRANCH).filter(|it| *it != made.commit && repository.follows(it, &made.commit));
            if past.is_none() {
                self.settle(&repository, Some(&made.commit), &made.files)?;
            }
            self.keep_copy(origin, &made.commit);
            return Ok(made.commit);
        }
        Err(Failure::Said(format!("The repository {origin:?} is changed too often by others.")))
    }

    /// The repository at the newest commit there is, which becomes that of the clone if the origin has it; and what the origin has.
    fn newest(&self, origin: &Origin) -> Result<(Repository, Option<String>), Failure> {
        let _lock = origin.lock()?;
        let repository = Repository::open(self.scratch)?;
        let mut here = repository.head().map(str::to_owned);
        // It knows what other servers have done too, while the origin was another one.
        if let Some(copy) = origin.copy() {
            copy.make()?;
            let way = Way::to(&copy, self.scratch)?;
            if way.newest()?.is_some() {
                here = Some(way.fetch(here.as_deref())?);
            }
        }
        let way = Way::to(origin, self.scratch)?;
        if way.newest()?.is_none() {
            return Ok((repository.on(here, None), None));
        }
        let newest = way.fetch(here.as_deref())?;
        let left = here.filter(|here| !repository.follows(&newest, here));
        self.settle(&repository, Some(&newest), &BTreeMap::new())?;
        Ok((repository.on(Some(newest.clone()), left), Some(newest)))
    }

    /// Makes a commit the newest one here, and puts its files in place.
    fn settle(
        &self,
        repository: &Repository,
        commit: Option<&str>,
        files: &BTreeMap<PathBuf, String>,
    ) -> Result<(), Failure> {
        let Some(commit) = commit else { return Ok(()) };
        let head = repository.resolve(BRANCH);
        let placed = note_what_is_in_place(repository, head.as_deref().filter(|head| *head != commit))?;
        if head.as_deref() != Some(commit) {
            repository.set(BRANCH, commit)?;
        }
        Project::put_in_place(files)?;
        // Last: after a crash before it, it is known what was there.
        if placed.as_deref() != Some(commit) {
            place(repository, placed.as_deref(), commit, files)?;
            repository.set(PLACED, commit)?;
        }
        Ok(())
    }

    /// The servers' copy is of use only once the origin is to be another: nothing depends on it now.
    fn keep_copy(&self, origin: &Origin, commit: &str) {
        let Some(copy) = origin.copy() else { return };
        let kept = copy.make().and_then(|()| Way::to(&copy, self.scratch)?.replace(commit));
        if let Err(failure) = kept {
            say(format_args!("The servers' copy of the repository is not up to date. {failure}"));
        }
    }
}

/// The commit whose files are in place. If that was never noted, they are those of this one, which was the newest until now.
fn note_what_is_in_place(repository: &Repository, head: Option<&str>) -> Result<Option<String>, Failure> {
    match (repository.resolve(PLACED), head) {
        (None, Some(head)) => {
            repository.set(PLACED, head)?;
            Ok(Some(head.to_owned()))
        }
        (placed, _) => Ok(placed),
    }
}
