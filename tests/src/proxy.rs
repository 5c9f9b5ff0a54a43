//! A link that can be cut, that can become a black hole, and that can lead elsewhere.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// A TCP proxy on a free port of the loopback interface.
///
/// It fails in two ways. [Cut](Self::cut), it drops its connections and refuses new ones, as when a process dies. When
/// it [swallows](Self::swallow), its connections stay open and carry nothing any more, as when a middlebox has forgotten
/// them or a host has lost its power.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// # let port = tests::SilentHost::start().await.port();
/// let proxy = tests::Proxy::before(port).await;
/// let _connection = tokio::net::TcpStream::connect(("127.0.0.1", proxy.port())).await;
/// proxy.swallow(); // This connection carries nothing any more; the next one does.
/// # }
/// ```
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: Arc<watch::Sender<State>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    /// Where new connections lead.
    target: u16,
    is_whole: bool,
    /// How many connections were accepted.
    accepted: usize,
    /// Connections with numbers below this carry nothing.
    swallowed: usize,
    /// How many bytes a second each connection carries towards the client.
    rate: Option<u32>,
}

impl State {
    fn carries(&self, connection: usize) -> bool {
        self.is_whole && connection >= self.swallowed
    }
}

impl Proxy {
    /// Stands before a port of the loopback interface.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let own = listener.local_addr().expect("it has an address").port();
        let state = State { target: port, is_whole: true, accepted: 0, swallowed: 0, rate: None };
        let state = Arc::new(watch::Sender::new(state));
        let task = tokio::spawn(accept(listener, state.clone()));
        Self { port: own, state, task }
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of the server behind it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// How many connections it has accepted so far, also while it was cut.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.state.borrow().accepted
    }

    /// Cuts the link: drops its connections and refuses new ones.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.is_whole = false);
    }

    /// Has the connections of this moment stay open and carry nothing any more, in neither direction. New ones work.
    pub fn swallow(&self) {
        self.state.send_modify(|state| state.swallowed = state.accepted);
    }

    /// Has all connections carry nothing any more: new ones are accepted and never answered.
    pub fn swallow_all(&self) {
        self.state.send_modify(|state| state.swallowed = usize::MAX);
    }

    /// Carries no more than so many bytes a second towards the client, on each connection.
    pub fn slow_down(&self, rate: u32) {
        self.state.send_modify(|state| state.rate = Some(rate));
    }

    /// Leads new connections to another port: the name moves. Those that stand stay where they are.
    pub fn redirect(&self, port: u16) {
        self.state.send_modify(|state| state.target = port);
    }

    /// Mends it: new connections work again. What was swallowed is lost.
    pub fn mend(&self) {
        self.state.send_modify(|state| {
            state.is_whole = true;
            state.swallowed = state.swallowed.min(state.accepted);
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<watch::Sender<State>>) {
    while let Ok((near, _)) = listener.accept().await {
        let mut number = 0;
        state.send_modify(|state| {
            number = state.accepted;
            state.accepted += 1;
        });
        if state.borrow().is_whole {
            tokio::spawn(keep(near, number, state.subscribe()));
        }
    }
}

/// Holds a connection until the link is cut or the connection ends.
async fn keep(mut near: TcpStream, number: usize, mut state: watch::Receiver<State>) {
    let target = {
        let state = state.borrow();
        state.carries(number).then_some(state.target)
    };
    // Where nothing was carried yet, nothing needs to be held at the other end.
    let mut far = None;
    let rates = state.clone();
    if let Some(target) = target {
        let Ok(connected) = TcpStream::connect(("127.0.0.1", target)).await else { return };
        let far = far.insert(connected);
        tokio::select! {
            () = carry(&mut near, far, &rates) => return,
            _ = state.wait_for(|state| !state.carries(number)) => {}
        }
    }
    // Both ends stay open, and nothing is read from them.
    let _ = state.wait_for(|state| !state.is_whole).await;
    drop((near, far));
}

/// Carries both ways until one end is closed.
async fn carry(near: &mut TcpStream, far: &mut TcpStream, state: &watch::Receiver<State>) {
    let (mut from_near, mut to_near) = near.split();
    let (mut from_far, mut to_far) = far.split();
    let down = async {
        let mut chunk = vec![0; 16 << 10];
        loop {
            let length = match from_far.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(length) => length,
            };
            let rate = state.borrow().rate;
            if let Some(rate) = rate {
                tokio::time::sleep(std::time::Duration::from_secs_f64(length as f64 / f64::from(rate))).await;
            }
            if to_near.write_all(&chunk[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = down => {}
        // However it ends, both connections end with it.
        _ = copy(&mut from_near, &mut to_far) => {}
    }
}
