//! A small client of the server's own WebSocket, for the demo, the tests and the benchmarks.
//!
//! It speaks graphql-transport-ws, one operation after the other or several at a time, and hands over payloads as JSON.

use std::collections::VecDeque;
use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

/// A connection that is initialised.
#[derive(Debug)]
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_id: u64,
    /// What came for operations that nobody was waiting for, in the order in which it came.
    waiting: VecDeque<(String, Said)>,
}

/// What the server says of an operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// A result: an object with `data`, or `errors`, or both.
    Next(Value),
    /// It was refused, or has failed: a list of errors.
    Error(Value),
    /// It is over.
    Complete,
}

/// Why the connection, or an operation, came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server closed the connection, with this.
    #[error("the server closed the connection: {0:?}")]
    Closed(Option<CloseFrame>),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] tungstenite::Error),
    /// The operation was answered with errors.
    #[error("the operation failed: {0}")]
    Failed(Value),
    /// The server said what no server says.
    #[error("the server said: {0}")]
    Unexpected(String),
}

impl Client {
    /// Connects and initialises, showing the token if one is given.
    pub async fn connect(address: SocketAddr, token: Option<&str>) -> Result<Self, ClientError> {
        let mut request = format!("ws://{address}/graphql").into_client_request()?;
        let protocol = tungstenite::http::HeaderValue::from_static("graphql-transport-ws");
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let (socket, _) = connect_async_with_config(request, None, true).await?; // true: without Nagle's delay
        let mut client = Self { socket, next_id: 1, waiting: VecDeque::new() };
        let payload = token.map_or(json!({}), |token| json!({ "Authorization": format!("Bearer {token}") }));
        client.say(&json!({ "type": "connection_init", "payload": payload })).await?;
        match client.hear().await? {
            message if message["type"] == "connection_ack" => Ok(client),
            other => Err(ClientError::Unexpected(other.to_string())),
        }
    }

    /// Begins an operation, and answers its id.
    pub async fn begin(&mut self, query: &str, variables: Value) -> Result<String, ClientError> {
        let id = self.next_id.to_string();
        self.next_id += 1;
        let payload = json!({ "query": query, "variables": variables });
        self.say(&json!({ "id": id, "type": "subscribe", "payload": payload })).await?;
        Ok(id)
    }

    /// Ends an operation. Nothing more is said of it.
    pub async fn end(&mut self, id: &str) -> Result<(), ClientError> {
        self.waiting.retain(|(other, _)| other != id);
        self.say(&json!({ "id": id, "type": "complete" })).await
    }

    /// Waits for what the server says next, of any operation.
    pub async fn next(&mut self) -> Result<(String, Said), ClientError> {
        match self.waiting.pop_front() {
            Some(said) => Ok(said),
            None => self.read().await,
        }
    }

    /// Waits for what the server says next of one operation; what it says of others is kept.
    pub async fn next_of(&mut self, id: &str) -> Result<Said, ClientError> {
        if let Some(place) = self.waiting.iter().position(|(other, _)| other == id)
            && let Some((_, said)) = self.waiting.remove(place)
        {
            return Ok(said);
        }
        loop {
            let (other, said) = self.read().await?;
            if other == id {
                return Ok(said);
            }
            self.waiting.push_back((other, said));
        }
    }

    /// Waits for the next result of a subscription: its `data`, or nothing once it is over.
    pub async fn next_data(&mut self, id: &str) -> Result<Option<Value>, ClientError> {
        match self.next_of(id).await? {
            Said::Next(mut payload) if payload["errors"].is_null() => Ok(Some(payload["data"].take())),
            Said::Next(mut payload) => Err(ClientError::Failed(payload["errors"].take())),
            Said::Error(errors) => Err(ClientError::Failed(errors)),
            Said::Complete => Ok(None),
        }
    }

    /// Carries out a query or mutation, and answers its `data`.
    pub async fn request(&mut self, query: &str, variables: Value) -> Result<Value, ClientError> {
        let id = self.begin(query, variables).await?;
        let data = self.next_data(&id).await?;
        if data.is_some() {
            self.next_data(&id).await?;
        }
        data.ok_or_else(|| ClientError::Unexpected("no result".to_owned()))
    }

    async fn read(&mut self) -> Result<(String, Said), ClientError> {
        loop {
            let mut message = self.hear().await?;
            let id = message["id"].as_str().unwrap_or_default().to_owned();
            let payload = message["payload"].take();
            let said = match message["type"].as_str() {
                Some("next") => Said::Next(payload),
                Some("error") => Said::Error(payload),
                Some("complete") => Said::Complete,
                Some("ping") => {
                    self.say(&json!({ "type": "pong" })).await?;
                    continue;
                }
                _ => return Err(ClientError::Unexpected(message.to_string())),
            };
            return Ok((id, said));
        }
    }

    async fn say(&mut self, message: &Value) -> Result<(), ClientError> {
        Ok(self.socket.send(Message::text(message.to_string())).await?)
    }

    async fn hear(&mut self) -> Result<Value, ClientError> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    let parsed = serde_json::from_str(&text);
                    return parsed.map_err(|_| ClientError::Unexpected(text.to_string()));
                }
                Some(Ok(Message::Close(frame))) => return Err(ClientError::Closed(frame)),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(ClientError::Closed(None)),
            }
        }
    }
}
