//! A delivery: an event in the hands of one instance, to be acknowledged.

use std::{
    fmt,
    future::Future,
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::future::BoxFuture;
use pulse_core::{Acks, EventId};
use tokio::{sync::oneshot, time::Instant};

use super::member::{Member, Request, Verdict};
use crate::{Error, Event, options::LONGEST};

/// An event that a sink handed out. Dereferences to the [`Event`].
///
/// Acknowledge it when the work is done. Dropped without a word, or held for longer than the ack grace period, the
/// event is delivered again, to this instance or to another one.
#[derive(Debug)]
pub struct Delivery {
    event: Event,
    deliveries: u64,
    hold: Hold,
}

impl Delivery {
    pub(super) fn new(event: Event, deliveries: u64, member: Arc<Member>) -> Self {
        let hold = Hold { id: event.id(), member };
        Self { event, deliveries, hold }
    }

    /// The event.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// How often the event has been delivered to the sink, this time included.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// The name of the sink.
    #[must_use]
    pub fn sink(&self) -> &str {
        self.hold.member.group.as_str()
    }

    /// Says that the work is done: once the returned future resolves with `Ok`, the event is not delivered to this
    /// sink again.
    ///
    /// The request is on its way when this returns, whether or not the future is awaited; await it to learn the
    /// outcome, or keep many and await them together. Acknowledgements in flight at one moment share a round trip.
    /// Where the connection fails, it is tried again for as long as the grace period.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`]: the event may be delivered again. [`Error::Superseded`] where it shows that nothing was pending
    /// for this instance any more, because somebody removed it from the group (`XGROUP DELCONSUMER`).
    pub fn ack(self) -> Settlement {
        let hold = self.hold;
        if hold.member.acks == Acks::None {
            return hold.settlement(Verdict::Ack, State::Done);
        }
        hold.member.ledger().acked(hold.id);
        let mut settlement = hold.request(Verdict::Ack, None);
        if let State::Direct(_) = settlement.state {
            // The sink is leaving. It must not give away what is being acknowledged.
            settlement.hold = Some(hold);
        }
        settlement
    }

    /// Gives the event back: it is delivered again as soon as an instance has room for it, with a delivery count one
    /// higher. The request is on its way when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::Superseded`] if this instance has the event once more already, if it is not pending here any more (another
    /// instance took it over, or somebody acknowledged or removed it), or if the sink needs no acknowledgements;
    /// [`Error::Backend`]: the event is delivered again after the grace period.
    pub fn nack(self) -> Settlement {
        self.nack_after(Duration::ZERO)
    }

    /// Gives the event back for later: it is delivered again once the delay has passed and an instance has room for it,
    /// with a delivery count one higher. The request is on its way when this returns.
    ///
    /// The backend keeps a delay of up to the ack grace period. The rest of a longer one is kept by this instance: if
    /// that ends, is closed or loses the backend for a grace period, the event comes back after the grace period
    /// already. In a [partition](crate::PartitionedStream) the events that follow wait with it.
    ///
    /// # Errors
    ///
    /// As [`nack`](Self::nack).
    pub fn nack_after(self, delay: Duration) -> Settlement {
        // Longer than anybody waits, and far from where adding times overflows.
        let delay = delay.min(LONGEST);
        if self.hold.member.lane.is_some() && !delay.is_zero() {
            return self.hold_back(delay);
        }
        self.request_unless_superseded(Verdict::Nack(delay))
    }

    /// Gives an event of a partition back after a delay. It stays in hand until then, and what follows it waits.
    fn hold_back(self, delay: Duration) -> Settlement {
        let Hold { id, member } = &self.hold;
        if let Some(lane) = &member.lane {
            lane.said(*id, Verdict::Nack(delay));
        }
        let (reply, outcome) = oneshot::channel();
        let settlement = self.hold.settlement(Verdict::Nack(Duration::ZERO), State::Queued(outcome));
        let (id, deliveries, member, step) = (*id, self.deliveries, member.clone(), member.timing.touch_after());
        member.clone().spawn(async move {
            let due = Instant::now() + delay;
            while Instant::now() < due {
                member.extend_quietly(id, deliveries);
                tokio::select! {
                    () = tokio::time::sleep_until(due.min(Instant::now() + step)) => {}
                    () = member.closing.cancelled() => break,
                }
            }
            // Nobody has to wait for the outcome.
            let _ = reply.send(self.request_unless_superseded(Verdict::Nack(Duration::ZERO)).await);
        });
        settlement
    }

    /// Gives the event up: it goes to the [dead letters](crate::DeadLetters) of the sink, with a reason, and is
    /// acknowledged, in one transaction. The request is on its way when this returns; it is tried again as an
    /// acknowledgement is.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`]: the event may be delivered again.
    pub fn dead_letter(self, reason: impl Into<String>) -> Settlement {
        let (reply, outcome) = oneshot::channel();
        let Self { event, deliveries, hold } = self;
        hold.member.ledger().acked(hold.id);
        if let Some(lane) = &hold.member.lane {
            lane.said(hold.id, Verdict::Ack);
        }
        let (member, reason) = (hold.member.clone(), reason.into());
        let settlement = hold.settlement(Verdict::Ack, State::Burying(outcome));
        member.clone().spawn(async move {
            let buried = member.bury_surely(event.core(), &reason, deliveries).await;
            member.ledger().settled([hold.id]);
            // Nobody has to wait for the outcome.
            let _ = reply.send(buried.map_err(member.failed(Verdict::Ack)));
        });
        settlement
    }

    /// Says that the work goes on: the ack grace period begins anew. The request is on its way when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::Superseded`] if the event was delivered again or acknowledged; [`Error::Backend`].
    pub fn in_progress(&self) -> Settlement {
        self.request_unless_superseded(Verdict::Extend)
    }

    /// How often it has to be said that the work goes on, so that the grace period does not end.
    pub(super) fn keep_every(&self) -> Duration {
        self.hold.member.timing.touch_after()
    }

    fn request_unless_superseded(&self, verdict: Verdict) -> Settlement {
        let Hold { id, member } = &self.hold;
        if member.acks == Acks::None || member.ledger().is_superseded(*id, self.deliveries) {
            return self.hold.settlement(verdict, State::Superseded);
        }
        self.hold.request(verdict, Some(self.deliveries))
    }
}

impl Deref for Delivery {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.event
    }
}

/// The user's hold on a delivery; ends with it.
struct Hold {
    id: EventId,
    member: Arc<Member>,
}

impl Hold {
    fn request(&self, verdict: Verdict, deliveries: Option<u64>) -> Settlement {
        // First, so that nothing newer of a partition goes out before what is given back.
        if let Some(lane) = &self.member.lane {
            lane.said(self.id, verdict);
        }
        let (reply, outcome) = oneshot::channel();
        let request = Request { id: self.id, deliveries, verdict, reply: Some(reply) };
        let state = match self.member.request(request) {
            Ok(()) => State::Queued(outcome),
            Err(_) => State::direct(self.member.clone(), self.id, verdict),
        };
        self.settlement(verdict, state)
    }

    fn settlement(&self, verdict: Verdict, state: State) -> Settlement {
        Settlement { id: self.id, verdict, member: self.member.clone(), state, hold: None }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.member.ledger().put_down(self.id);
        if let Some(lane) = &self.member.lane {
            lane.put_down();
        }
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hold({} of {})", self.id, self.member.stream)
    }
}

/// The outcome of an acknowledgement or its like, once it is durable at the backend.
///
/// # Cancel safety
///
/// Dropping it does not take the request back. Only after the sink was closed is the request first sent when this is
/// awaited.
pub struct Settlement {
    id: EventId,
    verdict: Verdict,
    member: Arc<Member>,
    state: State,
    /// Kept by an acknowledgement that goes its own way, so that the event stays in the user's hands until then.
    hold: Option<Hold>,
}

enum State {
    /// The settler will answer.
    Queued(oneshot::Receiver<Result<(), Error>>),
    /// The event goes to the dead letters.
    Burying(oneshot::Receiver<Result<(), Error>>),
    /// The settler has stopped; the request goes its own way.
    Direct(BoxFuture<'static, Result<(), Error>>),
    /// There is nothing to do any more.
    Superseded,
    /// There was nothing to do.
    Done,
}

impl State {
    fn direct(member: Arc<Member>, id: EventId, verdict: Verdict) -> Self {
        Self::Direct(Box::pin(async move { member.settle(id, verdict).await }))
    }
}

impl Future for Settlement {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.state {
                State::Queued(outcome) => match ready!(Pin::new(outcome).poll(cx)) {
                    Ok(outcome) => return Poll::Ready(outcome),
                    // The settler went away without an answer. Every verdict may be repeated.
                    Err(_) => self.state = State::direct(self.member.clone(), self.id, self.verdict),
                },
                State::Burying(outcome) => {
                    let buried = ready!(Pin::new(outcome).poll(cx));
                    // If its runtime has ended, the event stays pending, and is delivered again.
                    let gone = |_| Err(self.member.failed(Verdict::Ack)(pulse_core::Error::Closed));
                    return Poll::Ready(buried.unwrap_or_else(gone));
                }
                State::Direct(settling) => return settling.as_mut().poll(cx),
                State::Done => return Poll::Ready(Ok(())),
                State::Superseded => return Poll::Ready(Err(self.member.superseded(self.id))),
            }
        }
    }
}

impl fmt::Debug for Settlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settlement({:?} of {} of {})", self.verdict, self.id, self.member.stream)
    }
}
