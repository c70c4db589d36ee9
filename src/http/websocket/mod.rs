//! GraphQL over WebSocket: the graphql-transport-ws protocol, as PROTOCOL.md of the npm package graphql-ws says it.

mod message;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use futures_util::stream::{AbortHandle, BoxStream, SelectAll, StreamExt, abortable};
use futures_util::{FutureExt, SinkExt};
use serde_json::value::RawValue;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite;

use self::message::{ACK, Envelope, Init, PONG, Said};
use super::Http;
use super::access::text;
use super::listener::Accepted;
use super::reply::{failure, refusal};
use crate::error::Error;
use crate::graphql::{Answer, Caller, Operation};
use crate::metrics::ConnectionRefusal;

const PROTOCOL: &str = "graphql-transport-ws";
/// tungstenite fills its whole read buffer with zeros at every poll; the default of 128 KiB took 44 % of the time.
const READ_BUFFER: usize = 2048;
const WRITE_BUFFER: usize = 16 * 1024;
/// How many messages may be put together before they are sent. Then it is the client's turn.
const TOGETHER: usize = 64;
/// How long a client may take to answer a close, or to read what is still to be told before it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// What stands for a close without a code.
const NO_STATUS: u16 = 1005;
/// When all that has happened is taken to be told.
const QUIET: Duration = Duration::from_millis(50);

/// Whether a request asks for a WebSocket.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    text(headers, header::UPGRADE).is_some_and(|it| it.eq_ignore_ascii_case("websocket"))
}

/// Answers the handshake of a client that has said who it is already, or has yet to.
pub(super) fn accept(
    http: Http,
    upgrade: WebSocketUpgrade,
    caller: Option<Caller>,
    accepted: Option<Accepted>,
) -> Response {
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .max_message_size(http.bounds.max_request_bytes)
        .max_frame_size(http.bounds.max_request_bytes)
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER);
    if upgrade.selected_protocol().is_none() {
        let message = format!(
            "The subprotocol of this WebSocket is {PROTOCOL}. The older one, which calls itself graphql-ws, is not spoken."
        );
        http.metrics.connection_refused(ConnectionRefusal::Protocol);
        return refusal(StatusCode::BAD_REQUEST, &message);
    }
    let place = match http.take_place() {
        Ok(place) => (place, http.metrics.websocket_opened()),
        Err(full) => return failure(full),
    };
    let sockets = http.lifecycle.sockets.clone();
    upgrade.on_upgrade(move |socket| {
        sockets.track_future(async move {
            let _places = (place, accepted);
            Connection::new(http, socket, caller).run().await;
        })
    })
}

/// What an operation says.
enum Event {
    Answer(Answer),
    Over,
}

struct Connection {
    http: Http,
    socket: WebSocket,
    caller: Option<Caller>,
    initialised: bool,
    /// What the client closed the connection with.
    closed_with: Option<u16>,
    /// Every operation's events, with what they go out in; and how to end each.
    events: SelectAll<BoxStream<'static, (Arc<Envelope>, Event)>>,
    operations: HashMap<String, AbortHandle>,
}

/// The connection is over: it is to be closed with this, or is closed already.
struct Over(Option<(u16, &'static str)>);

impl From<axum::Error> for Over {
    fn from(error: axum::Error) -> Self {
        let error = error.into_inner();
        match error.downcast_ref() {
            Some(tungstenite::Error::Capacity(_)) => Self(Some((1009, "Message too big"))),
            Some(tungstenite::Error::Utf8(_)) => Self(Some((1007, "A text is UTF-8"))),
            _ => Self(None),
        }
    }
}

impl Connection {
    fn new(http: Http, socket: WebSocket, caller: Option<Caller>) -> Self {
        let (events, operations) = (SelectAll::new(), HashMap::new());
        Self { http, socket, caller, initialised: false, closed_with: None, events, operations }
    }

    async fn run(mut self) {
        let Over(reason) = self.serve().await;
        let metrics = self.http.metrics.clone();
        let Some((code, reason)) = reason else { return metrics.websocket_closed(self.closed_with) };
        metrics.websocket_closed(Some(code));
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        if timeout(CLOSE_TIMEOUT, self.socket.send(close)).await.is_ok() {
            // The client's own close, so that it reads ours before the connection ends.
            let _ = timeout(CLOSE_TIMEOUT, async { while let Some(Ok(_)) = self.socket.recv().await {} }).await;
        }
    }

    async fn serve(&mut self) -> Over {
        match self.listen_and_tell().await {
            Ok(()) => Over(None),
            Err(over) => over,
        }
    }

    async fn listen_and_tell(&mut self) -> Result<(), Over> {
        let began = Instant::now();
        let bounds = self.http.bounds.clone();
        let closing = self.http.lifecycle.closing.clone().cancelled_owned();
        tokio::pin!(closing);
        let mut pings = interval_at(began + bounds.ping_interval, bounds.ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_since = None;
        loop {
            tokio::select! {
                message = self.socket.recv() => match message {
                    Some(message) => {
                        silent_since = None;
                        self.hear(message?).await?;
                    }
                    None => return Ok(()),
                },
                Some((envelope, event)) = self.events.next() => {
                    // A client that does not read is not waited for when the server ends.
                    let told = self.tell_together(&envelope, event);
                    tokio::select! {
                        biased;
                        told = told => told?,
                        () = given_up(closing.as_mut()) => return Err(Over(None)),
                    }
                }
                _ = pings.tick() => {
                    silent_since.get_or_insert_with(Instant::now);
                    self.send(Message::Ping(Default::default())).await?;
                }
                () = at(silent_since.map(|since| since + bounds.client_timeout)) => {
                    return Err(Over(Some((4499, "No sign of life"))));
                }
                () = at((!self.initialised).then_some(began + bounds.init_timeout)) => {
                    return Err(Over(Some((4408, "Connection initialisation timeout"))));
                }
                () = &mut closing => {
                    let _ = timeout(CLOSE_TIMEOUT, self.tell_what_is_left()).await;
                    return Err(Over(Some((1012, "Service restart"))));
                }
            }
        }
    }

    /// Tells what has happened up to now: until nothing more comes for a moment.
    async fn tell_what_is_left(&mut self) -> Result<(), Over> {
        while let Ok(Some((envelope, event))) = timeout(QUIET, self.events.next()).await {
            self.tell(&envelope, event).await?;
        }
        self.flush().await
    }

    async fn hear(&mut self, message: Message) -> Result<(), Over> {
        self.http.metrics.frame_received();
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(_) => return Err(invalid()),
            // tungstenite answers pings and closes by itself.
            Message::Ping(_) | Message::Pong(_) => return Ok(()),
            Message::Close(frame) => {
                self.closed_with = Some(frame.map_or(NO_STATUS, |frame| frame.code));
                return Ok(());
            }
        };
        // serde would take an array for an object, too.
        if !text.trim_start().starts_with('{') {
            return Err(invalid());
        }
        let said: Said<'_> = serde_json::from_str(&text).map_err(|_| invalid())?;
        match (said.r#type.as_ref(), said.id) {
            ("connection_init", _) => self.initialise(said.payload).await,
            ("ping", _) => self.say(Utf8Bytes::from_static(PONG)).await,
            ("pong", _) => Ok(()),
            ("subscribe", Some(id)) if !id.is_empty() => self.subscribe(id, said.payload).await,
            ("complete", Some(id)) if !id.is_empty() => {
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
        let init: Init = match payload {
            Some(payload) => serde_json::from_str(payload.get()).map_err(|_| invalid())?,
            None => Init::default(),
        };
        if self.caller.is_none() {
            self.caller = init.authorizations().find_map(|it| self.http.access.admit(Some(it)));
        }
        if self.caller.is_none() {
            return Err(Over(Some((4403, "Forbidden"))));
        }
        self.initialised = true;
        self.say(Utf8Bytes::from_static(ACK)).await
    }

    async fn subscribe(&mut self, id: String, payload: Option<&RawValue>) -> Result<(), Over> {
        let Some(caller) = self.caller.filter(|_| self.initialised) else {
            return Err(Over(Some((4401, "Unauthorized"))));
        };
        if self.operations.contains_key(&id) {
            return Err(Over(Some((4409, "An operation with this id is active already"))));
        }
        let payload = payload.ok_or_else(invalid)?;
        let operation = Operation::from_json(payload.get().as_bytes()).map_err(|_| invalid())?;
        let envelope = Arc::new(Envelope::new(id.clone()));
        let most = self.http.bounds.max_operations;
        let prepared = if self.operations.len() < most {
            self.http.api.prepare(operation, caller)
        } else {
            let message = format!("At most {most} operations are active at a time on a connection.");
            Err(Error::LimitExceeded(message).into())
        };
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(refusal) => return self.say(envelope.error(refusal.errors.as_str())).await,
        };
        let answers = self.http.api.stream(prepared).map(Event::Answer);
        let events = answers.chain(futures_util::stream::iter([Event::Over]));
        // An operation that is aborted says nothing any more, not even that it is over: its id may be another's by then.
        let (events, abort) = abortable(events.map(move |event| (Arc::clone(&envelope), event)));
        self.operations.insert(id, abort);
        self.events.push(events.boxed());
        Ok(())
    }

    /// Tells an event, and what else there is to tell at this moment, in one go.
    async fn tell_together(&mut self, envelope: &Envelope, event: Event) -> Result<(), Over> {
        self.tell(envelope, event).await?;
        for _ in 1..TOGETHER {
            let Some(Some((envelope, event))) = self.events.next().now_or_never() else { break };
            self.tell(&envelope, event).await?;
        }
        self.flush().await
    }

    async fn tell(&mut self, envelope: &Envelope, event: Event) -> Result<(), Over> {
        let (message, over) = match event {
            Event::Answer(Answer::Result(result)) => (envelope.next(result.as_str()), false),
            Event::Answer(Answer::Refused(refusal)) => (envelope.error(refusal.errors.as_str()), true),
            Event::Over => (envelope.complete(), true),
        };
        if over && let Some(operation) = self.operations.remove(envelope.id()) {
            operation.abort();
        }
        self.feed(Message::Text(message)).await
    }

    async fn say(&mut self, message: Utf8Bytes) -> Result<(), Over> {
        self.send(Message::Text(message)).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Over> {
        self.feed(message).await?;
        self.flush().await
    }

    async fn feed(&mut self, message: Message) -> Result<(), Over> {
        self.http.metrics.frames_sent(1);
        in_time(self.http.bounds.client_timeout, self.socket.feed(message)).await
    }

    async fn flush(&mut self) -> Result<(), Over> {
        in_time(self.http.bounds.client_timeout, self.socket.flush()).await
    }
}

/// What a client is sent, unless it does not read for so long. Then there is nothing that it could be told.
async fn in_time(patience: Duration, sent: impl Future<Output = Result<(), axum::Error>>) -> Result<(), Over> {
    tokio::pin!(sent);
    // Nearly always there is room, and no need of a timer.
    let sent = match sent.as_mut().now_or_never() {
        Some(sent) => sent,
        None => timeout(patience, sent).await.map_err(|_| Over(None))?,
    };
    Ok(sent?)
}

/// Waits until a moment; for ever if there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// When a client that is told something has had the time to read it, although the server is closing.
async fn given_up(closing: impl Future<Output = ()>) {
    closing.await;
    sleep(CLOSE_TIMEOUT).await;
}

fn invalid() -> Over {
    Over(Some((4400, "Invalid message")))
}
