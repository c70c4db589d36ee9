//! How much a document asks for when its fragments are written out.
//!
//! A fragment that spreads another twice, which spreads another twice, and so on, is a kilobyte that stands for millions of
//! selections. Everything that walks them, validation included, would take seconds; to count them takes a look at each fragment.

use std::collections::HashMap;

use async_graphql::Name;
use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet};

/// Deeper than this nothing is counted: it is more than anybody asks for.
const DEEPEST: usize = 100;

/// How many selections a document stands for, or as many as can be counted.
pub(super) fn selections(document: &ExecutableDocument) -> u64 {
    let mut counter = Counter { document, counted: HashMap::new() };
    let operations =
        document.operations.iter().map(|(_, operation)| counter.count(&operation.node.selection_set.node, 0));
    operations.fold(0, u64::saturating_add)
}

struct Counter<'a> {
    document: &'a ExecutableDocument,
    counted: HashMap<&'a Name, u64>,
}

impl<'a> Counter<'a> {
    fn count(&mut self, set: &'a SelectionSet, depth: usize) -> u64 {
        if depth > DEEPEST {
            return u64::MAX;
        }
        let depth = depth + 1;
        let items = set.items.iter().map(|item| match &item.node {
            Selection::Field(field) => self.count(&field.node.selection_set.node, depth).saturating_add(1),
            Selection::InlineFragment(fragment) => {
                self.count(&fragment.node.selection_set.node, depth).saturating_add(1)
            }
            Selection::FragmentSpread(spread) => self.count_fragment(&spread.node.fragment_name.node, depth),
        });
        items.fold(0, u64::saturating_add)
    }

    fn count_fragment(&mut self, name: &'a Name, depth: usize) -> u64 {
        if let Some(counted) = self.counted.get(name) {
            return *counted;
        }
        // One that leads back to itself, or to nothing, is for validation to refuse.
        self.counted.insert(name, 1);
        let fragment = self.document.fragments.get(name);
        let count = fragment.map_or(1, |it| self.count(&it.node.selection_set.node, depth).saturating_add(1));
        self.counted.insert(name, count);
        count
    }
}
