//! What an introspection costs: the selections that are resolved for it, as often as they are, and the texts in its result.
//!
//! Types lead to fields and fields to types, so that the result grows with a power of the schema's size. The schema is known. So the
//! fields are counted by going through it as the execution would, until there are too many.

use std::collections::HashMap;

use async_graphql::parser::types::{ExecutableDocument, Field, Selection, SelectionSet};
use async_graphql::{Value, Variables};

/// So many bytes of text cost as much as a field.
const BYTES_OF_A_FIELD: u64 = 32;

/// A query for the whole schema.
pub(in crate::graphql) const WHOLE_SCHEMA: &str = "{
  __schema {
    description
    queryType { name } mutationType { name } subscriptionType { name }
    types {
      kind name description specifiedByURL isOneOf
      fields(includeDeprecated: true) {
        name description isDeprecated deprecationReason type { ...Ref } args(includeDeprecated: true) { ...Value }
      }
      inputFields(includeDeprecated: true) { ...Value }
      interfaces { ...Ref }
      enumValues(includeDeprecated: true) { name description isDeprecated deprecationReason }
      possibleTypes { ...Ref }
      ofType { name }
    }
    directives {
      name description isRepeatable locations args(includeDeprecated: true) { ...Value }
    }
  }
}
fragment Value on __InputValue { name description type { ...Ref } defaultValue isDeprecated deprecationReason }
fragment Ref on __Type { kind name ofType { kind name ofType { kind name ofType { kind name ofType { name } } } } }";

/// The schema, as it answers [`WHOLE_SCHEMA`].
#[derive(Debug)]
pub(in crate::graphql) struct Introspection {
    schema: Value,
    types: HashMap<String, Value>,
}

impl Introspection {
    /// Reads the answer.
    pub(in crate::graphql) fn of(data: Value) -> Self {
        let Value::Object(mut data) = data else { return Self { schema: Value::Null, types: HashMap::new() } };
        let schema = data.swap_remove("__schema").unwrap_or_default();
        let types = match part(&schema, "types") {
            Some(Value::List(types)) => {
                types.iter().filter_map(|it| Some((name(it)?.to_owned(), it.clone()))).collect()
            }
            _ => HashMap::new(),
        };
        Self { schema, types }
    }

    /// What the introspection in a selection of the root costs, or a number that is greater than `most`. No fragment may lead back to
    /// itself.
    pub(in crate::graphql) fn cost(
        &self,
        document: &ExecutableDocument,
        root: &SelectionSet,
        variables: &Variables,
        most: u64,
    ) -> u64 {
        let mut counter = Counter { schema: self, document, variables, cost: 0, most };
        counter.count_root(root);
        counter.cost
    }
}

struct Counter<'a> {
    schema: &'a Introspection,
    document: &'a ExecutableDocument,
    variables: &'a Variables,
    cost: u64,
    most: u64,
}

impl<'a> Counter<'a> {
    fn count_root(&mut self, set: &'a SelectionSet) {
        let schema = self.schema;
        self.each_field(set, &mut |counter, field| match field.name.node.as_str() {
            "__schema" => counter.count_value(&field.selection_set.node, &schema.schema),
            "__type" => {
                let name = field.get_argument("name").map(|it| it.node.clone());
                let name =
                    name.and_then(|it| it.into_const_with(|name| counter.variables.get(&name).cloned().ok_or(())).ok());
                if let Some(Value::String(name)) = name
                    && let Some(type_) = schema.types.get(&name)
                {
                    counter.count_value(&field.selection_set.node, type_);
                }
            }
            _ => {}
        });
    }

    fn count_value(&mut self, set: &'a SelectionSet, value: &'a Value) {
        match value {
            Value::List(values) => values.iter().for_each(|value| self.count_value(set, value)),
            Value::String(text) => self.cost += text.len() as u64 / BYTES_OF_A_FIELD,
            Value::Object(_) => {
                // A reference has only the name of the type that it stands for.
                let value = name(value)
                    .filter(|_| part(value, "ofType").is_some())
                    .and_then(|it| self.schema.types.get(it))
                    .unwrap_or(value);
                self.each_field(set, &mut |counter, field| {
                    if let Some(value) = part(value, &field.name.node) {
                        counter.count_value(&field.selection_set.node, value);
                    }
                });
            }
            _ => {}
        }
    }

    /// Does something with each field that is selected, as long as the cost is not too high.
    fn each_field(&mut self, set: &'a SelectionSet, count: &mut dyn FnMut(&mut Self, &'a Field)) {
        for item in &set.items {
            if self.cost > self.most {
                return;
            }
            self.cost += 1;
            match &item.node {
                Selection::Field(field) => count(self, &field.node),
                Selection::InlineFragment(fragment) => self.each_field(&fragment.node.selection_set.node, count),
                Selection::FragmentSpread(spread) => {
                    if let Some(fragment) = self.document.fragments.get(&spread.node.fragment_name.node) {
                        self.each_field(&fragment.node.selection_set.node, count);
                    }
                }
            }
        }
    }
}

fn part<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(parts) => parts.get(name),
        _ => None,
    }
}

fn name(value: &Value) -> Option<&str> {
    match part(value, "name") {
        Some(Value::String(name)) => Some(name),
        _ => None,
    }
}
