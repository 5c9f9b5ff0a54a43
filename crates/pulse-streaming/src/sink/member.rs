//! What the parts of a sink instance share for one stream: who it is, its books, and the way to the settler.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pulse_core::{Backend, Client, Consumer, EventId, Group, StreamId, Transaction};
use tokio::sync::{Notify, mpsc, oneshot};

use super::{ledger::Ledger, ordered::Lane, plan::Timing};
use crate::{Error, Operation, meter::Meter};

/// One instance of a sink on one stream: a consumer of the group.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) client: Client,
    pub(super) stream: StreamId,
    pub(super) group: Group,
    pub(super) consumer: Consumer,
    pub(super) timing: Timing,
    pub(super) meter: Meter,
    ledger: Mutex<Ledger>,
    /// Read by the settler until it stops.
    requests: mpsc::UnboundedSender<Request>,
    /// Told when events may be claimed before the next tick.
    pub(super) claim_soon: Notify,
    /// Where the events wait of a partition that is handed out in order.
    pub(super) lane: Option<Arc<Lane>>,
}

/// What is to happen with a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is done.
    Ack,
    /// Somebody else may have it now.
    Nack,
    /// It is being worked on: the grace period begins anew.
    Extend,
}

/// A verdict on its way to the backend.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: EventId,
    pub(super) verdict: Verdict,
    /// Whoever waits for the outcome.
    pub(super) reply: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Member {
    pub(super) fn new(
        client: &Client,
        stream: &StreamId,
        group: &Group,
        timing: Timing,
        requests: mpsc::UnboundedSender<Request>,
    ) -> Result<Self, Error> {
        // Unique for each instance, so that a restarted process never takes over what another one holds.
        let consumer = Consumer::new(format!("{:016x}", rand::random::<u64>())).map_err(Error::name)?;
        Ok(Self {
            client: client.clone(),
            stream: stream.clone(),
            group: group.clone(),
            consumer,
            timing,
            meter: Meter::new(stream, group.as_str()),
            ledger: Mutex::default(),
            requests,
            claim_soon: Notify::new(),
            lane: None,
        })
    }

    pub(super) fn backend(&self) -> &dyn Backend {
        &**self.client.backend()
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a verdict to the settler; gives it back if the settler has stopped.
    pub(super) fn request(&self, request: Request) -> Result<(), Request> {
        self.requests.send(request).map_err(|mpsc::error::SendError(request)| request)
    }

    /// Sends a verdict whose outcome nobody waits for. If it gets lost, the event is delivered again.
    pub(super) fn request_quietly(&self, id: EventId, verdict: Verdict) {
        // A settler that has stopped means that the sink is closed; the event is then released anyway.
        let _ = self.request(Request { id, verdict, reply: None });
    }

    /// Acknowledges events, all in one round trip. Repeating it changes nothing.
    pub(super) async fn ack(&self, ids: Vec<EventId>) -> Result<(), pulse_core::Error> {
        let count = ids.len();
        let transaction = Transaction::new(self.stream.scope()).ack(self.stream.name().clone(), &self.group, ids);
        self.client.commit(transaction).await?;
        self.meter.acked(count);
        Ok(())
    }

    /// Offers events to the next claim, whoever makes it.
    pub(super) async fn release(&self, ids: &[EventId]) -> Result<(), pulse_core::Error> {
        let idle = self.timing.released();
        self.backend().group_set_idle(&self.stream, &self.group, &self.consumer, ids, idle).await?;
        self.claim_soon.notify_one();
        Ok(())
    }

    /// Begins the grace period of events anew, and returns those that are still this instance's.
    pub(super) async fn touch(&self, ids: &[EventId]) -> Result<Vec<EventId>, pulse_core::Error> {
        let idle = Duration::ZERO;
        self.backend().group_set_idle(&self.stream, &self.group, &self.consumer, ids, idle).await
    }

    /// Carries out one verdict without the settler.
    pub(super) async fn settle(&self, id: EventId, verdict: Verdict) -> Result<(), Error> {
        match verdict {
            Verdict::Ack => self.ack(vec![id]).await.map_err(self.failed(verdict)),
            Verdict::Nack => self.release(&[id]).await.map_err(self.failed(verdict)),
            Verdict::Extend => {
                let held = self.touch(&[id]).await.map_err(self.failed(verdict))?;
                if held.contains(&id) { Ok(()) } else { Err(self.superseded(id)) }
            }
        }
    }

    pub(super) fn superseded(&self, id: EventId) -> Error {
        Error::Superseded { stream: self.stream.clone(), id }
    }

    /// Makes the error of a verdict; for `map_err`.
    pub(super) fn failed(&self, verdict: Verdict) -> impl Fn(pulse_core::Error) -> Error {
        let operation = match verdict {
            Verdict::Ack => Operation::Ack,
            Verdict::Nack => Operation::Nack,
            Verdict::Extend => Operation::Extend,
        };
        Error::on(operation, &self.stream)
    }
}
