//! Deadlines that lie further ahead than they can: a clock that was ahead has stored them, or the
//! clock has been set back since.

use std::collections::BTreeSet;
use std::time::Duration;

use diesel::dsl::max;
use diesel::prelude::*;

use super::clock::Jump;
use super::conn::Conn;
use super::fragment::{READY_FOR_REPOSITORY, READY_TO_RUN, as_indexed};
use super::schema::{clock_jumps, deliveries, jobs, nodes, queues};
use crate::error::Error;
use crate::model::{Node, Timestamp, WorkspaceId};

/// How many jumps of the clock are kept.
const KEPT_JUMPS: i64 = 20;

impl Conn {
    /// Some workspaces whose queue has an instant that lies further ahead than it can.
    pub async fn workspaces_to_bring_back(
        &mut self,
        now: Timestamp,
        longest_backoff: Duration,
        at_most: i64,
    ) -> Result<BTreeSet<WorkspaceId>, Error> {
        let of_jobs = jobs::table
            .filter(jobs::ready.gt(now))
            .filter(jobs::not_before.is_null().or(jobs::ready.gt(now + longest_backoff).assume_not_null()))
            .select(jobs::workspace)
            // Not distinct ones: SQLite would look at every job for them.
            .order(jobs::ready)
            .limit(at_most);
        let served = queues::table.filter(queues::served.gt(now)).select(queues::workspace).limit(at_most);
        let mut found: BTreeSet<WorkspaceId> = self.all(of_jobs).await?.into_iter().collect();
        found.extend(self.all::<WorkspaceId>(served).await?);
        Ok(found)
    }

    /// Lets the jobs of a workspace start that wait for an instant further ahead than the longest
    /// backoff, and those that wait for nothing but an instant. Among themselves they start in the
    /// order in which they were queued.
    pub async fn bring_jobs_back(
        &mut self,
        workspace: WorkspaceId,
        now: Timestamp,
        longest_backoff: Duration,
    ) -> Result<(), Error> {
        // Without the condition of a lane, SQLite would look at every job of the workspace.
        for lane in [READY_FOR_REPOSITORY, READY_TO_RUN] {
            let in_lane = || jobs::table.filter(jobs::workspace.eq(workspace)).filter(as_indexed(lane));
            let waits_for_nothing = in_lane().filter(jobs::ready.gt(now)).filter(jobs::not_before.is_null());
            self.run(diesel::update(waits_for_nothing).set(jobs::ready.eq(now))).await?;
            let waits_too_long = in_lane().filter(jobs::ready.gt(now + longest_backoff));
            let change = (jobs::ready.eq(now), jobs::not_before.eq(now));
            self.run(diesel::update(waits_too_long).set(change)).await?;
        }
        Ok(())
    }

    /// No workspace was served later than now.
    pub async fn bring_queue_back(&mut self, workspace: WorkspaceId, now: Timestamp) -> Result<(), Error> {
        let later = queues::table.find(workspace).filter(queues::served.gt(now));
        self.run(diesel::update(later).set(queues::served.eq(now))).await?;
        Ok(())
    }

    /// Whether a delivery waits longer than after so many tries, or a node says something of itself
    /// that lies too far ahead.
    pub async fn has_deliveries_or_nodes_ahead(
        &mut self,
        now: Timestamp,
        longest_waits: &[Duration],
    ) -> Result<bool, Error> {
        let is_ahead = |node: &Node| node.started > now || node.has_lease_beyond(now + node.lease_length());
        Ok(!self.late_deliveries(now, longest_waits).await?.is_empty() || self.nodes().await?.iter().any(is_ahead))
    }

    /// After how many tries deliveries wait too long, or are of an instant later than now, each with
    /// the longest wait after so many.
    async fn late_deliveries(
        &mut self,
        now: Timestamp,
        longest_waits: &[Duration],
    ) -> Result<Vec<(i32, Duration)>, Error> {
        let Some(shortest) = longest_waits.iter().min() else { return Ok(Vec::new()) };
        let waiting = deliveries::table
            .filter(deliveries::not_before.gt(now + *shortest))
            .group_by(deliveries::attempt)
            .select((deliveries::attempt, max(deliveries::not_before), max(deliveries::created)));
        let rows: Vec<(i32, Option<Timestamp>, Option<Timestamp>)> = self.all(waiting).await?;
        let late = rows.into_iter().filter_map(|(tries, not_before, created)| {
            let after_so_many = usize::try_from(tries).ok().and_then(|it| longest_waits.get(it));
            let wait = *after_so_many.or(longest_waits.last())?;
            (not_before > Some(now + wait) || created > Some(now)).then_some((tries, wait))
        });
        Ok(late.collect())
    }

    /// Lets no delivery wait longer than after so many tries: the last of these times is that after
    /// more tries. Answers how many did.
    pub async fn bring_deliveries_back(&mut self, now: Timestamp, longest_waits: &[Duration]) -> Result<usize, Error> {
        let late = self.late_deliveries(now, longest_waits).await?;
        let later = deliveries::table.filter(deliveries::created.gt(now));
        self.run(diesel::update(later).set(deliveries::created.eq(now))).await?;
        let mut brought_back = 0;
        for (tries, wait) in late {
            let late =
                deliveries::table.filter(deliveries::attempt.eq(tries)).filter(deliveries::not_before.gt(now + wait));
            brought_back += self.run(diesel::update(late).set(deliveries::not_before.eq(now + wait))).await?;
        }
        Ok(brought_back)
    }

    /// Lets no lease last longer than its node's leases do, and no node have started later than
    /// now. Answers how many leases did.
    pub async fn bring_leases_back(&mut self, now: Timestamp) -> Result<usize, Error> {
        let later = nodes::table.filter(nodes::started.gt(now));
        self.run(diesel::update(later).set(nodes::started.eq(now))).await?;
        let mut brought_back = 0;
        for node in self.nodes().await? {
            let longest = now + node.lease_length();
            if node.has_lease_beyond(longest) {
                let same = nodes::table.find(node.id).filter(nodes::lease_until.eq(node.lease_until));
                brought_back += self.run(diesel::update(same).set(nodes::lease_until.eq(longest))).await?;
            }
        }
        Ok(brought_back)
    }

    /// Notes a jump of the clock that a node has seen. The latest are kept.
    pub async fn insert_clock_jump(&mut self, jump: Jump, node: &str) -> Result<(), Error> {
        let row =
            (clock_jumps::expected.eq(jump.expected), clock_jumps::shown.eq(jump.shown), clock_jumps::node.eq(node));
        self.run(diesel::insert_into(clock_jumps::table).values(row)).await?;
        let kept: Vec<i64> = self
            .all(clock_jumps::table.order(clock_jumps::id.desc()).select(clock_jumps::id).limit(KEPT_JUMPS))
            .await?;
        if let Some(oldest) = kept.last() {
            self.run(diesel::delete(clock_jumps::table.filter(clock_jumps::id.lt(*oldest)))).await?;
        }
        Ok(())
    }
}
