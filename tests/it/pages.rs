//! Connections, compared with a model: pages are walked in both directions while jobs come and go.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::support::{TestServer, text};

const PAGE: &str = "query($id: ID!, $first: Int, $after: String, $last: Int, $before: String) { pipeline(id: $id) { \
                    jobs(type: PIPELINE_VERIFY, first: $first, after: $after, last: $last, before: $before) { totalCount nodes { id } \
                    edges { cursor node { id } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } } }";

#[derive(Debug, Clone)]
enum Step {
    Insert(usize),
    /// Deletes one of those that are there.
    Delete(prop::sample::Index),
    /// Reads the next page of the walk from the front, or from the back.
    Walk {
        backwards: bool,
        size: usize,
    },
    /// Reads a page between two cursors that were given out at some time, of which either may be left out.
    Between {
        after: Option<prop::sample::Index>,
        before: Option<prop::sample::Index>,
        backwards: bool,
        size: usize,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let cursor = prop::option::of(any::<prop::sample::Index>());
    prop_oneof![
        1 => (1..5_usize).prop_map(Step::Insert),
        2 => any::<prop::sample::Index>().prop_map(Step::Delete),
        3 => (any::<bool>(), 1..5_usize).prop_map(|(backwards, size)| Step::Walk { backwards, size }),
        2 => (cursor.clone(), cursor, any::<bool>(), 1..5_usize)
            .prop_map(|(after, before, backwards, size)| Step::Between { after, before, backwards, size }),
    ]
}

/// The list as it should be: the jobs that are there, by the order in which they were made.
#[derive(Default)]
struct Model {
    made: Vec<String>,
    present: BTreeSet<usize>,
    cursors: BTreeMap<usize, String>,
}

/// What a page is asked with: places in the order in which jobs were made.
#[derive(Debug, Default, Clone, Copy)]
struct Asked {
    after: Option<usize>,
    before: Option<usize>,
    backwards: bool,
    size: usize,
}

impl Model {
    /// The jobs of a page, newest first, and whether there are others before and after it.
    fn page(&self, asked: Asked) -> (Vec<usize>, bool, bool) {
        let Asked { after, before, backwards, size } = asked;
        let wanted = |it: &&usize| after.is_none_or(|after| **it < after) && before.is_none_or(|before| **it > before);
        let mut rows: Vec<usize> = self.present.iter().rev().filter(wanted).copied().collect();
        let beyond = rows.len().saturating_sub(size);
        if backwards {
            rows.drain(..beyond);
        } else {
            rows.truncate(size);
        }
        let newer = after.is_some_and(|after| self.present.range(after..).next().is_some());
        let older = before.is_some_and(|before| self.present.range(..=before).next().is_some());
        (rows, newer || (backwards && beyond > 0), older || (!backwards && beyond > 0))
    }
}

/// A walk over the whole list, page by page.
#[derive(Default)]
struct Walk {
    /// What was there when it began, and has been ever since.
    all_along: BTreeSet<usize>,
    seen: Vec<usize>,
    position: Option<usize>,
}

struct Walked<'a> {
    server: &'a TestServer,
    pipeline: String,
    model: Model,
}

impl Walked<'_> {
    async fn insert(&mut self) {
        let id = self.server.verify(&self.pipeline).await;
        self.model.present.insert(self.model.made.len());
        self.model.made.push(id);
    }

    /// Reads a page, and compares it with the model's.
    async fn read(&mut self, asked: Asked) -> Result<(Vec<usize>, bool), TestCaseError> {
        let cursor = |place: Option<usize>| place.map(|it| self.model.cursors[&it].clone());
        let size = if asked.backwards { "last" } else { "first" };
        let arguments = json!({ "id": self.pipeline, "after": cursor(asked.after), "before": cursor(asked.before), size: asked.size });
        let page = self.server.data(PAGE, arguments).await["pipeline"]["jobs"].take();
        let (rows, has_previous, has_next) = self.model.page(asked);
        let expected: Vec<&str> = rows.iter().map(|it| self.model.made[*it].as_str()).collect();
        let edges = page["edges"].as_array().expect("edges");
        let nodes: Vec<&str> = page["nodes"].as_array().expect("nodes").iter().map(|it| text(&it["id"])).collect();
        prop_assert_eq!(&nodes, &expected, "{:?}", asked);
        prop_assert_eq!(edges.iter().map(|it| text(&it["node"]["id"])).collect::<Vec<_>>(), expected);
        let end = |edge: Option<&Value>| edge.map_or(Value::Null, |it| it["cursor"].clone());
        let info = json!({ "hasPreviousPage": has_previous, "hasNextPage": has_next,
                           "startCursor": end(edges.first()), "endCursor": end(edges.last()) });
        prop_assert_eq!(&page["pageInfo"], &info, "{:?}", asked);
        prop_assert_eq!(&page["totalCount"], self.model.present.len());
        for (place, edge) in rows.iter().zip(edges) {
            self.model.cursors.insert(*place, text(&edge["cursor"]).to_owned());
        }
        Ok((rows, if asked.backwards { has_previous } else { has_next }))
    }

    /// Takes a step of a walk. At its end it has seen what was there all along, and nothing twice.
    async fn walk(&mut self, walk: &mut Walk, backwards: bool, size: usize) -> Result<(), TestCaseError> {
        if walk.seen.is_empty() {
            walk.all_along = self.model.present.clone();
        }
        let (after, before) = if backwards { (None, walk.position) } else { (walk.position, None) };
        let (rows, more) = self.read(Asked { after, before, backwards, size }).await?;
        walk.position = if backwards { rows.first() } else { rows.last() }.copied().or(walk.position);
        walk.seen.extend(rows);
        if !more {
            let seen: BTreeSet<usize> = walk.seen.iter().copied().collect();
            prop_assert_eq!(seen.len(), walk.seen.len(), "one came twice");
            prop_assert!(walk.all_along.is_subset(&seen), "one was missed");
            *walk = Walk::default();
        }
        Ok(())
    }
}

#[test]
fn pages_are_those_of_a_model_while_jobs_come_and_go() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (server, workspace) = runtime.block_on(async {
        let server = TestServer::with(&["--slots", "0"]);
        let created = server.begin_workspace("W").await;
        (server, text(&created["workspace"]["id"]).to_owned())
    });
    let mut runner = TestRunner::new(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() });
    let steps = prop::collection::vec(any_step(), 20..60);
    let number = Cell::new(0);
    let run = |steps| {
        number.update(|it| it + 1);
        runtime.block_on(case(&server, &workspace, &format!("P{}", number.get()), steps))
    };
    runner.run(&steps, run).unwrap_or_else(|error| panic!("{error}"));
}

async fn case(server: &TestServer, workspace: &str, name: &str, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let input = json!({ "workspaceId": workspace, "name": name, "script": "true" });
    let created = server.begin_pipeline(input).await;
    let pipeline = text(&created["pipeline"]["id"]).to_owned();
    let mut list = Walked { server, pipeline, model: Model::default() };
    let mut walks = [Walk::default(), Walk::default()];
    for _ in 0..5 {
        list.insert().await;
    }
    for step in steps {
        match step {
            Step::Insert(count) => {
                for _ in 0..count {
                    list.insert().await;
                }
            }
            Step::Delete(which) if !list.model.present.is_empty() => {
                let places: Vec<usize> = list.model.present.iter().copied().collect();
                let place = *which.get(&places);
                server.delete("Job", &list.model.made[place]).await;
                list.model.present.remove(&place);
                walks.iter_mut().for_each(|walk| _ = walk.all_along.remove(&place));
            }
            Step::Delete(_) => {}
            Step::Walk { backwards, size } => list.walk(&mut walks[usize::from(backwards)], backwards, size).await?,
            Step::Between { after, before, backwards, size } => {
                let known: Vec<usize> = list.model.cursors.keys().copied().collect();
                let place =
                    |index: Option<prop::sample::Index>| index.filter(|_| !known.is_empty()).map(|it| *it.get(&known));
                let (after, before) = (place(after), place(before));
                list.read(Asked { after, before, backwards, size }).await?;
            }
        }
    }
    Ok(())
}
