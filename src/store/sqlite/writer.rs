//! The connection that writes: one thread owns it, and what waits for it at one moment shares one commit.
//!
//! SQLite has one writer at a time anyway. A queue in front of it costs a unit of work one hop to the thread and back,
//! however many statements it has, and turns contention into larger commits instead of "database is locked".

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::open::control;
use crate::error::Error;
use crate::store::conn::Conn;
use crate::store::revision::{Revisions, Scope};

/// How many units of work may share a commit: enough to make commits cheap, few enough that none waits long.
const SHARED_COMMIT: usize = 128;

/// The way to the writing thread. Clones share it; the thread ends with the last of them.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Unit>>,
}

impl Writer {
    pub(super) fn start(mut conn: Conn, revisions: Revisions) -> Result<Self, Error> {
        let (queue, units) = mpsc::channel::<Box<dyn Unit>>();
        let serve = move || {
            while let Ok(first) = units.recv() {
                let together = std::iter::once(first).chain(units.try_iter()).take(SHARED_COMMIT).collect();
                // The panic hook has logged where. The thread goes on: without it nothing could be written.
                let panicked = catch_unwind(AssertUnwindSafe(|| commit_together(&mut conn, &revisions, together)));
                if panicked.is_err() {
                    tracing::error!("failed to commit units of work: the store's writer panicked");
                    let _ = control(&mut conn, "ROLLBACK"); // fails where there is no transaction
                }
            }
        };
        std::thread::Builder::new().name("store-writer".to_owned()).spawn(serve).map_err(Error::internal)?;
        Ok(Self { queue })
    }

    /// Runs `work`, and answers when it is committed.
    pub(super) async fn run<R, W>(&self, scope: Scope, work: W) -> Result<R, Error>
    where
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>> + Send + 'static,
        R: Send + 'static,
    {
        let (caller, answer) = oneshot::channel();
        let unit = Pending { scope, work: Some(work), result: None, caller };
        self.queue.send(Box::new(unit)).map_err(|_| Error::internal("the writing thread has ended"))?;
        answer.await.map_err(Error::internal)?
    }
}

/// A unit of work that somebody waits for.
trait Unit: Send {
    /// Does the work. An error of its own undoes only what it did; the error answered here says that the whole
    /// transaction is gone, as it is when, say, the disk is full.
    fn run(&mut self, conn: &mut Conn) -> Result<(), Error>;

    /// What it may change.
    fn scope(&self) -> Scope;

    /// Tells the caller, once it is known whether the work is stored.
    fn answer(self: Box<Self>, committed: Result<(), Error>);
}

struct Pending<W, R> {
    scope: Scope,
    work: Option<W>,
    result: Option<Result<R, Error>>,
    caller: oneshot::Sender<Result<R, Error>>,
}

impl<W, R> Unit for Pending<W, R>
where
    W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>> + Send,
    R: Send,
{
    fn run(&mut self, conn: &mut Conn) -> Result<(), Error> {
        let Some(work) = self.work.take() else { return Ok(()) };
        control(conn, "SAVEPOINT unit")?;
        let result = catch_unwind(AssertUnwindSafe(|| conn.at_once(work)));
        let result = result.unwrap_or_else(|_| Err(Error::internal("a unit of work panicked")));
        let undo = result.as_ref().err().cloned();
        self.result = Some(result);
        match undo {
            None => control(conn, "RELEASE unit"),
            // There is no savepoint to go back to if the error took the transaction with it.
            Some(error) => control(conn, "ROLLBACK TO unit; RELEASE unit").map_err(|_| error),
        }
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn answer(self: Box<Self>, committed: Result<(), Error>) {
        let result = match (committed, self.result) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(Error::internal("a unit of work was committed without being run")),
        };
        // The caller may have stopped waiting; its work is stored all the same.
        let _ = self.caller.send(result);
    }
}

fn commit_together(conn: &mut Conn, revisions: &Revisions, units: Vec<Box<dyn Unit>>) {
    if let Err(error) = control(conn, "BEGIN IMMEDIATE") {
        return answer_all(units, &Err(error));
    }
    let mut done: Vec<Box<dyn Unit>> = Vec::with_capacity(units.len());
    let mut units = units.into_iter();
    while let Some(mut unit) = units.next() {
        let alive = unit.run(conn);
        done.push(unit);
        if alive.is_err() {
            let _ = control(conn, "ROLLBACK"); // fails where SQLite has done so already
            answer_all(done, &alive);
            return commit_together(conn, revisions, units.collect());
        }
    }
    let scopes: Vec<Scope> = done.iter().map(|unit| unit.scope()).collect();
    revisions.turn(&scopes);
    let committed = control(conn, "COMMIT");
    if committed.is_err() {
        let _ = control(conn, "ROLLBACK");
    }
    revisions.turn(&scopes);
    answer_all(done, &committed);
}

fn answer_all(units: Vec<Box<dyn Unit>>, committed: &Result<(), Error>) {
    for unit in units {
        unit.answer(committed.clone());
    }
}
