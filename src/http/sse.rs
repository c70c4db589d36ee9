//! GraphQL over server-sent events: the "distinct connections mode" of the graphql-sse protocol, as PROTOCOL.md of that npm package says
//! it. A stream ends with `complete` only if the operation is over.

use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};

use super::Http;
use super::address::ClientAddress;
use super::reply::{NOT_STORED, UNBUFFERED, failure};
use crate::graphql::{Answer, Prepared, Refusal};

/// Begins a stream of an operation's answers.
pub(super) fn begin(http: &Http, prepared: Prepared, client: ClientAddress) -> Response {
    let place = match http.take_place(client) {
        Ok(place) => (place, http.metrics.event_stream_opened()),
        Err(full) => return failure(full),
    };
    let closing = http.lifecycle.closing.clone();
    let events = events(http.api.stream(prepared)).take_until(closing.cancelled_owned()).map(move |event| {
        let _held_while_it_streams = &place;
        event
    });
    let alive = KeepAlive::new().interval(http.bounds.ping_interval);
    ([UNBUFFERED, NOT_STORED], Sse::new(events).keep_alive(alive)).into_response()
}

/// Tells that an operation is refused. As an event: a browser's `EventSource` shows nothing else.
pub(super) fn refuse(refusal: Refusal) -> Response {
    ([NOT_STORED], Sse::new(events(stream::iter([Answer::Refused(refusal)])))).into_response()
}

fn events(answers: impl Stream<Item = Answer>) -> impl Stream<Item = Result<Event, Infallible>> {
    let next = |answer| match answer {
        Answer::Result(json) => Event::default().event("next").data(json.as_str()),
        Answer::Refused(refusal) => Event::default().event("next").data(refusal.body()),
    };
    // A browser's `EventSource` passes over an event without data; this is an empty line of it.
    let complete = stream::iter([Event::default().event("complete").data("\n")]);
    answers.map(next).chain(complete).map(Ok)
}
