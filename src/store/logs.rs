//! Log lines, in chunks: adding them and clearing them away. `log_pages` reads them.

use diesel::prelude::*;

use super::chunk;
use super::conn::Conn;
use super::fragment::maybe;
use super::schema::{jobs, log_chunks};
use crate::error::Error;
use crate::model::{Job, JobId, JobStatus, LogLines};

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

    /// Removes some of the chunks of a job, and says whether there were any.
    pub async fn clear_log(&mut self, job: JobId, at_most: i64) -> Result<bool, Error> {
        let some = log_chunks::table.filter(log_chunks::job.eq(job)).select(log_chunks::last_sequence).limit(at_most);
        let some: Vec<i64> = self.all(some).await?;
        let doomed = log_chunks::table.filter(log_chunks::job.eq(job)).filter(log_chunks::last_sequence.eq_any(&some));
        Ok(self.run(diesel::delete(doomed)).await? > 0)
    }
}
