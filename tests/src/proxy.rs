//! A link that can be cut.

use std::sync::Arc;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// A TCP proxy on a free port of the loopback interface. Cut, it drops its connections and refuses new ones.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    is_whole: Arc<watch::Sender<bool>>,
    task: JoinHandle<()>,
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
        let is_whole = Arc::new(watch::Sender::new(true));
        let sees = is_whole.clone();
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *sees.borrow() {
                    tokio::spawn(carry(near, port, sees.subscribe()));
                }
            }
        });
        Self { port: own, is_whole, task }
    }

    /// The URL of the server behind it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Cuts the link.
    pub fn cut(&self) {
        self.is_whole.send_replace(false);
    }

    /// Mends it.
    pub fn mend(&self) {
        self.is_whole.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.task.abort();
    }
}

async fn carry(mut near: TcpStream, port: u16, mut is_whole: watch::Receiver<bool>) {
    let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    tokio::select! {
        // However it ends, both connections end with it.
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = is_whole.wait_for(|is_whole| !is_whole) => {}
    }
}
