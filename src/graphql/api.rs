//! The API: the schema, and the preparation of operations, for whatever transport brings them.
//!
//! An operation is prepared: its document is found, measured and parsed, or refused. What was answered already, and still stands, is not
//! executed again (`cache`). `execution` executes the others.

use std::path::PathBuf;
use std::sync::Arc;

use async_graphql::parser::types::OperationType;
use async_graphql::{Schema, SchemaBuilder, Variables};

use super::cache::Answers;
use super::completion::Types;
use super::data_component::DataComponentConnection;
use super::errors;
use super::job::JobConnection;
use super::limits::{Introspection, Limits, Size, WHOLE_SCHEMA};
use super::live::Live;
use super::mutation::Mutation;
use super::operation::{Caller, Json, Operation, Refusal};
use super::order::Order;
use super::persisted::{Documents, ListError};
use super::pipeline::PipelineConnection;
use super::plan::{self, Key, Plan};
use super::query::Query;
use super::root;
use super::subscription::Subscription;
use super::variables;
use super::webhook::WebhookConnection;
use super::workspace::WorkspaceConnection;
use crate::catalogue::Catalogue;
use crate::error::Error;
use crate::events::Events;
use crate::jobs::Jobs;
use crate::metrics::{self, Metrics};
use crate::store::{Revision, Store};

/// What the API allows.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "GraphQL")]
pub struct Settings {
    /// Whether clients may ask for the schema. GraphiQL and code generators do.
    #[arg(long, env = "JOBSTREAM_INTROSPECTION", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub introspection: bool,

    /// A JSON file of documents by their ids, as GraphQL Code Generator writes it: then nothing else is carried out.
    #[arg(long, env = "JOBSTREAM_OPERATIONS", value_name = "FILE")]
    pub operations: Option<PathBuf>,

    /// How many bytes of answers are kept, to be given again while nothing that they show has changed. With 0 none are.
    #[arg(long, env = "JOBSTREAM_CACHE_BYTES", value_name = "BYTES", default_value_t = 32 << 20)]
    pub cache_bytes: usize,

    /// What a document may ask for.
    #[command(flatten)]
    pub limits: Limits,
}

impl Settings {
    /// Checks what they name.
    pub fn check(&self) -> Result<(), ListError> {
        self.operations.as_deref().map_or(Ok(()), |list| Documents::listed(list).map(drop))
    }
}

/// The schema with all that its resolvers need. Clones share it.
#[derive(Clone)]
pub struct Api {
    pub(super) schema: Schema<Query, Mutation, Subscription>,
    pub(super) types: Arc<Types>,
    pub(super) store: Store,
    /// The schema as clients may ask for it: nothing if they may not.
    introspection: Option<Arc<Introspection>>,
    limits: Arc<Limits>,
    documents: Documents,
    pub(super) answers: Answers,
    pub(super) live: Live,
    pub(super) metrics: Metrics,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

/// An operation that may be carried out.
pub struct Prepared {
    pub(super) what: What,
    pub(super) revision: Revision,
}

pub(super) enum What {
    Known(Json),
    Unknown(Box<Plan>),
}

impl Prepared {
    /// Whether it is a query, a mutation or a subscription. What cannot be told is refused when it is carried out.
    pub fn kind(&self) -> OperationType {
        match &self.what {
            What::Known(_) => OperationType::Query,
            What::Unknown(plan) => plan.kind,
        }
    }
}

impl Api {
    /// The API to these jobs.
    pub async fn new(
        store: Store,
        jobs: Jobs,
        catalogue: Catalogue,
        events: Events,
        metrics: Metrics,
        settings: Settings,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let limits = Arc::new(settings.limits);
        let mut schema = builder()
            .data(store.clone())
            .data(jobs)
            .data(catalogue)
            .data(events)
            .data(Arc::clone(&limits))
            .limit_depth(limits.max_depth)
            .limit_recursive_depth(limits.max_recursion)
            .limit_complexity(limits.max_complexity);
        if !settings.introspection {
            schema = schema.disable_introspection().disable_suggestions();
        }
        let documents = match &settings.operations {
            Some(list) => Documents::listed(list)?,
            None => Documents::default(),
        };
        let (answers, live) = (Answers::new(settings.cache_bytes), Live::new(metrics.clone()));
        let schema = schema.finish();
        let types = Arc::new(Types::read(&schema.sdl()).map_err(|error| error.to_string())?);
        let introspection = match settings.introspection {
            true => Some(Arc::new(Introspection::of(builder().finish().execute(WHOLE_SCHEMA).await.data))),
            false => None,
        };
        Ok(Self { schema, types, store, introspection, limits, documents, answers, live, metrics })
    }

    /// Makes an operation ready to be carried out, or refuses it for what can be told without the schema.
    pub fn prepare(&self, operation: Operation, caller: Caller) -> Result<Prepared, Refusal> {
        let refused = |refusal: &Refusal| {
            self.metrics.operation_refused(metrics::OperationType::Unknown, &refusal.code);
        };
        self.find(operation, caller).inspect_err(refused)
    }

    fn find(&self, mut operation: Operation, caller: Caller) -> Result<Prepared, Refusal> {
        // Before anything is read, so that what is read is not older.
        let revision = self.store.revision();
        let found = self.documents.find(&mut operation)?;
        let variables = operation.variables.map(Box::<str>::from);
        let key = Key { caller, query: found.text, operation_name: operation.operation_name, variables };
        if let Some(answer) = self.answers.get(&key, revision) {
            if let Some(id) = found.learn_as {
                self.documents.learn(id, &key.query);
            }
            self.metrics.answer_looked_up(true);
            return Ok(Prepared { what: What::Known(answer), revision });
        }
        let plan = self.plan(key)?;
        if let Some(id) = found.learn_as {
            self.documents.learn(id, &plan.key.query);
        }
        Ok(Prepared { what: What::Unknown(Box::new(plan)), revision })
    }

    fn plan(&self, key: Key) -> Result<Plan, Refusal> {
        self.limits.check_text(&key.query)?;
        let mut document = async_graphql::parser::parse_query(&*key.query)
            .map_err(|error| Refusal::of(&errors::not_parsed(error.into())))?;
        let size = self.limits.check_document(&document)?;
        variables::remove_unknown_defaults(&mut document, &self.types);
        if size.introspects && self.introspection.is_none() {
            return Err(Error::Forbidden("This server does not show its schema.".to_owned()).into());
        }
        let name = key.operation_name.as_deref();
        // A circle is for the schema to refuse; there is no order to it.
        let (order, roots) = match plan::wanted(&document, name).filter(|_| !size.circular) {
            Some(it) => (Order::of(&document, name), plan::root_fields(&document, &it.selection_set.node)),
            None => (Order::default(), 0),
        };
        let kind = plan::wanted(&document, name).map_or(OperationType::Query, |it| it.ty);
        if kind == OperationType::Subscription && roots > 1 {
            return Err(Error::bad_input("query", "A subscription has one field. Subscribe several times.").into());
        }
        let mut variables = match &key.variables {
            None => Variables::default(),
            Some(json) => Variables::from_json(
                serde_json::from_str(json).map_err(|error| Error::bad_input("variables", format!("{error}.")))?,
            ),
        };
        if let Some(operation) = plan::wanted(&document, name) {
            plan::add_defaults(operation, &mut variables);
        }
        if let Some(schema) = self.introspection.as_deref().filter(|_| size.introspects && !size.circular)
            && let Some(operation) = plan::wanted(&document, name)
        {
            self.limits.check_introspection(schema, &document, &operation.selection_set.node, &variables)?;
        }
        if kind != OperationType::Query && !size.circular {
            root::write_out(&mut document, name);
        }
        let marked = !size.circular && self.types.mark(&mut document, name);
        let Size { reads_logs, reads_clock, reads_cursors, .. } = size;
        Ok(Plan { key, kind, document, variables, order, marked, reads_logs, reads_clock, reads_cursors })
    }
}

/// The schema in the schema definition language.
pub fn sdl() -> String {
    let options = async_graphql::SDLExportOptions::new().sorted_fields().sorted_arguments().sorted_enum_items();
    builder().finish().sdl_with_options(options)
}

fn builder() -> SchemaBuilder<Query, Mutation, Subscription> {
    Schema::build(Query, Mutation, Subscription)
        .register_output_type::<super::node::Node>()
        .override_output_type_description::<DataComponentConnection>("A page of data components.")
        .override_output_type_description::<JobConnection>("A page of jobs.")
        .override_output_type_description::<PipelineConnection>("A page of pipelines.")
        .override_output_type_description::<WebhookConnection>("A page of webhooks.")
        .override_output_type_description::<WorkspaceConnection>("A page of workspaces.")
}
