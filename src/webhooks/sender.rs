//! One try of a delivery, over HTTP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, header};
use serde_json::Value;

use crate::error::Error;
use crate::model::webhook::address::{PRIVATE, is_public, parse};
use crate::model::{Delivery, Timestamp, Webhook, WebhookSecret, stream_cursor};

/// How long a try may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Sends deliveries. Clones share its connections.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    client: Client,
    private_allowed: bool,
}

/// What came of a try.
#[derive(Debug)]
pub(super) enum Answer {
    Arrived,
    Failed(String),
    /// The other side does not want to hear of it, ever.
    Unwanted(String),
}

impl Sender {
    pub(super) fn new(private_allowed: bool) -> Result<Self, Error> {
        // Fails if somebody has said so before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("jobstream/", env!("CARGO_PKG_VERSION")))
            .timeout(PATIENCE)
            .redirect(Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(Resolver { private_allowed }));
        Ok(Self { client: client.build().map_err(Error::internal)?, private_allowed })
    }

    pub(super) async fn send(
        &self,
        webhook: &Webhook,
        delivery: &Delivery,
        position: Option<i64>,
        secret: &WebhookSecret,
    ) -> Answer {
        // What is stored may be from a time when it was allowed.
        let url = match parse(&webhook.url, self.private_allowed) {
            Ok(url) => url,
            Err(fault) => return Answer::Failed(fault),
        };
        let body = with_cursor(delivery, position);
        let (id, timestamp) = (delivery.id.to_string(), Timestamp::now().micros() / 1_000_000);
        let request = self
            .client
            .post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", secret.sign(&id, timestamp, &body))
            .body(body);
        match request.send().await {
            Ok(response) if response.status().is_success() => Answer::Arrived,
            Ok(response) if response.status() == StatusCode::GONE => Answer::Unwanted("Answered 410 Gone.".to_owned()),
            Ok(response) => Answer::Failed(format!("Answered {}.", response.status())),
            Err(error) => Answer::Failed(explain(&error)),
        }
    }
}

/// Where the stream goes on is known only when the change is stored. One that is not kept any more has no place in it.
fn with_cursor(delivery: &Delivery, position: Option<i64>) -> String {
    match serde_json::from_str::<Value>(&delivery.body) {
        Ok(mut body) => {
            body["data"]["cursor"] = position.map(stream_cursor).into();
            body.to_string()
        }
        Err(_) => delivery.body.clone(),
    }
}

/// The innermost reason, without the address, which is the user's own.
fn explain(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("There was no answer within {PATIENCE:?}.");
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let reason = innermost.to_string();
    if reason == PRIVATE { reason } else { format!("It could not be sent: {reason}.") }
}

/// Looks names up, and answers only addresses that may be connected to: so what was looked at is what is used.
struct Resolver {
    private_allowed: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let private_allowed = self.private_allowed;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|it| private_allowed || is_public(it.ip())).collect();
            if allowed.is_empty() {
                return Err(io::Error::other(PRIVATE).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}
