//! The repository that a task works on, and what it has to do with others.
//!
//! Where there is an origin, the repository here is a clone: it is brought up to date first, and a commit counts once the origin has it. Until then
//! nothing of it is seen here, so a task that is killed can be repeated, here or elsewhere. Where there is none, the repository here is all there is.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::git::Repository;
use super::gitdir::{BRANCH, PLACED, read_reference};
use super::meltano::{Meltano, Project};
use super::origin::{Origin, Way};
use super::place::place;
use super::{Failure, Outcome, PipelineFile, note, repair, say};
use crate::confined::ConfinedDirectory;

/// How often a commit is made anew because somebody else has pushed another.
const TRIES: usize = 5;
/// How often a task repairs what it works on: the clone, the origin, and once more.
const REPAIRS: usize = 3;

/// The current directory, which is to be a workspace's repository.
pub(super) struct Workplace<'a> {
    workspace: &'a str,
    origin: Option<&'a Origin>,
    scratch: &'a Path,
    meltano: &'a Meltano,
    /// The definitions of all pipelines, if the repository has to be rebuilt.
    definitions: Option<&'a [PipelineFile]>,
    is_rebuilt: Cell<bool>,
}

/// What a task has made.
pub(super) struct Made {
    /// The commit.
    pub(super) commit: String,
    /// Files of it that are to be in place, whatever is there.
    pub(super) files: BTreeMap<PathBuf, String>,
}

impl<'a> Workplace<'a> {
    /// The current directory, of the workspace with this id. What git needs beside it is kept in `scratch`.
    pub(super) fn new(
        workspace: &'a str,
        origin: Option<&'a Origin>,
        scratch: &'a Path,
        meltano: &'a Meltano,
        definitions: Option<&'a [PipelineFile]>,
    ) -> Self {
        Self { workspace, origin, scratch, meltano, definitions, is_rebuilt: Cell::new(false) }
    }

    /// Where what git and others need is kept.
    pub(super) fn scratch(&self) -> &'a Path {
        self.scratch
    }

    /// Brings the clone up to date, if it is one. Jobs may be using it.
    pub(super) fn update(&self) -> Result<(), Failure> {
        let Some(origin) = self.origin else { return Ok(()) };
        self.rebuild_if_asked()?;
        self.repairing(|| self.update_clone(origin))
    }

    /// Has a commit made on top of what is newest, and brings it where it is to be. It may be made several times.
    pub(super) fn change(&self, make: impl Fn(&Repository) -> Result<Made, Failure>) -> Result<String, Failure> {
        self.rebuild_if_asked()?;
        self.repairing(|| self.make_change(&make))
    }

    /// The same for a repository that has commits already. If it has none, it is damaged.
    pub(super) fn change_existing(
        &self,
        make: impl Fn(&Repository) -> Result<Made, Failure>,
    ) -> Result<String, Failure> {
        self.change(|repository| match (repository.head(), self.definitions) {
            (None, None) => {
                let lost = "The workspace's repository has no commit any more.";
                Err(Failure::NeedsDefinitions(lost.to_owned()))
            }
            _ => make(repository),
        })
    }

    /// Writes the definitions of all pipelines, if the server has given them because the repository was damaged.
    fn rebuild_if_asked(&self) -> Result<(), Failure> {
        let Some(definitions) = self.definitions else { return Ok(()) };
        let rebuild = |repository: &Repository| repair::rebuild(definitions, self.meltano, repository, self.scratch);
        self.repairing(|| self.make_change(&rebuild))?;
        self.is_rebuilt.set(true);
        // A run becomes another program, or ends in another way than well: that the repository is rebuilt stands.
        Ok(note(self.scratch, &Outcome { rebuilt: true, ..Outcome::default() })?)
    }

    /// Whether the repository was rebuilt from the definitions of its pipelines.
    pub(super) fn is_rebuilt(&self) -> bool {
        self.is_rebuilt.get()
    }

    /// Does something; if it fails because a repository is damaged, repairs that and does it again.
    fn repairing<T>(&self, act: impl Fn() -> Result<T, Failure>) -> Result<T, Failure> {
        for _ in 0..REPAIRS {
            let failure = match act() {
                Ok(done) => return Ok(done),
                Err(failure) => self.diagnosed(failure),
            };
            match &failure {
                // A clone gets everything from its origin.
                Failure::Damaged(why) if self.origin.is_some() => {
                    repair::replace_repository(why, false, self.scratch, self.workspace)?;
                }
                Failure::Damaged(why) if self.definitions.is_some() => {
                    repair::replace_repository(why, true, self.scratch, self.workspace)?;
                }
                Failure::DamagedOrigin(why) if self.definitions.is_some() => {
                    let origin = self.origin.ok_or_else(|| Failure::DamagedOrigin(why.clone()))?;
                    repair::replace_origin(origin, why)?;
                }
                Failure::Damaged(_) | Failure::DamagedOrigin(_) => {
                    return Err(Failure::NeedsDefinitions(failure.to_string()));
                }
                _ => return Err(failure),
            }
        }
        act()
    }

    /// A failure of git's may be damage: then everything is read to tell which repository it is.
    fn diagnosed(&self, failure: Failure) -> Failure {
        match &failure {
            Failure::Git { said, .. } | Failure::Origin { said, .. } if said.may_be_damage() => {}
            _ => return failure,
        }
        let here = Repository::find(self.scratch, self.workspace)
            .and_then(|it| it.head().map_or(Ok(()), |head| it.check_history(head)));
        if let Err(damaged @ Failure::Damaged(_)) = here {
            return damaged;
        }
        match self.origin.map_or(Ok(()), Origin::check_whole) {
            Err(damaged @ Failure::DamagedOrigin(_)) => damaged,
            _ => failure,
        }
    }

    fn update_clone(&self, origin: &Origin) -> Result<(), Failure> {
        // Most often nothing is new, and that is to cost next to nothing.
        let seen = origin.seen();
        if seen.is_some() && [PLACED, BRANCH].iter().all(|it| here(it) == seen) && has_object(seen.as_deref()) {
            return Ok(());
        }
        let _lock = origin.lock()?;
        let repository = Repository::find(self.scratch, self.workspace)?;
        let head = repository.head().map(str::to_owned);
        let way = Way::to(origin, &repository);
        match way.newest()? {
            None if head.is_none() => Err(Failure::Said(format!("The repository {origin:?} is empty."))),
            None => Ok(()),
            newest if newest == head => self.settle(&repository, head.as_deref(), &BTreeMap::new()),
            Some(_) => {
                let newest = way.fetch(head.as_deref())?;
                repository.verify(&newest)?;
                self.settle(&repository, Some(&newest), &BTreeMap::new())
            }
        }
    }

    fn make_change(&self, make: &dyn Fn(&Repository) -> Result<Made, Failure>) -> Result<String, Failure> {
        let Some(origin) = self.origin else {
            let repository = Repository::open(self.scratch, self.workspace)?;
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
            let way = Way::to(origin, &repository);
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
                repository.resolve(BRANCH)?.filter(|it| *it != made.commit && repository.follows(it, &made.commit));
            if past.is_none() {
                self.settle(&repository, Some(&made.commit), &made.files)?;
            }
            self.keep_copy(origin, &repository, &made.commit);
            return Ok(made.commit);
        }
        Err(Failure::Said(format!("The repository {origin:?} is changed too often by others.")))
    }

    /// The repository at the newest commit there is, which becomes that of the clone if the origin has it; and what the origin has.
    fn newest(&self, origin: &Origin) -> Result<(Repository, Option<String>), Failure> {
        let _lock = origin.lock()?;
        let repository = Repository::open(self.scratch, self.workspace)?;
        let mut here = repository.head().map(str::to_owned);
        // It knows what other servers have done too, while the origin was another one.
        if let Some(copy) = origin.copy() {
            match self.newest_of_copy(&copy, &repository, here.as_deref()) {
                Ok(Some(newest)) => here = Some(newest),
                Ok(None) => {}
                Err(failure) => say(format_args!("The servers' copy of the repository is not used. {failure}")),
            }
        }
        let way = Way::to(origin, &repository);
        if way.newest()?.is_none() {
            if here.is_some() && origin.shared_path().is_some() && self.definitions.is_none() {
                let lost = "The servers' repository of the workspace has no commit any more.";
                return Err(Failure::NeedsDefinitions(lost.to_owned()));
            }
            return Ok((repository.on(here, None), None));
        }
        let newest = way.fetch(here.as_deref())?;
        repository.verify(&newest)?;
        origin.verify(&newest, self.scratch)?;
        let left = here.filter(|here| !repository.follows(&newest, here));
        self.settle(&repository, Some(&newest), &BTreeMap::new())?;
        Ok((repository.on(Some(newest.clone()), left), Some(newest)))
    }

    fn newest_of_copy(
        &self,
        copy: &Origin,
        repository: &Repository,
        here: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        copy.make()?;
        let way = Way::to(copy, repository);
        if way.newest()?.is_none() {
            return Ok(None);
        }
        let newest = way.fetch(here)?;
        repository.verify(&newest)?;
        Ok(Some(newest))
    }

    /// Makes a commit the newest one here, and puts its files in place.
    fn settle(
        &self,
        repository: &Repository,
        commit: Option<&str>,
        files: &BTreeMap<PathBuf, String>,
    ) -> Result<(), Failure> {
        let Some(commit) = commit else { return Ok(()) };
        let head = repository.resolve(BRANCH)?;
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
    fn keep_copy(&self, origin: &Origin, repository: &Repository, commit: &str) {
        let Some(copy) = origin.copy() else { return };
        let keep = || copy.make().and_then(|()| Way::to(&copy, repository).replace(commit));
        let kept = keep().or_else(|failure| match copy.check_whole() {
            Err(Failure::DamagedOrigin(why)) => repair::replace_origin(&copy, &why).and_then(|()| keep()),
            _ => Err(failure),
        });
        if let Err(failure) = kept {
            say(format_args!("The servers' copy of the repository is not up to date. {failure}"));
        }
    }
}

/// The commit that a reference of the clone leads to, if that is easily told.
fn here(reference: &str) -> Option<String> {
    let directory = ConfinedDirectory::open(Path::new(".")).ok()?.directory(Path::new(".git")).ok()?;
    read_reference(&directory, reference).ok()?
}

/// Whether the object of a commit is there, or is not in a file of its own. A loss of power leaves an empty file.
fn has_object(commit: Option<&str>) -> bool {
    let Some((directory, name)) = commit.and_then(|it| it.split_at_checked(2)) else { return false };
    let path = PathBuf::from(".git/objects").join(directory).join(name);
    let found = ConfinedDirectory::open(Path::new(".")).and_then(|it| it.metadata(&path));
    found.is_ok_and(|found| found.is_none_or(|it| it.length > 0))
}

/// The commit whose files are in place. If that was never noted, they are those of this one, which was the newest until now.
fn note_what_is_in_place(repository: &Repository, head: Option<&str>) -> Result<Option<String>, Failure> {
    // One that is damaged is as good as none.
    let placed = match repository.resolve(PLACED) {
        Err(Failure::Damaged(_)) => None,
        placed => placed?,
    };
    match (placed, head) {
        (None, Some(head)) => {
            repository.set(PLACED, head)?;
            Ok(Some(head.to_owned()))
        }
        (placed, _) => Ok(placed),
    }
}
