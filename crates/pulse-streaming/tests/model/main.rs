//! Random histories of a sink on the embedded backend with paused time, checked against what was promised:
//! no settled event is delivered again, none is lost in silence, first deliveries keep the order of the stream,
//! delivery counts rise, delays are kept, and who is given up has one letter. A reader beside it hears of every event
//! or gap.
//!
//! A failure names its seed; `PULSE_SEED=… cargo test -p pulse-streaming --test model` runs that history alone.

mod facts;
mod watcher;

use std::{collections::BTreeSet, time::Duration};

use pulse_streaming::{
    Client, DeadLetter, Delivery, Error, EventId, EventStream, NewEvent, Sink, Start, Trim, connect,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::time::{Instant, timeout};

use self::{
    facts::{Delayed, Facts},
    watcher::Watcher,
};

const GRACE: Duration = Duration::from_secs(10);
/// The grace period begins when an event is handed out, up to a sixteenth of it earlier.
const IN_TIME: Duration = Duration::from_secs(9);
const STEPS: usize = 150;
const HISTORIES: u64 = 200;

/// An instance of the sink, and the last event that it delivered for the first time.
struct Instance {
    name: usize,
    sink: Sink,
    last_first: EventId,
}

/// A delivery that the user holds.
struct Held {
    delivery: Delivery,
    by: usize,
    since: Instant,
}

struct History {
    random: StdRng,
    client: Client,
    stream: EventStream,
    instances: Vec<Instance>,
    held: Vec<Held>,
    born: usize,
    began: Instant,
    facts: Facts,
    watcher: Option<Watcher>,
    log: Vec<String>,
}

#[tokio::test(start_paused = true)]
async fn random_histories_keep_the_promises() {
    if let Ok(seed) = std::env::var("PULSE_SEED") {
        let seed = seed.parse().expect("PULSE_SEED is a number");
        return run(seed).await;
    }
    for seed in 0..HISTORIES {
        run(seed).await;
    }
}

async fn run(seed: u64) {
    let mut history = History::begin(seed).await;
    for _ in 0..STEPS {
        if let Err(broken) = history.step().await {
            panic!("seed {seed}: {broken}; the last steps:\n{}", history.last_steps());
        }
    }
    if let Err(broken) = history.end().await {
        panic!("seed {seed}, at the end: {broken}; the last steps:\n{}", history.last_steps());
    }
}

impl History {
    async fn begin(seed: u64) -> Self {
        let client = connect("memory:").await.expect("the embedded backend is always there");
        let stream = EventStream::new(&client, "events").expect("a valid name");
        let mut random = StdRng::seed_from_u64(seed);
        let max_deliveries = [None, Some(1), Some(2), Some(4)].choose(&mut random).copied().flatten();
        let facts = Facts::of_a_sink(max_deliveries);
        let (instances, held, log) = (Vec::new(), Vec::new(), Vec::new());
        let mut history =
            Self { random, client, stream, instances, held, born: 0, began: Instant::now(), facts, watcher: None, log };
        history.join().await;
        history
    }

    async fn step(&mut self) -> Result<(), String> {
        match self.random.random_range(0..100) {
            0..22 => self.add().await,
            22..52 => self.take().await?,
            52..65 => self.ack().await,
            65..68 => self.give_up().await,
            68..72 => self.nack(Duration::ZERO).await,
            72..76 => self.nack_after().await,
            76..79 => self.forget(),
            79..82 => self.extend().await,
            82..84 => self.trim().await,
            84..88 => self.watch().await?,
            88..92 => self.pause().await,
            92..95 => self.crash(),
            95..97 => self.close().await,
            _ => self.join().await,
        }
        Ok(())
    }

    /// Lets one last instance work off everything, and looks whether that is everything.
    async fn end(&mut self) -> Result<(), String> {
        self.held.clear();
        while !self.instances.is_empty() {
            self.crash();
        }
        self.join().await;
        while self.take_within(0, 4 * GRACE).await? {
            while !self.held.is_empty() {
                self.ack().await;
            }
        }
        if let Some(watcher) = &mut self.watcher {
            watcher.end(&self.facts.standing).await?;
        }
        let letters = self.stream.dead_letters("s").map_err(|error| error.to_string())?;
        let letters = letters.list(EventId::ZERO, usize::MAX).await.map_err(|error| error.to_string())?;
        self.facts.end(&letters.iter().map(DeadLetter::original_id).collect::<Vec<_>>())?;
        // Nothing comes again, and the dead vanish.
        self.take_within(0, 6 * GRACE).await?;
        let info = self.stream.sink_info("s").await.map_err(|error| error.to_string())?.ok_or("no sink")?;
        let left = (info.pending, info.lag, info.consumers.len());
        if left != (0, Some(0), 1) {
            return Err(format!("left behind: {info:?}"));
        }
        self.client.close().await;
        Ok(())
    }

    async fn add(&mut self) {
        let count = self.random.random_range(1..12);
        let ids = self.stream.add_batch((0..count).map(|_| NewEvent::new("n", "p"))).await.expect("events are added");
        self.note(&format!("add {} from {} on", ids.len(), ids[0]));
        self.facts.add(&ids);
        if let Some(watcher) = &mut self.watcher {
            watcher.added(&ids);
        }
    }

    async fn take(&mut self) -> Result<(), String> {
        if self.instances.is_empty() {
            return Ok(());
        }
        let which = self.random.random_range(0..self.instances.len());
        for _ in 0..self.random.random_range(1..8) {
            let patience = Duration::from_millis(self.random.random_range(0..1_000));
            self.take_within(which, patience).await?;
        }
        Ok(())
    }

    async fn take_within(&mut self, which: usize, patience: Duration) -> Result<bool, String> {
        let instance = &mut self.instances[which];
        let Ok(next) = timeout(patience, instance.sink.next()).await else { return Ok(false) };
        let delivery = match next.ok_or("the sink ended")? {
            Ok(delivery) => delivery,
            Err(notice) => {
                let line = format!("instance {} says {notice:?}", instance.name);
                self.note(&line);
                self.facts.told(notice)?;
                return Ok(true);
            }
        };
        let (id, deliveries) = (delivery.id(), delivery.deliveries());
        let line = format!("instance {} takes {id}, delivery {deliveries}", instance.name);
        self.facts.take(instance.name, id, deliveries)?;
        if deliveries == 1 {
            if id <= instance.last_first {
                return Err(format!("{id} comes after {}", instance.last_first));
            }
            instance.last_first = id;
        }
        let by = instance.name;
        self.held.push(Held { delivery, by, since: Instant::now() });
        self.note(&line);
        Ok(true)
    }

    async fn ack(&mut self) {
        let Some(Held { delivery, by, since }) = self.pick() else { return };
        let id = delivery.id();
        delivery.ack().await.expect("the event is acknowledged");
        let in_time = since.elapsed() < IN_TIME;
        self.note(&format!("ack {id}, in time: {in_time}"));
        self.facts.settled(id, by, in_time);
    }

    async fn give_up(&mut self) {
        let Some(Held { delivery, by, since }) = self.pick() else { return };
        let id = delivery.id();
        delivery.dead_letter("the test says so").await.expect("the event is given up");
        let in_time = since.elapsed() < IN_TIME;
        self.note(&format!("give up {id}, in time: {in_time}"));
        self.facts.settled(id, by, in_time);
        self.facts.gave_up(id);
    }

    async fn nack_after(&mut self) {
        let delay = GRACE.mul_f64(self.random.random_range(0.0..3.0));
        self.nack(delay).await;
    }

    async fn nack(&mut self, delay: Duration) {
        let Some(Held { delivery, by, since }) = self.pick() else { return };
        let id = delivery.id();
        let (in_time, until) = (since.elapsed() < IN_TIME, Instant::now() + delay);
        self.note(&format!("nack {id} for {delay:?} by {by}, in time: {in_time}"));
        match delivery.nack_after(delay).await {
            // An instance that ended keeps nothing back for longer than the grace period.
            Ok(()) if delay > GRACE && self.instances.iter().all(|instance| instance.name != by) => {}
            Ok(()) if in_time => self.facts.delay(id, Delayed { by, until, kept_by_backend: delay <= GRACE }),
            Ok(()) | Err(Error::Superseded { .. }) => {}
            Err(error) => panic!("the event is not given back: {error:?}"),
        }
    }

    async fn trim(&mut self) {
        let length = *[0, 1, 3, 10, 30].choose(&mut self.random).expect("there are some");
        let sink = self.stream.sink_info("s").await.expect("the sink is described").expect("the sink was joined");
        let trim = Trim::MaxLength { length: length as u64, approximate: false };
        let dropped = self.stream.trim(trim).await.expect("the stream is trimmed");
        let expected = self.facts.trim(length, sink.last_delivered);
        assert_eq!(dropped, expected as u64, "events are dropped");
        self.note(&format!("trim to {length}: {dropped} dropped, the sink stood at {}", sink.last_delivered));
    }

    /// Lets the reader read, or begins a new one.
    async fn watch(&mut self) -> Result<(), String> {
        if let Some(watcher) = &mut self.watcher {
            if self.random.random_bool(0.1) {
                watcher.end(&self.facts.standing).await?;
                self.watcher = None;
                return Ok(());
            }
            for _ in 0..self.random.random_range(1..20) {
                let patience = Duration::from_millis(self.random.random_range(0..1_000));
                watcher.take(patience, &self.facts.standing).await?;
            }
            return Ok(());
        }
        let (newest, oldest) = (Start::Newest, Start::Oldest);
        let in_the_middle = self.facts.added.iter().nth(self.facts.added.len() / 2).map(|id| Start::After(*id));
        let starts = [newest, oldest, in_the_middle.unwrap_or(Start::Oldest)];
        let start = *starts.choose(&mut self.random).expect("there are some");
        let buffer = *[1, 2, 7, 64].choose(&mut self.random).expect("there are some");
        // What was added and dropped during one read is told of when that has ended.
        let reader = self.stream.reader().start(start).buffer(buffer).block(GRACE / 2);
        let reader = reader.join().await.expect("the stream is read");
        let (outstanding, exact) = match start {
            Start::After(id) => (self.facts.standing.iter().filter(|other| **other > id).copied().collect(), false),
            Start::Oldest => (self.facts.standing.clone(), true),
            _ => (BTreeSet::new(), true),
        };
        self.watcher = Some(Watcher::new(reader, outstanding, exact));
        self.note(&format!("a reader begins: {start:?}, with a buffer of {buffer}"));
        Ok(())
    }

    fn forget(&mut self) {
        if let Some(Held { delivery, .. }) = self.pick() {
            self.note(&format!("forget {}", delivery.id()));
        }
    }

    async fn extend(&mut self) {
        let Some(mut held) = self.pick() else { return };
        if held.delivery.in_progress().await.is_ok() {
            held.since = Instant::now();
            self.note(&format!("extend {}", held.delivery.id()));
        }
        self.held.push(held);
    }

    async fn pause(&mut self) {
        let pause = GRACE.mul_f64(self.random.random_range(0.0..1.5));
        self.note(&format!("pause {pause:?}"));
        tokio::time::sleep(pause).await;
    }

    fn crash(&mut self) {
        if self.instances.is_empty() {
            return;
        }
        let instance = self.instances.swap_remove(self.random.random_range(0..self.instances.len()));
        self.facts.ended(instance.name);
        self.note(&format!("instance {} crashes", instance.name));
    }

    async fn close(&mut self) {
        if self.instances.is_empty() {
            return;
        }
        let mut instance = self.instances.swap_remove(self.random.random_range(0..self.instances.len()));
        instance.sink.close().await;
        assert!(instance.sink.next().await.is_none(), "a closed sink hands something out");
        self.facts.ended(instance.name);
        self.note(&format!("instance {} closes", instance.name));
    }

    async fn join(&mut self) {
        if self.instances.len() == 4 {
            return;
        }
        let buffer = *[1, 2, 7, 64].choose(&mut self.random).expect("there are some");
        let mut builder = self.stream.sink("s").start(Start::Oldest).ack_grace(GRACE).buffer(buffer);
        if let Some(most) = self.facts.max_deliveries {
            builder = builder.max_deliveries(most);
        }
        let sink = builder.join().await.expect("the sink is joined");
        self.born += 1;
        self.instances.push(Instance { name: self.born, sink, last_first: EventId::ZERO });
        self.note(&format!("instance {} joins with a buffer of {buffer}", self.born));
    }

    fn pick(&mut self) -> Option<Held> {
        if self.held.is_empty() {
            return None;
        }
        let which = self.random.random_range(0..self.held.len());
        Some(self.held.swap_remove(which))
    }

    fn note(&mut self, line: &str) {
        let since = self.began.elapsed().as_millis();
        self.log.push(format!("{since:>7} ms: {line}"));
    }

    /// The whole history if it was asked for alone.
    fn last_steps(&self) -> String {
        if std::env::var("PULSE_SEED").is_ok() {
            return self.log.join("\n");
        }
        self.log[self.log.len().saturating_sub(60)..].join("\n")
    }
}
