//! `/jobs/{id}/logs`: a log as it was printed, or a JSON object a line.

use async_stream::try_stream;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use serde::Serialize;

use super::Http;
use super::access::text;
use super::reply::failure;
use crate::error::Error;
use crate::model::{Job, JobId, LogLines};
use crate::store::{Enough, Store};

const NDJSON: &str = "application/x-ndjson";
const PLAIN: &str = "text/plain; charset=utf-8";
/// How much is read at once.
const ENOUGH: Enough = Enough { lines: 20_000, bytes: 256 * 1024 };

#[derive(serde::Deserialize)]
pub(super) struct Parameters {
    sequence: Option<String>,
}

/// A line as JSON.
#[derive(Serialize)]
struct JsonLine<'a> {
    sequence: i64,
    timestamp: String,
    stream: &'a str,
    text: &'a str,
    continued: bool,
}

/// Answers the lines from a number on, as far as they are stored at the moment.
pub(super) async fn handle(
    State(http): State<Http>,
    Path(id): Path<String>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Response {
    let ndjson = text(&headers, header::ACCEPT).is_some_and(|accept| accept.contains(NDJSON));
    match begin(&http.store, &id, parameters.sequence.as_deref()).await {
        Ok((job, from)) => {
            let body = Body::from_stream(lines(http.store, job, from, ndjson));
            ([(header::CONTENT_TYPE, if ndjson { NDJSON } else { PLAIN })], body).into_response()
        }
        Err(error) => failure(error),
    }
}

async fn begin(store: &Store, id: &str, sequence: Option<&str>) -> Result<(Job, i64), Error> {
    let id: JobId = id.parse().map_err(|_| Error::bad_input("id", "This is not an id: ids are UUIDs."))?;
    let from = match sequence.map(str::parse) {
        None => 0,
        Some(Ok(from)) if from >= 0 => from,
        Some(_) => return Err(Error::bad_input("sequence", "It is the number of a line, from 0.")),
    };
    let job = store.read(move |conn| conn.job(id).boxed()).await?;
    Ok((job.ok_or_else(|| Error::not_found("job", id))?, from))
}

/// What is stored of a job's log at this moment, from a number on. If the job is deleted meanwhile the body breaks off.
fn lines(store: Store, job: Job, from: i64, ndjson: bool) -> impl futures_util::Stream<Item = Result<Bytes, Error>> {
    try_stream! {
        let mut next = from;
        while next < job.log_lines {
            let id = job.id;
            let lines = store.read(move |conn| conn.log_lines(id, next, ENOUGH).boxed()).await?;
            if lines.is_empty() {
                Err(Error::not_found("job", id))?;
            }
            next = lines.next_sequence();
            yield if ndjson { as_ndjson(&lines) } else { as_printed(&lines) };
        }
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
