//! `/jobs/{id}/logs`: a log as it was printed, or a JSON object a line; as far as it is stored, or followed to its end.

use async_stream::try_stream;
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{Extensions, HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::{FutureExt, Stream, TryStreamExt};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Http;
use super::access::text;
use super::reply::{UNBUFFERED, failure, refusal};
use crate::error::{Error, both};
use crate::events::Bell;
use crate::model::{Job, JobId, LogLines};
use crate::store::{Conn, Enough, Store};

const NDJSON: &str = "application/x-ndjson";
const PLAIN: &str = "text/plain; charset=utf-8";
/// How much is read at once.
const ENOUGH: Enough = Enough { lines: 20_000, bytes: 256 * 1024 };

#[derive(serde::Deserialize)]
pub(super) struct Parameters {
    sequence: Option<String>,
    follow: Option<String>,
}

/// Marks the answer of a log that is followed: what is compressed waits for more, and a line must not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Followed;

/// A line as JSON.
#[derive(Serialize)]
struct JsonLine<'a> {
    sequence: i64,
    timestamp: String,
    stream: &'a str,
    text: &'a str,
    continued: bool,
}

/// Answers the lines from a number on: as far as they are stored at the moment or, if the log is to be followed, until its job ends.
pub(super) async fn handle(
    State(http): State<Http>,
    id: Result<Path<String>, PathRejection>,
    parameters: Result<Query<Parameters>, QueryRejection>,
    extensions: Extensions,
    headers: HeaderMap,
) -> Response {
    let (id, parameters) = match (id, parameters) {
        (Ok(Path(id)), Ok(Query(parameters))) => (id, parameters),
        (Err(rejection), _) => return refusal(rejection.status(), &rejection.body_text()),
        (_, Err(rejection)) => return refusal(rejection.status(), &rejection.body_text()),
    };
    let ndjson = text(&headers, header::ACCEPT).is_some_and(|accept| accept.contains(NDJSON));
    let content_type = [(header::CONTENT_TYPE, if ndjson { NDJSON } else { PLAIN })];
    let as_bytes = if ndjson { as_ndjson } else { as_printed };
    let wanted = match Wanted::read(&id, &parameters) {
        Ok(wanted) => wanted,
        Err(error) => return failure(error),
    };
    // Taken before the job is looked at, so that nothing that happens from then on is missed.
    let bell = http.events.job(wanted.job);
    let job = match http.store.read(move |conn| conn.job(wanted.job).boxed()).await {
        Ok(Some(job)) => job,
        Ok(None) => return failure(Error::not_found("job", wanted.job)),
        Err(error) => return failure(error),
    };
    if !wanted.follow {
        let stored = stored(http.store, job, wanted.from).map_ok(move |lines| as_bytes(&lines)).inspect_err(broken_off);
        return (content_type, Body::from_stream(stored)).into_response();
    }
    let place = match http.take_place(http.client(&extensions, &headers)) {
        Ok(place) => (place, http.metrics.log_followed()),
        Err(full) => return failure(full),
    };
    let lines = followed(http.store, wanted.job, bell, wanted.from, http.lifecycle.closing.clone());
    let lines = lines.map_ok(move |lines| {
        let _held_while_it_streams = &place;
        as_bytes(&lines)
    });
    let lines = lines.inspect_err(broken_off);
    (content_type, [UNBUFFERED], Extension(Followed), Body::from_stream(lines)).into_response()
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    job: JobId,
    from: i64,
    follow: bool,
}

impl Wanted {
    fn read(id: &str, parameters: &Parameters) -> Result<Self, Error> {
        let job = id.parse().map_err(|_| Error::bad_input("id", "This is not an id: ids are UUIDs."));
        let from = match parameters.sequence.as_deref().map(str::parse) {
            None => Ok(0),
            Some(Ok(from)) if from >= 0 => Ok(from),
            Some(_) => Err(Error::bad_input("sequence", "It is the number of a line, from 0.")),
        };
        let follow = match parameters.follow.as_deref() {
            None | Some("false") => Ok(false),
            Some("true" | "") => Ok(true),
            Some(_) => Err(Error::bad_input("follow", "It is true or false.")),
        };
        let ((job, from), follow) = both(both(job, from), follow)?;
        Ok(Self { job, from, follow })
    }
}

/// What is stored of a job's log at this moment, from a number on. If the job is deleted meanwhile the body breaks off.
fn stored(store: Store, job: Job, from: i64) -> impl Stream<Item = Result<LogLines, Error>> {
    try_stream! {
        let mut next = from;
        while next < job.log_lines {
            let id = job.id;
            let read = store.read_when_there(|| move |conn: &mut Conn| conn.log_lines(id, next, ENOUGH).boxed());
            let lines = read.await?;
            if lines.is_empty() {
                Err(Error::not_found("job", id))?;
            }
            next = lines.next_sequence();
            yield lines;
        }
    }
}

/// A job's log from a number on, to the end of the job. If the job is deleted, or the server ends, the body breaks off: it is whole
/// only if the log is.
fn followed(
    store: Store,
    id: JobId,
    mut bell: Bell,
    from: i64,
    closing: CancellationToken,
) -> impl Stream<Item = Result<LogLines, Error>> {
    try_stream! {
        let mut next = from;
        loop {
            let read = store.read_when_there(|| {
                move |conn: &mut Conn| {
                    async move {
                        let job = conn.job(id).await?.ok_or_else(|| Error::not_found("job", id))?;
                        Ok((conn.log_lines(id, next, ENOUGH).await?, job))
                    }
                    .boxed()
                }
            });
            let (lines, job) = read.await?;
            if !lines.is_empty() {
                next = lines.next_sequence();
                yield lines;
            } else if job.status.is_final() {
                return;
            } else {
                let goes_on = tokio::select! {
                    () = bell.rung() => true,
                    () = closing.cancelled() => false,
                };
                if !goes_on {
                    // Whatever the error is, it breaks the body off; nobody is told this one.
                    Err(Error::not_found("server", "any more"))?;
                }
            }
        }
    }
}

/// The client sees only that the body is not whole.
fn broken_off(error: &Error) {
    if let Some(detail) = error.detail() {
        detail.logged_as(error.code());
    }
}

fn as_printed(lines: &LogLines) -> Bytes {
    let mut bytes = Vec::with_capacity(lines.text().len() + lines.len());
    for line in lines.iter() {
        bytes.extend_from_slice(line.text.as_bytes());
        if !line.continued {
            bytes.push(b'\n');
        }
    }
    bytes.into()
}

fn as_ndjson(lines: &LogLines) -> Bytes {
    let mut bytes = Vec::with_capacity(lines.text().len() + 128 * lines.len());
    for line in lines.iter() {
        let json = JsonLine {
            sequence: line.sequence,
            timestamp: line.timestamp.to_string(),
            stream: line.stream.as_str(),
            text: line.text,
            continued: line.continued,
        };
        // Numbers and texts can always be written, and to memory.
        let _ = serde_json::to_writer(&mut bytes, &json);
        bytes.push(b'\n');
    }
    bytes.into()
}
