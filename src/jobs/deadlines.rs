//! Deadlines after a jump of the clock.
//!
//! What waits, waits for an instant: a queued job, a schedule, a delivery to a webhook, a lease.
//! Each has a longest time that it can have to wait. An instant further ahead was stored while the
//! clock was ahead, or the clock was set back since; either way it is moved to where it belongs.

use std::time::Duration;

use futures_util::FutureExt;

use super::Jobs;
use super::attempts::LONGEST_BACKOFF;
use crate::error::Error;
use crate::model::{Node, Timestamp};
use crate::store::Jump;

/// How many workspaces one transaction changes.
const WORKSPACES: i64 = 100;

/// How many deadlines were moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recomputed {
    /// Workspaces with jobs that waited too long, or that were served later than now.
    pub workspaces: usize,
    /// Schedules with another tick.
    pub schedules: usize,
    /// Deliveries to webhooks.
    pub deliveries: usize,
    /// Leases of servers.
    pub leases: usize,
}

/// How thoroughly deadlines are recomputed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// The server starts: what becomes of schedules is another matter.
    Start,
    /// The clock has jumped.
    Jump,
    /// Nothing is known to have happened.
    Routine,
}

impl Jobs {
    /// Moves every deadline that lies further ahead than it can. A delivery waits at most for these
    /// times after so many tries.
    pub async fn recompute_deadlines(
        &self,
        delivery_waits: &[Duration],
        occasion: Occasion,
    ) -> Result<Recomputed, Error> {
        let workspaces = self.bring_workspaces_back().await?;
        let schedules = if occasion == Occasion::Jump { self.set_schedules_back().await? } else { 0 };
        let (deliveries, leases) = self.bring_deliveries_and_leases_back(delivery_waits, occasion).await?;
        Ok(Recomputed { workspaces, schedules, deliveries, leases })
    }

    async fn bring_deliveries_and_leases_back(
        &self,
        delivery_waits: &[Duration],
        occasion: Occasion,
    ) -> Result<(usize, usize), Error> {
        let waits = delivery_waits.to_vec();
        // Mostly there is nothing to do, which is seen without a write.
        let expected = waits.clone();
        let found = self.store.read(move |conn| {
            async move {
                let now = conn.now().await?;
                conn.has_deliveries_or_nodes_ahead(now, &expected).await
            }
            .boxed()
        });
        if occasion == Occasion::Routine && !found.await? {
            return Ok((0, 0));
        }
        let bring_back = self.store.write(move |conn| {
            async move {
                let now = conn.now().await?;
                Ok((conn.bring_deliveries_back(now, &waits).await?, conn.bring_leases_back(now).await?))
            }
            .boxed()
        });
        bring_back.await
    }

    async fn bring_workspaces_back(&self) -> Result<usize, Error> {
        let mut brought_back = 0;
        loop {
            let found = self.store.read(|conn| {
                async move {
                    let now = conn.now().await?;
                    conn.workspaces_to_bring_back(now, LONGEST_BACKOFF, WORKSPACES).await
                }
                .boxed()
            });
            let found = found.await?;
            if found.is_empty() {
                return Ok(brought_back);
            }
            brought_back += found.len();
            self.commit(move |unit| {
                async move {
                    for workspace in found {
                        // Whose turn it is follows from it, when this is committed.
                        unit.hold(workspace).await?;
                        unit.conn.bring_jobs_back(workspace, unit.now, LONGEST_BACKOFF).await?;
                        unit.conn.bring_queue_back(workspace, unit.now).await?;
                    }
                    unit.rings.queue = true;
                    Ok(())
                }
                .boxed()
            })
            .await?;
        }
    }

    /// Notes a jump of the clock.
    pub async fn note_clock_jump(&self, jump: Jump) -> Result<(), Error> {
        let node = self.node.name.clone();
        self.store.write(move |conn| async move { conn.insert_clock_jump(jump, &node).await }.boxed()).await
    }

    /// Whether a server's lease is over at this moment. After a jump of the clock nobody can tell,
    /// until the server has had the time to renew it.
    pub fn is_late(&self, node: &Node, now: Timestamp) -> bool {
        let length = node.lease_length().max(self.node.lease_length());
        node.is_late(now) && !self.store.clock().has_jumped_within(length)
    }
}
