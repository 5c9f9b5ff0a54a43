//! The server's clock, as this node reckons it between two looks at it.
//!
//! What is to happen at a certain time (a delayed start, a tick) is written down in the server's time, so that nodes
//! whose own clocks differ agree on it. What must not happen twice does not rest on this.

use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};

use pulse_core::{Client, Error, Scope};
use tokio::time::Instant;

/// Further ahead than anybody waits.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Debug)]
pub(crate) struct Clock {
    /// A moment here, and the server's time at it, in milliseconds.
    read: RwLock<(Instant, u64)>,
}

impl Clock {
    pub(crate) async fn read(client: &Client, scope: &Scope) -> Result<Self, Error> {
        Ok(Self { read: RwLock::new(look(client, scope).await?) })
    }

    /// Looks again, because clocks drift apart.
    ///
    /// # Errors
    ///
    /// Those of the backend; what was read before is about as good, unless the server is another one.
    pub(crate) async fn adjust(&self, client: &Client, scope: &Scope) -> Result<(), Error> {
        let read = look(client, scope).await?;
        *self.read.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    /// The server's time, in milliseconds since the epoch.
    pub(crate) fn now(&self) -> u64 {
        let (at, time) = *self.read.read().unwrap_or_else(PoisonError::into_inner);
        time.saturating_add(u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// When the server's clock shows a time; now if it has passed.
    pub(crate) fn moment(&self, time: u64) -> Instant {
        let ahead = Duration::from_millis(time.saturating_sub(self.now()));
        Instant::now() + ahead.min(FAR)
    }
}

async fn look(client: &Client, scope: &Scope) -> Result<(Instant, u64), Error> {
    let asked = Instant::now();
    let time = client.backend().server_time(scope).await?;
    Ok((asked + asked.elapsed() / 2, time.0))
}
