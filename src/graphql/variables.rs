//! Default values of variables, made safe for the library's validation.
//!
//! The library checks a default value against the variable's type, and panics if that is a list of
//! a type that does not exist (async-graphql 7.2.1: `DefaultValuesOfCorrectType` looks only at
//! types that are no lists).

use std::collections::HashSet;
use std::sync::Arc;

use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{
    BaseType, DocumentOperations, ExecutableDocument, OperationDefinition, TypeSystemDefinition,
};

const BUILT_IN: [&str; 5] = ["Boolean", "Float", "ID", "Int", "String"];

/// The names of the types of the schema. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct TypeNames(Arc<HashSet<String>>);

impl TypeNames {
    /// The names of the types in a schema. A schema that the library wrote can be parsed.
    pub(super) fn of(sdl: &str) -> Self {
        let definitions = parse_schema(sdl).map(|document| document.definitions).unwrap_or_default();
        let defined = definitions.into_iter().filter_map(|definition| match definition {
            TypeSystemDefinition::Type(definition) => Some(definition.node.name.node.to_string()),
            _ => None,
        });
        Self(Arc::new(defined.chain(BUILT_IN.map(str::to_owned)).collect()))
    }

    /// Removes the default values of variables whose types do not exist. The library then refuses
    /// the document for the type.
    pub(super) fn remove_unknown_defaults(&self, document: &mut ExecutableDocument) {
        match &mut document.operations {
            DocumentOperations::Single(operation) => self.remove_from(&mut operation.node),
            DocumentOperations::Multiple(operations) => {
                operations.values_mut().for_each(|operation| self.remove_from(&mut operation.node));
            }
        }
    }

    fn remove_from(&self, operation: &mut OperationDefinition) {
        for definition in &mut operation.variable_definitions {
            let mut base = &definition.node.var_type.node.base;
            let name = loop {
                match base {
                    BaseType::Named(name) => break name.as_str(),
                    BaseType::List(of) => base = &of.base,
                }
            };
            if !self.0.contains(name) {
                definition.node.default_value = None;
            }
        }
    }
}
