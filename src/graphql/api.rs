//! Carrying out GraphQL requests, for whatever transport brings them.

use async_graphql::{
    ErrorExtensionValues, Executor, PathSegment, Pos, Request, Response, Schema, SchemaBuilder, ServerError,
};
use futures_util::stream::{BoxStream, StreamExt};

use super::job::JobConnection;
use super::limits;
use super::loaders::Loaders;
use super::mutation::Mutation;
use super::order::Order;
use super::pipeline::PipelineConnection;
use super::query::Query;
use super::subscription::Subscription;
use super::workspace::WorkspaceConnection;
use crate::error::{Error, Problem};
use crate::events::Events;
use crate::jobs::Jobs;
use crate::store::Store;

/// What is nested deeper than this, or asks for more fields than this, is refused before it is run. The introspection that GraphiQL
/// asks for is the deepest that has to pass.
const DEEPEST: usize = 20;
const DEEPEST_RECURSION: usize = 24;
const MOST_COMPLEX: usize = 2_000;
const MOST_SELECTIONS: u64 = 10_000;

/// The schema with all that its resolvers need. Clones share it.
#[derive(Clone)]
pub struct Api {
    schema: Schema<Query, Mutation, Subscription>,
    store: Store,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl Api {
    /// The API to these jobs.
    pub fn new(store: Store, jobs: Jobs, events: Events) -> Self {
        let schema = builder()
            .data(store.clone())
            .data(jobs)
            .data(events)
            .limit_depth(DEEPEST)
            .limit_recursive_depth(DEEPEST_RECURSION)
            .limit_complexity(MOST_COMPLEX)
            .finish();
        Self { schema, store }
    }

    /// Carries out a query or mutation.
    pub async fn execute(&self, request: Request) -> Response {
        match self.prepare(request) {
            Ok((request, order)) => finished(self.schema.execute(request).await, &order),
            Err(refused) => *refused,
        }
    }

    /// Carries out any operation; a query or mutation gives one response. A response without data whose errors have no path
    /// says that the operation was refused, and is the only one.
    pub fn stream(&self, request: Request) -> BoxStream<'static, Response> {
        match self.prepare(request) {
            Ok((request, order)) => {
                let responses = Executor::execute_stream(&self.schema, request, None);
                responses.map(move |response| finished(response, &order)).boxed()
            }
            Err(refused) => futures_util::stream::iter([*refused]).boxed(),
        }
    }

    /// Makes a request ready to be carried out, or refuses it for what can be told from its document alone. Answers the order of
    /// its fields too.
    fn prepare(&self, mut request: Request) -> Result<(Request, Order), Box<Response>> {
        let name = request.operation_name.clone();
        let document = request.parsed_query().map_err(|error| {
            let error = ServerError { message: without_source(&error.message), ..error };
            with_codes(Response::from_errors(vec![error]), "GRAPHQL_PARSE_FAILED")
        })?;
        let size = limits::measure(document);
        if size.selections > MOST_SELECTIONS {
            let message = format!("A document stands for at most {MOST_SELECTIONS} selections, fragments written out.");
            let mut error = async_graphql::Error::from(Error::LimitExceeded(message)).into_server_error(Pos::default());
            error.locations.clear(); // it is everywhere
            return Err(Response::from_errors(vec![error]).into());
        }
        // A circle is for the schema to refuse; there is no order to it.
        let order = if size.circular { Order::default() } else { Order::of(document, name.as_deref()) };
        Ok((request.data(Loaders::new(&self.store)), order))
    }
}

/// What the schema answers, as clients are to see it.
fn finished(mut response: Response, order: &Order) -> Response {
    order.apply(&mut response.data);
    with_codes(response, "GRAPHQL_VALIDATION_FAILED")
}

/// The schema in the schema definition language.
pub fn sdl() -> String {
    let options = async_graphql::SDLExportOptions::new().sorted_fields().sorted_arguments().sorted_enum_items();
    builder().finish().sdl_with_options(options)
}

fn builder() -> SchemaBuilder<Query, Mutation, Subscription> {
    Schema::build(Query, Mutation, Subscription)
        .register_output_type::<super::node::Node>()
        .override_output_type_description::<JobConnection>("A page of jobs.")
        .override_output_type_description::<PipelineConnection>("A page of pipelines.")
        .override_output_type_description::<WorkspaceConnection>("A page of workspaces.")
}

/// Our own errors carry their codes; the library's are told apart by how far the request came.
fn with_codes(mut response: Response, before_execution: &str) -> Response {
    for error in &mut response.errors {
        let code = match &error {
            error if error.extensions.as_ref().is_some_and(|it| it.get("code").is_some()) => continue,
            error if is_limit(error) => "LIMIT_EXCEEDED",
            error if error.path.is_empty() => before_execution,
            _ => {
                // An argument that its type does not take; which one, only the message says.
                let problem = Problem { path: path_text(&error.path), message: error.message.clone() };
                if let Ok(problems) = async_graphql::to_value([problem]) {
                    error.extensions.get_or_insert_with(ErrorExtensionValues::default).set("problems", problems);
                }
                "BAD_USER_INPUT"
            }
        };
        error.extensions.get_or_insert_with(ErrorExtensionValues::default).set("code", code);
    }
    response
}

/// What the parser says, without the lines of the document that it shows: they may hold what is sensitive. Its position is in the
/// error's `locations`.
fn without_source(message: &str) -> String {
    match message.lines().rev().find_map(|line| line.trim_start().strip_prefix("= ")) {
        Some(said) => format!("The document is not GraphQL: {said}."),
        None => "The document is not GraphQL.".to_owned(),
    }
}

fn path_text(path: &[PathSegment]) -> String {
    let segments = path.iter().map(|segment| match segment {
        PathSegment::Field(name) => name.clone(),
        PathSegment::Index(index) => index.to_string(),
    });
    segments.collect::<Vec<_>>().join(".")
}

fn is_limit(error: &ServerError) -> bool {
    ["Query is nested too deep.", "Query is too complex.", "The recursion depth"]
        .iter()
        .any(|text| error.message.starts_with(text))
}
