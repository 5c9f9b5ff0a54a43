//! A host that hangs, as clients see it.

use tokio::{net::TcpListener, task::JoinHandle};

/// Accepts connections on a free port of the loopback interface and never answers.
#[derive(Debug)]
pub struct SilentHost {
    port: u16,
    task: JoinHandle<()>,
}

impl SilentHost {
    /// Begins to listen.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let task = tokio::spawn(async move {
            let mut connections = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                connections.push(connection);
            }
        });
        Self { port, task }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for SilentHost {
    fn drop(&mut self) {
        self.task.abort();
    }
}
