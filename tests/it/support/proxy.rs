//! A TCP proxy, for connections that break.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// A TCP proxy on the loopback interface. It ends, and its connections with it, when dropped.
///
/// What it cannot imitate: the kernel goes on to answer for a connection that is cut, so that the keepalive of TCP finds
/// nothing wrong with it.
pub struct Proxy {
    address: SocketAddr,
    /// The one that accepts connections, once more.
    listener: Arc<std::net::TcpListener>,
    state: watch::Sender<State>,
    /// Its own, with one thread. Nothing, once it is dropped.
    runtime: Option<Runtime>,
}

/// What becomes of connections.
#[derive(Clone, Copy, Default)]
struct State {
    /// Whether nothing gets through.
    cut: bool,
    /// How often all connections have been closed: what is of an earlier age is over.
    age: u64,
}

impl Proxy {
    /// A proxy before this address.
    pub fn to(target: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let accepting = listener.try_clone().expect("a listener");
        let (state, observer) = watch::channel(State::default());
        runtime.spawn(async move {
            let listener = TcpListener::from_std(accepting).expect("a listener");
            loop {
                let (client, _) = listener.accept().await.expect("a connection");
                let age = observer.borrow().age;
                tokio::spawn(carry(client, target, age, observer.clone()));
            }
        });
        Self { address, listener: Arc::new(listener), state, runtime: Some(runtime) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nothing gets through, as if every packet were lost. Connections stay open, also if the other side closes
    /// them; new ones are accepted, and never answered.
    pub fn cut(&self) {
        self.change(|state| State { cut: true, ..state });
    }

    /// From now on new connections get through again. Those from before are closed.
    pub fn heal(&self) {
        self.change(|state| State { cut: false, age: state.age + 1 });
    }

    /// Closes all connections. New ones fare as before.
    pub fn sever(&self) {
        self.change(|state| State { age: state.age + 1, ..state });
    }

    /// Changes the state on the thread that carries the data: when this returns, none is on its way in the old state.
    fn change(&self, change: impl FnOnce(State) -> State + Send + 'static) {
        let (done, waiting) = std::sync::mpsc::channel();
        let (listener, state) = (Arc::clone(&self.listener), self.state.clone());
        self.runtime.as_ref().expect("a runtime").spawn(async move {
            let before = state.borrow().age;
            state.send_modify(|it| *it = change(*it));
            // What the kernel has accepted and the proxy has not is of the earlier age too.
            while before != state.borrow().age && listener.accept().is_ok() {}
            done.send(()).expect("somebody who waits");
        });
        waiting.recv().expect("an answer");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Within another runtime nobody may wait for its end.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Carries the data of a connection until it is over.
async fn carry(client: TcpStream, target: SocketAddr, age: u64, state: watch::Receiver<State>) {
    let (mut severed, mut cut) = (state.clone(), state);
    // The order matters: what is cut carries nothing, even if there is something to carry.
    tokio::select! {
        biased;
        _ = severed.wait_for(|state| state.age != age) => {}
        () = pass(client, target, &mut cut) => {}
    }
}

/// Passes data both ways until one side has closed the connection, or for ever if it is cut: then what comes is not even read,
/// and the sockets stay open.
async fn pass(mut client: TcpStream, target: SocketAddr, state: &mut watch::Receiver<State>) {
    let mut server = None;
    tokio::select! {
        biased;
        _ = state.wait_for(|state| state.cut) => {}
        _ = copy(&mut client, &mut server, target) => return,
    }
    std::future::pending().await
}

/// Connects, and passes data both ways.
async fn copy(client: &mut TcpStream, server: &mut Option<TcpStream>, target: SocketAddr) -> std::io::Result<()> {
    let server = server.insert(TcpStream::connect(target).await?);
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    copy_bidirectional(client, server).await.map(drop)
}
