//! Whether a response is one that the schema allows for its document: what a client with generated types relies on.
//!
//! Every selected field is there, and no other; non-null fields are not null; enum values are known; scalars have their JSON types; every null
//! that an error explains is where the specification puts it. The helpers of `support` check every response that they read.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use async_graphql::Name;
use async_graphql::parser::types::{
    BaseType, Directive, DocumentOperations, ExecutableDocument, Field, OperationDefinition, OperationType, Selection,
    SelectionSet, Type, TypeKind, TypeSystemDefinition,
};
use async_graphql::parser::{parse_query, parse_schema};
use async_graphql::{Positioned, indexmap::IndexMap};
use serde_json::{Map, Value};

/// The codes that errors may have.
const CODES: [&str; 16] = [
    "BAD_REQUEST",
    "BAD_USER_INPUT",
    "CONFLICT",
    "CURSOR_EXPIRED",
    "FORBIDDEN",
    "GRAPHQL_PARSE_FAILED",
    "GRAPHQL_VALIDATION_FAILED",
    "INTERNAL",
    "JOB_NOT_ACTIVE",
    "LIMIT_EXCEEDED",
    "NOT_FOUND",
    "NOT_READY",
    "PERSISTED_QUERY_NOT_FOUND",
    "PIPELINE_BUSY",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
];

/// The types of introspection, as the specification declares them. The schema does not print them.
const INTROSPECTION: &str = "
    type __Schema { description: String types: [__Type!]! queryType: __Type! mutationType: __Type
      subscriptionType: __Type directives: [__Directive!]! }
    type __Type { kind: __TypeKind! name: String description: String specifiedByURL: String fields: [__Field!]
      interfaces: [__Type!] possibleTypes: [__Type!] enumValues: [__EnumValue!] inputFields: [__InputValue!]
      ofType: __Type isOneOf: Boolean }
    enum __TypeKind { SCALAR OBJECT INTERFACE UNION ENUM INPUT_OBJECT LIST NON_NULL }
    type __Field { name: String! description: String args: [__InputValue!]! type: __Type! isDeprecated: Boolean!
      deprecationReason: String }
    type __InputValue { name: String! description: String type: __Type! defaultValue: String isDeprecated: Boolean!
      deprecationReason: String }
    type __EnumValue { name: String! description: String isDeprecated: Boolean! deprecationReason: String }
    type __Directive { name: String! description: String isRepeatable: Boolean! locations: [__DirectiveLocation!]!
      args: [__InputValue!]! }
    enum __DirectiveLocation { QUERY MUTATION SUBSCRIPTION FIELD FRAGMENT_DEFINITION FRAGMENT_SPREAD INLINE_FRAGMENT
      VARIABLE_DEFINITION SCHEMA SCALAR OBJECT FIELD_DEFINITION ARGUMENT_DEFINITION INTERFACE UNION ENUM ENUM_VALUE
      INPUT_OBJECT INPUT_FIELD_DEFINITION }";

/// The types of `schema.graphql`, which the server prints (`schema.rs` compares them).
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::read(include_str!("../../../schema.graphql")));

struct Schema {
    objects: HashMap<Name, Object>,
    enums: HashMap<Name, HashSet<Name>>,
}

struct Object {
    is_interface: bool,
    interfaces: Vec<Name>,
    fields: HashMap<Name, Type>,
}

impl Schema {
    fn read(sdl: &str) -> Self {
        let (mut objects, mut enums) = (HashMap::new(), HashMap::new());
        let texts = [sdl, INTROSPECTION].map(|it| parse_schema(it).expect("a schema"));
        for definition in texts.into_iter().flat_map(|it| it.definitions) {
            let TypeSystemDefinition::Type(definition) = definition else { continue };
            let name = definition.node.name.node;
            let (is_interface, interfaces, fields) = match definition.node.kind {
                TypeKind::Object(it) => (false, it.implements, it.fields),
                TypeKind::Interface(it) => (true, it.implements, it.fields),
                TypeKind::Enum(it) => {
                    enums.insert(name, it.values.into_iter().map(|it| it.node.value.node).collect());
                    continue;
                }
                _ => continue,
            };
            let mut fields: HashMap<Name, Type> =
                fields.into_iter().map(|it| (it.node.name.node, it.node.ty.node)).collect();
            if name == "Query" {
                fields.insert(Name::new("__schema"), Type::new("__Schema!").expect("a type"));
                fields.insert(Name::new("__type"), Type::new("__Type").expect("a type"));
            }
            let interfaces = interfaces.into_iter().map(|it| it.node).collect();
            objects.insert(name, Object { is_interface, interfaces, fields });
        }
        Self { objects, enums }
    }
}

/// Checks the response to a request: the JSON that a client posts, or the payload of a `subscribe` message.
pub fn check(request: &Value, response: &Value) {
    let faults = faults(request, response);
    assert!(
        faults.is_empty(),
        "the response does not conform to the schema: {faults:#?}\n{request:.2000}\n{response:.5000}"
    );
}

/// What is wrong with a response.
pub fn faults(request: &Value, response: &Value) -> Vec<String> {
    let mut checker = Checker { faults: Vec::new(), document: None, variables: Map::new() };
    checker.check(request, response);
    checker.faults
}

struct Checker {
    faults: Vec<String>,
    document: Option<ExecutableDocument>,
    variables: Map<String, Value>,
}

impl Checker {
    fn fault(&mut self, path: &str, what: impl std::fmt::Display) {
        self.faults.push(format!("{path}: {what}"));
    }

    fn check(&mut self, request: &Value, response: &Value) {
        let Some(parts) = response.as_object() else { return self.fault("", "a response is an object") };
        for key in parts.keys().filter(|key| !["data", "errors", "extensions"].contains(&key.as_str())) {
            self.fault(key, "a response has no such part");
        }
        let errors = self.check_errors(parts.get("errors"));
        let Some(data) = parts.get("data") else {
            if errors.is_empty() {
                self.fault("data", "it is missing, and there is no error");
            }
            return;
        };
        if request["query"].is_null() {
            return; // the document is one that the server knows: what its data may be is not known here
        }
        let document = request["query"].as_str().and_then(|text| parse_query(text).ok());
        let Some(operation) = document.as_ref().and_then(|it| operation(it, &request["operationName"])).cloned() else {
            return self.fault("data", "the request names no operation that could have data");
        };
        self.variables = request["variables"].as_object().cloned().unwrap_or_default();
        for definition in &operation.variable_definitions {
            if let Some(default) = &definition.node.default_value {
                let default = serde_json::to_value(&default.node).expect("JSON");
                self.variables.entry(definition.node.name.node.as_str()).or_insert(default);
            }
        }
        let root = match operation.ty {
            OperationType::Query => "Query",
            OperationType::Mutation => "Mutation",
            OperationType::Subscription => "Subscription",
        };
        if data.is_null() {
            if errors.is_empty() {
                self.fault("data", "it is null, and there is no error");
            }
        } else {
            self.document = document;
            let type_ = Type { base: BaseType::Named(Name::new(root)), nullable: false };
            self.check_value("data", &type_, &[&operation.selection_set.node], data);
            errors.iter().for_each(|error| self.check_place(error, data));
        }
    }

    fn check_errors(&mut self, errors: Option<&Value>) -> Vec<Value> {
        let Some(errors) = errors else { return Vec::new() };
        let Some(errors) = errors.as_array().filter(|it| !it.is_empty()) else {
            self.fault("errors", "it is not a list with errors");
            return Vec::new();
        };
        for error in errors {
            if error["message"].as_str().is_none_or(str::is_empty) {
                self.fault("errors", format!("no message: {error}"));
            }
            let code = error["extensions"]["code"].as_str().unwrap_or_default();
            if !CODES.contains(&code) {
                self.fault("errors", format!("an unknown code: {error}"));
            }
        }
        errors.clone()
    }

    /// An error is at a field that is null, or above which something is.
    fn check_place(&mut self, error: &Value, data: &Value) {
        let mut at = data;
        for segment in error["path"].as_array().into_iter().flatten() {
            at = match segment {
                Value::String(key) => &at[key.as_str()],
                Value::Number(index) => &at[usize::try_from(index.as_u64().unwrap_or(0)).unwrap_or(0)],
                _ => return self.fault("errors", format!("not a path: {error}")),
            };
            if at.is_null() {
                return;
            }
        }
        self.fault("errors", format!("what has failed is not null: {error}"));
    }

    fn check_value(&mut self, path: &str, type_: &Type, sets: &[&SelectionSet], value: &Value) {
        if value.is_null() {
            if !type_.nullable {
                self.fault(path, format!("null, but its type is {type_}"));
            }
            return;
        }
        match &type_.base {
            BaseType::List(of) => match value.as_array() {
                Some(items) => {
                    for (index, item) in items.iter().enumerate() {
                        self.check_value(&format!("{path}.{index}"), of, sets, item);
                    }
                }
                None => self.fault(path, format!("not a list: {value:.100}")),
            },
            BaseType::Named(name) if SCHEMA.objects.contains_key(name) => match value.as_object() {
                Some(object) => self.check_object(path, name, sets, object),
                None => self.fault(path, format!("not an object: {value:.100}")),
            },
            BaseType::Named(name) => {
                let right = match (name.as_str(), value) {
                    ("Int", Value::Number(it)) => it.as_i64().is_some_and(|it| i32::try_from(it).is_ok()),
                    ("Float", Value::Number(_)) | ("Boolean", Value::Bool(_)) | ("String" | "ID", Value::String(_)) => {
                        true
                    }
                    ("DateTime", Value::String(text)) => is_date_time(text),
                    (_, Value::String(text)) => {
                        SCHEMA.enums.get(name).is_some_and(|values| values.contains(text.as_str()))
                    }
                    _ => false,
                };
                if !right {
                    self.fault(path, format!("not of the type {name}: {value:.100}"));
                }
            }
        }
    }

    fn check_object(&mut self, path: &str, type_: &Name, sets: &[&SelectionSet], object: &Map<String, Value>) {
        let concrete = self.concrete(type_, sets, object);
        let mut wanted = IndexMap::new();
        let Some(document) = self.document.take() else { return };
        for set in sets {
            self.collect(&document, set, &concrete, &mut wanted);
        }
        for key in object.keys().filter(|key| !wanted.contains_key(key.as_str())) {
            self.fault(&format!("{path}.{key}"), "it was not asked for");
        }
        for (key, fields) in &wanted {
            let path = format!("{path}.{key}");
            let (Some(value), name) = (object.get(*key), &fields[0].name.node) else {
                self.fault(&path, "it is missing");
                continue;
            };
            if name == "__typename" {
                if value != concrete.as_str() {
                    self.fault(&path, format!("{value}, but it is a {concrete}"));
                }
                continue;
            }
            let Some(type_) = SCHEMA.objects[&concrete].fields.get(name) else {
                self.fault(&path, format!("{concrete} has no such field"));
                continue;
            };
            let sets: Vec<&SelectionSet> = fields.iter().map(|it| &it.selection_set.node).collect();
            self.document = Some(document.clone());
            self.check_value(&path, type_, &sets, value);
        }
        self.document = Some(document);
    }

    /// The type of an object: where an interface is declared, its `__typename` says which, or else the fields that it has.
    fn concrete(&self, type_: &Name, sets: &[&SelectionSet], object: &Map<String, Value>) -> Name {
        if !SCHEMA.objects[type_].is_interface {
            return type_.clone();
        }
        let implements = |name: &&Name| SCHEMA.objects[*name].interfaces.contains(type_);
        if let Some(name) = object.get("__typename").and_then(Value::as_str) {
            return Name::new(name);
        }
        let mut names: Vec<&Name> = SCHEMA.objects.keys().filter(implements).collect();
        names.sort_unstable();
        let has_all = |name: &&&Name| {
            let mut wanted = IndexMap::new();
            let document = self.document.as_ref().expect("a document");
            sets.iter().for_each(|set| self.collect(document, set, name, &mut wanted));
            wanted.len() == object.len() && wanted.keys().all(|key| object.contains_key(*key))
        };
        (*names.iter().find(has_all).unwrap_or(&names[0])).clone()
    }

    /// Collects the fields that are selected of an object of a type, by their keys.
    fn collect<'a>(
        &self,
        document: &'a ExecutableDocument,
        set: &'a SelectionSet,
        type_: &Name,
        wanted: &mut IndexMap<&'a str, Vec<&'a Field>>,
    ) {
        let applies = |condition: &Name| condition == type_ || SCHEMA.objects[type_].interfaces.contains(condition);
        for item in set.items.iter().filter(|item| self.is_included(item.node.directives())) {
            let (condition, set) = match &item.node {
                Selection::Field(field) => {
                    wanted.entry(field.node.response_key().node.as_str()).or_default().push(&field.node);
                    continue;
                }
                Selection::InlineFragment(it) => {
                    (it.node.type_condition.as_ref().map(|it| &it.node.on.node), &it.node.selection_set.node)
                }
                Selection::FragmentSpread(spread) => {
                    let fragment = &document.fragments[&spread.node.fragment_name.node].node;
                    (Some(&fragment.type_condition.node.on.node), &fragment.selection_set.node)
                }
            };
            if condition.is_none_or(applies) {
                self.collect(document, set, type_, wanted);
            }
        }
    }

    fn is_included(&self, directives: &[Positioned<Directive>]) -> bool {
        directives.iter().all(|it| {
            let value = it.node.get_argument("if").and_then(|it| {
                let value = it.node.clone();
                value
                    .into_const_with(|name| {
                        Ok::<_, ()>(serde_json::from_value(self.variables[name.as_str()].clone()).expect("a value"))
                    })
                    .ok()
            });
            let value = value.map(|it| it.to_string());
            match it.node.name.node.as_str() {
                "skip" => value.as_deref() != Some("true"),
                "include" => value.as_deref() == Some("true"),
                _ => true,
            }
        })
    }
}

/// The operation that a request names.
fn operation<'a>(document: &'a ExecutableDocument, name: &Value) -> Option<&'a OperationDefinition> {
    match (&document.operations, name.as_str()) {
        (DocumentOperations::Single(it), _) => Some(&it.node),
        (DocumentOperations::Multiple(them), Some(name)) => them.get(name).map(|it| &it.node),
        (DocumentOperations::Multiple(them), None) => {
            them.values().next().map(|it| &it.node).filter(|_| them.len() == 1)
        }
    }
}

/// Whether it is like `2026-11-23T09:30:00.000000Z`.
fn is_date_time(text: &str) -> bool {
    let shape: String = text.chars().map(|it| if it.is_ascii_digit() { '0' } else { it }).collect();
    shape == "0000-00-00T00:00:00.000000Z"
}

#[test]
fn what_does_not_conform_is_found() {
    use serde_json::json;
    let fault = |query: &str, response: Value| faults(&json!({ "query": query }), &response).join("; ");
    let jobs = "{ jobs { nodes { status created attempt workspace { name } failure { line } } } }";
    let node = |change: &dyn Fn(&mut Map<String, Value>)| {
        let mut node = json!({ "status": "QUEUED", "created": "2026-11-23T09:30:00.000000Z", "attempt": 1,
                               "workspace": { "name": "W" }, "failure": null });
        change(node.as_object_mut().expect("an object"));
        json!({ "data": { "jobs": { "nodes": [node] } } })
    };
    let set = |key: &'static str, value: Value| node(&move |it| drop(it.insert(key.to_owned(), value.clone())));
    assert_eq!(fault(jobs, node(&|_| {})), "");
    for (response, expected) in [
        (node(&|it| drop(it.remove("workspace"))), "data.jobs.nodes.0.workspace: it is missing"),
        (node(&|it| drop(it.remove("failure"))), "data.jobs.nodes.0.failure: it is missing"),
        (set("workspace", Value::Null), "data.jobs.nodes.0.workspace: null, but its type is Workspace!"),
        (set("workspace", json!({})), "data.jobs.nodes.0.workspace.name: it is missing"),
        (set("workspace", json!([])), "data.jobs.nodes.0.workspace: not an object: []"),
        (set("status", json!("LOST")), "data.jobs.nodes.0.status: not of the type JobStatus: \"LOST\""),
        (set("created", json!("2026-11-23")), "data.jobs.nodes.0.created: not of the type DateTime: \"2026-11-23\""),
        (set("attempt", json!(2_147_483_648_i64)), "data.jobs.nodes.0.attempt: not of the type Int: 2147483648"),
        (set("attempt", json!("1")), "data.jobs.nodes.0.attempt: not of the type Int: \"1\""),
        (set("id", json!("1")), "data.jobs.nodes.0.id: it was not asked for"),
        (json!({ "data": { "jobs": { "nodes": {} } } }), "data.jobs.nodes: not a list: {}"),
        (json!({ "data": { "jobs": { "nodes": [null] } } }), "data.jobs.nodes.0: null, but its type is Job!"),
        (json!({ "data": null }), "data: it is null, and there is no error"),
        (json!({}), "data: it is missing, and there is no error"),
        (json!({ "errors": [] }), "errors: it is not a list with errors; data: it is missing, and there is no error"),
        (
            json!({ "dat": null, "errors": [{ "message": "m", "extensions": { "code": "CONFLICT" } }] }),
            "dat: a response has no such part",
        ),
        (json!({ "errors": [{ "message": "m" }] }), "errors: an unknown code: {\"message\":\"m\"}"),
    ] {
        assert_eq!(fault(jobs, response), expected);
    }
    let error =
        json!({ "message": "m", "path": ["jobs", "nodes", 0, "attempt"], "extensions": { "code": "INTERNAL" } });
    let mut failed = node(&|_| {});
    failed["errors"] = json!([error]);
    assert!(fault(jobs, failed).starts_with("errors: what has failed is not null"));
    assert_eq!(fault(jobs, json!({ "data": null, "errors": [error] })), "");
}

#[test]
fn fragments_directives_and_type_names_are_followed() {
    use serde_json::json;
    let query = "query($no: Boolean! = false) { n: node(id: \"1\") { __typename ...J ...on Workspace { name } } \
                 w: workspace(id: \"1\") { id @skip(if: $no) name @include(if: $no) } __schema { types { kind } } } \
                 fragment J on Job { ...on Node { key: id } attempt @skip(if: true) }";
    let request = json!({ "query": query });
    let data = json!({ "n": { "__typename": "Job", "key": "1" }, "w": { "id": "1" },
                       "__schema": { "types": [{ "kind": "OBJECT" }] } });
    assert_eq!(faults(&request, &json!({ "data": data })), [""; 0]);
    let with = |path: &str, value: Value| {
        let mut data = data.clone();
        *data.pointer_mut(path).expect("a place") = value;
        faults(&request, &json!({ "data": data })).join("; ")
    };
    assert_eq!(
        with("/n", json!({ "__typename": "Workspace", "name": "W", "key": "1" })),
        "data.n.key: it was not asked for"
    );
    assert_eq!(
        with("/n", json!({ "__typename": "Job", "key": "1", "attempt": 1 })),
        "data.n.attempt: it was not asked for"
    );
    assert_eq!(with("/w", json!({ "id": "1", "name": "W" })), "data.w.name: it was not asked for");
    assert_eq!(with("/w", Value::Null), "");
    assert!(with("/__schema/types/0/kind", json!("THING")).contains("not of the type __TypeKind"));
}
