//! Gathering: small writes to one key that many tasks make at the same moment travel as one command.
//!
//! A write that finds the way free goes at once and alone, so a lone caller waits for nobody. While [`FLIGHTS`]
//! commands of one key are on their way, further writes to that key wait for one of them to return, and then go
//! together. Each stays a transaction of its own: it has its own result, its own error, and its place is that of its
//! call.
//!
//! Why: a command costs the client library and the server more than the write that it carries, so the rate of many
//! writers comes from putting more into one command. What the writes are, and what their script replies, is up to a
//! [`Kind`].

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use fred::types::{Resp3Frame, Value};
use tokio::{runtime::Handle, sync::oneshot, time::Instant};
use tokio_util::task::TaskTracker;

use super::{
    errors::{Ask, Refusal},
    link::{Answer, Link, Repeat},
    reply::Misfit,
    scripts::Script,
};
use crate::{Error, Outcome};

/// How many commands of one key may be on their way before writes to it are gathered.
const FLIGHTS: usize = 2;

/// The most writes of one command, and the most bytes after which no further write joins it. They bound how long the
/// server is busy with one command.
const MOST: usize = 128;
const MOST_BYTES: usize = 128 << 10;

/// Writes larger than this gain nothing from company.
const LARGE: usize = 8 << 10;

/// A kind of write that can be gathered; a value of it is what all such writes to one key have in common.
pub(super) trait Kind: Clone + Send + Sync + 'static {
    /// One write.
    type Item: Send + Sync;
    /// What one write gets.
    type Share: Send;

    /// The script that takes several, with one key.
    fn script() -> &'static Script;
    /// The key.
    fn key(&self) -> &Bytes;
    /// Whether the command may be sent again after an unknown outcome.
    fn repeat(&self) -> Repeat;
    /// Of a write, about how many bytes travel.
    fn weight(item: &Self::Item) -> usize;
    /// What is asked, for errors.
    fn ask(&self) -> Ask<'_>;
    /// Adds the arguments after the key.
    fn arguments(&self, items: &[Self::Item], arguments: &mut Vec<Value>);
    /// Reads the reply: a share for each write, in order.
    fn share(reply: Resp3Frame, items: &[Self::Item]) -> Result<Vec<Given<Self::Share>>, Misfit>;
}

/// What became of one write: its share, or a refusal that the caller may know what to do with.
pub(super) type Given<T> = Result<T, (Refusal, String)>;

/// What a caller is told to do.
pub(super) enum Turn<K: Kind> {
    /// Send it alone, and keep the flight until the answer is there. If the write was made, it comes back.
    Alone(Flight<K>, Option<(K, K::Item)>),
    /// It was sent with others, and this is what became of it.
    Together(Given<K::Share>),
}

/// Gathers the writes of one kind.
pub(super) struct Gatherer<K: Kind> {
    shared: Arc<Shared<K>>,
}

struct Shared<K: Kind> {
    link: Arc<Link>,
    tasks: TaskTracker,
    /// Where commands are sent from when the caller that was on its way gives up outside of the runtime.
    runtime: Handle,
    lanes: Mutex<HashMap<Bytes, Lane<K>>>,
}

/// The way to one key.
struct Lane<K: Kind> {
    flights: usize,
    /// Set when somebody waits.
    kind: Option<K>,
    waiting: VecDeque<Waiting<K>>,
}

struct Waiting<K: Kind> {
    item: K::Item,
    since: Instant,
    answer: oneshot::Sender<Result<Given<K::Share>, Error>>,
}

impl<K: Kind> Gatherer<K> {
    /// Must be called inside of a runtime, where the gathered commands are sent from.
    pub(super) fn new(link: Arc<Link>, tasks: TaskTracker) -> Self {
        Self { shared: Arc::new(Shared { link, tasks, runtime: Handle::current(), lanes: Mutex::default() }) }
    }

    /// Waits for a turn on this lane, and for the answer if the write travels with others. A lane is the way to one key
    /// for writes of one and the same `K`.
    ///
    /// Dropped while it waits for company, it is not sent.
    pub(super) async fn turn(&self, key: &Bytes, write: impl FnOnce() -> (K, K::Item)) -> Result<Turn<K>, Error> {
        let answer = {
            let mut lanes = self.shared.lock();
            let lane = lanes.entry(key.clone()).or_insert_with(Lane::new);
            if lane.flights < FLIGHTS && lane.waiting.is_empty() {
                lane.flights += 1;
                return Ok(Turn::Alone(Flight { shared: self.shared.clone(), key: key.clone() }, None));
            }
            let (kind, item) = write();
            if K::weight(&item) > LARGE {
                // Ahead of what waits: calls that are made at the same time have no order.
                lane.flights += 1;
                let flight = Flight { shared: self.shared.clone(), key: key.clone() };
                return Ok(Turn::Alone(flight, Some((kind, item))));
            }
            lane.kind.get_or_insert(kind);
            let (sender, answer) = oneshot::channel();
            lane.waiting.push_back(Waiting { item, since: Instant::now(), answer: sender });
            answer
        };
        // Without an answer the runtime has ended, which has closed the client too.
        answer.await.unwrap_or(Err(Error::Closed)).map(Turn::Together)
    }
}

impl<K: Kind> fmt::Debug for Gatherer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gatherer").field("lanes", &self.shared.lock().len()).finish_non_exhaustive()
    }
}

impl<K: Kind> Shared<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<Bytes, Lane<K>>> {
        // Nothing panics while holding it.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes those who go next, and ends the flight if there is nobody.
    fn next(&self, key: &Bytes) -> Option<Batch<K>> {
        let mut lanes = self.lock();
        let lane = lanes.get_mut(key)?;
        let (mut items, mut answers, mut since, mut bytes) = (Vec::new(), Vec::new(), Instant::now(), 0);
        while items.len() < MOST
            && bytes < MOST_BYTES
            && let Some(waiting) = lane.waiting.pop_front()
        {
            // Whoever gave up while it waited is not sent.
            if waiting.answer.is_closed() {
                continue;
            }
            bytes += K::weight(&waiting.item);
            since = since.min(waiting.since);
            items.push(waiting.item);
            answers.push(waiting.answer);
        }
        match &lane.kind {
            Some(kind) if !items.is_empty() => Some(Batch { kind: kind.clone(), since, items, answers }),
            _ => {
                Self::end_flight(&mut lanes, key);
                None
            }
        }
    }

    fn end_flight(lanes: &mut HashMap<Bytes, Lane<K>>, key: &Bytes) {
        if let Some(lane) = lanes.get_mut(key) {
            lane.flights -= 1;
            if lane.flights == 0 {
                lanes.remove(key);
            }
        }
    }
}

impl<K: Kind> Lane<K> {
    fn new() -> Self {
        Self { flights: 0, kind: None, waiting: VecDeque::new() }
    }
}

/// The right to have one command on its way; when it ends, those who wait go.
pub(super) struct Flight<K: Kind> {
    shared: Arc<Shared<K>>,
    key: Bytes,
}

impl<K: Kind> Drop for Flight<K> {
    fn drop(&mut self) {
        let mut lanes = self.shared.lock();
        if lanes.get(&self.key).is_none_or(|lane| lane.waiting.is_empty()) {
            return Shared::end_flight(&mut lanes, &self.key);
        }
        drop(lanes);
        // The flight goes on, with others.
        let carrier = Carrier { shared: self.shared.clone(), key: self.key.clone() };
        self.shared.tasks.spawn_on(carrier.run(), &self.shared.runtime);
    }
}

/// Sends those who wait, together, until nobody does.
struct Carrier<K: Kind> {
    shared: Arc<Shared<K>>,
    key: Bytes,
}

impl<K: Kind> Carrier<K> {
    async fn run(self) {
        loop {
            // Those whom the last answer woke come back with their next writes.
            tokio::task::yield_now().await;
            let Some(batch) = self.shared.next(&self.key) else { return };
            batch.send(&self.shared.link).await;
        }
    }
}

/// Writes that travel together.
struct Batch<K: Kind> {
    kind: K,
    /// When the first of them was made.
    since: Instant,
    items: Vec<K::Item>,
    answers: Vec<oneshot::Sender<Result<Given<K::Share>, Error>>>,
}

impl<K: Kind> Batch<K> {
    async fn send(self, link: &Link) {
        let kind = self.kind.clone();
        let ask = kind.ask();
        if self.since.elapsed() >= link.timeout() {
            return self.answer_all(&Err(ask.timeout(link.timeout(), Outcome::NotApplied)));
        }
        let arguments = |all: &mut Vec<Value>| {
            all.push(Value::Bytes(kind.key().clone()));
            kind.arguments(&self.items, all);
        };
        let reply = match link.run_since(self.since, ask, kind.repeat(), K::script(), 1, arguments).await {
            Ok(Answer::Reply(reply)) => reply,
            Ok(Answer::Refused(refusal, message)) => return self.answer_all(&Ok((refusal, message))),
            Err(error) => return self.answer_all(&Err(error)),
        };
        match K::share(reply, &self.items) {
            Ok(shares) if shares.len() == self.answers.len() => {
                for (answer, share) in self.answers.into_iter().zip(shares) {
                    // Whoever asked may have gone.
                    let _ = answer.send(Ok(share));
                }
            }
            Ok(_) => {
                let error = ask.protocol("another number of answers than of writes");
                self.answer_all(&Err(error));
            }
            Err(misfit) => {
                let error = ask.protocol(misfit);
                self.answer_all(&Err(error));
            }
        }
    }

    fn answer_all(self, result: &Result<(Refusal, String), Error>) {
        for answer in self.answers {
            // Whoever asked may have gone.
            let _ = answer.send(result.clone().map(Err));
        }
    }
}
