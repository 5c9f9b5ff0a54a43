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
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use fred::types::{Resp3Frame, Value};
use tokio::{runtime::Handle, sync::oneshot, time::Instant};
use tokio_util::task::TaskTracker;

use super::{
    errors::{Ask, Refusal, ServerSaid},
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
        answer.await.unwrap_or_else(|_| Err(self.unanswered())).map(Turn::Together)
    }
}

impl<K: Kind> Gatherer<K> {
    /// The error for a write whose batch ended without a word: with the client, or by a panic.
    fn unanswered(&self) -> Error {
        if self.shared.link.closed().is_cancelled() {
            return Error::Closed;
        }
        let source = ServerSaid("the task that sent the batch of this write has ended early".into());
        Ask::new("write", &"a batch").unavailable(Outcome::Unknown, Arc::new(source))
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

    /// Takes the writes that go next, and ends the flight if there are none.
    fn next(&self, key: &Bytes) -> Option<Batch<K>> {
        let mut lanes = self.lock();
        let lane = lanes.get_mut(key)?;
        let (mut items, mut answers, mut bytes) = (Vec::new(), Vec::new(), 0);
        while items.len() < MOST
            && bytes < MOST_BYTES
            && let Some(waiting) = lane.waiting.pop_front()
        {
            // A write whose caller gave up while it waited is not sent, nor is one whose time is over.
            if waiting.answer.is_closed() {
                continue;
            }
            if let (Some(kind), true) = (&lane.kind, waiting.since.elapsed() >= self.link.timeout()) {
                let late = kind.ask().timeout(self.link.timeout(), Outcome::NotApplied);
                // The caller may have gone at this moment.
                let _ = waiting.answer.send(Err(late));
                continue;
            }
            bytes += K::weight(&waiting.item);
            items.push(waiting.item);
            answers.push((waiting.since, waiting.answer));
        }
        match &lane.kind {
            Some(kind) if !items.is_empty() => Some(Batch { kind: kind.clone(), items, answers }),
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

impl<K: Kind> Flight<K> {
    /// Forgets the flight, which has ended already.
    fn ended(mut self) {
        self.key = Bytes::new();
    }
}

impl<K: Kind> Drop for Flight<K> {
    fn drop(&mut self) {
        if self.key.is_empty() {
            return;
        }
        let mut lanes = self.shared.lock();
        if lanes.get(&self.key).is_none_or(|lane| lane.waiting.is_empty()) {
            return Shared::end_flight(&mut lanes, &self.key);
        }
        drop(lanes);
        // The flight goes on, with others.
        let flight = Self { shared: self.shared.clone(), key: self.key.clone() };
        self.shared.tasks.spawn_on(send_waiting(flight), &self.shared.runtime);
    }
}

/// Sends the writes that wait, together, until there are none. If that panics, the flight is dropped, and the writes that
/// still wait go with another.
async fn send_waiting<K: Kind>(flight: Flight<K>) {
    loop {
        // Those whom the last answer woke come back with their next writes.
        tokio::task::yield_now().await;
        let Some(batch) = flight.shared.next(&flight.key) else { return flight.ended() };
        batch.send(&flight.shared.link).await;
    }
}

type Answers<K> = Vec<(Instant, oneshot::Sender<Result<Given<<K as Kind>::Share>, Error>>)>;

/// Writes that travel together.
struct Batch<K: Kind> {
    kind: K,
    items: Vec<K::Item>,
    /// When each write was made, in the order of time, and who waits for it.
    answers: Answers<K>,
}

impl<K: Kind> Batch<K> {
    /// Sends the batch within the time of its youngest write. The older ones are told when theirs is over.
    async fn send(self, link: &Link) {
        let Self { kind, items, mut answers } = self;
        let ask = kind.ask();
        let arguments = |all: &mut Vec<Value>| {
            all.push(Value::Bytes(kind.key().clone()));
            kind.arguments(&items, all);
        };
        let Some((youngest, _)) = answers.last() else { return };
        let mut run = pin!(link.run_since(*youngest, ask, kind.repeat(), K::script(), 1, arguments));
        let outcome = if kind.repeat() == Repeat::Freely { Outcome::NotApplied } else { Outcome::Unknown };
        let (total, mut late) = (answers.len(), 0);
        let reply = loop {
            let oldest = answers.first().filter(|_| late + 1 < total).map(|(since, _)| *since + link.timeout());
            let over = async {
                match oldest {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                reply = &mut run => break reply,
                () = over => {
                    let (_, answer) = answers.remove(0);
                    late += 1;
                    // The caller may have gone.
                    let _ = answer.send(Err(ask.timeout(link.timeout(), outcome)));
                }
            }
        };
        let reply = match reply {
            Ok(Answer::Reply(reply)) => reply,
            Ok(Answer::Refused(refusal, message)) => return answer_all::<K>(answers, &Ok((refusal, message))),
            Err(error) => return answer_all::<K>(answers, &Err(error)),
        };
        match K::share(reply, &items) {
            Ok(shares) if shares.len() == total => {
                for ((_, answer), share) in answers.into_iter().zip(shares.into_iter().skip(late)) {
                    // The caller may have gone.
                    let _ = answer.send(Ok(share));
                }
            }
            Ok(_) => answer_all::<K>(answers, &Err(ask.protocol("another number of answers than of writes"))),
            Err(misfit) => answer_all::<K>(answers, &Err(ask.protocol(misfit))),
        }
    }
}

fn answer_all<K: Kind>(answers: Answers<K>, result: &Result<(Refusal, String), Error>) {
    for (_, answer) in answers {
        // The caller may have gone.
        let _ = answer.send(result.clone().map(Err));
    }
}
