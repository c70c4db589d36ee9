//! Connections that stay open: WebSockets, event streams, followed logs.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::{CloseCode, ConnectionRefusal};
use super::{Metrics, Open, counter, counters, gauge};

#[derive(Debug)]
pub(super) struct Connections {
    websockets: Gauge,
    frames_received: Counter,
    frames_sent: Counter,
    closes: Family<Close, Counter>,
    event_streams: Gauge,
    followed_logs: Gauge,
    refused: Family<Refusal, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Close {
    code: CloseCode,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refusal {
    reason: ConnectionRefusal,
}

impl Connections {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            websockets: gauge(registry, "jobstream_websocket_connections_open", "WebSockets that are open"),
            frames_received: counter(
                registry,
                "jobstream_websocket_frames_received",
                "Frames that came over WebSockets",
            ),
            frames_sent: counter(registry, "jobstream_websocket_frames_sent", "Frames that were sent over WebSockets"),
            closes: counters(
                registry,
                "jobstream_websocket_closes",
                "WebSockets that were closed, by the code of the close frame: 1006 is a connection that was lost",
                CloseCode::ALL.iter().map(|&code| Close { code }),
            ),
            event_streams: gauge(
                registry,
                "jobstream_event_streams_open",
                "Streams of server-sent events that are open",
            ),
            followed_logs: gauge(registry, "jobstream_followed_logs_open", "Logs that are followed over plain HTTP"),
            refused: counters(
                registry,
                "jobstream_connections_refused",
                "Connections that were to stay open and were refused, by reason",
                ConnectionRefusal::ALL.iter().map(|&reason| Refusal { reason }),
            ),
        }
    }
}

impl Metrics {
    /// A WebSocket is open for as long as the guard is kept.
    pub fn websocket_opened(&self) -> Open {
        Open::counted_by(&self.inner.connections.websockets)
    }

    /// A WebSocket was closed with this code, by either side; with none if it was lost.
    pub fn websocket_closed(&self, code: Option<u16>) {
        self.inner.connections.closes.get_or_create(&Close { code: CloseCode::numbered(code) }).inc();
    }

    /// A frame came over a WebSocket.
    pub fn frame_received(&self) {
        self.inner.connections.frames_received.inc();
    }

    /// Frames were sent over a WebSocket.
    pub fn frames_sent(&self, count: u64) {
        self.inner.connections.frames_sent.inc_by(count);
    }

    /// A stream of server-sent events is open for as long as the guard is kept.
    pub fn event_stream_opened(&self) -> Open {
        Open::counted_by(&self.inner.connections.event_streams)
    }

    /// A log is followed over plain HTTP for as long as the guard is kept.
    pub fn log_followed(&self) -> Open {
        Open::counted_by(&self.inner.connections.followed_logs)
    }

    /// A connection that was to stay open was refused.
    pub fn connection_refused(&self, reason: ConnectionRefusal) {
        self.inner.connections.refused.get_or_create(&Refusal { reason }).inc();
    }
}
