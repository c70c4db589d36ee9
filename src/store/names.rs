//! What has which name: names that differ only in case are the same.
//!
//! The key of a name is stored beside it, and unique among what is not deleted. Where an earlier version let two things have names with the
//! same key, that of the later one has its id behind it. A name is looked up in one range of keys, because SQLite reads the whole index for
//! two of them; a key in the range may still be another, of a name of an earlier version with a control character.

use diesel::prelude::*;

use super::conn::Conn;
use super::schema::{pipelines, workspaces};
use crate::error::Error;
use crate::model::{PipelineId, WorkspaceId, naming};

/// A name as it is stored: what has it, its scope, the name, and its key, if it has one.
type Named<T, S> = (T, S, String, Option<String>);

impl Conn {
    /// The name, as it is stored, of a workspace that has this name, and is not the one that is excepted.
    pub async fn workspace_named(&mut self, name: &str, except: Option<WorkspaceId>) -> Result<Option<String>, Error> {
        let key = naming::key(name);
        let (from, to) = naming::disambiguated_range(&key);
        let in_range = workspaces::name_key.ge(key.clone()).and(workspaces::name_key.lt(to));
        let same = workspaces::name_key.eq(key).or(workspaces::name_key.ge(from));
        let found = workspaces::table
            .filter(workspaces::deleted.is_null())
            .filter(in_range.assume_not_null())
            .filter(same.assume_not_null());
        let rows: Vec<(WorkspaceId, String)> = self.all(found.select((workspaces::id, workspaces::name))).await?;
        Ok(rows.into_iter().find(|(id, _)| Some(*id) != except).map(|(_, name)| name))
    }

    /// The workspace's pipelines that have this name, with their names as they are stored. There are several only where an earlier version
    /// let them have it.
    pub async fn pipelines_named(
        &mut self,
        workspace: WorkspaceId,
        name: &str,
    ) -> Result<Vec<(PipelineId, String)>, Error> {
        let key = naming::key(name);
        let (from, to) = naming::disambiguated_range(&key);
        let in_range = pipelines::name_key.ge(key.clone()).and(pipelines::name_key.lt(to));
        let same = pipelines::name_key.eq(key).or(pipelines::name_key.ge(from));
        let found = pipelines::table
            .filter(pipelines::workspace.eq(workspace))
            .filter(pipelines::deleted.is_null())
            .filter(in_range.assume_not_null())
            .filter(same.assume_not_null());
        self.all(found.order(pipelines::name_key).select((pipelines::id, pipelines::name))).await
    }

    /// Gives each name the key that it should have: an earlier version stored none, and another version of Unicode may fold otherwise.
    /// Answers how many had to be given one.
    pub async fn set_name_keys(&mut self) -> Result<usize, Error> {
        let present = workspaces::table.filter(workspaces::deleted.is_null());
        let named = present.order((workspaces::created, workspaces::id)).select((
            workspaces::id,
            workspaces::name,
            workspaces::name_key,
        ));
        let rows: Vec<(WorkspaceId, String, Option<String>)> = self.all(named).await?;
        let rows = rows.into_iter().map(|(id, name, key)| (id, (), name, key)).collect();
        let missing = missing_keys::<WorkspaceId, ()>(rows);
        // First none has one, so that two can change places.
        let none: Option<String> = None;
        for (id, _) in &missing {
            self.run(diesel::update(workspaces::table.find(*id)).set(workspaces::name_key.eq(&none))).await?;
        }
        for (id, key) in &missing {
            self.run(diesel::update(workspaces::table.find(*id)).set(workspaces::name_key.eq(key))).await?;
        }
        let mut count = missing.len();

        let present = pipelines::table.filter(pipelines::deleted.is_null());
        let named = present.order((pipelines::created, pipelines::id)).select((
            pipelines::id,
            pipelines::workspace,
            pipelines::name,
            pipelines::name_key,
        ));
        let rows: Vec<Named<PipelineId, WorkspaceId>> = self.all(named).await?;
        let missing = missing_keys(rows);
        for (id, _) in &missing {
            self.run(diesel::update(pipelines::table.find(*id)).set(pipelines::name_key.eq(&none))).await?;
        }
        for (id, key) in &missing {
            self.run(diesel::update(pipelines::table.find(*id)).set(pipelines::name_key.eq(key))).await?;
        }
        count += missing.len();
        Ok(count)
    }
}

/// The keys that are wrong or missing, and what they should be. The first in each scope has the plain key.
fn missing_keys<T, S>(rows: Vec<Named<T, S>>) -> Vec<(T, String)>
where
    T: std::fmt::Display,
    S: Eq + std::hash::Hash,
{
    let is_right = |name: &str, key: &Option<String>| key.as_deref().is_some_and(|key| naming::is_key_of(key, name));
    let (right, wrong): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, _, name, key)| is_right(name, key));
    let mut taken: std::collections::HashSet<(S, String)> =
        right.into_iter().filter_map(|(_, scope, _, key)| Some((scope, key?))).collect();
    let mut missing = Vec::new();
    for (id, scope, name, _) in wrong {
        let plain = naming::key(&name);
        let is_free = taken.insert((scope, plain.clone()));
        let key = if is_free { plain } else { naming::disambiguated(&plain, &id) };
        missing.push((id, key));
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::missing_keys;
    use crate::model::naming::{disambiguated, key};

    #[test]
    fn names_of_an_earlier_version_keep_apart() {
        let row =
            |id: i32, scope: i32, name: &str, key: Option<&str>| (id, scope, name.to_owned(), key.map(str::to_owned));
        let rows = vec![
            row(1, 1, "Load", None),
            row(2, 1, "load", None),
            row(3, 2, "load", None),
            row(4, 1, "Kept", Some("kept")),
            row(5, 1, "KEPT", None),
            row(6, 1, "Renamed", Some("before")),
            row(7, 1, "other", Some(&disambiguated("other", 7))),
        ];
        let expected = [
            (1, key("load")),
            (2, disambiguated("load", 2)),
            (3, key("load")),
            (5, disambiguated("kept", 5)),
            (6, key("renamed")),
        ];
        assert_eq!(missing_keys(rows), expected);
    }
}
