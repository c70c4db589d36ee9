//! Carrying out GraphQL operations, for whatever transport brings them.
//!
//! An operation is prepared: its document is found, measured and parsed, or refused. What was answered already, and still stands, is not
//! carried out again (`cache`); subscriptions that are the same are carried out once (`live`).

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;

use async_graphql::parser::types::OperationType;
use async_graphql::{Executor, Response, Schema, SchemaBuilder, Variables};
use async_stream::stream;
use futures_util::stream::{BoxStream, StreamExt};
use futures_util::{FutureExt, Stream};
use tokio_util::task::AbortOnDropHandle;

use super::allowance::LogAllowance;
use super::cache::Answers;
use super::completion::Types;
use super::data_component::DataComponentConnection;
use super::errors;
use super::job::JobConnection;
use super::limits::{Introspection, Limits, WHOLE_SCHEMA};
use super::live::{Live, Next, Step};
use super::loaders::Loaders;
use super::mutation::Mutation;
use super::operation::{Answer, Caller, Json, Operation, Refusal};
use super::order::Order;
use super::persisted::{Documents, ListError};
use super::pipeline::PipelineConnection;
use super::plan::{self, Key, Plan};
use super::progress::Progress;
use super::query::Query;
use super::root;
use super::subscription::Subscription;
use super::variables::TypeNames;
use super::webhook::WebhookConnection;
use super::workspace::WorkspaceConnection;
use crate::catalogue::Catalogue;
use crate::error::Error;
use crate::events::Events;
use crate::jobs::Jobs;
use crate::metrics::{self, Metrics, Open};
use crate::store::{Revision, Store};

/// How often a query is executed so that what it shows is in step with the stream of changes.
const TRIES_IN_STEP: u32 = 20;

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
    schema: Schema<Query, Mutation, Subscription>,
    types: Arc<Types>,
    store: Store,
    type_names: TypeNames,
    /// The schema as clients may ask for it: nothing if they may not.
    introspection: Option<Arc<Introspection>>,
    limits: Arc<Limits>,
    documents: Documents,
    answers: Answers,
    live: Live,
    metrics: Metrics,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

/// An operation that may be carried out.
pub struct Prepared {
    what: What,
    revision: Revision,
}

enum What {
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
        let sdl = schema.sdl();
        let types = Arc::new(Types::read(&sdl).map_err(|error| error.to_string())?);
        let type_names = TypeNames::of(&sdl);
        let introspection = match settings.introspection {
            true => Some(Arc::new(Introspection::of(builder().finish().execute(WHOLE_SCHEMA).await.data))),
            false => None,
        };
        Ok(Self { schema, types, type_names, store, introspection, limits, documents, answers, live, metrics })
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
        self.type_names.remove_unknown_defaults(&mut document);
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
        let (reads_logs, reads_clock) = (size.reads_logs, size.reads_clock);
        Ok(Plan { key, kind, document, variables, order, marked, reads_logs, reads_clock })
    }

    /// Carries out a query or mutation. A mutation is carried out to its end, also if the caller stops waiting.
    pub async fn execute(&self, prepared: Prepared) -> Answer {
        if prepared.kind() == OperationType::Query {
            return self.carry_out(prepared).await;
        }
        let api = self.clone();
        let carried_out = tokio::spawn(async move { api.carry_out(prepared).await });
        carried_out.await.unwrap_or_else(|error| Error::internal(error).into())
    }

    async fn carry_out(&self, prepared: Prepared) -> Answer {
        let plan = match prepared.what {
            What::Known(answer) => {
                let answer = Answer::Result(answer);
                self.count(metrics::OperationType::Query, &answer, false);
                return answer;
            }
            What::Unknown(plan) => plan,
        };
        let type_ = type_of(plan.kind);
        if plan.kind == OperationType::Query {
            self.metrics.answer_looked_up(false);
        }
        let response = match AssertUnwindSafe(self.execute_in_step(&plan)).catch_unwind().await {
            Ok(response) => finished(response, &plan, &self.types),
            Err(panic) => {
                let answer = panicked(&*panic);
                self.count(type_, &answer, true);
                return answer;
            }
        };
        let answer = Answer::of(&response, false);
        self.count(type_, &answer, !response.errors.is_empty());
        if let Answer::Result(json) = &answer
            && plan.kind == OperationType::Query
            && response.errors.is_empty()
            && !plan.reads_clock
        {
            self.answers.keep(plan.key, json.clone(), prepared.revision, plan.reads_logs);
        }
        answer
    }

    /// Executes a query or mutation on one snapshot. A query is executed again where it shows a job in a state that the stream of changes does not
    /// tell yet: a position in the stream that it shows would be too early. If that does not help, such a change is told again.
    async fn execute_in_step(&self, plan: &Plan) -> Response {
        let mut tries = TRIES_IN_STEP;
        loop {
            let snapshot = Arc::new(self.store.snapshot());
            let request = plan.request().data(Loaders::new(&snapshot)).data(LogAllowance::default());
            let response = self.schema.execute(request).await;
            tries -= 1;
            if tries == 0 || plan.kind != OperationType::Query || !snapshot.is_ahead() {
                return response;
            }
            self.store.number_changes().await;
        }
    }

    /// Carries out any operation; a query or mutation has one answer.
    pub fn stream(&self, prepared: Prepared) -> BoxStream<'static, Answer> {
        let api = self.clone();
        match prepared.what {
            What::Unknown(plan) if plan.kind == OperationType::Subscription => api.subscribe(Arc::from(plan)).boxed(),
            // Executed by a task of its own: it has a snapshot, which must not wait for a client that does not read.
            _ => {
                let executed = AbortOnDropHandle::new(tokio::spawn(async move { api.execute(prepared).await }));
                executed.map(|done| done.unwrap_or_else(|error| Error::internal(error).into())).into_stream().boxed()
            }
        }
    }

    fn subscribe(self, mut plan: Arc<Plan>) -> impl Stream<Item = Answer> + Send {
        stream! {
            let mut from = None;
            let mut open = None;
            loop {
                let progress = Progress::replay(from);
                let mut replay = self.steps(&plan, &progress);
                while let Some(step) = replay.next().await {
                    let last = step.answer.is_last();
                    self.count_opening(&mut open, Some(&step.answer));
                    yield step.answer;
                    if last {
                        return;
                    }
                }
                let Some(at) = progress.caught_up() else { return };
                drop(replay);
                self.count_opening(&mut open, None);
                from = Some(at);
                let Some(mut seat) = self.live.join(&plan, at, |plan| self.steps(plan, &Progress::live(at))) else {
                    continue;
                };
                plan = seat.plan();
                loop {
                    match seat.next().await {
                        Next::Answer(answer) => {
                            let last = answer.is_last();
                            yield answer;
                            if last {
                                return;
                            }
                        }
                        Next::Behind(position) => {
                            self.metrics.subscriber_lagged();
                            from = Some(position);
                            break;
                        }
                        Next::Over => return,
                    }
                }
            }
        }
    }

    /// Carries out a subscription, telling its progress.
    fn steps(&self, plan: &Arc<Plan>, progress: &Progress) -> BoxStream<'static, Step> {
        let allowance = LogAllowance::default();
        let snapshot = Arc::new(self.store.snapshot_when_there());
        let request = plan.request().data(Loaders::new(&snapshot)).data(progress.clone()).data(allowance.clone());
        let responses = AssertUnwindSafe(Executor::execute_stream(&self.schema, request, None)).catch_unwind();
        let (plan, types, progress) = (Arc::clone(plan), Arc::clone(&self.types), progress.clone());
        let steps = responses.map(move |response| {
            let answer = match response {
                Ok(response) => Answer::of(&finished(response, &plan, &types), true),
                Err(panic) => panicked(&*panic),
            };
            // The next event is read from a snapshot of its own.
            snapshot.close();
            allowance.renew();
            let (after, to) = progress.newest();
            Step { after, to, answer }
        });
        steps.boxed()
    }

    /// Counts what became of an operation.
    fn count(&self, type_: metrics::OperationType, answer: &Answer, has_errors: bool) {
        match answer {
            Answer::Result(_) => self.metrics.operation_answered(type_, has_errors),
            Answer::Refused(refusal) => self.metrics.operation_refused(type_, &refusal.code),
        }
    }

    /// Counts a subscription as open, unless the first that it says is that it is refused.
    fn count_opening(&self, open: &mut Option<Open>, answer: Option<&Answer>) {
        if open.is_some() {
            return;
        }
        let type_ = metrics::OperationType::Subscription;
        if let Some(Answer::Refused(refusal)) = answer {
            self.metrics.operation_refused(type_, &refusal.code);
            self.metrics.subscription_refused(&refusal.code);
        } else {
            self.metrics.operation_answered(type_, false);
            *open = Some(self.metrics.subscription_opened());
        }
    }
}

fn type_of(kind: OperationType) -> metrics::OperationType {
    match kind {
        OperationType::Query => metrics::OperationType::Query,
        OperationType::Mutation => metrics::OperationType::Mutation,
        OperationType::Subscription => metrics::OperationType::Subscription,
    }
}

/// What the schema answers, as clients are to see it.
fn finished(mut response: Response, plan: &Plan, types: &Types) -> Response {
    if plan.marked || !response.errors.is_empty() {
        types.complete(&plan.document, plan.key.operation_name.as_deref(), &plan.variables, &mut response);
    }
    plan.order.apply(&mut response.data);
    errors::with_codes(response)
}

/// A fault of a resolver.
fn panicked(panic: &(dyn std::any::Any + Send)) -> Answer {
    Error::after_panic("a resolver", panic).into()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_panic_a_client_is_told_an_id_and_nothing_more() {
        for panic in [Box::new("a secret") as Box<dyn std::any::Any + Send>, Box::new("a secret".to_owned())] {
            let Answer::Refused(refusal) = panicked(&*panic) else { panic!("it is no result") };
            let errors = refusal.errors.as_str();
            assert!(refusal.is_fault() && errors.contains("requestId"), "{errors}");
            assert!(!errors.contains("secret") && !errors.contains("panic"), "{errors}");
        }
    }
}
