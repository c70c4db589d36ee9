//! GraphQL over HTTP: POST with JSON, and GET for queries. <https://graphql.github.io/graphql-over-http/>

use async_graphql::parser::types::OperationType;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::accept::MediaType;
use super::access::text;
use super::reply::refusal;
use super::{Bounds, Http, sse, websocket};
use crate::graphql::{Answer, Caller, Operation};

const JSON: &str = "application/json";

/// Carries out a request, or begins a WebSocket.
pub(super) async fn handle(State(http): State<Http>, request: Request) -> Response {
    let authentication = http.access.authenticate_headers(request.headers());
    if websocket::is_upgrade(request.headers()) {
        return websocket::accept(http, request.into_parts().0, authentication);
    }
    let Some(caller) = authentication.caller() else {
        let client = http.client(request.extensions(), request.headers());
        return http.unauthenticated(client, authentication).await;
    };
    let Some(media_type) = MediaType::best(request.headers()) else {
        return refusal(StatusCode::NOT_ACCEPTABLE, "Accept application/json or application/graphql-response+json.");
    };
    let method = request.method().clone();
    let known = request.headers().get(header::IF_NONE_MATCH).cloned();
    let mut response = match answer(&http, request, caller, media_type).await {
        Ok(response) => response,
        Err(NotGraphQl(status, message)) => {
            let mut response = refusal(status, &message);
            if media_type == MediaType::GraphqlResponse {
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type.name()));
            }
            response
        }
    };
    if method == Method::GET && response.status() == StatusCode::OK && response.headers().contains_key(header::ETAG) {
        let headers = response.headers_mut();
        // What another sees, or another media type, is another answer; and each has to be asked for anew.
        headers.insert(header::VARY, HeaderValue::from_static("accept, authorization"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        if known.is_some_and(|known| names(&known, &headers[header::ETAG])) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = Body::empty();
            response.headers_mut().remove(header::CONTENT_TYPE);
        }
    }
    response
}

/// A request that is not carried out, for it is wrong as HTTP.
struct NotGraphQl(StatusCode, String);

async fn answer(http: &Http, request: Request, caller: Caller, media_type: MediaType) -> Result<Response, NotGraphQl> {
    let over_get = request.method() == Method::GET;
    let client = http.client(request.extensions(), request.headers());
    let operation = match *request.method() {
        Method::GET => from_query_string(&request)?,
        Method::POST => from_body(request, &http.bounds).await?,
        _ => return Err(NotGraphQl(StatusCode::METHOD_NOT_ALLOWED, "Use POST, or GET for queries.".to_owned())),
    };
    let prepared = match http.api.prepare(operation, caller) {
        Ok(prepared) => prepared,
        Err(refusal) if media_type == MediaType::EventStream => return Ok(sse::refuse(refusal)),
        Err(refusal) => return Ok(reply(Answer::Refused(refusal), media_type, over_get)),
    };
    if prepared.kind() == OperationType::Mutation && over_get {
        return Err(NotGraphQl(StatusCode::METHOD_NOT_ALLOWED, "Mutations are not carried out over GET.".to_owned()));
    }
    if media_type == MediaType::EventStream {
        return Ok(sse::begin(http, prepared, client));
    }
    if prepared.kind() == OperationType::Subscription {
        let message = "Subscriptions are served over WebSocket, and to clients that accept text/event-stream.";
        return Err(NotGraphQl(StatusCode::BAD_REQUEST, message.to_owned()));
    }
    Ok(reply(http.api.execute(prepared).await, media_type, over_get))
}

async fn from_body(request: Request, bounds: &Bounds) -> Result<Operation, NotGraphQl> {
    let content_type = text(request.headers(), header::CONTENT_TYPE).unwrap_or_default();
    // Anything else a page of another site could send without being asked.
    if !content_type.split(';').next().is_some_and(|it| it.trim().eq_ignore_ascii_case(JSON)) {
        return Err(NotGraphQl(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("The content type of a request is {JSON}."),
        ));
    }
    let most_bytes = bounds.max_request_bytes;
    let body = timeout(bounds.client_timeout, to_bytes(request.into_body(), most_bytes))
        .await
        .map_err(|_| NotGraphQl(StatusCode::REQUEST_TIMEOUT, "The body does not come.".to_owned()))?
        .map_err(|_| NotGraphQl(StatusCode::PAYLOAD_TOO_LARGE, format!("A request has at most {most_bytes} bytes.")))?;
    Operation::from_json(&body).map_err(bad)
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    query: Option<String>,
    operation_name: Option<String>,
    variables: Option<String>,
    extensions: Option<String>,
    document_id: Option<String>,
}

fn from_query_string(request: &Request) -> Result<Operation, NotGraphQl> {
    let Query(parameters) = Query::<Parameters>::try_from_uri(request.uri()).map_err(|error| bad(error.to_string()))?;
    let json = |name: &str, text: Option<String>| match text.filter(|text| !text.is_empty() && text != "null") {
        Some(text) => RawValue::from_string(text.trim().to_owned())
            .map(Some)
            .map_err(|error| bad(format!("`{name}` is not JSON: {error}."))),
        None => Ok(None),
    };
    let operation = Operation {
        query: parameters.query.filter(|query| !query.is_empty()),
        operation_name: parameters.operation_name.filter(|name| !name.is_empty()),
        variables: json("variables", parameters.variables)?,
        extensions: json("extensions", parameters.extensions)?,
        document_id: parameters.document_id,
    };
    operation.checked().map_err(bad)
}

fn bad(message: String) -> NotGraphQl {
    NotGraphQl(StatusCode::BAD_REQUEST, message)
}

fn reply(answer: Answer, media_type: MediaType, with_tag: bool) -> Response {
    let (status, body) = match answer {
        Answer::Result(json) => (StatusCode::OK, Bytes::from_owner(json)),
        Answer::Refused(refusal) => {
            let status = match media_type {
                _ if refusal.is_fault() => StatusCode::INTERNAL_SERVER_ERROR,
                // As the specification says: clients that know no other media type look for errors in the body.
                MediaType::Json => StatusCode::OK,
                _ => StatusCode::BAD_REQUEST,
            };
            (status, refusal.body().into())
        }
    };
    let tag = (with_tag && status == StatusCode::OK).then(|| tag_of(&body));
    let content_type = (header::CONTENT_TYPE, format!("{}; charset=utf-8", media_type.name()));
    let mut response = (status, [content_type], body).into_response();
    if let Some(tag) = tag.and_then(|tag| HeaderValue::try_from(tag).ok()) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// A weak tag, for the same answer may go out compressed or not.
fn tag_of(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    let digits: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("W/\"{digits}\"")
}

/// Whether an `If-None-Match` names this tag.
fn names(known: &HeaderValue, tag: &HeaderValue) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let (Ok(known), Ok(tag)) = (known.to_str(), tag.to_str()) else { return false };
    known.split(',').any(|it| it.trim() == "*" || opaque(it) == opaque(tag))
}
