//! Completes results as the GraphQL specification says.
//!
//! async-graphql leaves a field out of its object where the resolver fails, and turns an object in which no field is selected into null. By
//! the specification a failed field is null. If its type is non-null, its parent is null instead, and so on up to the data. A result
//! needs this if it has errors, or if its document was marked because one of its objects may have no field.

use std::collections::{HashMap, HashSet};

use async_graphql::indexmap::IndexMap;
use async_graphql::parser::types::{
    BaseType, Directive, ExecutableDocument, Field, FragmentDefinition, OperationType, Selection, SelectionSet, Type,
    TypeKind, TypeSystemDefinition,
};
use async_graphql::{Name, PathSegment, Positioned, Response, Value, Variables};

use super::plan::{wanted, wanted_mut};

/// The alias of the `__typename` with which a document is marked. No client has a reason to use it.
const MARK: &str = "__jobstream_typename";

/// The types that the definition of a schema does not list.
const BUILT_IN: [&str; 5] = ["Boolean", "Float", "ID", "Int", "String"];

/// The types of a schema.
#[derive(Debug, Default)]
pub(super) struct Types {
    names: HashSet<Name>,
    /// The types that have fields.
    with_fields: HashMap<Name, Fields>,
}

#[derive(Debug)]
struct Fields {
    is_interface: bool,
    interfaces: Vec<Name>,
    types: HashMap<Name, Type>,
}

/// A null that the type of a field does not allow.
struct Propagates;

impl Types {
    /// Reads the types from the schema definition language.
    pub(super) fn read(sdl: &str) -> Result<Self, async_graphql::parser::Error> {
        let mut types = Self { names: BUILT_IN.map(Name::new).into(), ..Self::default() };
        for definition in async_graphql::parser::parse_schema(sdl)?.definitions {
            let TypeSystemDefinition::Type(definition) = definition else { continue };
            types.names.insert(definition.node.name.node.clone());
            let (is_interface, interfaces, fields) = match definition.node.kind {
                TypeKind::Object(it) => (false, it.implements, it.fields),
                TypeKind::Interface(it) => (true, it.implements, it.fields),
                _ => continue,
            };
            let interfaces = interfaces.into_iter().map(|it| it.node).collect();
            let fields = fields.into_iter().map(|it| (it.node.name.node, it.node.ty.node)).collect();
            types.with_fields.insert(definition.node.name.node, Fields { is_interface, interfaces, types: fields });
        }
        Ok(types)
    }

    /// Whether the schema has a type of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Selects `__typename` wherever an object may have no field otherwise, or where its type has to be known. Says whether
    /// there is such a place. No fragment may lead back to itself.
    pub(super) fn mark(&self, document: &mut ExecutableDocument, name: Option<&str>) -> bool {
        let fragments = document.fragments.clone();
        let marker = Marker { types: self, fragments: &fragments };
        let mut marked = false;
        for fragment in document.fragments.values_mut() {
            let type_ = fragment.node.type_condition.node.on.node.clone();
            marked |= marker.mark_fields(&mut fragment.node.selection_set.node, &type_);
        }
        if let Some(operation) = wanted_mut(document, name) {
            let (set, root) = (&mut operation.selection_set.node, root_type(operation.ty));
            marked |= marker.mark_fields(set, root);
            // An event has one field, or is not there.
            marked |= operation.ty != OperationType::Subscription && marker.mark_set(set, root);
        }
        marked
    }

    /// Completes the data of a response.
    pub(super) fn complete(
        &self,
        document: &ExecutableDocument,
        name: Option<&str>,
        variables: &Variables,
        response: &mut Response,
    ) {
        let Some(operation) = wanted(document, name) else { return };
        let completion = Completion { types: self, document, variables };
        let root = Type { base: BaseType::Named(Name::new(root_type(operation.ty))), nullable: true };
        let mut failures = Failures::default();
        response.errors.iter().for_each(|error| failures.add(&error.path));
        let sets = [&operation.selection_set.node];
        let _ = completion.complete(&root, &sets, Some(&failures), &mut response.data); // null is allowed
    }
}

/// Where errors are: those below each key or index.
#[derive(Debug, Default)]
struct Failures(HashMap<String, Failures>);

impl Failures {
    fn add(&mut self, path: &[PathSegment]) {
        let mut at = self;
        for segment in path {
            let key = match segment {
                PathSegment::Field(name) => name.clone(),
                PathSegment::Index(index) => index.to_string(),
            };
            at = at.0.entry(key).or_default();
        }
    }
}

fn root_type(kind: OperationType) -> &'static str {
    match kind {
        OperationType::Query => "Query",
        OperationType::Mutation => "Mutation",
        OperationType::Subscription => "Subscription",
    }
}

fn named(type_: &Type) -> &Name {
    match &type_.base {
        BaseType::Named(name) => name,
        BaseType::List(of) => named(of),
    }
}

struct Marker<'a> {
    types: &'a Types,
    fragments: &'a HashMap<Name, Positioned<FragmentDefinition>>,
}

impl Marker<'_> {
    fn mark_fields(&self, set: &mut SelectionSet, parent: &str) -> bool {
        let mut marked = false;
        for item in &mut set.items {
            match &mut item.node {
                Selection::Field(field) => {
                    let type_ = self.types.with_fields.get(parent).and_then(|it| it.types.get(&field.node.name.node));
                    // Scalars have no fields, and introspection does not fail.
                    let Some(type_) = type_.map(named).filter(|it| self.types.with_fields.contains_key(*it)) else {
                        continue;
                    };
                    let set = &mut field.node.selection_set.node;
                    marked |= self.mark_fields(set, type_);
                    marked |= self.mark_set(set, type_);
                }
                Selection::InlineFragment(fragment) => {
                    let type_ = fragment.node.type_condition.as_ref().map(|it| it.node.on.node.clone());
                    let type_ = type_.as_deref().unwrap_or(parent);
                    marked |= self.mark_fields(&mut fragment.node.selection_set.node, type_);
                }
                Selection::FragmentSpread(_) => {}
            }
        }
        marked
    }

    fn mark_set(&self, set: &mut SelectionSet, parent: &str) -> bool {
        let is_interface = self.types.with_fields.get(parent).is_some_and(|it| it.is_interface);
        if set.items.is_empty() || (!is_interface && self.has_field(set, parent, &mut HashSet::new())) {
            return false;
        }
        let pos = set.items[0].pos;
        let at = |name| Positioned::new(Name::new(name), pos);
        let field = Field {
            alias: Some(at(MARK)),
            name: at("__typename"),
            arguments: Vec::new(),
            directives: Vec::new(),
            selection_set: Positioned::new(SelectionSet::default(), pos),
        };
        set.items.push(Positioned::new(Selection::Field(Positioned::new(field, pos)), pos));
        true
    }

    /// Whether a field is selected whatever the variables are. Fragments that were looked at already need no second look.
    fn has_field<'s>(&'s self, set: &'s SelectionSet, parent: &str, seen: &mut HashSet<&'s Name>) -> bool {
        set.items.iter().any(|item| match &item.node {
            Selection::Field(field) => field.node.directives.is_empty(),
            Selection::InlineFragment(fragment) => {
                let type_ = fragment.node.type_condition.as_ref();
                fragment.node.directives.is_empty()
                    && type_.is_none_or(|it| it.node.on.node == parent)
                    && self.has_field(&fragment.node.selection_set.node, parent, seen)
            }
            Selection::FragmentSpread(spread) => {
                let name = &spread.node.fragment_name.node;
                let fragment = self.fragments.get(name).filter(|it| it.node.type_condition.node.on.node == parent);
                spread.node.directives.is_empty()
                    && seen.insert(name)
                    && fragment.is_some_and(|it| self.has_field(&it.node.selection_set.node, parent, seen))
            }
        })
    }
}

struct Completion<'a> {
    types: &'a Types,
    document: &'a ExecutableDocument,
    variables: &'a Variables,
}

impl<'a> Completion<'a> {
    /// Completes a value of a type, for which these selections ask.
    fn complete(
        &self,
        type_: &Type,
        sets: &[&'a SelectionSet],
        failures: Option<&Failures>,
        value: &mut Value,
    ) -> Result<(), Propagates> {
        if let (BaseType::Named(name), Value::Null) = (&type_.base, &*value)
            && self.types.with_fields.contains_key(name)
            && failures.is_some_and(|it| !it.0.is_empty())
        {
            // The object is there, but all of its fields failed.
            *value = Value::Object(IndexMap::new());
        }
        let completed = match (&type_.base, &mut *value) {
            (_, Value::Null) => Err(Propagates),
            (BaseType::List(of), Value::List(items)) => items.iter_mut().enumerate().try_for_each(|(index, item)| {
                let failures = failures.and_then(|it| it.0.get(&index.to_string()));
                self.complete(of, sets, failures, item)
            }),
            (BaseType::Named(name), Value::Object(object)) => self.complete_object(name, sets, failures, object),
            _ => Ok(()),
        };
        if completed.is_err() && type_.nullable {
            *value = Value::Null;
            return Ok(());
        }
        completed
    }

    fn complete_object(
        &self,
        type_: &Name,
        sets: &[&'a SelectionSet],
        failures: Option<&Failures>,
        object: &mut IndexMap<Name, Value>,
    ) -> Result<(), Propagates> {
        let mark = object.swap_remove(MARK);
        let type_ = match &mark {
            Some(Value::String(name)) => name.as_str(),
            _ => type_.as_str(),
        };
        let Some(fields) = self.types.with_fields.get(type_) else { return Ok(()) };
        let mut wanted = IndexMap::new();
        sets.iter().for_each(|set| self.collect(set, type_, fields, &mut wanted));
        let mut found = std::mem::take(object);
        for (key, selected) in wanted {
            let mut value = found.swap_remove(key).unwrap_or(Value::Null);
            if let Some(field) = selected.first()
                && let Some(type_) = fields.types.get(&field.name.node)
            {
                let sets: Vec<&SelectionSet> = selected.iter().map(|it| &it.selection_set.node).collect();
                let failures = failures.and_then(|it| it.0.get(key.as_str()));
                self.complete(type_, &sets, failures, &mut value)?;
            }
            object.insert(key.clone(), value);
        }
        Ok(())
    }

    /// Collects the fields that are selected of an object, by their keys in the result.
    fn collect(
        &self,
        set: &'a SelectionSet,
        type_: &str,
        fields: &Fields,
        wanted: &mut IndexMap<&'a Name, Vec<&'a Field>>,
    ) {
        for item in &set.items {
            if self.is_skipped(item.node.directives()) {
                continue;
            }
            match &item.node {
                Selection::Field(field) => {
                    let key = &field.node.response_key().node;
                    if key != MARK {
                        wanted.entry(key).or_default().push(&field.node);
                    }
                }
                Selection::InlineFragment(fragment) => {
                    let condition = fragment.node.type_condition.as_ref().map(|it| &it.node.on.node);
                    if condition.is_none_or(|it| applies(it, type_, fields)) {
                        self.collect(&fragment.node.selection_set.node, type_, fields, wanted);
                    }
                }
                Selection::FragmentSpread(spread) => {
                    if let Some(fragment) = self.document.fragments.get(&spread.node.fragment_name.node)
                        && applies(&fragment.node.type_condition.node.on.node, type_, fields)
                    {
                        self.collect(&fragment.node.selection_set.node, type_, fields, wanted);
                    }
                }
            }
        }
    }

    fn is_skipped(&self, directives: &[Positioned<Directive>]) -> bool {
        directives.iter().any(|directive| {
            let directive = &directive.node;
            let skipped_if = match directive.name.node.as_str() {
                "skip" => true,
                "include" => false,
                _ => return false,
            };
            let condition = directive.get_argument("if").map(|it| it.node.clone());
            let value =
                condition.and_then(|it| it.into_const_with(|name| self.variables.get(&name).cloned().ok_or(())).ok());
            matches!(value, Some(Value::Boolean(value)) if value == skipped_if)
        })
    }
}

/// Whether a fragment with this condition applies to objects of a type.
fn applies(condition: &Name, type_: &str, fields: &Fields) -> bool {
    condition == type_ || fields.interfaces.contains(condition)
}
