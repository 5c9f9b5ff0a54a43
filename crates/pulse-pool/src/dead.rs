//! Jobs that were given up.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{JobKey, record::DeadRecord};

/// A job that was given up; see [`Node::dead_jobs`](crate::Node::dead_jobs). It is kept, with its payload, until it is
/// [replayed](crate::Node::replay) or [forgotten](crate::Node::forget_dead).
///
/// ```
/// # use pulse_pool::Node;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use pulse_pool::{Error, HandlerError, RetryPolicy};
///
/// # let client = pulse_pool::connect("memory:").await?;
/// # let node = Node::join(&client, "mails").await?;
/// node.worker_fn(|_job| async { Err::<(), HandlerError>("the server is down".into()) })
///     .retry(RetryPolicy::new().attempts(1))
///     .await?;
/// let sent = node.dispatch_and_wait::<()>(("ada@example.org", "welcome")).await;
/// assert!(matches!(sent, Err(Error::Failed { .. })));
/// for dead in node.dead_jobs().await? {
///     println!("{} was given up after {} attempts: {}", dead.key, dead.failed + 1, dead.reason);
///     node.forget_dead(&dead.key).await?; // or `replay`, once the server is up
/// }
/// # assert!(node.dead_jobs().await?.is_empty());
/// # client.close().await;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadJob {
    /// Its key.
    pub key: JobKey,
    /// What its last attempt said.
    pub reason: String,
    /// How many attempts failed before that one.
    pub failed: u32,
    /// When it was dispatched, by the server's clock.
    pub dispatched: SystemTime,
    /// When it was given up, by the server's clock.
    pub died: SystemTime,
}

impl DeadJob {
    pub(crate) fn new(key: JobKey, record: &DeadRecord) -> Self {
        let time = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        Self {
            key,
            reason: record.reason.clone(),
            failed: record.terms.failed,
            dispatched: time(record.terms.at),
            died: time(record.at),
        }
    }
}
