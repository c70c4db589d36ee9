//! The WebSocket client of the tests: every result that it hands over is checked against the schema.

use std::collections::HashMap;
use std::net::SocketAddr;

use jobstream::client::{self, ClientError, Said};
use serde_json::{Value, json};

use super::conformance;

/// A connection that is initialised.
#[derive(Debug)]
pub struct Client {
    client: client::Client,
    requests: HashMap<String, Value>,
}

impl Client {
    /// Connects and initialises, showing the token if one is given.
    pub async fn connect(address: SocketAddr, token: Option<&str>) -> Result<Self, ClientError> {
        Ok(Self { client: client::Client::connect(address, token).await?, requests: HashMap::new() })
    }

    /// Begins an operation, and answers its id.
    pub async fn begin(&mut self, query: &str, variables: Value) -> Result<String, ClientError> {
        let request = json!({ "query": query, "variables": variables });
        let id = self.client.begin(query, variables).await?;
        self.requests.insert(id.clone(), request);
        Ok(id)
    }

    /// Ends an operation. Nothing more is said of it.
    pub async fn end(&mut self, id: &str) -> Result<(), ClientError> {
        self.client.end(id).await
    }

    /// Waits for what the server says next, of any operation.
    pub async fn next(&mut self) -> Result<(String, Said), ClientError> {
        let (id, said) = self.client.next().await?;
        self.check(&id, &said);
        Ok((id, said))
    }

    /// Waits for what the server says next of one operation; what it says of others is kept.
    pub async fn next_of(&mut self, id: &str) -> Result<Said, ClientError> {
        let said = self.client.next_of(id).await?;
        self.check(id, &said);
        Ok(said)
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

    /// Executes a query or mutation, and answers its `data`.
    pub async fn request(&mut self, query: &str, variables: Value) -> Result<Value, ClientError> {
        let id = self.begin(query, variables).await?;
        let data = self.next_data(&id).await?;
        if data.is_some() {
            self.next_data(&id).await?;
        }
        data.ok_or_else(|| ClientError::Unexpected("no result".to_owned()))
    }

    fn check(&self, id: &str, said: &Said) {
        let request = self.requests.get(id).unwrap_or(&Value::Null);
        match said {
            Said::Next(payload) => conformance::check(request, payload),
            Said::Error(errors) => conformance::check(request, &json!({ "errors": errors })),
            Said::Complete => {}
        }
    }
}
