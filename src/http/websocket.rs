//! GraphQL over WebSocket: the graphql-transport-ws protocol, as PROTOCOL.md of the npm package graphql-ws says it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use async_graphql::parser::types::OperationType;
use async_graphql::{Request, Response as GraphQLResponse, Value};
use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{AbortHandle, BoxStream, SelectAll, StreamExt, abortable};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::access::text;
use super::{Http, graphql};

const PROTOCOL: &str = "graphql-transport-ws";
const LARGEST_MESSAGE: usize = 2 * 1024 * 1024;
/// tungstenite fills its whole read buffer with zeros at every poll; the default of 128 KiB took 44 % of the time.
const READ_BUFFER: usize = 4096;
const WRITE_BUFFER: usize = 16 * 1024;
/// How long a client may take to initialise the connection,
const INIT_TIMEOUT: Duration = Duration::from_secs(10);
/// and to answer a close, or read what is still to be told before it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// When all that has happened is taken to be told.
const QUIET: Duration = Duration::from_millis(50);

/// Whether a request asks for a WebSocket.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    text(headers, header::UPGRADE).is_some_and(|it| it.eq_ignore_ascii_case("websocket"))
}

/// Answers the handshake. `admitted` says that the client has shown the token already, or that there is none.
pub(super) fn accept(http: Http, upgrade: WebSocketUpgrade, admitted: bool) -> Response {
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .max_message_size(LARGEST_MESSAGE)
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER);
    if upgrade.selected_protocol().is_none() {
        let message = format!("The subprotocol of this WebSocket is {PROTOCOL}.\n");
        return (StatusCode::BAD_REQUEST, message).into_response();
    }
    let sockets = http.lifecycle.sockets.clone();
    upgrade.on_upgrade(move |socket| {
        sockets.track_future(async move { Connection::new(http, socket, admitted).run().await })
    })
}

/// What a client says.
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    id: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// What the server says.
#[derive(Serialize)]
struct Saying<'a, P> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<P>,
}

/// The payload of `subscribe`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Operation {
    query: String,
    operation_name: Option<String>,
    #[serde(default)]
    variables: Option<serde_json::Map<String, Json>>,
}

/// What an operation says.
enum Event {
    Response(Box<GraphQLResponse>),
    Over,
}

struct Connection {
    http: Http,
    socket: WebSocket,
    admitted: bool,
    initialised: bool,
    /// Every operation's events, with its id; and how to end each.
    events: SelectAll<BoxStream<'static, (String, OperationType, Event)>>,
    operations: HashMap<String, AbortHandle>,
}

/// The connection is over: it is to be closed with this, or is closed already.
struct Over(Option<(u16, &'static str)>);

impl From<axum::Error> for Over {
    fn from(_: axum::Error) -> Self {
        Self(None)
    }
}

impl Connection {
    fn new(http: Http, socket: WebSocket, admitted: bool) -> Self {
        Self { http, socket, admitted, initialised: false, events: SelectAll::new(), operations: HashMap::new() }
    }

    async fn run(mut self) {
        let Over(reason) = match self.serve().await {
            Ok(()) => return,
            Err(over) => over,
        };
        let Some((code, reason)) = reason else { return };
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        if timeout(CLOSE_TIMEOUT, self.socket.send(close)).await.is_ok() {
            // The client's own close, so that it reads ours before the connection ends.
            let _ = timeout(CLOSE_TIMEOUT, async { while let Some(Ok(_)) = self.socket.recv().await {} }).await;
        }
    }

    async fn serve(&mut self) -> Result<(), Over> {
        let initialise_until = Instant::now() + INIT_TIMEOUT;
        let closing = self.http.lifecycle.closing.clone();
        loop {
            tokio::select! {
                message = self.socket.recv() => match message {
                    Some(message) => self.hear(message?).await?,
                    None => return Ok(()),
                },
                Some((id, type_, event)) = self.events.next() => {
                    // A client that does not read is not waited for when the server ends.
                    tokio::select! {
                        told = self.tell(id, type_, event) => told?,
                        () = given_up(&closing) => return Err(Over(None)),
                    }
                }
                () = sleep_until(initialise_until), if !self.initialised => {
                    return Err(Over(Some((4408, "Connection initialisation timeout"))));
                }
                () = closing.cancelled() => {
                    let _ = timeout(CLOSE_TIMEOUT, self.tell_what_is_left()).await;
                    return Err(Over(Some((1012, "Service restart"))));
                }
            }
        }
    }

    /// Tells what has happened up to now: until nothing more comes for a moment.
    async fn tell_what_is_left(&mut self) -> Result<(), Over> {
        while let Ok(Some((id, type_, event))) = timeout(QUIET, self.events.next()).await {
            self.tell(id, type_, event).await?;
        }
        Ok(())
    }

    async fn hear(&mut self, message: Message) -> Result<(), Over> {
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(_) => return Err(invalid()),
            // tungstenite answers pings and closes by itself.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => return Ok(()),
        };
        let said: Said<'_> = serde_json::from_str(&text).map_err(|_| invalid())?;
        match (said.r#type.as_ref(), said.id) {
            ("connection_init", _) => self.initialise(said.payload).await,
            ("ping", _) => self.say(None, "pong", None::<()>).await,
            ("pong", _) => Ok(()),
            ("subscribe", Some(id)) if !id.is_empty() => self.subscribe(id, said.payload).await,
            ("complete", Some(id)) => {
                if let Some(operation) = self.operations.remove(&id) {
                    operation.abort();
                }
                Ok(())
            }
            _ => Err(invalid()),
        }
    }

    async fn initialise(&mut self, payload: Option<&RawValue>) -> Result<(), Over> {
        if self.initialised {
            return Err(Over(Some((4429, "Too many initialisation requests"))));
        }
        #[derive(Deserialize)]
        struct Init {
            #[serde(rename = "Authorization", alias = "authorization")]
            authorization: Option<String>,
        }
        let init: Option<Init> = match payload {
            Some(payload) => serde_json::from_str(payload.get()).map_err(|_| invalid())?,
            None => None,
        };
        let shown = init.and_then(|it| it.authorization);
        if !self.admitted && !self.http.access.admits(shown.as_deref()) {
            return Err(Over(Some((4403, "Forbidden"))));
        }
        self.initialised = true;
        self.say(None, "connection_ack", None::<()>).await
    }

    async fn subscribe(&mut self, id: String, payload: Option<&RawValue>) -> Result<(), Over> {
        if !self.initialised {
            return Err(Over(Some((4401, "Unauthorized"))));
        }
        if self.operations.contains_key(&id) {
            return Err(Over(Some((4409, "An operation with this id is active already"))));
        }
        let payload = payload.ok_or_else(invalid)?;
        let operation: Operation = serde_json::from_str(payload.get()).map_err(|_| invalid())?;
        let mut request = Request::new(operation.query);
        request.operation_name = operation.operation_name;
        if let Some(variables) = operation.variables {
            request = request.variables(async_graphql::Variables::from_json(Json::Object(variables)));
        }
        // What cannot be told is refused when it is carried out.
        let type_ = graphql::operation_type(&mut request).unwrap_or(OperationType::Query);
        let responses = self.http.api.stream(request).map(|response| Event::Response(Box::new(response)));
        let events = responses.chain(futures_util::stream::iter([Event::Over]));
        let name = id.clone();
        // An operation that is aborted says nothing any more, not even that it is over: its id may be another's by then.
        let (events, abort) = abortable(events.map(move |event| (name.clone(), type_, event)));
        self.operations.insert(id, abort);
        self.events.push(events.boxed());
        Ok(())
    }

    async fn tell(&mut self, id: String, type_: OperationType, event: Event) -> Result<(), Over> {
        match event {
            Event::Response(response) if is_refusal(&response, type_) => {
                if let Some(operation) = self.operations.remove(&id) {
                    operation.abort();
                }
                self.say(Some(&id), "error", Some(response.errors)).await
            }
            Event::Response(response) => self.say(Some(&id), "next", Some(response)).await,
            Event::Over => {
                self.operations.remove(&id);
                self.say(Some(&id), "complete", None::<()>).await
            }
        }
    }

    async fn say<P: Serialize>(
        &mut self,
        id: Option<&str>,
        r#type: &'static str,
        payload: Option<P>,
    ) -> Result<(), Over> {
        // Everything that is said can be written as JSON.
        let text =
            serde_json::to_string(&Saying { id, r#type, payload }).map_err(|_| Over(Some((1011, "Internal error"))))?;
        Ok(self.socket.send(Message::Text(text.into())).await?)
    }
}

/// When a client that is told something has had the time to read it, although the server is closing.
async fn given_up(closing: &CancellationToken) {
    closing.cancelled().await;
    sleep(CLOSE_TIMEOUT).await;
}

/// Whether a response says that the operation was refused or, a subscription, has failed: that is told by `error`.
fn is_refusal(response: &GraphQLResponse, type_: OperationType) -> bool {
    response.data == Value::Null
        && !response.errors.is_empty()
        && (type_ == OperationType::Subscription || response.errors.iter().all(|error| error.path.is_empty()))
}

fn invalid() -> Over {
    Over(Some((4400, "Invalid message")))
}
