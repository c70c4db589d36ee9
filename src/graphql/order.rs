//! The fields of an answer, in the order in which they were asked for.
//!
//! GraphQL promises that order. The library resolves fields side by side and inserts each when it is there, so those that wait
//! for the database come last. What is out of order is put right here; an object that is not costs a look at its keys.

use async_graphql::indexmap::IndexMap;
use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet};
use async_graphql::{Name, Value};

use super::plan::wanted;

/// The keys of an object in order, each with the order of what it holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Order {
    keys: IndexMap<Name, Order>,
}

impl Order {
    /// The order that the operation with this name asks for, or the only one. No fragment may lead back to itself.
    pub(super) fn of(document: &ExecutableDocument, name: Option<&str>) -> Self {
        let mut order = Self::default();
        if let Some(operation) = wanted(document, name) {
            order.add(&operation.selection_set.node, document);
        }
        order
    }

    fn add(&mut self, set: &SelectionSet, document: &ExecutableDocument) {
        for item in &set.items {
            match &item.node {
                Selection::Field(field) => {
                    let key = field.node.response_key().node.clone();
                    self.keys.entry(key).or_default().add(&field.node.selection_set.node, document);
                }
                Selection::InlineFragment(fragment) => self.add(&fragment.node.selection_set.node, document),
                Selection::FragmentSpread(spread) => {
                    if let Some(fragment) = document.fragments.get(&spread.node.fragment_name.node) {
                        self.add(&fragment.node.selection_set.node, document);
                    }
                }
            }
        }
    }

    /// Puts a value in this order.
    pub(super) fn apply(&self, value: &mut Value) {
        match value {
            Value::List(values) => values.iter_mut().for_each(|value| self.apply(value)),
            Value::Object(object) => {
                if !self.holds_for(object) {
                    let place = |key: &Name| self.keys.get_index_of(key).unwrap_or(usize::MAX);
                    object.sort_by(|one, _, other, _| place(one).cmp(&place(other)));
                }
                for (key, value) in object {
                    if let Some(order) = self.keys.get(key).filter(|order| !order.keys.is_empty()) {
                        order.apply(value);
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether the keys of an object, which may be fewer, come in this order.
    fn holds_for(&self, object: &IndexMap<Name, Value>) -> bool {
        let mut keys = self.keys.keys();
        object.keys().all(|wanted| keys.any(|key| key == wanted))
    }
}
