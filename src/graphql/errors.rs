//! Errors as clients see them: a message, and `extensions.code`. The one place where they are turned into GraphQL.

use async_graphql::ErrorExtensionValues;
use uuid::Uuid;

use crate::error::Error;

impl From<Error> for async_graphql::Error {
    fn from(error: Error) -> Self {
        let mut extensions = ErrorExtensionValues::default();
        extensions.set("code", error.code());
        match &error {
            Error::BadUserInput(problems) => {
                if let Ok(problems) = async_graphql::to_value(problems) {
                    extensions.set("problems", problems);
                }
            }
            Error::PipelineBusy { job_id } => extensions.set("jobId", job_id.as_str()),
            Error::Internal(_) | Error::Stale | Error::Unavailable(_) => {
                let request_id = Uuid::new_v4().to_string();
                tracing::error!(%request_id, code = error.code(), detail = ?error.detail(), "a request failed");
                extensions.set("requestId", request_id);
            }
            _ => {}
        }
        Self { message: error.to_string(), source: None, extensions: Some(extensions) }
    }
}

/// The body of a response that says only that the request failed: `{"errors": […]}`.
pub fn error_body(error: Error) -> serde_json::Value {
    let error = async_graphql::Error::from(error);
    serde_json::json!({ "errors": [{ "message": error.message, "extensions": error.extensions }] })
}
