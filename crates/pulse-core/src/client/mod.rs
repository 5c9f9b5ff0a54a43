//! The handle that users hold: a cheap clone around a backend.

mod background;
mod builder;
mod options;
#[cfg(feature = "rustls")]
mod tls;

use std::{fmt, sync::Arc};

pub(crate) use self::background::Background;
pub use self::builder::{ClientBuilder, Reconnect};
#[cfg(feature = "rustls")]
#[cfg_attr(docsrs, doc(cfg(feature = "rustls")))]
pub use self::tls::Tls;
use crate::{
    Backend, Committed, Error, Scope, Transaction, meter,
    sweeper::{SweepGuard, Sweepers, soonest_deadline},
};

/// A connection to a backend, shared by everything that is built on it. Cloning is cheap and shares the connection.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Arc<dyn Backend>,
    sweepers: Sweepers,
    background: Background,
}

/// Connects with the default options.
///
/// | URL | what |
/// |---|---|
/// | `memory:` | embedded, private to this client |
/// | `memory:NAME` | embedded, shared by name inside the process |
/// | `redis://HOST:PORT[/DB]`, `rediss://…` | a server, without or with TLS (feature `rustls`) |
/// | `redis-cluster://HOST:PORT[?node=HOST:PORT…]`, `rediss-cluster://…` | a cluster |
/// | `redis-sentinel://HOST:PORT/DB?sentinelServiceName=NAME[&node=HOST:PORT…]`, `rediss-sentinel://…` | Sentinel |
/// | `redis+unix:///PATH` | a server behind a unix socket |
///
/// `valkey` may stand wherever `redis` does. User and password go where URLs have them: `redis://user:password@host`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), pulse_core::Error> {
/// let client = pulse_core::connect("memory:").await?;
/// # client.close().await;
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// [`Error::InvalidUrl`], [`Error::InvalidTls`], [`Error::Connect`], [`Error::Auth`], [`Error::Denied`],
/// [`Error::UnsupportedServer`].
pub async fn connect(url: impl AsRef<str>) -> Result<Client, Error> {
    ClientBuilder::new(url).connect().await
}

impl Client {
    /// Wraps a backend of your own.
    #[must_use]
    pub fn from_backend(backend: Arc<dyn Backend>) -> Self {
        Self { inner: Arc::new(Inner { backend, sweepers: Sweepers::default(), background: Background::default() }) }
    }

    /// The backend, for everything that is not a transaction.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.inner.backend
    }

    /// Carries out a transaction; see [`Backend::commit`].
    ///
    /// # Errors
    ///
    /// Those of [`Backend::commit`].
    pub async fn commit(&self, transaction: Transaction) -> Result<Committed, Error> {
        let deadline = soonest_deadline(&transaction).map(|deadline| (transaction.scope().clone(), deadline));
        let result = self.inner.backend.commit(transaction).await;
        meter::committed(&result);
        let committed = result?;
        if let Some((scope, deadline)) = deadline {
            self.inner.sweepers.learn(&scope, deadline);
        }
        Ok(committed)
    }

    /// Keeps a scope swept for as long as the guard and the client live: entries, leases and maps past their deadline
    /// are removed soon after it. All guards of one client and scope share one task.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn keep_swept(&self, scope: &Scope) -> SweepGuard {
        self.inner.sweepers.guard(&self.inner.backend, &self.inner.background, scope)
    }

    /// Ends the background work and closes the connections: sweeps stop, and [`Session`](crate::Session)s that are
    /// still open are lost. Calls after it fail with [`Error::Closed`]. Safe to call twice.
    pub async fn close(&self) {
        self.inner.background.stop().await;
        self.inner.backend.close().await;
    }

    pub(crate) fn background(&self) -> &Background {
        &self.inner.background
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("target", &self.inner.backend.target()).finish_non_exhaustive()
    }
}
