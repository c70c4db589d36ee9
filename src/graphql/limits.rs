//! How much a document asks for when its fragments are written out.
//!
//! A fragment that spreads another twice, which spreads another twice, and so on, is a kilobyte that stands for millions of
//! selections. Everything that walks them, validation included, would take seconds; to count them takes a look at each fragment.

use std::collections::HashMap;

use async_graphql::Name;
use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet};

/// Deeper than this nothing is counted: it is more than anybody asks for.
const DEEPEST: usize = 100;

/// What a document comes to.
pub(super) struct Size {
    /// How many selections it stands for, or as many as can be counted.
    pub(super) selections: u64,
    /// Whether a fragment leads back to itself.
    pub(super) circular: bool,
}

/// Measures a document.
pub(super) fn measure(document: &ExecutableDocument) -> Size {
    let mut counter = Counter { document, counted: HashMap::new(), circular: false };
    let mut selections = 0_u64;
    for (_, operation) in document.operations.iter() {
        selections = selections.saturating_add(counter.count(&operation.node.selection_set.node, 0));
    }
    Size { selections, circular: counter.circular }
}

struct Counter<'a> {
    document: &'a ExecutableDocument,
    /// What each fragment stands for: nothing while it is being counted.
    counted: HashMap<&'a Name, Option<u64>>,
    circular: bool,
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
        match self.counted.get(name) {
            Some(Some(counted)) => return *counted,
            Some(None) => {
                self.circular = true;
                return 0;
            }
            None => self.counted.insert(name, None),
        };
        let fragment = self.document.fragments.get(name);
        let count = fragment.map_or(1, |it| self.count(&it.node.selection_set.node, depth).saturating_add(1));
        self.counted.insert(name, Some(count));
        count
    }
}
