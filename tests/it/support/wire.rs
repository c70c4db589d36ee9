//! A WebSocket as it is, for what [`Client`](jobstream::client::Client) would never say.

use std::collections::HashMap;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::{TestServer, conformance, text, within};

/// The header that names the subprotocol.
pub const PROTOCOL: (&str, &str) = ("sec-websocket-protocol", "graphql-transport-ws");

/// What a client holds of the bytes that it has not read, at the most: as little as Linux allows.
const SMALL_BUFFER: u32 = 4096;

/// A WebSocket.
pub struct Wire {
    pub socket: WebSocketStream<TcpStream>,
    /// What was asked for, by the ids of operations: results have to conform to it.
    requests: HashMap<String, Value>,
}

impl TestServer {
    /// Opens a WebSocket with these headers beside those that it needs. The error is the status of the refusal.
    pub async fn handshake(&self, headers: &[(&'static str, &str)]) -> Result<Wire, u16> {
        let stream = within(TcpStream::connect(self.address())).await.expect("a connection");
        self.handshake_over(stream, headers).await
    }

    async fn handshake_over(&self, stream: TcpStream, headers: &[(&'static str, &str)]) -> Result<Wire, u16> {
        let mut request = format!("ws://{}/graphql", self.address()).into_client_request().expect("a request");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header's value"));
        }
        match within(client_async(request, stream)).await {
            Ok((socket, _)) => Ok(Wire { socket, requests: HashMap::new() }),
            Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("the handshake was not answered: {error}"),
        }
    }

    /// A WebSocket that is not initialised.
    pub async fn wire(&self) -> Wire {
        self.handshake(&[PROTOCOL]).await.expect("a socket")
    }

    /// A WebSocket that is initialised.
    pub async fn ready_wire(&self) -> Wire {
        let mut wire = self.wire().await;
        wire.initialise().await;
        wire
    }

    /// A WebSocket that is initialised, of a client that holds hardly anything that it has not read.
    pub async fn narrow_wire(&self) -> Wire {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(SMALL_BUFFER).expect("a small buffer");
        let stream = within(socket.connect(self.address())).await.expect("a connection");
        let mut wire = self.handshake_over(stream, &[PROTOCOL]).await.expect("a WebSocket");
        wire.initialise().await;
        wire
    }
}

impl Wire {
    async fn initialise(&mut self) {
        self.say(json!({ "type": "connection_init" })).await;
        assert_eq!(self.hear().await, json!({ "type": "connection_ack" }));
    }

    pub async fn say(&mut self, message: Value) {
        if let ("subscribe", Some(id)) = (message["type"].as_str().unwrap_or_default(), message["id"].as_str()) {
            self.requests.insert(id.to_owned(), message["payload"].clone());
        }
        self.send(Message::text(message.to_string())).await;
    }

    pub async fn send(&mut self, message: Message) {
        self.socket.send(message).await.expect("the connection");
    }

    pub async fn subscribe(&mut self, id: &str, query: &str) {
        self.say(json!({ "id": id, "type": "subscribe", "payload": { "query": query } })).await;
    }

    /// The next message. Pings are answered meanwhile.
    pub async fn hear(&mut self) -> Value {
        match self.receive().await {
            Message::Text(text) => {
                let message = serde_json::from_str(&text).expect("JSON");
                self.check(&message);
                message
            }
            other => panic!("not a message: {other:?}"),
        }
    }

    fn check(&self, message: &Value) {
        let Some(request) = message["id"].as_str().and_then(|id| self.requests.get(id)) else { return };
        match message["type"].as_str() {
            Some("next") => conformance::check(request, &message["payload"]),
            Some("error") => conformance::check(request, &json!({ "errors": message["payload"] })),
            _ => {}
        }
    }

    /// The next message of this operation.
    pub async fn hear_of(&mut self, id: &str) -> Value {
        loop {
            let message = self.hear().await;
            if message["id"] == id {
                return message;
            }
        }
    }

    /// The code with which the server closes the connection, which it does next.
    pub async fn closed(&mut self) -> u16 {
        match self.receive().await {
            Message::Close(Some(frame)) => frame.code.into(),
            other => panic!("not a close: {other:?}"),
        }
    }

    /// Checks that the server has nothing to say.
    pub async fn hears_nothing(&mut self) {
        self.say(json!({ "type": "ping" })).await;
        assert_eq!(text(&self.hear().await["type"]), "pong");
    }

    async fn receive(&mut self) -> Message {
        loop {
            match within(self.socket.next()).await.expect("no end").expect("the connection") {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }
}
