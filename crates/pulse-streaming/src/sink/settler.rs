//! The task that carries acknowledgements and their like to the backend, many in one round trip.
//!
//! While one round trip is under way, requests gather; the next one takes them all. So a single acknowledgement waits
//! for nobody, and a thousand at once cost what one costs.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use pulse_core::EventId;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::member::{Member, Request, Verdict};
use crate::Error;

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
        let (mut acks, mut others) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
        for request in batch {
            match request.verdict {
                Verdict::Ack => acks.push((request.id, request.reply)),
                other => others.entry(other).or_default().push(request),
            }
        }
        if !acks.is_empty() {
            // How many were pending, of all attempts: one that is repeated finds what the first one acknowledged.
            let pending = AtomicU64::new(0);
            let attempt = || async {
                pending.fetch_add(self.member.ack(ids(&acks)).await?, Ordering::Relaxed);
                Ok(())
            };
            let outcome = self.member.surely(attempt).await.map_err(self.member.failed(Verdict::Ack));
            self.member.ledger().settled(ids(&acks));
            let struck_off = outcome.is_ok() && pending.into_inner() == 0 && self.member.is_struck_off().await;
            answer(acks, |id| if struck_off { Err(self.member.superseded(id)) } else { outcome.clone() });
        }
        // Each delay is a round trip of its own, so they travel side by side.
        futures::future::join_all(others.into_iter().map(|(verdict, requests)| self.carry_out(verdict, requests)))
            .await;
    }

    /// Carries out what is no acknowledgement. Acknowledgements may have taken long, so that events were delivered to
    /// this instance once more meanwhile; what was said of an earlier delivery must not touch that one.
    async fn carry_out(&self, verdict: Verdict, requests: Vec<Request>) {
        let (stale, valid): (Vec<_>, Vec<_>) = {
            let ledger = self.member.ledger();
            let is_stale =
                |request: &Request| request.deliveries.is_some_and(|count| ledger.is_superseded(request.id, count));
            requests.into_iter().partition(is_stale)
        };
        let told = |requests: Vec<Request>| requests.into_iter().map(|request| (request.id, request.reply)).collect();
        answer(told(stale), |id| Err(self.member.superseded(id)));
        let valid: Vec<(EventId, Reply)> = told(valid);
        if valid.is_empty() {
            return;
        }
        let ids = ids(&valid);
        let held = match verdict {
            Verdict::Nack(delay) => self.member.release_after(&ids, delay).await,
            Verdict::Ack | Verdict::Extend => self.member.touch(&ids).await,
        };
        let outcome = held.map_err(self.member.failed(verdict));
        answer(valid, |id| match &outcome {
            Ok(held) if held.contains(&id) => Ok(()),
            Ok(_) => Err(self.member.superseded(id)),
            Err(error) => Err(error.clone()),
        });
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
