//! Group commit: what many tasks ask of the backend at the same moment travels as one request.
//!
//! Whoever finds the way free is asked for at once. While [`Kind::FLIGHTS`] requests are on their way, those who come
//! wait for one of them to return, and then go together. What is asked together and how the answers are shared out is
//! up to a [`Kind`]. Requests are carried by tasks of their own, so that nobody waits for a caller who does not poll.

use std::{
    collections::VecDeque,
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures::FutureExt;
use tokio::{runtime::Handle, sync::oneshot};

/// The most that go together.
pub(crate) const MOST: usize = 100;

/// Something that can be asked for many at once.
#[async_trait]
pub(crate) trait Kind: Send + Sync + 'static {
    type Item: Send + 'static;
    type Answer: Send + 'static;

    /// How many requests may be on their way before others wait for company. With one, the company is the largest; with
    /// more, a slow request does not hold up all others.
    const FLIGHTS: usize;

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
    waiting: VecDeque<(K::Item, oneshot::Sender<K::Answer>)>,
}

/// Items that go together, and where their answers go.
type Company<K> = (Vec<<K as Kind>::Item>, Vec<oneshot::Sender<<K as Kind>::Answer>>);

impl<K: Kind> Group<K> {
    /// On the current runtime.
    pub(crate) fn new(kind: K) -> Self {
        let lane = Mutex::new(Lane { flights: 0, waiting: VecDeque::new() });
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
        lane.waiting.push_back((item, sender));
        (lane.flights < K::FLIGHTS).then(|| {
            lane.flights += 1;
            Flight { shared: self.0.clone(), landed: false }
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
    landed: bool,
}

impl<K: Kind> Flight<K> {
    /// Asks for those who wait, until nobody does.
    async fn carry(mut self) {
        while let Some((items, senders)) = self.next() {
            // A panic concerns those who were asked for; they are told by the end of their senders.
            let answers = AssertUnwindSafe(self.shared.kind.ask(items)).catch_unwind().await;
            for (sender, answer) in senders.into_iter().zip(answers.unwrap_or_default()) {
                // Whoever asked may have gone.
                let _ = sender.send(answer);
            }
            // Those whom the answer woke come back with their next items.
            tokio::task::yield_now().await;
        }
    }

    /// Those who go next. If there are none, the flight is over from then on, so that whoever comes begins another.
    fn next(&mut self) -> Option<Company<K>> {
        let mut lane = self.shared.lock();
        // Whoever gave up is not asked for.
        lane.waiting.retain(|(_, sender)| !sender.is_closed());
        let count = lane.waiting.len().min(MOST);
        if count == 0 {
            lane.flights -= 1;
            self.landed = true;
            return None;
        }
        Some(lane.waiting.drain(..count).unzip())
    }
}

impl<K: Kind> Drop for Flight<K> {
    fn drop(&mut self) {
        if !self.landed {
            // The runtime ends, and with it the waiting.
            let mut lane = self.shared.lock();
            lane.flights -= 1;
            let waiting = std::mem::take(&mut lane.waiting);
            drop(lane);
            drop(waiting);
        }
    }
}

impl<K: Kind> fmt::Debug for Group<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("waiting", &self.0.lock().waiting.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// Doubles numbers, when it is let.
    #[derive(Clone)]
    struct Doubling {
        let_through: Arc<Semaphore>,
        requests: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl Kind for Doubling {
        type Item = u32;
        type Answer = u32;
        const FLIGHTS: usize = 2;

        async fn ask(&self, items: Vec<u32>) -> Vec<u32> {
            self.requests.fetch_add(1, Ordering::Relaxed);
            self.let_through.acquire().await.unwrap().forget();
            assert!(!items.contains(&13), "unlucky");
            items.into_iter().map(|item| item * 2).collect()
        }
    }

    fn group() -> (Arc<Group<Doubling>>, Doubling) {
        let kind = Doubling { let_through: Arc::new(Semaphore::new(0)), requests: Arc::default() };
        (Arc::new(Group::new(kind.clone())), kind)
    }

    #[tokio::test]
    async fn those_who_come_while_others_are_on_their_way_go_together() {
        let (group, kind) = group();
        let calls = (100..150).map(|number| {
            let group = group.clone();
            tokio::spawn(async move { group.ask(number).await })
        });
        let calls: Vec<_> = calls.collect();
        while kind.requests.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        kind.let_through.add_permits(100);
        for (number, call) in (100..).zip(calls) {
            assert_eq!(call.await.unwrap(), Some(number * 2));
        }
        assert!(kind.requests.load(Ordering::Relaxed) <= Doubling::FLIGHTS, "{:?}", kind.requests);
        landed(&group).await;
    }

    #[tokio::test]
    async fn a_request_that_panics_concerns_those_in_it_alone() {
        let (group, kind) = group();
        kind.let_through.add_permits(1000);
        let call = |number| {
            let group = group.clone();
            tokio::spawn(async move { group.ask(number).await })
        };
        let unlucky: Vec<_> = (0..40).map(call).collect();
        for call in unlucky {
            // A panic, an answer or none.
            let _ = call.await;
        }
        assert_eq!(call(21).await.unwrap(), Some(42));
        landed(&group).await;
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_holds_up_nobody() {
        let (group, kind) = group();
        let given_up: Vec<_> = (0..9)
            .map(|number| {
                let group = group.clone();
                tokio::spawn(async move { group.ask(number).await })
            })
            .collect();
        while kind.requests.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        given_up.iter().for_each(tokio::task::JoinHandle::abort);
        kind.let_through.add_permits(100);
        assert_eq!(group.ask(4).await, Some(8));
        landed(&group).await;
    }

    #[tokio::test]
    async fn a_caller_that_is_not_polled_holds_up_nobody() {
        let (group, kind) = group();
        let mut idle = Box::pin(group.ask(1));
        assert!(futures::poll!(&mut idle).is_pending());
        kind.let_through.add_permits(100);
        assert_eq!(group.ask(4).await, Some(8));
        assert_eq!(idle.await, Some(2));
    }

    #[test]
    fn a_caller_whose_runtime_stands_still_holds_up_nobody() {
        let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (ours, theirs) = (runtime(), runtime());
        let (group, kind) = ours.block_on(async { group() });
        kind.let_through.add_permits(100);
        let asked = theirs.spawn({
            let group = group.clone();
            async move { group.ask(1).await }
        });
        // It has asked, and is not driven any more.
        theirs.block_on(tokio::task::yield_now());
        assert_eq!(ours.block_on(group.ask(4)), Some(8));
        assert_eq!(theirs.block_on(asked).unwrap(), Some(2));
        drop(ours);
        assert_eq!(theirs.block_on(group.ask(4)), None, "nobody can be asked any more");
    }

    /// The last flight ends right after its answers.
    async fn landed(group: &Group<Doubling>) {
        while group.0.lock().flights > 0 {
            tokio::task::yield_now().await;
        }
    }
}
