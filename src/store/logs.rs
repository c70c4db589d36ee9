//! Log lines, in chunks: adding them and clearing them away. `log_pages` reads them.

use diesel::prelude::*;

use super::chunk;
use super::conn::Conn;
use super::fragment::{Kept, maybe};
use super::schema::{jobs, log_chunks};
use crate::error::Error;
use crate::model::{Job, JobId, JobStatus, LogLines};

impl Conn {
    /// Adds lines to the log of a job that is RUNNING in the attempt and with the owner that `held` says, where their numbers are those that come
    /// next. `output_bytes` of them count against the limit of the log. Where they are stored already, nothing is done: whoever was not told so may
    /// add them again. [`Error::Stale`] if the job is held differently now.
    pub async fn append_log(&mut self, held: &Job, lines: &LogLines, output_bytes: i64) -> Result<(), Error> {
        let (first, next) = (lines.first_sequence(), lines.next_sequence());
        let of_holder = || {
            jobs::table
                .find(held.id)
                .filter(jobs::status.eq(JobStatus::Running))
                .filter(jobs::attempt.eq(held.attempt))
                .filter(maybe(held.owner, |it| jobs::owner.eq(it)))
        };
        let append = diesel::update(of_holder().filter(jobs::log_lines.eq(first)))
            .set((jobs::log_lines.eq(next), jobs::log_bytes.eq(jobs::log_bytes + output_bytes)));
        if self.run(Kept(append)).await? == 1 {
            return self.insert_chunk(held.id, lines).await;
        }
        let stored: Option<i64> = self.optional(of_holder().select(jobs::log_lines)).await?;
        match stored {
            Some(stored) if stored >= next => Ok(()),
            _ => Err(Error::Stale),
        }
    }

    /// Whether these lines, of which there are some, are stored as the beginning of a chunk.
    pub async fn has_lines(&mut self, job: JobId, lines: &LogLines) -> Result<bool, Error> {
        let first = lines.first_sequence();
        let chunk = log_chunks::table
            .filter(log_chunks::job.eq(job))
            .filter(log_chunks::last_sequence.ge(first))
            .filter(log_chunks::first_sequence.eq(first));
        let Some(chunk) = self.optional::<Vec<u8>>(chunk.select(log_chunks::bytes)).await? else { return Ok(false) };
        let stored = chunk::decode_all(first, &chunk)?;
        let same = stored.iter().zip(lines.iter()).take_while(|(stored, line)| stored == line).count();
        Ok(same == lines.len() && !lines.is_empty())
    }

    /// Stores lines as a chunk.
    async fn insert_chunk(&mut self, job: JobId, lines: &LogLines) -> Result<(), Error> {
        if lines.is_empty() {
            return Ok(());
        }
        let row = (
            log_chunks::job.eq(job),
            log_chunks::last_sequence.eq(lines.next_sequence() - 1),
            log_chunks::first_sequence.eq(lines.first_sequence()),
            log_chunks::bytes.eq(chunk::encode(lines)?),
        );
        self.run(diesel::insert_into(log_chunks::table).values(row)).await?;
        Ok(())
    }

    /// Removes some of the chunks of a job, and says whether there were any.
    pub async fn clear_log(&mut self, job: JobId, at_most: i64) -> Result<bool, Error> {
        let some = log_chunks::table.filter(log_chunks::job.eq(job)).select(log_chunks::last_sequence).limit(at_most);
        let some: Vec<i64> = self.all(some).await?;
        let doomed = log_chunks::table.filter(log_chunks::job.eq(job)).filter(log_chunks::last_sequence.eq_any(&some));
        Ok(self.run(diesel::delete(doomed)).await? > 0)
    }
}
