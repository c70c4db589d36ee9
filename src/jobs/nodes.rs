//! The servers that work on the same jobs, and what becomes of the jobs of one that is gone.

use futures_util::FutureExt;

use super::{Ending, Jobs};
use crate::error::Error;
use crate::model::{Job, Node, ServerId, SupervisorIdentity, Timestamp};

impl Jobs {
    /// Whether other servers may work on the same jobs.
    pub fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    /// The servers that are registered, and the moment at which they are.
    pub async fn nodes(&self) -> Result<(Timestamp, Vec<Node>), Error> {
        self.store.read(|conn| async move { Ok((conn.now().await?, conn.nodes().await?)) }.boxed()).await
    }

    /// The jobs that a server runs.
    pub async fn jobs_of(&self, server: ServerId) -> Result<Vec<Job>, Error> {
        self.store.read(move |conn| conn.jobs_of_node(server).boxed()).await
    }

    /// The jobs that are RUNNING for a server that is not registered.
    pub async fn jobs_of_nobody(&self) -> Result<Vec<Job>, Error> {
        self.store.read(|conn| conn.jobs_of_nobody().boxed()).await
    }

    /// Ends the attempt of a job whose server is gone: because its lease is over, where it is `late`. [`Error::Stale`] if somebody else did so,
    /// or the lease holds after all.
    pub async fn take_over(&self, held: &Job, late: Option<ServerId>, ending: Ending) -> Result<Job, Error> {
        let held = held.clone();
        let backoff = self.backoff(held.attempt);
        let jobs = self.clone();
        self.commit(move |unit| {
            async move {
                if let Some(server) = late {
                    let server = unit.conn.lock_node(server).await?;
                    let now = unit.conn.now().await?;
                    if server.is_some_and(|it| !jobs.is_late(&it, now)) {
                        return Err(Error::Stale);
                    }
                }
                unit.end_attempt(&held, None, &ending, backoff, None, None).await
            }
            .boxed()
        })
        .await
    }

    /// Forgets a server that is gone and has no jobs any more: unless its lease holds after all, where it was `late`.
    pub async fn forget_node(&self, server: ServerId, late: bool) -> Result<(), Error> {
        let jobs = self.clone();
        self.store
            .write(move |conn| {
                async move {
                    // Waits for claims that are being stored, which count as jobs then.
                    let node = conn.lock_node(server).await?;
                    let now = conn.now().await?;
                    if late && node.is_some_and(|it| !jobs.is_late(&it, now)) {
                        return Ok(());
                    }
                    conn.remove_node(server).await
                }
                .boxed()
            })
            .await
    }

    /// Queues a job again that this supervisor was to hold and never heard of: it was claimed, and that was not acknowledged.
    pub async fn give_up_claim(&self, supervisor: SupervisorIdentity) -> Result<(), Error> {
        let node = self.node.id;
        let of_owner = self.store.write(move |conn| {
            async move {
                // Waits for claims that are being stored, even if nobody waits for their answer any more.
                conn.lock_node(node).await?;
                conn.jobs_of_node(node).await
            }
            .boxed()
        });
        let of_owner = of_owner.await?;
        for job in of_owner.into_iter().filter(|job| job.supervisor().as_ref() == Some(&supervisor)) {
            tracing::warn!(job = %job.id, "a claim was stored and not acknowledged; queueing the job again");
            self.take_over(&job, None, Ending::NotBegun).await?;
        }
        Ok(())
    }
}
