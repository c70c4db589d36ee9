//! GraphQL over HTTP: POST with JSON, and GET for queries. <https://graphql.github.io/graphql-over-http/>

use async_graphql::parser::types::{DocumentOperations, OperationType};
use async_graphql::{Request as GraphQLRequest, Response as GraphQLResponse, Value, Variables};
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, Query, Request, State, WebSocketUpgrade};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};

use super::access::text;
use super::reply::failure;
use super::{Http, websocket};
use crate::error::Error;

/// The largest body of a request.
const LARGEST_BODY: usize = 2 * 1024 * 1024;
const JSON: &str = "application/json";
const GRAPHQL_RESPONSE: &str = "application/graphql-response+json";

/// Carries out a request, or begins a WebSocket.
pub(super) async fn handle(State(http): State<Http>, request: Request) -> Response {
    if websocket::is_upgrade(request.headers()) {
        let (mut parts, _) = request.into_parts();
        let admitted = http.access.admits_headers(&parts.headers);
        return match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
            Ok(upgrade) => websocket::accept(http, upgrade, admitted),
            Err(rejection) => rejection.into_response(),
        };
    }
    if !http.access.admits_headers(request.headers()) {
        return failure(Error::Unauthenticated);
    }
    let Some(media_type) = acceptable(request.headers()) else {
        return refusal(
            StatusCode::NOT_ACCEPTABLE,
            JSON,
            "BAD_REQUEST",
            &format!("Accept {JSON} or {GRAPHQL_RESPONSE}."),
        );
    };
    match answer(&http, request, media_type).await {
        Ok(response) => response,
        Err(Refused(status, message)) => refusal(status, media_type, "BAD_REQUEST", &message),
    }
}

/// A request that is not carried out.
struct Refused(StatusCode, String);

async fn answer(http: &Http, request: Request, media_type: &'static str) -> Result<Response, Refused> {
    let only_queries = request.method() == Method::GET;
    let mut request = match *request.method() {
        Method::GET => from_query_string(&request)?,
        Method::POST => from_body(request).await?,
        _ => return Err(Refused(StatusCode::METHOD_NOT_ALLOWED, "Use POST, or GET for queries.".to_owned())),
    };
    match operation_type(&mut request) {
        Some(OperationType::Subscription) => {
            let message = "Subscriptions are served over WebSocket.".to_owned();
            return Err(Refused(StatusCode::BAD_REQUEST, message));
        }
        Some(OperationType::Mutation) if only_queries => {
            return Err(Refused(StatusCode::METHOD_NOT_ALLOWED, "Only queries are carried out over GET.".to_owned()));
        }
        _ => {}
    }
    // In a task of its own: a client that goes away takes nothing with it half way.
    let api = http.api.clone();
    let carried_out = tokio::spawn(async move { api.execute(request).await }).await;
    let response = carried_out.map_err(|error| {
        tracing::error!(%error, "a request panicked");
        Refused(StatusCode::INTERNAL_SERVER_ERROR, "Internal error.".to_owned())
    })?;
    Ok(reply(&response, media_type))
}

/// The operation that is asked for, if the document says which that is.
pub(super) fn operation_type(request: &mut GraphQLRequest) -> Option<OperationType> {
    let name = request.operation_name.clone();
    match &request.parsed_query().ok()?.operations {
        DocumentOperations::Single(operation) => Some(operation.node.ty),
        DocumentOperations::Multiple(operations) => Some(operations.get(name?.as_str())?.node.ty),
    }
}

/// The better of the two media types that the client accepts. One that says nothing accepts anything.
fn acceptable(headers: &HeaderMap) -> Option<&'static str> {
    if !headers.contains_key(header::ACCEPT) {
        return Some(JSON);
    }
    let mut best: Option<(f32, &'static str)> = None;
    for part in headers.get_all(header::ACCEPT).iter().filter_map(|it| it.to_str().ok()).flat_map(|it| it.split(',')) {
        let mut pieces = part.split(';').map(str::trim);
        let media_type = match pieces.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            GRAPHQL_RESPONSE => GRAPHQL_RESPONSE,
            JSON | "application/*" | "*/*" => JSON,
            _ => continue,
        };
        let weight = pieces.find_map(|it| it.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
        if weight > 0.0 && best.is_none_or(|(other, _)| weight > other) {
            best = Some((weight, media_type));
        }
    }
    best.map(|(_, media_type)| media_type)
}

async fn from_body(request: Request) -> Result<GraphQLRequest, Refused> {
    let content_type = text(request.headers(), header::CONTENT_TYPE).unwrap_or_default();
    // Anything else a page of another site could send without being asked.
    if !content_type.split(';').next().is_some_and(|it| it.trim().eq_ignore_ascii_case(JSON)) {
        return Err(Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("The content type of a request is {JSON}.")));
    }
    let body = to_bytes(request.into_body(), LARGEST_BODY)
        .await
        .map_err(|_| Refused(StatusCode::PAYLOAD_TOO_LARGE, format!("A request has at most {LARGEST_BODY} bytes.")))?;
    let json = serde_json::from_slice(&body).map_err(|error| bad(&format!("The body is not JSON: {error}.")))?;
    from_json(json)
}

#[derive(serde::Deserialize)]
struct Parameters {
    query: Option<String>,
    #[serde(rename = "operationName")]
    operation_name: Option<String>,
    variables: Option<String>,
    extensions: Option<String>,
}

fn from_query_string(request: &Request) -> Result<GraphQLRequest, Refused> {
    let Query(parameters) =
        Query::<Parameters>::try_from_uri(request.uri()).map_err(|error| bad(&error.to_string()))?;
    let object = |name: &str, text: Option<String>| match text.filter(|text| !text.is_empty()) {
        Some(text) => serde_json::from_str(&text).map_err(|error| bad(&format!("`{name}` is not JSON: {error}."))),
        None => Ok(Json::Null),
    };
    from_json(json!({
        "query": parameters.query,
        "operationName": parameters.operation_name,
        "variables": object("variables", parameters.variables)?,
        "extensions": object("extensions", parameters.extensions)?,
    }))
}

/// A request from its JSON form.
fn from_json(json: Json) -> Result<GraphQLRequest, Refused> {
    let Json::Object(mut fields) = json else { return Err(bad("A request is a JSON object; there are no batches.")) };
    let mut optional = |name: &str, right: fn(&Json) -> bool, what: &str| match fields.remove(name) {
        None | Some(Json::Null) => Ok(None),
        Some(value) if right(&value) => Ok(Some(value)),
        Some(_) => Err(bad(&format!("`{name}` is {what}."))),
    };
    let Some(Json::String(query)) = optional("query", Json::is_string, "a string")? else {
        return Err(bad("`query` is missing."));
    };
    let mut request = GraphQLRequest::new(query);
    if let Some(Json::String(name)) = optional("operationName", Json::is_string, "a string")? {
        request = request.operation_name(name);
    }
    if let Some(variables) = optional("variables", Json::is_object, "an object")? {
        request = request.variables(Variables::from_json(variables));
    }
    optional("extensions", Json::is_object, "an object")?;
    Ok(request)
}

fn bad(message: &str) -> Refused {
    Refused(StatusCode::BAD_REQUEST, message.to_owned())
}

/// The answer to a request that was carried out, or that the schema refused.
fn reply(response: &GraphQLResponse, media_type: &'static str) -> Response {
    let refused = response.data == Value::Null
        && !response.errors.is_empty()
        && response.errors.iter().all(|error| error.path.is_empty());
    let status = if refused && media_type == GRAPHQL_RESPONSE { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let body =
        if refused { serde_json::to_vec(&json!({ "errors": response.errors })) } else { serde_json::to_vec(response) };
    with_type(status, media_type, body.unwrap_or_default())
}

fn refusal(status: StatusCode, media_type: &'static str, code: &str, message: &str) -> Response {
    let body = json!({ "errors": [{ "message": message, "extensions": { "code": code } }] });
    with_type(status, media_type, body.to_string().into_bytes())
}

fn with_type(status: StatusCode, media_type: &'static str, body: Vec<u8>) -> Response {
    let content_type = (header::CONTENT_TYPE, format!("{media_type}; charset=utf-8"));
    let mut response = (status, [content_type], Body::from(body)).into_response();
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, POST"));
    }
    response
}
