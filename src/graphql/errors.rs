//! Errors as clients see them: a message, and `extensions.code`. The one place where they are turned into GraphQL.

use async_graphql::{ErrorExtensionValues, PathSegment, Response, ServerError};

use crate::error::{Error, Problem};

impl From<Error> for async_graphql::Error {
    fn from(error: Error) -> Self {
        let error = match error {
            Error::Stale => Error::internal("a write of a request expected another state"),
            error => error,
        };
        let mut extensions = ErrorExtensionValues::default();
        extensions.set("code", error.code());
        match &error {
            Error::BadUserInput(problems) => {
                if let Ok(problems) = async_graphql::to_value(problems) {
                    extensions.set("problems", problems);
                }
            }
            Error::PipelineBusy { job_id } => extensions.set("jobId", job_id.as_str()),
            Error::Internal(detail) | Error::Unavailable(detail) | Error::Uncertain(detail) => {
                extensions.set("requestId", detail.logged_as(error.code()).to_string());
            }
            _ => {}
        }
        Self { message: error.to_string(), source: None, extensions: Some(extensions) }
    }
}

/// How many reasons for refusing a document are told. A short one may have thousands.
const MOST_REFUSALS: usize = 20;

/// The response to a document that is not GraphQL.
pub(super) fn not_parsed(error: ServerError) -> Response {
    let message = match error.message.as_str() {
        "recursion limit exceeded." => "Selections are nested too deep.".to_owned(),
        message => without_source(message),
    };
    let mut error = ServerError { message, ..error };
    error.extensions.get_or_insert_with(ErrorExtensionValues::default).set("code", "GRAPHQL_PARSE_FAILED");
    Response::from_errors(vec![error])
}

/// What the schema answers, with a code in every error: our own carry theirs, the library's are told apart by how far the request
/// came.
pub(super) fn with_codes(mut response: Response) -> Response {
    if response.errors.iter().all(|error| error.path.is_empty()) {
        response.errors.truncate(MOST_REFUSALS);
    }
    for error in &mut response.errors {
        let code = match &error {
            error if error.extensions.as_ref().is_some_and(|it| it.get("code").is_some()) => continue,
            error if is_limit(error) => "LIMIT_EXCEEDED",
            error if error.path.is_empty() => "GRAPHQL_VALIDATION_FAILED",
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
