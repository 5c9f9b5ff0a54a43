//! The task that carries acknowledgements and their like to the backend, many in one round trip.
//!
//! While one round trip is under way, requests gather; the next one takes them all. So a single acknowledgement waits
//! for nobody, and a thousand at once cost what one costs.

use std::sync::Arc;

use pulse_core::EventId;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::member::{Member, Request, Verdict};
use crate::{Error, backoff::Backoff};

/// The most requests that one round trip carries.
const BATCH: usize = 2048;

type Reply = Option<oneshot::Sender<Result<(), Error>>>;

/// Settles deliveries of one instance on one stream.
pub(super) struct Settler {
    pub(super) member: Arc<Member>,
    /// Filled by deliveries and by the reading task.
    pub(super) requests: mpsc::UnboundedReceiver<Request>,
    /// Cancelled when the instance leaves: what is queued is then settled, and nothing more is accepted.
    pub(super) stop: CancellationToken,
}

impl Settler {
    pub(super) async fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled(), if !self.requests.is_closed() => self.requests.close(),
                received = self.requests.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return;
                    }
                    self.settle(std::mem::take(&mut batch)).await;
                }
            }
        }
    }

    async fn settle(&self, batch: Vec<Request>) {
        let (mut acks, mut nacks, mut extensions) = (Vec::new(), Vec::new(), Vec::new());
        for request in batch {
            match request.verdict {
                Verdict::Ack => acks.push((request.id, request.reply)),
                Verdict::Nack => nacks.push((request.id, request.reply)),
                Verdict::Extend => extensions.push((request.id, request.reply)),
            }
        }
        if !acks.is_empty() {
            let outcome = self.ack(ids(&acks)).await.map_err(self.member.failed(Verdict::Ack));
            self.member.ledger().settled(ids(&acks));
            answer(acks, |_| outcome.clone());
        }
        if !nacks.is_empty() {
            let outcome = self.member.release(&ids(&nacks)).await.map_err(self.member.failed(Verdict::Nack));
            answer(nacks, |_| outcome.clone());
        }
        if !extensions.is_empty() {
            let outcome = self.member.touch(&ids(&extensions)).await.map_err(self.member.failed(Verdict::Extend));
            answer(extensions, |id| match &outcome {
                Ok(held) if held.contains(&id) => Ok(()),
                Ok(_) => Err(self.member.superseded(id)),
                Err(error) => Err(error.clone()),
            });
        }
    }

    /// Acknowledges, and tries again while that can still keep the events from being delivered again.
    async fn ack(&self, ids: Vec<EventId>) -> Result<(), pulse_core::Error> {
        let give_up = Instant::now() + self.member.timing.grace;
        let mut backoff = Backoff::default();
        loop {
            let Err(error) = self.member.ack(ids.clone()).await else { return Ok(()) };
            let pause = backoff.next(rand::random());
            if !error.is_retryable() || self.stop.is_cancelled() || Instant::now() + pause >= give_up {
                tracing::warn!(stream = %self.member.stream, sink = %self.member.group, %error, "acknowledgement failed");
                return Err(error);
            }
            tracing::debug!(stream = %self.member.stream, %error, ?pause, "acknowledgement failed, trying again");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }
}

fn ids(requests: &[(EventId, Reply)]) -> Vec<EventId> {
    requests.iter().map(|(id, _)| *id).collect()
}

fn answer(requests: Vec<(EventId, Reply)>, outcome: impl Fn(EventId) -> Result<(), Error>) {
    for (id, reply) in requests {
        if let Some(reply) = reply {
            // Nobody has to wait for the outcome.
            let _ = reply.send(outcome(id));
        }
    }
}
