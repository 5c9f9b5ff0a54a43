//! Leaving the pool, and shutting all of it down.

use std::sync::atomic::Ordering;

use tokio::{
    sync::oneshot,
    time::{Instant, timeout, timeout_at},
};

use super::Node;
use crate::{Error, runner::Command};

impl Node {
    /// Leaves the pool: hands every job of this node over to the worker that it belongs to then, or leaves it waiting
    /// where there is no other worker; returns when that is recorded. Safe to call twice.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] if a handler does not stop a job within the [shutdown
    /// time-out](crate::NodeBuilder::shutdown_timeout), or the backend does not answer: what is left here is then ended as
    /// by dropping the node. [`Error::NotHandedOver`] if the node was cut off from the pool, or its client was closed, so
    /// that its jobs have ended here and wait for its lease to run out. It takes no longer than that time-out in any case.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the node goes on closing.
    pub async fn close(&self) -> Result<(), Error> {
        let (pool, after) = (self.pool.name.to_string(), self.pool.options.shutdown_timeout);
        let closed = async {
            // It fails only if the runner has ended already.
            let _ = self.commands.send(Command::Close).await;
            self.tasks.wait().await;
        };
        if timeout(after, closed).await.is_err() {
            self.give_up().await;
            return Err(Error::TimedOut { operation: "close", pool, after });
        }
        if self.pool.left_behind.load(Ordering::Relaxed) { Err(Error::NotHandedOver { pool }) } else { Ok(()) }
    }

    /// Waits for a signal, and then [closes](Self::close) the node; the last line of a program that does nothing but
    /// work.
    ///
    /// ```no_run
    /// # async fn work(node: pulse_pool::Node) -> Result<(), pulse_pool::Error> {
    /// node.close_on(tokio::signal::ctrl_c()).await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`close`](Self::close).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before the signal, nothing happens.
    pub async fn close_on<T>(&self, signal: impl Future<Output = T>) -> Result<(), Error> {
        signal.await;
        self.close().await
    }

    /// Shuts the whole pool down: every node stops its jobs for good and closes, no node can join until it is done, and
    /// everything of the pool is removed from the backend, waiting and dead jobs included. Nodes that died are waited
    /// for until their leases have run out.
    ///
    /// Returns when all of that is done. If another node shuts the pool down already, it returns when this one has
    /// closed.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] if the handlers of some node do not stop their jobs within the shutdown time-out, or the
    /// backend does not answer. The nodes close all the same, and the records of the jobs stay: call it again from a
    /// new node, or let new nodes go on with them. [`Error::Closed`] if this node was closed before.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the pool is shut down all the same.
    pub async fn shutdown(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Shutdown { reply }).await.map_err(|_| self.pool.closed())?;
        let after = self.pool.options.shutdown_timeout + self.pool.options.worker_ttl;
        let deadline = Instant::now() + after;
        let timed_out = || Error::TimedOut { operation: "shut down", pool: self.pool.name.to_string(), after };
        let outcome = match timeout_at(deadline, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(self.pool.closed()),
            Err(_) => {
                self.give_up().await;
                return Err(timed_out());
            }
        };
        if timeout_at(deadline, self.tasks.wait()).await.is_err() {
            self.give_up().await;
        }
        outcome
    }

    /// Ends what is left of the node, without waiting for anything remote.
    async fn give_up(&self) {
        self.pool.gives_up.cancel();
        self.stop.cancel();
        self.tasks.wait().await;
    }
}
