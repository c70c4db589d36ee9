//! Schedules: runs that are queued when their time has come.

use std::time::Duration;

use futures_util::FutureExt;
use jiff::tz::TimeZone;

use super::{Jobs, Unit};
use crate::error::Error;
use crate::model::{
    CauseType, Job, JobId, JobType, Node, Pipeline, PipelineId, ResourceStatus, Schedule, Timestamp, WorkspaceId,
};

/// How late a tick may be taken.
const LATE: Duration = Duration::from_secs(30);
/// How many ticks one transaction takes.
const TICKS: i64 = 100;
/// How many schedules one transaction sets back.
const SCHEDULES: usize = 100;

/// Why ticks were missed, in the note that they are skipped.
const WHILE_DOWN: &str = "The server was down";
const WHILE_AWAY: &str = "The database was away, or the clock jumped";

/// What becomes of ticks that came while no server was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum MissedTicks {
    /// They are skipped, which the pipeline's activity says.
    Skip,
    /// One run makes up for all of a pipeline.
    RunOnce,
}

/// Why a job is queued.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cause {
    pub(super) type_: CauseType,
    pub(super) job: Option<JobId>,
    pub(super) tick: Option<Timestamp>,
}

impl Cause {
    /// Somebody asked for it.
    pub(super) const USER: Self = Self { type_: CauseType::User, job: None, tick: None };
}

impl Jobs {
    /// Deals with the ticks that came while no server was up, and sets all schedules to the first tick that comes. The time zone may have
    /// changed since they were set. Where another server has been up for longer, that is its affair.
    pub async fn begin_schedules(&self, own: &Node) -> Result<(), Error> {
        let (zone, missed, own) = (self.rules.zone.clone(), self.rules.missed_ticks, own.clone());
        self.commit(move |unit| {
            async move {
                let now = unit.now;
                // One that had this directory is gone.
                let is_up = |it: &&Node| it.id == own.id || (it.home != own.home && !it.is_late(now));
                if unit.conn.nodes().await?.iter().find(is_up).is_some_and(|oldest| oldest.id != own.id) {
                    return Ok(());
                }
                for (id, tick) in unit.ticks(None, i64::MAX).await? {
                    let pipeline = unit.pipeline(id).await?;
                    let schedule = pipeline.definition.schedule_in(&zone);
                    let last = unit.conn.last_tick(id).await?;
                    unit.conn.set_next_run(id, schedule.as_ref().map(|it| it.next_tick(now, last))).await?;
                    if tick > now {
                        continue;
                    }
                    unit.miss_ticks(&pipeline, tick, schedule.as_ref(), missed, WHILE_DOWN).await?;
                }
                Ok(())
            }
            .boxed()
        })
        .await
    }

    /// Sets every schedule's next tick to the one that comes next as the clock is now. Answers how
    /// many had another one: the clock has been set back, or was ahead.
    pub(super) async fn set_schedules_back(&self) -> Result<usize, Error> {
        let ticks = self.store.read(|conn| conn.next_ticks(None, i64::MAX).boxed()).await?;
        let mut set_back = 0;
        for some in ticks.chunks(SCHEDULES) {
            let (zone, some) = (self.rules.zone.clone(), some.to_vec());
            set_back +=
                self.commit(move |unit| async move { unit.set_schedules_back(&zone, some).await }.boxed()).await?;
        }
        Ok(set_back)
    }

    /// The ticks of a pipeline that come next.
    pub fn next_runs(&self, pipeline: &Pipeline, count: usize) -> Vec<Timestamp> {
        let Some(schedule) = pipeline.definition.schedule_in(&self.rules.zone) else { return Vec::new() };
        let first = schedule.next_after(self.store.now());
        std::iter::successors(first, |tick| schedule.next_after(*tick)).take(count).collect()
    }

    /// Takes the ticks that are due, some at a time, each with the run that it queues or the note that it is skipped. Answers when to come
    /// again: how long it is until the next tick, if there is one.
    pub async fn take_ticks(&self) -> Result<Option<Duration>, Error> {
        let (zone, missed) = (self.rules.zone.clone(), self.rules.missed_ticks);
        self.commit(move |unit| {
            async move {
                for (id, tick) in unit.ticks(Some(unit.now), TICKS).await? {
                    let pipeline = unit.pipeline(id).await?;
                    let schedule = pipeline.definition.schedule_in(&zone);
                    // After a while in which nobody could take them, those that came meanwhile are missed.
                    let late = unit.now.since(tick) > LATE;
                    let after = if late { unit.now } else { tick };
                    if !unit.conn.move_tick(id, tick, schedule.as_ref().map(|it| it.next_tick(after, None))).await? {
                        continue; // another server has
                    }
                    if late {
                        unit.miss_ticks(&pipeline, tick, schedule.as_ref(), missed, WHILE_AWAY).await?;
                    } else {
                        unit.conn.set_last_tick(id, tick).await?;
                        let cause = Cause { type_: CauseType::Schedule, job: None, tick: Some(tick) };
                        unit.start_run(id, cause).await?;
                    }
                }
                let next = unit.conn.next_ticks(None, 1).await?;
                Ok(next.first().map(|(.., tick)| tick.since(unit.now)))
            }
            .boxed()
        })
        .await
    }
}

impl Unit<'_> {
    async fn set_schedules_back(
        &mut self,
        zone: &TimeZone,
        ticks: Vec<(WorkspaceId, PipelineId, Timestamp)>,
    ) -> Result<usize, Error> {
        let mut set_back = 0;
        for (_, id, tick) in ticks.into_iter().filter(|(.., tick)| *tick > self.now) {
            let Some(pipeline) = self.conn.pipeline(id).await? else { continue };
            let last = self.conn.last_tick(id).await?;
            let next = pipeline.definition.schedule_in(zone).map(|it| it.next_tick(self.now, last));
            // Unless another server has moved it meanwhile.
            if next != Some(tick) && self.conn.move_tick(id, tick, next).await? {
                set_back += 1;
            }
        }
        self.rings.schedules |= set_back > 0;
        Ok(set_back)
    }

    /// The ticks that come first. Every server goes through the workspaces in the same order, so that no two wait for each other.
    async fn ticks(&mut self, until: Option<Timestamp>, at_most: i64) -> Result<Vec<(PipelineId, Timestamp)>, Error> {
        let mut ticks = self.conn.next_ticks(until, at_most).await?;
        ticks.sort_by_key(|(workspace, ..)| *workspace);
        Ok(ticks.into_iter().map(|(_, pipeline, tick)| (pipeline, tick)).collect())
    }

    /// Deals with the ticks of a pipeline from one on up to this moment, which nobody could take.
    async fn miss_ticks(
        &mut self,
        pipeline: &Pipeline,
        tick: Timestamp,
        schedule: Option<&Schedule>,
        missed: MissedTicks,
        why: &str,
    ) -> Result<(), Error> {
        let last = schedule.and_then(|it| it.last_until(self.now)).filter(|last| *last >= tick).unwrap_or(tick);
        match missed {
            MissedTicks::RunOnce => {
                let cause = Cause { type_: CauseType::Schedule, job: None, tick: Some(last) };
                self.start_run(pipeline.id, cause).await?;
            }
            MissedTicks::Skip => {
                let ticks = if last == tick { format!("of {tick}") } else { format!("from {tick} to {last}") };
                let reason = format!("{why}: the schedule's ticks {ticks} are not made up for.");
                self.skip(pipeline.workspace, pipeline.id, &reason).await?;
            }
        }
        Ok(())
    }

    /// Queues a run that nobody asked for at this moment. Where it cannot be queued the stream says so.
    pub(super) async fn start_run(&mut self, id: PipelineId, cause: Cause) -> Result<Option<Job>, Error> {
        let Some(pipeline) = self.conn.pipeline(id).await? else { return Ok(None) };
        let what = match cause.type_ {
            CauseType::Trigger => "The pipeline was triggered",
            _ => "The schedule's tick came",
        };
        let workspace = self.workspace(pipeline.workspace).await?;
        let why_not = if let Some(active) = self.conn.active_run(id).await? {
            format!("{what} while a run was active: job {active}.")
        } else if workspace.status == ResourceStatus::Failed {
            format!("{what} while the workspace was FAILED.")
        } else if pipeline.status == ResourceStatus::Failed {
            format!("{what} while the pipeline was FAILED.")
        } else {
            return Ok(Some(self.queue_for_pipeline(&pipeline, JobType::PipelineRun, cause).await?));
        };
        self.skip(pipeline.workspace, id, &why_not).await?;
        Ok(None)
    }

    /// Notes in the stream that a run was skipped, and why.
    async fn skip(&mut self, workspace: WorkspaceId, pipeline: PipelineId, why: &str) -> Result<(), Error> {
        let change = self.conn.insert_skip(workspace, pipeline, why, self.now).await?;
        self.tell_of_skip(workspace, pipeline, change, why).await?;
        self.rings.status = true;
        self.tally.skipped();
        Ok(())
    }
}
