//! Collecting what a job prints: read, cut into lines, and store in batches, each bounded.
//!
//! A quiet job's line is stored at once. While one batch is being stored the next is gathered, up to a bound; then the pipe is
//! not read, and the job waits: so memory stays flat, and a full disk slows the job down instead of losing its lines.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::diagnosis::Diagnosis;
use super::mask::{Mask, Secrets};
use super::splitter::Splitter;
use super::spool::Spool;
use crate::error::Error;
use crate::jobs::Jobs;
use crate::model::{Job, LogLines, LogStream, Timestamp};

/// How often a busy job's lines are stored, unless a batch is full before.
const STORE_EVERY: Duration = Duration::from_millis(20);
/// How often lines are put on disk while the database is away.
const SPOOL_EVERY: Duration = Duration::from_millis(250);
/// A batch of this size is stored without waiting,
const FULL_BATCH_BYTES: usize = 256 * 1024;
/// and beyond this size, or as many lines, nothing is read.
const LARGEST_BATCH_BYTES: usize = 512 * 1024;
const LARGEST_BATCH_LINES: usize = 64 * 1024;
const READ_BYTES: usize = 64 * 1024;
/// How long the beginning of a line waits for its end before it is shown as a piece.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How soon a failed write is tried again, at first and at the most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What a job prints, on its way to the store.
pub(super) struct Output {
    jobs: Jobs,
    held: Job,
    stdout: Source,
    stderr: Source,
    batch: Batch,
    storing: Option<BoxFuture<'static, Result<(), Error>>>,
    /// What that is.
    in_flight: Option<Arc<LogLines>>,
    store_at: Instant,
    /// Whether what is being stored could not be, the last time that was tried.
    away: watch::Sender<bool>,
    spool: Option<Spool>,
}

/// Tells an [`Output`] what else there is to know.
pub(super) struct Outside {
    /// Lines of the server's own.
    pub(super) remarks: mpsc::UnboundedReceiver<String>,
    /// Nothing that the job started is left, so no more will be written.
    pub(super) ended: oneshot::Receiver<()>,
}

impl Output {
    /// The output of a held job, from the reading ends of its pipes. Beyond `max_bytes` over all attempts it is discarded.
    /// Of `secrets` nothing gets into it. Where there is a spool, lines wait there while the database is away.
    pub(super) fn new(
        jobs: Jobs,
        held: Job,
        [stdout, stderr]: [pipe::Receiver; 2],
        secrets: Secrets,
        max_bytes: i64,
        spool: Option<Spool>,
    ) -> Self {
        let remaining = max_bytes.saturating_sub(held.log_bytes);
        Self {
            jobs,
            stdout: Source::new(stdout, LogStream::Stdout, secrets.clone()),
            stderr: Source::new(stderr, LogStream::Stderr, secrets),
            batch: Batch {
                lines: LogLines::starting_at(held.log_lines),
                diagnosis: Diagnosis::starting_at(held.log_lines),
                max_bytes,
                remaining,
                full: false,
            },
            storing: None,
            in_flight: None,
            store_at: Instant::now(),
            away: watch::Sender::new(false),
            spool,
            held,
        }
    }

    /// Collects until the job has ended and all it printed is read, and answers the lines that are not stored yet, with what they all say
    /// about a failure. [`Error::Stale`] if somebody else holds the job.
    pub(super) async fn collect(mut self, outside: Outside) -> Result<(LogLines, Diagnosis), Error> {
        match self.read_and_store(outside).await {
            Ok(()) => Ok((self.batch.lines, self.batch.diagnosis)),
            Err(error) => {
                if let Some(spool) = &mut self.spool
                    && let Err(error) = spool.keep(self.in_flight.as_deref(), &self.batch.lines)
                {
                    tracing::error!(job = %self.held.id, %error, "lines that cannot be stored cannot be kept either");
                }
                Err(error)
            }
        }
    }

    async fn read_and_store(&mut self, mut outside: Outside) -> Result<(), Error> {
        let mut ended = false;
        let mut away = self.away.subscribe();
        while self.stdout.open() || self.stderr.open() || !ended {
            self.store_what_is_due();
            let room = self.batch.has_room();
            let waits_to_store = !self.batch.lines.is_empty() && (self.storing.is_none() || self.may_spool());
            tokio::select! {
                stored = finished(&mut self.storing) => {
                    self.storing = None;
                    stored?;
                }
                read = self.stdout.read(), if room && self.stdout.open() => self.stdout.take(read, self.jobs.now(), &mut self.batch),
                read = self.stderr.read(), if room && self.stderr.open() => self.stderr.take(read, self.jobs.now(), &mut self.batch),
                Some(remark) = outside.remarks.recv() => self.batch.remark(self.jobs.now(), &remark),
                _ = &mut outside.ended, if !ended => {
                    ended = true;
                    self.stdout.no_more_is_written();
                    self.stderr.no_more_is_written();
                }
                () = sleep_until(self.store_at), if waits_to_store => {}
                Ok(()) = away.changed() => {}
            }
        }
        self.stdout.finish(self.jobs.now(), &mut self.batch);
        self.stderr.finish(self.jobs.now(), &mut self.batch);
        while let Ok(remark) = outside.remarks.try_recv() {
            self.batch.remark(self.jobs.now(), &remark);
        }
        while let Some(storing) = self.storing.take() {
            storing.await?;
            self.store_from_spool();
        }
        Ok(())
    }

    /// Has lines stored if their time has come. While the database is away they go where they can wait.
    fn store_what_is_due(&mut self) {
        if self.storing.is_none() {
            self.store_from_spool();
        }
        if self.storing.is_none() && self.batch.is_due(self.store_at) {
            let lines = self.batch.take();
            self.store(lines);
        }
        let may_spool = self.storing.is_some() && self.may_spool() && self.batch.is_due(self.store_at);
        if let Some(spool) = self.spool.as_mut().filter(|_| may_spool) {
            self.store_at = Instant::now() + SPOOL_EVERY;
            // A disk that does not take them leaves them where they are, and the job waits.
            match spool.push(self.in_flight.as_deref(), &self.batch.lines) {
                Ok(()) => drop(self.batch.take()),
                Err(error) => tracing::error!(job = %self.held.id, %error, "lines cannot wait on disk; the job waits"),
            }
        }
    }

    fn may_spool(&self) -> bool {
        *self.away.borrow() && self.spool.as_ref().is_some_and(Spool::has_room)
    }

    fn store_from_spool(&mut self) {
        let Some(spool) = &mut self.spool else { return };
        match spool.pop() {
            Ok(Some(lines)) => self.store(lines),
            Ok(None) => spool.clear(),
            Err(error) => tracing::error!(job = %self.held.id, %error, "lines that waited on disk cannot be read"),
        }
    }

    fn store(&mut self, lines: LogLines) {
        self.store_at = Instant::now() + STORE_EVERY;
        let lines = Arc::new(lines);
        self.in_flight = Some(Arc::clone(&lines));
        let storing = store_until_stored(self.jobs.clone(), self.held.clone(), lines, self.away.clone());
        self.storing = Some(storing.boxed());
    }
}

/// The result of what is being stored; never, if nothing is.
async fn finished(storing: &mut Option<BoxFuture<'static, Result<(), Error>>>) -> Result<(), Error> {
    match storing {
        Some(storing) => storing.await,
        None => std::future::pending().await,
    }
}

async fn store_until_stored(
    jobs: Jobs,
    held: Job,
    lines: Arc<LogLines>,
    away: watch::Sender<bool>,
) -> Result<(), Error> {
    let append = || async {
        let stored = jobs.append_log(&held, Arc::clone(&lines)).await;
        let failed = matches!(stored, Err(Error::Unavailable(_) | Error::Uncertain(_)));
        away.send_if_modified(|away| std::mem::replace(away, failed) != failed);
        stored
    };
    until_stored("log lines", &held, append).await
}

/// Tries a write again and again while the database cannot take it. The first failure is logged, and so is the success
/// that follows.
pub(super) async fn until_stored<R, F>(what: &str, held: &Job, mut write: impl FnMut() -> F) -> Result<R, Error>
where
    F: Future<Output = Result<R, Error>>,
{
    let (mut wait, longest) = RETRY;
    let mut failed = false;
    loop {
        match write().await {
            Ok(done) => {
                if failed {
                    tracing::info!(job = %held.id, "{what} could be stored after all");
                }
                return Ok(done);
            }
            Err(Error::Stale) => return Err(Error::Stale),
            Err(error) => {
                if !failed {
                    tracing::error!(job = %held.id, error = ?error, "{what} cannot be stored yet; the job waits");
                }
                failed = true;
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(longest);
            }
        }
    }
}

/// Lines that wait to be stored.
struct Batch {
    lines: LogLines,
    diagnosis: Diagnosis,
    max_bytes: i64,
    remaining: i64,
    full: bool,
}

impl Batch {
    fn push(&mut self, at: Timestamp, stream: LogStream, continued: bool, text: &str) {
        if self.full {
            return;
        }
        let cost = LogLines::output_cost(text);
        if cost > self.remaining {
            self.full = true;
            let max = self.max_bytes;
            let text = format!(
                "The log has reached its limit of {max} bytes. What comes after is discarded; the job goes on."
            );
            self.remark(at, &text);
        } else {
            self.remaining -= cost;
            self.add(at, stream, continued, text);
        }
    }

    fn remark(&mut self, at: Timestamp, text: &str) {
        self.add(at, LogStream::System, false, text);
    }

    fn add(&mut self, at: Timestamp, stream: LogStream, continued: bool, text: &str) {
        self.diagnosis.see(stream, continued, text);
        self.lines.push(at, stream, continued, text);
    }

    /// The lines, which are somebody else's from now on.
    fn take(&mut self) -> LogLines {
        let next = LogLines::starting_at(self.lines.next_sequence());
        std::mem::replace(&mut self.lines, next)
    }

    fn is_due(&self, store_at: Instant) -> bool {
        !self.lines.is_empty() && (self.is_full() || Instant::now() >= store_at)
    }

    fn is_full(&self) -> bool {
        self.lines.text().len() >= FULL_BATCH_BYTES || self.lines.len() >= LARGEST_BATCH_LINES
    }

    fn has_room(&self) -> bool {
        self.lines.text().len() < LARGEST_BATCH_BYTES && self.lines.len() < LARGEST_BATCH_LINES
    }
}

/// One of the job's two pipes.
struct Source {
    pipe: Option<pipe::Receiver>,
    stream: LogStream,
    mask: Mask,
    splitter: Splitter,
    buffer: Box<[u8]>,
    /// How many bytes may still be read, once it is known.
    left: Option<usize>,
    /// When the beginning of a line, if one waits, has waited for long enough.
    due: Instant,
}

/// What came of waiting for a pipe.
enum Read {
    Bytes(usize),
    PieceIsDue,
    End,
}

impl Source {
    fn new(pipe: pipe::Receiver, stream: LogStream, secrets: Secrets) -> Self {
        Self {
            pipe: Some(pipe),
            stream,
            mask: Mask::new(secrets),
            splitter: Splitter::default(),
            buffer: vec![0; READ_BYTES].into(),
            left: None,
            due: Instant::now() + LONGEST_WAIT,
        }
    }

    fn open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Waits for bytes, the end of the stream, or the moment at which the beginning of a line is to be shown.
    async fn read(&mut self) -> io::Result<Read> {
        let Some(pipe) = &mut self.pipe else { return Ok(Read::End) };
        if self.left == Some(0) {
            return Ok(Read::End);
        }
        tokio::select! {
            biased;
            count = pipe.read(&mut self.buffer) => Ok(match count? {
                0 => Read::End,
                count => Read::Bytes(count),
            }),
            () = sleep_until(self.due), if self.splitter.has_partial() && self.left.is_none() => Ok(Read::PieceIsDue),
        }
    }

    fn take(&mut self, read: io::Result<Read>, now: Timestamp, batch: &mut Batch) {
        let stream = self.stream;
        let emitted = Cell::new(false);
        let mut emit = |text: &str, continued: bool| {
            emitted.set(true);
            batch.push(now, stream, continued, text);
        };
        let waited = self.splitter.has_partial();
        let is_due = Instant::now() >= self.due;
        match read {
            Ok(Read::Bytes(count)) => {
                // What comes from a process outside of the job, after its end, is none of the job's output.
                let count = self.left.map_or(count, |left| count.min(left));
                self.left = self.left.map(|left| left - count);
                self.mask.push(&self.buffer[..count], |bytes| self.splitter.push(bytes, &mut emit));
                // A job that never stops writing never lets the moment come by itself.
                if !emitted.get() && waited && is_due {
                    self.splitter.pause(emit);
                }
            }
            Ok(Read::PieceIsDue) => self.splitter.pause(emit),
            Ok(Read::End) => self.pipe = None,
            Err(error) => {
                tracing::error!(%error, %stream, "a job's pipe cannot be read");
                self.pipe = None;
            }
        }
        // The first byte that waits now has just come, or it is the beginning of a character.
        if emitted.get() || !waited || is_due {
            self.due = Instant::now() + LONGEST_WAIT;
        }
    }

    /// All that the job wrote is in the pipe by now. Usually its end follows, but a process outside of the job may have been
    /// handed the descriptor, so what is there is counted.
    fn no_more_is_written(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        let left = rustix::io::ioctl_fionread(pipe).unwrap_or(0);
        self.left = Some(usize::try_from(left).unwrap_or(usize::MAX));
    }

    fn finish(&mut self, now: Timestamp, batch: &mut Batch) {
        let stream = self.stream;
        let mut emit = |text: &str, continued: bool| batch.push(now, stream, continued, text);
        self.mask.finish(|bytes| self.splitter.push(bytes, &mut emit));
        self.splitter.finish(emit);
    }
}
