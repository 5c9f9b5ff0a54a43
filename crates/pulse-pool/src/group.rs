//! Group commit: what many tasks ask of the backend at the same moment travels as one request.
//!
//! Whoever finds the way free is asked for at once. While [`Kind::FLIGHTS`] requests are on their way, or a large one
//! is, those who come wait for one of them to return, and then go together. What is asked together and how the answers
//! are shared out is up to a [`Kind`]. Requests are carried by tasks of their own, so that nobody waits for a caller who
//! does not poll.

use std::{
    collections::VecDeque,
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::FutureExt;
use tokio::{runtime::Handle, sync::oneshot, time::Instant};

/// The most that go together, of each: those who hurry, and the others.
pub(crate) const MOST: usize = 100;

/// How often, and for how long, a flight that had company gives way before it leaves again, as long as fewer wait than
/// it had. Whoever is about to ask comes along: measured with 64 callers, that makes companies a third larger, and all
/// of it a tenth faster.
const TURNS: usize = 6;
const TIME_OF_TURNS: Duration = Duration::from_micros(500);

/// Something that can be asked for many at once.
#[async_trait]
pub(crate) trait Kind: Send + Sync + 'static {
    type Item: Send + 'static;
    type Answer: Send + 'static;

    /// How many requests may be on their way before others wait for company. With one, the company is the largest; with
    /// more, a slow request does not hold up all others.
    const FLIGHTS: usize;

    /// While a larger request than this is on its way, all others wait for company.
    const FEW: usize = usize::MAX;

    /// Whether somebody hurries: of those who wait, they go first.
    fn hurries(_item: &Self::Item) -> bool {
        false
    }

    /// Asks for all; as many answers as items, in their order.
    async fn ask(&self, items: Vec<Self::Item>) -> Vec<Self::Answer>;
}

/// Brings together those who ask.
pub(crate) struct Group<K: Kind>(Arc<Shared<K>>);

struct Shared<K: Kind> {
    kind: K,
    /// Of whoever made the group: those who ask may have one that is not driven all the time.
    runtime: Handle,
    lane: Mutex<Lane<K>>,
}

struct Lane<K: Kind> {
    flights: usize,
    /// How many of them carry more than a few.
    large: usize,
    hurrying: Waiting<K>,
    others: Waiting<K>,
}

/// Items that wait to be asked for, and where their answers go.
type Waiting<K> = VecDeque<(<K as Kind>::Item, oneshot::Sender<<K as Kind>::Answer>)>;

/// Items that go together, and where their answers go.
type Company<K> = (Vec<<K as Kind>::Item>, Vec<oneshot::Sender<<K as Kind>::Answer>>);

impl<K: Kind> Lane<K> {
    fn has_room(&self) -> bool {
        self.flights < K::FLIGHTS && self.large == 0
    }

    /// How many would go together now.
    fn waiting(&self) -> usize {
        self.hurrying.len().min(MOST) + self.others.len().min(MOST)
    }

    /// Takes those who go together. Whoever gave up is not asked for.
    fn take(&mut self) -> Company<K> {
        let mut company = Company::<K>::default();
        for waiting in [&mut self.hurrying, &mut self.others] {
            waiting.retain(|(_, sender)| !sender.is_closed());
            company.extend(waiting.drain(..waiting.len().min(MOST)));
        }
        company
    }
}

impl<K: Kind> Group<K> {
    /// On the current runtime.
    pub(crate) fn new(kind: K) -> Self {
        let lane = Lane { flights: 0, large: 0, hurrying: VecDeque::new(), others: VecDeque::new() };
        let lane = Mutex::new(lane);
        Self(Arc::new(Shared { kind, runtime: Handle::current(), lane }))
    }

    /// Asks, together with others if others ask; `None` if the request panicked, or the runtime ends. Dropped while it
    /// waits, the item may be asked for all the same.
    pub(crate) async fn ask(&self, item: K::Item) -> Option<K::Answer> {
        let (sender, answer) = oneshot::channel();
        if let Some(flight) = self.wait(item, sender) {
            self.0.runtime.spawn(flight.carry());
        }
        answer.await.ok()
    }

    /// Returns the flight that is to be carried, if there is room for one.
    fn wait(&self, item: K::Item, sender: oneshot::Sender<K::Answer>) -> Option<Flight<K>> {
        let mut lane = self.0.lock();
        let waiting = if K::hurries(&item) { &mut lane.hurrying } else { &mut lane.others };
        waiting.push_back((item, sender));
        lane.has_room().then(|| {
            lane.flights += 1;
            Flight { shared: self.0.clone(), is_large: false, landed: false }
        })
    }
}

impl<K: Kind> Shared<K> {
    fn lock(&self) -> MutexGuard<'_, Lane<K>> {
        // Nothing panics while holding it.
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to have one request on its way.
struct Flight<K: Kind> {
    shared: Arc<Shared<K>>,
    /// It carries more than a few.
    is_large: bool,
    landed: bool,
}

impl<K: Kind> Flight<K> {
    /// Asks for those who wait, until nobody does.
    async fn carry(mut self) {
        while let Some((items, senders)) = self.next() {
            let count = senders.len();
            // A panic concerns those who were asked for; they are told by the end of their senders.
            let answers = AssertUnwindSafe(self.shared.kind.ask(items)).catch_unwind().await;
            for (sender, answer) in senders.into_iter().zip(answers.unwrap_or_default()) {
                // Whoever asked may have gone.
                let _ = sender.send(answer);
            }
            self.give_way(count).await;
        }
    }

    /// Lets those come whom the answers woke, and who are about to ask anyway.
    async fn give_way(&self, carried: usize) {
        // Who was alone waits for nobody but those.
        let turns = if carried > 1 { TURNS } else { 1 };
        let begun = Instant::now();
        for _ in 0..turns {
            tokio::task::yield_now().await;
            if self.shared.lock().waiting() >= carried.min(MOST) || begun.elapsed() > TIME_OF_TURNS {
                break;
            }
        }
    }

    /// Those who go next. If there are none, or another flight is large enough to have them join it, the flight is over
    /// from then on, so that whoever comes begins another.
    fn next(&mut self) -> Option<Company<K>> {
        let mut lane = self.shared.lock();
        lane.large -= usize::from(std::mem::take(&mut self.is_large));
        let company = if lane.large == 0 { lane.take() } else { Company::<K>::default() };
        let count = company.0.len();
        if count == 0 {
            lane.flights -= 1;
            self.landed = true;
            return None;
        }
        self.is_large = count > K::FEW;
        lane.large += usize::from(self.is_large);
        Some(company)
    }
}

impl<K: Kind> Drop for Flight<K> {
    fn drop(&mut self) {
        if !self.landed {
            // The runtime ends, and with it the waiting.
            let mut lane = self.shared.lock();
            lane.flights -= 1;
            lane.large -= usize::from(self.is_large);
            let waiting = (std::mem::take(&mut lane.hurrying), std::mem::take(&mut lane.others));
            drop(lane);
            drop(waiting);
        }
    }
}

impl<K: Kind> fmt::Debug for Group<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("waiting", &self.0.lock().waiting()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
