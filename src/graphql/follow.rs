//! Following the stream of changes, of which each subscription shows a view.

use async_graphql::{Context, Result};
use async_stream::try_stream;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream};

use super::progress::Progress;
use crate::error::Error;
use crate::events::{Bell, Events};
use crate::model;
use crate::store::{ChangeFilter, ChangePage, Conn, Store};

/// How many changes are read at once.
pub(super) const CHANGES: i64 = 500;

/// Reads what a view shows of the stream after a position, at most [`CHANGES`] of it.
pub(super) type Read<V, T> = for<'c> fn(&'c mut Conn, V, i64) -> BoxFuture<'c, Result<ChangePage<T>, Error>>;

/// Somebody who follows the stream. The bell is taken with it, so that nothing is missed that comes after the first read.
pub(super) struct Follower {
    store: Store,
    progress: Progress,
    bell: Bell,
}

/// What a subscriber begins with, and the position after which it goes on, unless it has seen the end already.
pub(super) struct Beginning {
    /// The latest changes of the jobs in scope.
    pub(super) initial: Vec<model::StatusChange>,
    pub(super) position: i64,
    pub(super) over: bool,
}

impl Follower {
    /// For the subscription of this context.
    pub(super) fn of(ctx: &Context<'_>) -> Self {
        Self {
            bell: ctx.data_unchecked::<Events>().status(),
            store: ctx.data_unchecked::<Store>().clone(),
            progress: ctx.data_unchecked::<Progress>().clone(),
        }
    }

    /// Where it begins: where it is to go on from, else as its arguments say.
    pub(super) async fn begin(&self, filter: ChangeFilter, after: Option<i64>) -> Result<Beginning, Error> {
        match self.progress.goes_on_from() {
            Some(position) => Ok(Beginning { initial: Vec::new(), position, over: false }),
            None => self.store.read(move |conn| begin(conn, filter, after).boxed()).await,
        }
    }

    /// What comes after a position. `last` says whether nothing of interest can come after a change.
    pub(super) fn follow<V, T>(
        mut self,
        view: V,
        mut position: i64,
        read: Read<V, T>,
        place: fn(&T) -> i64,
        last: impl Fn(&T) -> bool + Send + 'static,
    ) -> impl Stream<Item = Result<T>>
    where
        V: Copy + Send + 'static,
        T: Send + 'static,
    {
        try_stream! {
            // The position of the change that was told last: those between it and `position` are of no interest here.
            let mut told = position;
            loop {
                let page = self.store.read_when_there(|| move |conn: &mut Conn| read(conn, view, position)).await?;
                let caught_up = (page.changes.len() as i64) < CHANGES;
                for change in page.changes {
                    let (at, over) = (place(&change), last(&change));
                    self.progress.event(told..=at - 1, at);
                    told = at;
                    yield change;
                    if over {
                        return;
                    }
                }
                position = page.read_to;
                if caught_up {
                    if !self.progress.waits_at(position) {
                        return;
                    }
                    self.bell.rung().await;
                }
            }
        }
    }
}

/// Where somebody begins who follows the changes that a filter names: after a position, or with the present.
async fn begin(conn: &mut Conn, filter: ChangeFilter, after: Option<i64>) -> Result<Beginning, Error> {
    let mut job = None;
    if let Some(id) = filter.workspace {
        let there = conn.workspace(id).await?.is_some();
        let changes = ChangeFilter { workspace: Some(id), ..ChangeFilter::default() };
        check_known(conn, there, changes, after, || Error::not_found("workspace", id)).await?;
    }
    if let Some(id) = filter.pipeline {
        let there = conn.pipeline(id).await?.is_some();
        let changes = ChangeFilter { pipeline: Some(id), ..ChangeFilter::default() };
        check_known(conn, there, changes, after, || Error::not_found("pipeline", id)).await?;
    }
    if let Some(id) = filter.job {
        job = conn.job(id).await?;
        let changes = ChangeFilter { job: Some(id), ..ChangeFilter::default() };
        check_known(conn, job.is_some(), changes, after, || Error::not_found("job", id)).await?;
    }
    let end = conn.last_change_position().await?;
    if let Some(after) = after {
        if after > end {
            return Err(Error::bad_input(
                "after",
                "This cursor is from another server, or one that lost its database.",
            ));
        }
        conn.check_kept_after(after).await?;
        let over = match filter.job {
            Some(job) => conn.deleted_by(job, after).await?,
            None => false,
        };
        return Ok(Beginning { initial: Vec::new(), position: after, over });
    }
    let initial = match job {
        Some(job) => {
            let wanted = filter.workspace.is_none_or(|it| it == job.workspace)
                && filter.pipeline.is_none_or(|it| Some(it) == job.pipeline);
            if wanted { conn.present_of(&job).await?.into_iter().collect() } else { Vec::new() }
        }
        None => conn.present(filter).await?,
    };
    Ok(Beginning { initial, position: end, over: false })
}

/// What a filter names must be there. After a cursor, the changes of what is gone by now can still be read.
async fn check_known(
    conn: &mut Conn,
    there: bool,
    changes: ChangeFilter,
    after: Option<i64>,
    unknown: impl FnOnce() -> Error,
) -> Result<(), Error> {
    if there || (after.is_some() && conn.has_status_changes(changes).await?) { Ok(()) } else { Err(unknown()) }
}
