//! Nodes, and their leases.

use diesel::dsl::{exists, not};
use diesel::prelude::*;

use super::conn::{Conn, Database};
use super::fragment::{RUNNING, as_indexed};
use super::jobs::NUMBER;
use super::schema::{jobs, nodes};
use crate::error::Error;
use crate::model::{Job, Node, ServerId, Timestamp};

impl Conn {
    /// Registers a node at this moment, or renews its lease until another. A renewal that was held up does not shorten a later one.
    pub async fn renew_lease(&mut self, node: &Node, now: Timestamp, until: Timestamp) -> Result<(), Error> {
        let shorter = nodes::table.find(node.id).filter(nodes::lease_until.lt(until));
        if self.run(diesel::update(shorter).set(nodes::lease_until.eq(until))).await? == 0 {
            let node = Node { started: now, lease_until: until, ..node.clone() };
            self.run(diesel::insert_into(nodes::table).values(node).on_conflict_do_nothing()).await?;
        }
        Ok(())
    }

    /// All nodes that are registered, the oldest first.
    pub async fn nodes(&mut self) -> Result<Vec<Node>, Error> {
        self.all(nodes::table.order((nodes::started, nodes::id))).await
    }

    /// The node with this id. Its lease stays as it is until the transaction ends.
    pub async fn lock_node(&mut self, id: ServerId) -> Result<Option<Node>, Error> {
        if let Database::Postgres(conn, _) = &mut self.database {
            let row = nodes::table.find(id).for_update();
            return Ok(diesel_async::RunQueryDsl::get_result(row, &mut ***conn).await.optional()?);
        }
        self.optional(nodes::table.find(id)).await
    }

    /// Forgets a node, unless it has jobs.
    pub async fn remove_node(&mut self, id: ServerId) -> Result<(), Error> {
        let has_jobs = jobs::table.filter(jobs::owner.eq(nodes::id.nullable()));
        self.run(diesel::delete(nodes::table.find(id).filter(not(exists(has_jobs))))).await?;
        Ok(())
    }

    /// Whether a node's lease holds at this moment. Until the transaction ends nobody can lock the node, so nobody can take what it claims, or forget
    /// it; it can renew its lease.
    pub async fn holds_lease(&mut self, id: ServerId, now: Timestamp) -> Result<bool, Error> {
        let node = match &mut self.database {
            Database::Postgres(conn, _) => {
                let row = nodes::table.find(id).for_key_share();
                diesel_async::RunQueryDsl::get_result::<Node>(row, &mut ***conn).await.optional()?
            }
            Database::Sqlite(..) => self.optional(nodes::table.find(id)).await?,
        };
        Ok(node.is_some_and(|node| !node.is_late(now)))
    }

    /// The jobs that a node runs, the oldest first.
    pub async fn jobs_of_node(&mut self, id: ServerId) -> Result<Vec<Job>, Error> {
        self.all(jobs::table.filter(jobs::owner.eq(id)).order((NUMBER, jobs::id))).await
    }

    /// The jobs that are RUNNING for a process that is not registered, as one that did not know of nodes yet.
    pub async fn jobs_of_nobody(&mut self) -> Result<Vec<Job>, Error> {
        let registered = nodes::table.filter(nodes::id.nullable().eq(jobs::owner));
        let running = jobs::table.filter(as_indexed(RUNNING));
        self.all(running.filter(not(exists(registered))).order((NUMBER, jobs::id))).await
    }
}
