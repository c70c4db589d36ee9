//! Default values of variables, made safe for the library's validation.
//!
//! The library checks a default value against the variable's type, and panics if that is a list of
//! a type that does not exist (async-graphql 7.2.1: `DefaultValuesOfCorrectType` looks only at
//! types that are no lists).

use async_graphql::parser::types::{BaseType, DocumentOperations, ExecutableDocument, OperationDefinition};

use super::completion::Types;

/// Removes the default values of variables whose types do not exist. The library then refuses the document for the type.
pub(super) fn remove_unknown_defaults(document: &mut ExecutableDocument, types: &Types) {
    match &mut document.operations {
        DocumentOperations::Single(operation) => remove_from(&mut operation.node, types),
        DocumentOperations::Multiple(operations) => {
            operations.values_mut().for_each(|operation| remove_from(&mut operation.node, types));
        }
    }
}

fn remove_from(operation: &mut OperationDefinition, types: &Types) {
    for definition in &mut operation.variable_definitions {
        let mut base = &definition.node.var_type.node.base;
        let name = loop {
            match base {
                BaseType::Named(name) => break name,
                BaseType::List(of) => base = &of.base,
            }
        };
        if !types.has(name) {
            definition.node.default_value = None;
        }
    }
}
