//! Bounds on what clients may hold of the server.

use std::time::Duration;

/// The bounds. `jobstream --help` shows the defaults.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Bounds on clients")]
pub struct Bounds {
    /// How many bytes a request may have: the body of an HTTP request, or a message over a WebSocket.
    #[arg(long, env = "JOBSTREAM_MAX_REQUEST_BYTES", value_name = "BYTES", default_value_t = 2 << 20)]
    pub max_request_bytes: usize,

    /// How many WebSockets, event streams and followed logs may be open at a time.
    #[arg(long, env = "JOBSTREAM_MAX_CONNECTIONS", value_name = "NUMBER", default_value_t = 16_384)]
    pub max_connections: usize,

    /// Maximum number of open connections from one client address, an IPv6 network of 64 bits counting as one. Trusted proxies
    /// are exempt; behind them it bounds the WebSockets, event streams and followed logs of each client.
    #[arg(long, env = "JOBSTREAM_MAX_CONNECTIONS_PER_ADDRESS", value_name = "NUMBER", default_value_t = 1_024)]
    pub max_connections_per_address: usize,

    /// How many operations may be active at a time on a WebSocket.
    #[arg(long, env = "JOBSTREAM_MAX_OPERATIONS", value_name = "NUMBER", default_value_t = 100)]
    pub max_operations: usize,

    /// How often a WebSocket is pinged, and an event stream that is silent gets a comment.
    #[arg(long, env = "JOBSTREAM_PING_INTERVAL", value_name = "SECONDS", default_value = "20", value_parser = interval)]
    pub ping_interval: Duration,

    /// How long a client may take to answer a ping, to read what it is sent, or to send the body of a request, before its connection
    /// is dropped.
    #[arg(long, env = "JOBSTREAM_CLIENT_TIMEOUT", value_name = "SECONDS", default_value = "30", value_parser = interval)]
    pub client_timeout: Duration,

    /// How long a client may take to initialise a WebSocket.
    #[arg(long, env = "JOBSTREAM_INIT_TIMEOUT", value_name = "SECONDS", default_value = "10", value_parser = interval)]
    pub init_timeout: Duration,
}

/// Seconds that somebody waits again and again: not none, and no more than a day.
fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is a number of seconds, such as 10 or 0.5".to_owned())?;
    let right = 0.001..=24.0 * 60.0 * 60.0;
    if right.contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("it is between 0.001 and 86400".to_owned())
    }
}
