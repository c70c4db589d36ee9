//! Triggers: pipelines that follow others.

use std::collections::{HashMap, HashSet};

use super::Unit;
use crate::error::{Error, Problem};
use crate::model::{CauseType, Job, JobStatus, JobType, PipelineId, Quoted, WorkspaceId, naming};

use super::schedules::Cause;

impl Unit<'_> {
    /// The pipelines of a workspace that a user names as the triggers of another, and what is wrong with them. `pipeline` is that other one, if
    /// it is there already.
    pub(super) async fn sources(
        &mut self,
        workspace: WorkspaceId,
        pipeline: Option<PipelineId>,
        name: &str,
        sources: &[String],
    ) -> Result<(Vec<PipelineId>, Vec<Problem>), Error> {
        let (mut found, mut problems) = (Vec::new(), Vec::new());
        if sources.is_empty() {
            return Ok((found, problems));
        }
        let pipelines = self.conn.pipelines_of(workspace).await?;
        let names: HashMap<PipelineId, &str> = pipelines.iter().map(|it| (it.id, it.name.as_str())).collect();
        let mut follows: HashMap<PipelineId, Vec<PipelineId>> = HashMap::new();
        for (follower, source) in self.conn.triggers_in(workspace).await? {
            follows.entry(follower).or_default().push(source);
        }
        for (index, wanted) in sources.iter().enumerate() {
            let mut problem =
                |message: String| problems.push(Problem::at(format!("input.triggeredBy.{index}"), message));
            if wanted == name {
                problem("A pipeline cannot be triggered by itself.".to_owned());
                continue;
            }
            // A name that an earlier version stored may be in another form.
            let mut others = pipelines.iter().filter(|it| Some(it.id) != pipeline);
            let Some(source) = others.clone().find(|it| naming::normalize(&it.name) == *wanted) else {
                let key = naming::key(wanted);
                let similar = others.find(|it| naming::key(&it.name) == key);
                let similar = similar.map(|it| format!(" There is one named {}.", Quoted(&it.name)));
                let wanted = Quoted(wanted);
                problem(format!("The workspace has no pipeline named {wanted}.{}", similar.unwrap_or_default()));
                continue;
            };
            if let Some(way) = pipeline.and_then(|it| way_back(&follows, source.id, it)) {
                let way = way.iter().rev().map(|id| names.get(id).copied().unwrap_or(name));
                let way: Vec<&str> = way.chain([name]).collect();
                problem(format!("The pipelines would trigger each other for ever: {}.", way.join(" → ")));
            } else if !found.contains(&source.id) {
                found.push(source.id);
            }
        }
        Ok((found, problems))
    }

    /// Queues a run of every pipeline that follows the one whose run has ended, or notes why it is skipped.
    pub(super) async fn trigger(&mut self, ended: &Job) -> Result<(), Error> {
        let (JobType::PipelineRun, JobStatus::Complete, Some(source)) = (ended.type_, ended.status, ended.pipeline)
        else {
            return Ok(());
        };
        if ended.deleted.is_some() {
            return Ok(());
        }
        for follower in self.conn.triggered_by(source).await? {
            let cause = Cause { type_: CauseType::Trigger, job: Some(ended.id), tick: None };
            self.start_run(follower, cause).await?;
        }
        Ok(())
    }
}

/// The pipelines on the way from one that is followed back to another, both included: from the first, each follows the next.
fn way_back(
    follows: &HashMap<PipelineId, Vec<PipelineId>>,
    from: PipelineId,
    to: PipelineId,
) -> Option<Vec<PipelineId>> {
    let mut came_from: HashMap<PipelineId, PipelineId> = HashMap::new();
    let (mut seen, mut next) = (HashSet::from([from]), vec![from]);
    while let Some(at) = next.pop() {
        if at == to {
            let mut way: Vec<PipelineId> = std::iter::successors(Some(to), |at| came_from.get(at).copied()).collect();
            way.reverse();
            return Some(way);
        }
        for &source in follows.get(&at).into_iter().flatten() {
            if seen.insert(source) {
                came_from.insert(source, at);
                next.push(source);
            }
        }
    }
    None
}
