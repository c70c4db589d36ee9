//! Parts of logs, of many jobs at once.
//!
//! They are read in rounds of two statements, however many jobs there are: which chunks come next and how long they are, and
//! then as many of them as are wanted. So the number of rounds depends on how much is wanted of one job, and beside the lines
//! only the bytes of one round are in memory.

use std::collections::{HashMap, HashSet};

use diesel::prelude::*;
use diesel::sql_types::{Binary, Integer};

use super::chunk;
use super::conn::Conn;
use super::fragment::either;
use super::schema::log_chunks;
use crate::error::Error;
use crate::model::{Job, JobId, LogLines};

/// Which lines of a log are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogRequest {
    /// From this number on.
    From(i64, Enough),
    /// The last.
    Last(Enough),
}

/// How much of a log is enough for one read: whichever comes first, and at least one line if there is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Enough {
    /// This many lines,
    pub lines: usize,
    /// or this many bytes of text.
    pub bytes: usize,
}

/// How many chunks of a job are looked at in one round,
const CHUNKS: i64 = 32;
/// and how many bytes of them, as they are stored, are enough to read.
const CHUNK_BYTES: i64 = 64 * 1024;

diesel::define_sql_function! {
    /// How many bytes there are, which a database knows without reading them.
    fn length(bytes: Binary) -> Integer;
}

/// A chunk that was only looked at.
#[derive(Debug, Queryable)]
struct Extent {
    first_sequence: i64,
    last_sequence: i64,
    length: i32,
}

/// A chunk as it is stored.
#[derive(Debug, Queryable)]
struct Chunk {
    first_sequence: i64,
    bytes: Vec<u8>,
}

/// A part of one job's log while it is read.
#[derive(Debug)]
struct Reading {
    job: JobId,
    enough: Enough,
    /// Whether it is read from its end.
    backwards: bool,
    /// The number of the line that comes next; backwards, of the one that came last.
    position: i64,
    /// What is read, in the order in which it was, and how much that is.
    pieces: Vec<LogLines>,
    lines: usize,
    bytes: usize,
    /// Whether nothing more is wanted, or there.
    over: bool,
}

impl Conn {
    /// The lines of a job from number `from` on, in order.
    pub async fn log_lines(&mut self, job: JobId, from: i64, enough: Enough) -> Result<LogLines, Error> {
        let read = self.read_logs(vec![Reading::new(job, false, from, enough)]).await?;
        Ok(read.into_iter().next().unwrap_or_default())
    }

    /// The jobs with these ids that are not deleted, each with the lines that are wanted of its log. They are in no order.
    pub async fn logs(&mut self, requests: &[(JobId, LogRequest)]) -> Result<Vec<(LogRequest, Job, LogLines)>, Error> {
        let ids: HashSet<JobId> = requests.iter().map(|(job, _)| *job).collect();
        let jobs = self.jobs_by_id(&Vec::from_iter(ids)).await?;
        let jobs: HashMap<JobId, Job> = jobs.into_iter().map(|job| (job.id, job)).collect();
        let there: Vec<(LogRequest, &Job)> =
            requests.iter().filter_map(|(id, request)| Some((*request, jobs.get(id)?))).collect();
        let reading = |(request, job): &(LogRequest, &Job)| match *request {
            LogRequest::From(from, enough) => Reading::new(job.id, false, from, enough),
            LogRequest::Last(enough) => Reading::new(job.id, true, job.log_lines, enough),
        };
        let read = self.read_logs(there.iter().map(reading).collect()).await?;
        Ok(there.into_iter().zip(read).map(|((request, job), lines)| (request, job.clone(), lines)).collect())
    }

    async fn read_logs(&mut self, mut readings: Vec<Reading>) -> Result<Vec<LogLines>, Error> {
        use log_chunks::{bytes, first_sequence, job, last_sequence};
        let look = |number: i32, it: &&mut Reading| {
            log_chunks::table
                .filter(job.eq(it.job))
                .filter(either(it.backwards, last_sequence.lt(it.position), last_sequence.ge(it.position)))
                .order(either(it.backwards, last_sequence.desc(), last_sequence.asc()))
                .select((number.into_sql::<Integer>(), (first_sequence, last_sequence, length(bytes))))
                .limit(CHUNKS)
        };
        let read = |number: i32, (of, low, high): &(JobId, i64, i64)| {
            log_chunks::table
                .filter(job.eq(*of))
                .filter(last_sequence.between(*low, *high))
                .select((number.into_sql::<Integer>(), (first_sequence, bytes)))
        };
        loop {
            let wanting: Vec<&mut Reading> = readings.iter_mut().filter(|it| !it.over).collect();
            if wanting.is_empty() {
                return Ok(readings.into_iter().map(Reading::finish).collect());
            }
            let extents: Vec<Vec<Extent>> = self.each(&wanting, look).await?;
            let (mut reading, mut ranges) = (Vec::new(), Vec::new());
            for (it, extents) in wanting.into_iter().zip(extents) {
                if let Some(range) = it.choose(extents) {
                    ranges.push(range);
                    reading.push(it);
                }
            }
            let chunks: Vec<Vec<Chunk>> = self.each(&ranges, read).await?;
            for (it, chunks) in reading.into_iter().zip(chunks) {
                it.take(chunks)?;
            }
        }
    }
}

impl Reading {
    fn new(job: JobId, backwards: bool, position: i64, enough: Enough) -> Self {
        Self { job, enough, backwards, position, pieces: Vec::new(), lines: 0, bytes: 0, over: false }
    }

    fn has_enough(&self) -> bool {
        self.lines >= self.enough.lines || self.bytes >= self.enough.bytes
    }

    /// Which of the chunks that come next are to be read: the job's with these last lines, from the one to the other.
    fn choose(&mut self, mut extents: Vec<Extent>) -> Option<(JobId, i64, i64)> {
        extents.sort_unstable_by_key(|it| if self.backwards { -it.last_sequence } else { it.last_sequence });
        let wanted = i64::try_from(self.enough.lines - self.lines).unwrap_or(i64::MAX);
        let reached = |it: &Extent| {
            if self.backwards { self.position - it.first_sequence } else { it.last_sequence + 1 - self.position }
        };
        let mut length = 0;
        let enough = |it: &Extent| {
            length += i64::from(it.length);
            length >= CHUNK_BYTES || reached(it) >= wanted
        };
        let chosen = extents.iter().position(enough).map_or(&extents[..], |last| &extents[..=last]);
        self.over = chosen.len() < CHUNKS as usize && chosen.len() == extents.len(); // the log ends with them
        let (first, last) = (chosen.first()?.last_sequence, chosen.last()?.last_sequence);
        Some((self.job, first.min(last), first.max(last)))
    }

    /// Adds the lines of the chunks that were chosen, as far as they are wanted.
    fn take(&mut self, mut chunks: Vec<Chunk>) -> Result<(), Error> {
        chunks.sort_unstable_by_key(|it| if self.backwards { -it.first_sequence } else { it.first_sequence });
        for it in chunks {
            if self.has_enough() {
                break;
            }
            let from = if self.backwards { it.first_sequence } else { self.position };
            let lines = chunk::decode(it.first_sequence, from, &it.bytes)?;
            self.position = if self.backwards { it.first_sequence } else { lines.next_sequence() };
            self.lines += lines.len();
            self.bytes += lines.text().len();
            self.pieces.push(lines);
        }
        self.over |= self.has_enough();
        Ok(())
    }

    /// The lines that were read, as many as are enough.
    fn finish(mut self) -> LogLines {
        if self.backwards {
            self.pieces.reverse();
        }
        let mut pieces = self.pieces.into_iter();
        let mut lines = pieces.next().unwrap_or_else(|| LogLines::starting_at(self.position));
        pieces.for_each(|it| lines.append(&it));
        let Enough { lines: most, bytes } = self.enough;
        if self.backwards { lines.last_within(most, bytes) } else { lines.first_within(most, bytes) }
    }
}
