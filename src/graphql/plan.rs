//! An operation that may be carried out: parsed, and measured.

use std::sync::Arc;

use async_graphql::parser::types::{
    DocumentOperations, ExecutableDocument, OperationDefinition, OperationType, Selection, SelectionSet,
};
use async_graphql::{Request, Variables};

use super::operation::Caller;
use super::order::Order;

/// All that the result of an operation depends on, beside what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) caller: Caller,
    pub(super) query: Arc<str>,
    pub(super) operation_name: Option<String>,
    /// A JSON object, as the client wrote it.
    pub(super) variables: Option<Box<str>>,
}

impl Key {
    /// About how many bytes it takes.
    pub(super) fn len(&self) -> usize {
        self.query.len() + self.variables.as_ref().map_or(0, |it| it.len())
    }
}

/// How an operation is to be carried out.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) key: Key,
    pub(super) kind: OperationType,
    pub(super) document: ExecutableDocument,
    pub(super) variables: Variables,
    pub(super) order: Order,
    /// Whether the document is marked: its result has to be completed even if it has no errors.
    pub(super) marked: bool,
    pub(super) reads_logs: bool,
    pub(super) reads_clock: bool,
    /// Whether the document selects a cursor, which may be a position in the stream of changes.
    pub(super) reads_cursors: bool,
}

impl Plan {
    /// A request to the schema. The text is not needed any more: the document is there.
    pub(super) fn request(&self) -> Request {
        let mut request = Request::new("").variables(self.variables.clone());
        request.operation_name.clone_from(&self.key.operation_name);
        request.set_parsed_query(self.document.clone());
        request
    }
}

/// The operation that is asked for, if the document says which that is.
pub(super) fn wanted<'a>(document: &'a ExecutableDocument, name: Option<&str>) -> Option<&'a OperationDefinition> {
    match &document.operations {
        DocumentOperations::Single(operation) => Some(&operation.node),
        DocumentOperations::Multiple(operations) => match name {
            Some(name) => operations.get(name).map(|it| &it.node),
            None if operations.len() == 1 => operations.values().next().map(|it| &it.node),
            None => None,
        },
    }
}

/// The same, to be changed.
pub(super) fn wanted_mut<'a>(
    document: &'a mut ExecutableDocument,
    name: Option<&str>,
) -> Option<&'a mut OperationDefinition> {
    match &mut document.operations {
        DocumentOperations::Single(operation) => Some(&mut operation.node),
        DocumentOperations::Multiple(operations) => match name {
            Some(name) => operations.get_mut(name).map(|it| &mut it.node),
            None if operations.len() == 1 => operations.values_mut().next().map(|it| &mut it.node),
            None => None,
        },
    }
}

/// Gives the variables that the client left out the values that the operation has for them. The library does so too, but not for
/// those in `@skip` and `@include`.
pub(super) fn add_defaults(operation: &OperationDefinition, variables: &mut Variables) {
    for definition in &operation.variable_definitions {
        let definition = &definition.node;
        if let Some(default) = &definition.default_value {
            variables.entry(definition.name.node.clone()).or_insert_with(|| default.node.clone());
        }
    }
}

/// How many fields an operation has, not counting theirs. No fragment may lead back to itself.
pub(super) fn root_fields(document: &ExecutableDocument, set: &SelectionSet) -> usize {
    let count = |item: &Selection| match item {
        Selection::Field(_) => 1,
        Selection::InlineFragment(fragment) => root_fields(document, &fragment.node.selection_set.node),
        Selection::FragmentSpread(spread) => {
            let fragment = document.fragments.get(&spread.node.fragment_name.node);
            fragment.map_or(0, |it| root_fields(document, &it.node.selection_set.node))
        }
    };
    set.items.iter().map(|item| count(&item.node)).sum()
}
