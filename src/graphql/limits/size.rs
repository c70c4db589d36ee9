//! How much a document asks for when its fragments are written out.
//!
//! A fragment that spreads another twice, which spreads another twice, and so on, is a kilobyte that stands for millions of
//! selections. Everything that walks them, validation included, would take seconds; to count them takes a look at each fragment.

use std::collections::HashMap;
use std::ops::Add;

use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet};
use async_graphql::{Name, Positioned};

/// Deeper than this nothing is counted: it is more than anybody asks for.
const DEEPEST: usize = 100;

/// What a document comes to. Counts end at the largest number there is.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::graphql) struct Size {
    /// How many selections it stands for.
    pub(super) selections: u64,
    /// How many of them have an alias.
    pub(super) aliases: u64,
    /// How many directives they have.
    pub(super) directives: u64,
    /// Whether a fragment leads back to itself.
    pub(in crate::graphql) circular: bool,
    /// Whether logs are asked for.
    pub(in crate::graphql) reads_logs: bool,
    /// Whether something is asked for that changes by itself, as time goes on.
    pub(in crate::graphql) reads_clock: bool,
    /// Whether a cursor is asked for, which may be a position in the stream of changes.
    pub(in crate::graphql) reads_cursors: bool,
    /// Whether the schema is asked for.
    pub(in crate::graphql) introspects: bool,
}

impl Size {
    /// More than any limit allows.
    const TOO_MUCH: Self = Self {
        selections: u64::MAX,
        aliases: 0,
        directives: 0,
        circular: false,
        reads_logs: true,
        reads_clock: true,
        reads_cursors: true,
        introspects: true,
    };

    /// One selection.
    fn one<T>(directives: &[Positioned<T>]) -> Self {
        Self { selections: 1, directives: directives.len() as u64, ..Self::default() }
    }
}

impl Add for Size {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            selections: self.selections.saturating_add(other.selections),
            aliases: self.aliases.saturating_add(other.aliases),
            directives: self.directives.saturating_add(other.directives),
            circular: self.circular || other.circular,
            reads_logs: self.reads_logs || other.reads_logs,
            reads_clock: self.reads_clock || other.reads_clock,
            reads_cursors: self.reads_cursors || other.reads_cursors,
            introspects: self.introspects || other.introspects,
        }
    }
}

/// Measures a document.
pub(super) fn measure(document: &ExecutableDocument) -> Size {
    let mut counter = Counter { document, counted: HashMap::new() };
    let operations = document.operations.iter().map(|(_, operation)| {
        let operation = &operation.node;
        Size { selections: 0, ..Size::one(&operation.directives) } + counter.count(&operation.selection_set.node, 0)
    });
    operations.fold(Size::default(), Size::add)
}

struct Counter<'a> {
    document: &'a ExecutableDocument,
    /// What each fragment stands for: nothing while it is being counted.
    counted: HashMap<&'a Name, Option<Size>>,
}

impl<'a> Counter<'a> {
    fn count(&mut self, set: &'a SelectionSet, depth: usize) -> Size {
        if depth > DEEPEST {
            return Size::TOO_MUCH;
        }
        let depth = depth + 1;
        let items = set.items.iter().map(|item| match &item.node {
            Selection::Field(field) => {
                let field = &field.node;
                let own = Size {
                    aliases: field.alias.is_some().into(),
                    reads_logs: field.name.node == "logs",
                    reads_clock: field.name.node == "nextRuns",
                    reads_cursors: field.name.node == "cursor",
                    introspects: ["__schema", "__type"].contains(&field.name.node.as_str()),
                    ..Size::one(&field.directives)
                };
                own + self.count(&field.selection_set.node, depth)
            }
            Selection::InlineFragment(fragment) => {
                Size::one(&fragment.node.directives) + self.count(&fragment.node.selection_set.node, depth)
            }
            Selection::FragmentSpread(spread) => {
                Size::one(&spread.node.directives) + self.count_fragment(&spread.node.fragment_name.node, depth)
            }
        });
        items.fold(Size::default(), Size::add)
    }

    fn count_fragment(&mut self, name: &'a Name, depth: usize) -> Size {
        match self.counted.get(name) {
            Some(Some(counted)) => return *counted,
            Some(None) => return Size { circular: true, ..Size::default() },
            None => self.counted.insert(name, None),
        };
        let fragment = self.document.fragments.get(name);
        let count = fragment.map_or(Size::default(), |it| self.count(&it.node.selection_set.node, depth));
        self.counted.insert(name, Some(count));
        count
    }
}
