//! Notifying jobs.

use std::time::Duration;

use bytes::Bytes;
use pulse_core::entropy;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Node;
use crate::{
    Error, JobKey,
    new_job::millis,
    post::{Answer, Note, Post},
    record::{JobRecord, Phase},
    tables::{MOST_POSTS, Refusal},
    watch::{Seen, Watch},
    write::{BackOff, Written, write},
};

/// How long to wait for a record to change that is about to.
const MOMENT: Duration = Duration::from_millis(50);

impl Node {
    /// Hands something to a running job, and returns once its handler has dealt with it
    /// ([`JobHandler::notify`](crate::JobHandler::notify)), on whichever node it runs. A job that is about to start, or
    /// moves, is waited for.
    ///
    /// What one task sends to a job arrives in the order in which it was sent. It arrives **at least once**: if the job
    /// moves in the very moment, its next worker may be told again.
    ///
    /// A notification is worth as much as its sender's patience: a job that could not be told by the time-out of this node
    /// ([`timeout`](crate::NodeBuilder::timeout)) is not told later, as where its node was away, or its handler busy. Up
    /// to a thousand wait for the jobs of one node; others wait here until there is room.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownJob`] if there is no such job, or it is being stopped; [`Error::NotNotifiable`] if its handler
    /// takes no notifications; [`Error::NotifyFailed`] with what the handler said; [`Error::NotStarted`] if the job
    /// does not run in time; [`Error::TooManyNotifications`] if too many others wait for the jobs of its node until then;
    /// [`Error::Backend`], [`Error::TimedOut`] and [`Error::Closed`], of which the first two say
    /// by [`Error::is_outcome_unknown`] whether it may have arrived.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the job may be notified or not.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use bytes::Bytes;
    /// # use pulse_pool::{HandlerError, Job, JobHandler, JobKey, Node};
    /// struct Lamp;
    ///
    /// #[pulse_pool::async_trait]
    /// impl JobHandler for Lamp {
    ///     # async fn start(&self, _: Job) -> Result<(), HandlerError> { Ok(()) }
    ///     # async fn stop(&self, _: &JobKey) -> Result<(), HandlerError> { Ok(()) }
    ///     async fn notify(&self, key: &JobKey, payload: Bytes) -> Result<(), HandlerError> {
    ///         println!("{key} turns {}", std::str::from_utf8(&payload)?);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let client = pulse_pool::connect("memory:").await?;
    /// let node = Node::join(&client, "lamps").await?;
    /// node.add_worker(Lamp).await?;
    /// node.dispatch("hall", "").await?;
    /// node.notify("hall", "red").await?; // it is red now
    /// # client.close().await;
    /// # Ok(()) }
    /// ```
    pub async fn notify(&self, key: impl AsRef<str>, payload: impl Into<Bytes>) -> Result<(), Error> {
        let (key, deadline) = (JobKey::new(key)?, self.deadline());
        let id = format!("{:016x}{:016x}", entropy::number(), entropy::number());
        let _forgets_on_drop = self.pool.waiting.until_dropped(&id);
        // Where the backend is silent nobody looks at the deadline.
        let notified = timeout_at(deadline + MOMENT, self.notify_by(&key, payload.into(), &id, deadline)).await;
        notified.unwrap_or_else(|_| Err(self.pool.timed_out("notify")))
    }

    async fn notify_by(&self, key: &JobKey, payload: Bytes, id: &str, deadline: Instant) -> Result<(), Error> {
        let (pool, failed) = (&self.pool, self.pool.backend("notify"));
        let mut watch = self.watch(key, deadline, "notify").await?;
        let (mut was_sent, mut is_full) = (false, false);
        let mut back_off = BackOff::new(MOMENT, 10 * MOMENT);
        loop {
            if self.is_closed() {
                return Err(pool.closed());
            }
            if Instant::now() >= deadline {
                let (pool_name, after) = (pool.name.to_string(), pool.options.timeout);
                return Err(if was_sent {
                    pool.timed_out("notify")
                } else if is_full {
                    Error::TooManyNotifications { pool: pool_name, key: key.clone(), limit: MOST_POSTS }
                } else {
                    Error::NotStarted { pool: pool_name, key: key.clone(), after }
                });
            }
            let Some((raw, record)) = self.running(key).await.map_err(&failed)? else {
                return Err(Error::UnknownJob { pool: pool.name.to_string(), key: key.clone() });
            };
            let owner = record.owner().filter(|_| record.phase == Phase::Running);
            let node = owner.and_then(|owner| Some(pool.members.borrow().get(owner)?.node));
            let Some(node) = node else {
                self.moment(&mut watch, deadline).await?;
                continue;
            };
            let answer = pool.waiting.wait(id);
            let left = deadline.saturating_duration_since(Instant::now());
            let note = Note {
                key: key.clone(),
                assignment: record.assignment,
                from: pool.node,
                until: pool.clock.now().saturating_add(millis(left)),
                payload: payload.clone(),
            };
            let change = pool.tables.note(key, &raw, node, id, Post::Note(note).encode(), left);
            let was_sent_before = std::mem::replace(&mut was_sent, true);
            let written = write(pool.tables.client(), &change, None, Some(deadline)).await.map_err(&failed)?;
            if let Written::Refused(refusal) = written {
                was_sent = was_sent_before;
                is_full = refusal == Refusal::InboxFull;
                if is_full {
                    // If it takes too long, that is seen above.
                    let _ = timeout_at(deadline, back_off.pause()).await;
                } else {
                    self.moment(&mut watch, deadline).await?;
                }
                continue;
            }
            // The note stands there, or did.
            let answer = tokio::select! {
                biased;
                answer = answer => answer.unwrap_or(Answer::NotHere),
                () = self.until_other(key, &mut watch, &record) => Answer::NotHere,
                () = sleep_until(deadline) => return Err(pool.timed_out("notify")),
            };
            match answer {
                Answer::Done => return Ok(()),
                Answer::NotHere => self.moment(&mut watch, deadline).await?,
                Answer::NotTaken => {
                    return Err(Error::NotNotifiable { pool: pool.name.to_string(), key: key.clone() });
                }
                Answer::Failed(message) => {
                    return Err(Error::NotifyFailed { pool: pool.name.to_string(), key: key.clone(), message });
                }
            }
        }
    }

    /// The record of a job that may be notified now or soon, from the replica, or from the backend where the replica
    /// shows none: it may be behind.
    async fn running(&self, key: &JobKey) -> Result<Option<(Bytes, JobRecord)>, pulse_core::Error> {
        let running = |raw: Bytes| {
            let record = JobRecord::read(&raw)?;
            (record.is_job() && record.phase != Phase::Stopping).then_some((raw, record))
        };
        let tables = &self.pool.tables;
        match tables.jobs.get_raw(key.as_str()).and_then(running) {
            Some(shown) => Ok(Some(shown)),
            None => Ok(tables.read_record(key).await?.and_then(running)),
        }
    }

    /// Waits until the record changes, or a moment.
    async fn moment(&self, watch: &mut Watch, deadline: Instant) -> Result<(), Error> {
        match timeout_at(deadline.min(Instant::now() + MOMENT), watch.next()).await {
            Ok(None) => Err(self.pool.closed()),
            Ok(Some(_)) | Err(_) => Ok(()),
        }
    }

    /// Waits until the job is not that activation any more.
    async fn until_other(&self, key: &JobKey, watch: &mut Watch, record: &JobRecord) {
        // What was seen before says nothing, and the replica may lag behind what the backend told.
        let mut is_seen = false;
        while watch.next().await.is_some() {
            let now = if self.pool.options.replicates {
                self.pool.tables.jobs.get_raw(key.as_str())
            } else {
                // If it cannot be read, the next change will tell.
                let Ok(now) = self.pool.tables.read_record(key).await else { continue };
                is_seen = true;
                now
            };
            let is_there = now.and_then(Seen::read).is_some_and(|now| now.assignment == record.assignment);
            if is_seen && !is_there {
                return;
            }
            is_seen |= is_there;
        }
    }
}
