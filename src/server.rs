//! The whole server: what is started, in which order, and how it ends.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::catalogue::Catalogue;
use crate::cipher::{Cipher, KeyError};
use crate::clock::ClockWatch;
use crate::config::Options;
use crate::directory::Directory;
use crate::events::Events;
use crate::graphql::Api;
use crate::http::{Access, Http, Lifecycle};
use crate::jobs::Jobs;
use crate::lease::{Lease, Terms};
use crate::metrics::Metrics;
use crate::model::{Node, ServerId, Timestamp};
use crate::processes;
use crate::reaper;
use crate::relay::Relay;
use crate::runner::{Runner, Shutdown};
use crate::scheduler::Scheduler;
use crate::store::Store;
use crate::sweeper::Sweeper;
use crate::webhooks::Webhooks;

/// How long storing the ends of jobs may take, when the server is to end.
const STORING: Duration = Duration::from_secs(10);

/// Why a server does not start, or does not go on, as it is told to whoever started it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    options: Options,
    told: Told,
    lifecycle: Lifecycle,
    shutdown: Shutdown,
    http: JoinHandle<()>,
    runner: JoinHandle<Result<(), crate::error::Error>>,
    scheduler: JoinHandle<()>,
    sweeper: JoinHandle<()>,
    clock: JoinHandle<()>,
    webhooks: JoinHandle<()>,
    lease: Lease,
    keeper: JoinHandle<()>,
    relay: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server. It accepts requests when this returns.
    pub async fn start(options: Options, access: Access) -> Result<Self, Failure> {
        // First, so that a signal from here on ends the server in its own way.
        let told = Told::new()?;
        if reaper::is_first_process() {
            tokio::spawn(reaper::reap_orphans());
        }
        let directory = Directory::open(&options.data_dir)?;
        let zone = &options.time_zone;
        tracing::info!(%zone, version = zone.source().version(), source = %zone.source(), "time zone of schedules");
        tracing::info!(directory = %directory.path().display(), "opening the database");
        let metrics = Metrics::default();
        let store = open_store(&directory, &options, &metrics).await?;
        let events = if store.is_shared() { Events::shared() } else { Events::default() };
        let directory = if store.is_shared() { directory.sharing(options.shared_dir.as_deref())? } else { directory };
        let lease = join(&store, node(&directory, &options), options.terms()).await?;
        let catalogue = Catalogue::read(&directory.plugins())?;
        let key_file = options.key_file.clone().unwrap_or_else(|| directory.key());
        let cipher = open_cipher(&store, &key_file).await?;
        let jobs = Jobs::new(
            store.clone(),
            events.clone(),
            metrics.clone(),
            catalogue.clone(),
            cipher,
            options.rules(),
            lease.node().clone(),
        );
        if store.is_shared() && !jobs.note_key().await.map_err(explain)? {
            return Err(KeyError::AnotherKey(key_file).into());
        }
        jobs.seal_what_is_not().await.map_err(explain)?;
        jobs.set_name_keys().await.map_err(explain)?;
        let waits = options.webhooks.longest_waits();
        let clock = ClockWatch::new(store.clone(), jobs.clone(), events.clone(), metrics.clone(), waits);
        clock.begin().await.map_err(explain)?;
        jobs.begin_schedules(lease.node()).await.map_err(explain)?;

        let listener = listen(options.listen).await?;
        let address = listener.local_addr()?;
        let admin = match options.admin_listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
        let lifecycle = Lifecycle::default();
        let settings = options.graphql.clone();
        let api = Api::new(store.clone(), jobs.clone(), catalogue, events.clone(), metrics.clone(), settings).await?;
        let bounds = options.bounds.clone();
        let http = Http::new(api, store.clone(), events.clone(), access, bounds, lifecycle.clone(), metrics.clone());
        let http = tokio::spawn(http.serve(listener, admin));

        let shutdown = Shutdown::default();
        let limits = options.limits();
        let meltano = options.meltano.found_in(directory.meltano(), directory.meltano_state());
        let of_webhooks = options.webhooks.clone();
        let webhooks = Webhooks::new(store.clone(), jobs.clone(), events.clone(), metrics.clone(), of_webhooks)
            .map_err(explain)?;
        let webhooks = tokio::spawn(webhooks.run());
        let scheduler = tokio::spawn(Scheduler::new(jobs.clone(), events.clone()).run());
        let clock = tokio::spawn(clock.run());
        let keeper = tokio::spawn(lease.clone().keep());
        let relay = store
            .is_shared()
            .then(|| tokio::spawn(Relay::new(store.clone(), events.clone(), lease.node().id, options.hears()).run()));
        let runner = Runner::new(
            jobs,
            lease.clone(),
            events.clone(),
            directory.clone(),
            meltano,
            limits,
            shutdown.clone(),
            metrics.clone(),
        );
        let runner = tokio::spawn(runner.run(options.slots));
        let sweeper = Sweeper::new(store, events, directory, metrics, options.keep_status_changes);
        let sweeper = tokio::spawn(sweeper.run());
        if let Some(address) = admin_address {
            tracing::info!(%address, "serving health and metrics at a second address");
        }
        tracing::info!(slots = options.slots, "serving: GraphiQL is at http://{address}/");
        Ok(Self {
            address,
            options,
            told,
            lifecycle,
            shutdown,
            http,
            runner,
            scheduler,
            sweeper,
            clock,
            webhooks,
            lease,
            keeper,
            relay,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until a signal says to end, then shuts down.
    pub async fn serve_until_told(mut self) -> Result<(), Failure> {
        tokio::select! {
            () = self.told.wait() => self.shut_down().await,
            ended = &mut self.http => Err(format!("the listener has ended: {ended:?}").into()),
            ended = &mut self.runner => Err(format!("the runner has ended: {ended:?}").into()),
        }
    }

    /// Waits until a signal says to end.
    pub async fn told_to_end(&mut self) {
        self.told.wait().await;
    }

    /// Shuts down at once: what runs is ended, and queued again.
    pub async fn stop(self) -> Result<(), Failure> {
        self.shutdown.interrupt();
        self.shut_down().await
    }

    /// Starts no more jobs, gives the running ones their grace, ends what is left, then closes the connections. Until then
    /// subscribers see what happens. A second signal ends the grace.
    pub async fn shut_down(mut self) -> Result<(), Failure> {
        tracing::info!(grace = ?self.options.shutdown_grace, "shutting down: waiting for running jobs");
        self.lifecycle.draining.cancel();
        self.scheduler.abort();
        self.shutdown.drain();
        let drained = tokio::select! {
            drained = &mut self.runner => Some(drained),
            () = sleep(self.options.shutdown_grace) => None,
            () = self.told.wait() => None,
        };
        let ended = match drained {
            Some(ended) => ended,
            None => {
                tracing::info!("ending the jobs that still run; they are queued again");
                self.shutdown.interrupt();
                // If the database cannot be written, how they ended cannot be stored: the next server finds that out.
                let patience = self.options.stop_grace + STORING;
                timeout(patience, &mut self.runner)
                    .await
                    .map_err(|_| "how the jobs ended could not be stored in time")?
            }
        };
        self.sweeper.abort();
        self.clock.abort();
        self.webhooks.abort();
        self.keeper.abort();
        if let Err(error) = self.lease.release().await {
            tracing::warn!(?error, "the lease could not be given back; others wait until it is over");
        }
        self.lifecycle.closing.cancel();
        let closed = self.http.await;
        self.relay.iter().for_each(JoinHandle::abort);
        ended?.map_err(|error| format!("{error:?}"))?;
        closed?;
        tracing::info!("ended");
        Ok(())
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    Ok(TcpListener::bind(address).await.map_err(|error| format!("cannot listen at {address}: {error}"))?)
}

/// Why the database cannot be used, for whoever started the server.
pub(crate) fn explain(error: crate::error::Error) -> Failure {
    match error.detail() {
        Some(detail) => format!("the database cannot be used: {detail}").into(),
        None => format!("the database cannot be used: {error}").into(),
    }
}

/// This process, as others are to know it.
fn node(directory: &Directory, options: &Options) -> Node {
    let (pid, pid_start) = processes::own();
    let name = options.node_name.clone().unwrap_or_else(processes::host_name);
    Node {
        id: ServerId::random(),
        name,
        started: Timestamp::now(),
        lease_until: Timestamp::now(),
        pid,
        pid_start,
        machine: processes::machine(),
        home: directory.home(),
        directory: directory.path().display().to_string(),
        shared: directory.shared(),
        lease_length: 0,
    }
}

/// Registers a node, if it shares with the others what all have to share.
async fn join(store: &Store, node: Node, terms: Terms) -> Result<Lease, Failure> {
    has_what_others_have(store, &node).await?;
    let lease = Lease::take(store.clone(), node, terms).await.map_err(explain)?;
    // Of two that start at the same time, one at least sees the other now.
    if let Err(refused) = has_what_others_have(store, lease.node()).await {
        lease.release().await.map_err(explain)?;
        return Err(refused);
    }
    Ok(lease)
}

/// Refuses a node whose shared directory is not that of the nodes that are there.
async fn has_what_others_have(store: &Store, node: &Node) -> Result<(), Failure> {
    if !store.is_shared() {
        return Ok(());
    }
    let read = store.read(|conn| async { Ok((conn.now().await?, conn.nodes().await?)) }.boxed());
    let (now, nodes) = read.await.map_err(explain)?;
    let mut others = nodes.iter().filter(|other| other.home != node.home && !other.is_late(now));
    match others.find(|other| other.shared != node.shared) {
        None => Ok(()),
        Some(other) => Err(format!(
            "the server {} of this database has another shared directory: all servers of a database need the same --shared-dir. If it is gone, its \
             lease is over at {}.",
            other.name, other.lease_until
        )
        .into()),
    }
}

async fn open_cipher(store: &Store, key_file: &Path) -> Result<Cipher, Failure> {
    let wanted = store.read(|conn| conn.encryption_key().boxed()).await.map_err(explain)?;
    Ok(Cipher::open(key_file, wanted.as_deref())?)
}

/// Opens the database that the options name, and brings its schema up to date.
pub(crate) async fn open_store(directory: &Directory, options: &Options, metrics: &Metrics) -> Result<Store, Failure> {
    let metrics = metrics.clone();
    let opened = match &options.database.database_url {
        None => Store::open_sqlite(&directory.database(), options.database.sqlite_synchronous, metrics).await,
        Some(url) => {
            Store::open_postgres(url.clone(), usize::from(options.database.database_connections), metrics).await
        }
    };
    opened.map_err(explain)
}

/// The signals that tell a server to end. From when this is made they do nothing else.
#[derive(Debug)]
struct Told {
    terminate: Signal,
    interrupt: Signal,
}

impl Told {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
