//! The root of a mutation or subscription, with fragments written out.
//!
//! async-graphql does not find the field of a subscription in a fragment, and executes a field of a mutation as often as it is selected. The
//! specification merges equal fields before anything is executed.

use std::collections::{HashMap, HashSet};

use async_graphql::parser::types::{ExecutableDocument, Field, FragmentDefinition, Selection, SelectionSet};
use async_graphql::{Name, Positioned};

use super::plan::wanted_mut;

/// Writes out the fragments at the root of an operation and merges equal fields. A root with directives on its fragments stays as it is. No
/// fragment may lead back to itself.
pub(super) fn write_out(document: &mut ExecutableDocument, name: Option<&str>) {
    let mut root = Root { fragments: &document.fragments, written_out: HashSet::new(), items: Vec::new() };
    let Some(operation) = super::plan::wanted(document, name) else { return };
    if !root.add(&operation.selection_set.node) {
        return;
    }
    let Root { written_out, items, .. } = root;
    let written_out: HashSet<Name> = written_out.into_iter().cloned().collect();
    if let Some(operation) = wanted_mut(document, name) {
        operation.selection_set.node.items = items;
    }
    // Validation refuses a fragment that is not used. Other operations of the document, or other fragments, may still use one.
    let used = spread_fragments(document, &written_out);
    document.fragments.retain(|name, _| !written_out.contains(name) || used.contains(name));
}

/// The fragments that are spread by an operation, by a fragment that was not written out, or by a fragment that is itself spread so.
fn spread_fragments(document: &ExecutableDocument, written_out: &HashSet<Name>) -> HashSet<Name> {
    let operations = document.operations.iter().map(|(_, operation)| &operation.node.selection_set.node);
    let fragments = document.fragments.iter().filter(|(name, _)| !written_out.contains(*name));
    let mut sets: Vec<&SelectionSet> =
        operations.chain(fragments.map(|(_, fragment)| &fragment.node.selection_set.node)).collect();
    let mut spread = HashSet::new();
    while let Some(set) = sets.pop() {
        for item in &set.items {
            match &item.node {
                Selection::Field(field) => sets.push(&field.node.selection_set.node),
                Selection::InlineFragment(fragment) => sets.push(&fragment.node.selection_set.node),
                Selection::FragmentSpread(fragment) => {
                    let name = &fragment.node.fragment_name.node;
                    if spread.insert(name.clone())
                        && let Some(fragment) = document.fragments.get(name)
                    {
                        sets.push(&fragment.node.selection_set.node);
                    }
                }
            }
        }
    }
    spread
}

struct Root<'a> {
    fragments: &'a HashMap<Name, Positioned<FragmentDefinition>>,
    written_out: HashSet<&'a Name>,
    items: Vec<Positioned<Selection>>,
}

impl<'a> Root<'a> {
    /// Adds a selection. Says whether that was possible.
    fn add(&mut self, set: &'a SelectionSet) -> bool {
        set.items.iter().all(|item| match &item.node {
            Selection::Field(field) => {
                let same = self.items.iter_mut().find_map(|it| match &mut it.node {
                    Selection::Field(other) if is_same(&other.node, &field.node) => Some(&mut other.node),
                    _ => None,
                });
                match same {
                    Some(same) => same.selection_set.node.items.extend(field.node.selection_set.node.items.clone()),
                    None => self.items.push(item.clone()),
                }
                true
            }
            Selection::InlineFragment(fragment) => {
                fragment.node.directives.is_empty() && self.add(&fragment.node.selection_set.node)
            }
            Selection::FragmentSpread(spread) => {
                let Some((name, fragment)) = self.fragments.get_key_value(&spread.node.fragment_name.node) else {
                    return false;
                };
                self.written_out.insert(name);
                spread.node.directives.is_empty() && self.add(&fragment.node.selection_set.node)
            }
        })
    }
}

/// Whether two fields are one in the result. Validation refuses those that only have the same key.
fn is_same(one: &Field, other: &Field) -> bool {
    one.response_key().node == other.response_key().node
        && one.name.node == other.name.node
        && one.arguments == other.arguments
        && one.directives.is_empty()
        && other.directives.is_empty()
}
