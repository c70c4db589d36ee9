//! The queue: which job may start, and whose turn it is.
//!
//! Workspaces take turns, and each has its oldest job started. One that has just been served waits behind those that have waited since before, so
//! none keeps another from its turn, however much it has queued.

use super::Unit;
use super::attempts::LONGEST_BACKOFF;
use crate::error::Error;
use crate::model::{Job, JobStatus, JobType, PipelineId, Timestamp, WorkspaceId};
use crate::store::{Queued, Turn};

/// What the queue has for a runner.
pub(super) enum Next {
    /// This job, of a workspace that is held.
    Job(Box<Job>),
    /// Nothing before this moment, if it is known.
    Nothing(Option<Timestamp>),
}

impl Unit<'_> {
    /// The job that is to start next. Its workspace is served with it.
    pub(super) async fn next_job(&mut self, most_running: Option<u32>) -> Result<Next, Error> {
        loop {
            let workspace = match self.conn.take_turn(self.now).await? {
                Turn::Of(workspace) => workspace,
                Turn::Comes(at) => return Ok(Next::Nothing(Some(at))),
                Turn::Nobodys => return Ok(Next::Nothing(None)),
            };
            self.held.entry(workspace).or_default();
            let Some(queued) = self.conn.queued(workspace).await? else { continue };
            if let Some((_, for_repository)) = first(&queued, most_running)
                && let Some(job) = self.conn.next_ready_job(workspace, for_repository, self.now).await?
            {
                self.held.insert(workspace, Some(self.now));
                return Ok(Next::Job(Box::new(job)));
            }
            // Its turn was another one, as with a limit that has changed since.
            self.settle_queue(workspace, most_running).await?;
        }
    }

    /// From when on a job may start: nothing if it does not wait for a runner, or waits for something else first.
    pub(super) async fn readiness(&mut self, job: &Job) -> Result<Option<Timestamp>, Error> {
        let waits = job.status == JobStatus::Queued && !JobType::USER_TASKS.contains(&job.type_);
        if !waits || self.conn.is_held_back(job).await? {
            return Ok(None);
        }
        // No job waits because it was queued while the clock was ahead.
        Ok(Some(job.not_before.map_or(job.created.min(self.now), |at| at.min(self.now + LONGEST_BACKOFF))))
    }

    /// The queued jobs of a workspace, or of one of its pipelines, may start or not, as what they
    /// need is now.
    pub(super) async fn sort_queue(
        &mut self,
        workspace: WorkspaceId,
        pipeline: Option<PipelineId>,
    ) -> Result<(), Error> {
        self.conn.sort_queue(workspace, pipeline).await?;
        self.conn.bring_jobs_back(workspace, self.now, LONGEST_BACKOFF).await
    }

    /// Notes whose turn it is after all that this change has done.
    pub(super) async fn settle_queues(&mut self, most_running: Option<u32>) -> Result<(), Error> {
        for workspace in self.held.keys().copied().collect::<Vec<_>>() {
            self.settle_queue(workspace, most_running).await?;
        }
        Ok(())
    }

    async fn settle_queue(&mut self, workspace: WorkspaceId, most_running: Option<u32>) -> Result<(), Error> {
        let Some(queued) = self.conn.queued(workspace).await? else { return Ok(()) };
        let served = self.held.get(&workspace).copied().flatten().unwrap_or(queued.served);
        let turn = first(&queued, most_running).map(|(ready, _)| ready.max(served));
        if (turn, served) == (queued.turn, queued.served) {
            return Ok(());
        }
        self.conn.set_turn(workspace, turn, served).await
    }
}

/// From when on something may start in a workspace, and whether that changes the repository.
fn first(queued: &Queued, most_running: Option<u32>) -> Option<(Timestamp, bool)> {
    if most_running.is_some_and(|most| queued.running() >= i64::from(most)) {
        return None;
    }
    let for_repository = queued.for_repository.filter(|_| !queued.is_changing()).map(|ready| (ready, true));
    let to_run = queued.to_run.map(|ready| (ready, false));
    for_repository.into_iter().chain(to_run).min()
}
