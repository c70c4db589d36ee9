//! GraphQL over WebSocket: the graphql-transport-ws protocol, as PROTOCOL.md of the npm package graphql-ws says it.

mod gate;
mod handshake;
mod message;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use futures_util::stream::{AbortHandle, BoxStream, SelectAll, StreamExt, abortable};
use futures_util::{FutureExt, SinkExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};

use self::gate::{Gate, TooMuch};
pub(super) use self::handshake::{Handshake, is_upgrade};
use self::message::{ACK, Envelope, Init, PONG, Said};
use super::Http;
use super::access::Authentication;
use super::address::ClientAddress;
use super::connections::Place;
use super::peers::{ConnectionPermit, ConnectionUse};
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
const NOT_TEXT: u16 = 1007;
const TOO_BIG: u16 = 1009;
/// What stands for a close without a code.
const NO_STATUS: u16 = 1005;
/// When all that has happened is taken to be told.
const QUIET: Duration = Duration::from_millis(50);

/// Answers the handshake of a client that has authenticated already, or has yet to.
pub(super) fn accept(http: Http, mut parts: Parts, authentication: Authentication) -> Response {
    let handshake = match Handshake::take(&mut parts) {
        Ok(handshake) => handshake,
        Err((status, message)) => return refusal(status, message),
    };
    if !handshake::offers(&parts.headers, PROTOCOL) {
        let message = format!(
            "The subprotocol of this WebSocket is {PROTOCOL}. The older one, which calls itself graphql-ws, is not spoken."
        );
        http.metrics.connection_refused(ConnectionRefusal::Protocol);
        return refusal(StatusCode::BAD_REQUEST, &message);
    }
    let client = http.client(&parts.extensions, &parts.headers);
    let permit = parts.extensions.remove::<ConnectionPermit>();
    // A client that has yet to authenticate takes a place when it does.
    let place = match authentication.caller().map(|_| http.take_place(client)).transpose() {
        Ok(place) => place,
        Err(full) => return failure(full),
    };
    let response = handshake.accept(PROTOCOL);
    let opened = http.metrics.websocket_opened();
    let sockets = http.lifecycle.sockets.clone();
    let bounds = &http.bounds;
    let config = WebSocketConfig::default()
        .max_message_size(Some(bounds.max_request_bytes))
        .max_frame_size(Some(bounds.max_request_bytes))
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER);
    tokio::spawn(sockets.track_future(async move {
        let _open = opened;
        let Ok(upgraded) = handshake.connection.await else { return };
        let gate = Gate::closed(TokioIo::new(upgraded));
        let socket = WebSocketStream::from_raw_socket(gate, Role::Server, Some(config)).await;
        Connection::new(http, socket, client, permit, authentication, place).run().await;
    }));
    response
}

/// What an operation says.
enum Event {
    Answer(Answer),
    Over,
}

struct Connection {
    http: Http,
    socket: WebSocketStream<Gate<TokioIo<Upgraded>>>,
    client: ClientAddress,
    permit: Option<ConnectionPermit>,
    /// By the headers of the handshake, until the connection is initialised.
    authentication: Authentication,
    place: Option<Place>,
    initialised: Option<Initialised>,
    /// What the client closed the connection with.
    closed_with: Option<u16>,
    /// Every operation's events, with what they go out in; and how to end each.
    events: SelectAll<BoxStream<'static, (Arc<Envelope>, Event)>>,
    operations: HashMap<String, AbortHandle>,
}

/// An initialised connection is that of this caller, and is not idle.
struct Initialised {
    caller: Caller,
    _in_use: Option<ConnectionUse>,
}

/// The connection is over: it is to be closed with this, or is closed already.
struct Over(Option<(u16, &'static str)>);

impl From<tungstenite::Error> for Over {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Capacity(_) => Self(Some((TOO_BIG, "Message too big"))),
            tungstenite::Error::Io(error) if error.get_ref().is_some_and(|it| it.is::<TooMuch>()) => {
                Self(Some((TOO_BIG, "Too much before the initialisation")))
            }
            tungstenite::Error::Utf8(_) => Self(Some((NOT_TEXT, "A text is UTF-8"))),
            _ => Self(None),
        }
    }
}

impl Connection {
    fn new(
        http: Http,
        socket: WebSocketStream<Gate<TokioIo<Upgraded>>>,
        client: ClientAddress,
        permit: Option<ConnectionPermit>,
        authentication: Authentication,
        place: Option<Place>,
    ) -> Self {
        let (events, operations) = (SelectAll::new(), HashMap::new());
        let (initialised, closed_with) = (None, None);
        Self { http, socket, client, permit, authentication, place, initialised, closed_with, events, operations }
    }

    async fn run(mut self) {
        let Over(reason) = self.serve().await;
        let metrics = self.http.metrics.clone();
        let Some((code, reason)) = reason else { return metrics.websocket_closed(self.closed_with) };
        metrics.websocket_closed(Some(code));
        let close = Message::Close(Some(CloseFrame { code: code.into(), reason: reason.into() }));
        if timeout(CLOSE_TIMEOUT, self.socket.send(close)).await.is_ok() {
            // The client's own close, so that it reads ours before the connection ends.
            let _ = timeout(CLOSE_TIMEOUT, async {
                while let Some(Ok(_)) = self.socket.next().await {}
                if [TOO_BIG, NOT_TEXT].contains(&code) {
                    self.discard_rest().await;
                }
            })
            .await;
        }
    }

    /// Reads what the client has sent beyond an error. To close a connection with bytes that are not read would reset it, and the client
    /// might lose the close frame.
    async fn discard_rest(&mut self) {
        let gate = self.socket.get_mut();
        gate.open();
        let _ = gate.shutdown().await;
        let mut scrap = [0; READ_BUFFER];
        while gate.read(&mut scrap).await.is_ok_and(|count| count > 0) {}
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
        let permit = self.permit.clone();
        let evicted = async {
            match &permit {
                Some(permit) => permit.evicted().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(evicted);
        let mut pings = interval_at(began + bounds.ping_interval, bounds.ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_since = None;
        loop {
            tokio::select! {
                message = self.socket.next() => match message {
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
                () = at(self.initialised.is_none().then_some(began + bounds.init_timeout)) => {
                    return Err(Over(Some((4408, "Connection initialisation timeout"))));
                }
                // Another connection has its place.
                () = &mut evicted, if self.initialised.is_none() => return Err(Over(None)),
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
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
            Message::Close(frame) => {
                self.closed_with = Some(frame.map_or(NO_STATUS, |frame| frame.code.into()));
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
        if self.initialised.is_some() {
            return Err(Over(Some((4429, "Too many initialisation requests"))));
        }
        let init: Init = match payload {
            Some(payload) => serde_json::from_str(payload.get()).map_err(|_| invalid())?,
            None => Init::default(),
        };
        let caller = match self.authenticate(init.authorization.as_deref()) {
            Authentication::Passed(caller) => caller,
            refused => {
                // Beyond the refusals that are held back there is no close frame.
                let is_answered = self.http.refuse(self.client, refused).await;
                return Err(Over(is_answered.then_some((4403, "Forbidden"))));
            }
        };
        if self.place.is_none() {
            let place = self.http.take_place(self.client).map_err(|_| Over(Some((1013, "Too many connections"))))?;
            self.place = Some(place);
        }
        let in_use = self.permit.as_ref().map(ConnectionPermit::begin_use);
        if self.permit.as_ref().is_some_and(ConnectionPermit::is_evicted) {
            return Err(Over(None));
        }
        self.initialised = Some(Initialised { caller, _in_use: in_use });
        self.socket.get_mut().open();
        self.say(Utf8Bytes::from_static(ACK)).await
    }

    /// The result for the handshake and the initialisation together. A wrong token in either is refused, whatever the other shows.
    fn authenticate(&self, authorization: Option<&str>) -> Authentication {
        match (self.authentication, authorization) {
            (Authentication::WrongToken, _) => Authentication::WrongToken,
            (handshake, None) => handshake,
            (_, Some(_)) => self.http.access.authenticate(authorization),
        }
    }

    async fn subscribe(&mut self, id: String, payload: Option<&RawValue>) -> Result<(), Over> {
        let Some(&Initialised { caller, .. }) = self.initialised.as_ref() else {
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
async fn in_time(patience: Duration, sent: impl Future<Output = Result<(), tungstenite::Error>>) -> Result<(), Over> {
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
