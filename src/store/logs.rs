//! Log lines, in chunks.

use diesel::prelude::*;

use super::chunk;
use super::conn::Conn;
use super::fragment::maybe;
use super::schema::{jobs, log_chunks};
use crate::error::Error;
use crate::model::{Job, JobId, JobStatus, LogLines};

#[derive(Queryable)]
struct Chunk {
    first_sequence: i64,
    bytes: Vec<u8>,
}

impl Conn {
    /// Adds lines to the log of a job that is RUNNING in the attempt and with the owner that `held` says, and answers the
    /// number of the first. `output_bytes` of them count against the limit of the log.
    /// [`Error::Stale`] if the job is held differently now.
    pub async fn append_log(&mut self, held: &Job, lines: &LogLines, output_bytes: i64) -> Result<i64, Error> {
        let count = lines.next_sequence() - lines.first_sequence();
        let appended = diesel::update(jobs::table.find(held.id))
            .filter(jobs::status.eq(JobStatus::Running))
            .filter(jobs::attempt.eq(held.attempt))
            .filter(maybe(held.owner, |it| jobs::owner.eq(it)))
            .set((jobs::log_lines.eq(jobs::log_lines + count), jobs::log_bytes.eq(jobs::log_bytes + output_bytes)))
            .returning(jobs::log_lines);
        let next: i64 = self.optional(appended).await?.ok_or(Error::Stale)?;
        let first = next - count;
        self.insert_chunk(held.id, first, lines).await?;
        Ok(first)
    }

    /// Stores lines as the chunk that begins with number `first`.
    async fn insert_chunk(&mut self, job: JobId, first: i64, lines: &LogLines) -> Result<(), Error> {
        if lines.is_empty() {
            return Ok(());
        }
        let last = first + lines.next_sequence() - lines.first_sequence() - 1;
        let row = (
            log_chunks::job.eq(job),
            log_chunks::last_sequence.eq(last),
            log_chunks::first_sequence.eq(first),
            log_chunks::bytes.eq(chunk::encode(lines)?),
        );
        self.run(diesel::insert_into(log_chunks::table).values(row)).await?;
        Ok(())
    }

    /// The lines of a job from number `from` on, in order: at most `enough` lines or bytes of text, and at least one if
    /// there is any.
    pub async fn log_lines(&mut self, job: JobId, from: i64, enough: Enough) -> Result<LogLines, Error> {
        let mut lines = LogLines::starting_at(from);
        loop {
            let query = log_chunks::table
                .filter(log_chunks::job.eq(job))
                .filter(log_chunks::last_sequence.ge(lines.next_sequence()))
                .order(log_chunks::last_sequence)
                .select((log_chunks::first_sequence, log_chunks::bytes))
                .limit(1);
            let Some(found): Option<Chunk> = self.optional(query).await? else { break };
            let decoded = chunk::decode(found.first_sequence, lines.next_sequence(), &found.bytes)?;
            if lines.is_empty() {
                lines = decoded;
            } else {
                lines.append(&decoded);
            }
            if lines.len() >= enough.lines || lines.text().len() >= enough.bytes {
                break;
            }
        }
        Ok(lines.first_within(enough.lines, enough.bytes))
    }

    /// The last lines of a job: whole chunks from the end, until there are `enough` lines or bytes of text, or no more.
    pub async fn last_log_lines(&mut self, job: &Job, enough: Enough) -> Result<LogLines, Error> {
        let (mut chunks, mut first, mut bytes) = (Vec::new(), job.log_lines, 0);
        let wanted = job.log_lines - i64::try_from(enough.lines).unwrap_or(i64::MAX);
        while first > wanted && bytes < enough.bytes {
            let query = log_chunks::table
                .filter(log_chunks::job.eq(job.id))
                .filter(log_chunks::last_sequence.lt(first))
                .order(log_chunks::last_sequence.desc())
                .select((log_chunks::first_sequence, log_chunks::bytes))
                .limit(1);
            let Some(found): Option<Chunk> = self.optional(query).await? else { break };
            let chunk = chunk::decode(found.first_sequence, found.first_sequence, &found.bytes)?;
            first = found.first_sequence;
            bytes += chunk.text().len();
            chunks.push(chunk);
        }
        let mut lines = LogLines::starting_at(first);
        chunks.iter().rev().for_each(|chunk| lines.append(chunk));
        Ok(lines.last_within(enough.lines, enough.bytes))
    }

    /// Removes some of the chunks of a job, and says whether there were any.
    pub async fn clear_log(&mut self, job: JobId, at_most: i64) -> Result<bool, Error> {
        let some = log_chunks::table.filter(log_chunks::job.eq(job)).select(log_chunks::last_sequence).limit(at_most);
        let some: Vec<i64> = self.all(some).await?;
        let doomed = log_chunks::table.filter(log_chunks::job.eq(job)).filter(log_chunks::last_sequence.eq_any(&some));
        Ok(self.run(diesel::delete(doomed)).await? > 0)
    }
}

/// How much of a log is enough for one read.
#[derive(Debug, Clone, Copy)]
pub struct Enough {
    /// This many lines,
    pub lines: usize,
    /// or this many bytes of text.
    pub bytes: usize,
}
