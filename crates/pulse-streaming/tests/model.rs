//! Random histories of a sink on the embedded backend with paused time, checked against what was promised:
//! no acknowledged event is delivered again, no event is lost, first deliveries keep the order of the stream, and
//! delivery counts rise.
//!
//! A failure names its seed; `PULSE_SEED=… cargo test -p pulse-streaming --test model` runs that history alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pulse_streaming::{Client, Delivery, Error, EventId, EventStream, NewEvent, Sink, Start, connect};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::time::{Instant, timeout};

const GRACE: Duration = Duration::from_secs(10);
/// The grace period begins when an event is handed out, up to a sixteenth of it earlier.
const IN_TIME: Duration = Duration::from_secs(9);
const STEPS: usize = 150;
const HISTORIES: u64 = 120;

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

/// What the promises are checked against.
#[derive(Default)]
struct Model {
    added: BTreeSet<EventId>,
    /// How often each event was seen to be delivered, at least.
    deliveries: BTreeMap<EventId, u64>,
    /// Acknowledged while the delivery was in time: never to be seen again.
    done: BTreeSet<EventId>,
    /// Acknowledged too late, by which instances: may be seen again, but not through those.
    done_late: BTreeMap<EventId, BTreeSet<usize>>,
}

struct History {
    random: StdRng,
    client: Client,
    stream: EventStream,
    instances: Vec<Instance>,
    held: Vec<Held>,
    born: usize,
    model: Model,
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
        let random = StdRng::seed_from_u64(seed);
        let (instances, held, log) = (Vec::new(), Vec::new(), Vec::new());
        let mut history = Self { random, client, stream, instances, held, born: 0, model: Model::default(), log };
        history.join().await;
        history
    }

    async fn step(&mut self) -> Result<(), String> {
        match self.random.random_range(0..100) {
            0..25 => self.add().await,
            25..60 => self.take().await?,
            60..75 => self.ack().await,
            75..80 => self.nack().await,
            80..84 => self.forget(),
            84..88 => self.extend().await,
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
        self.instances.clear();
        self.join().await;
        let all = |model: &Model| model.done.len() + model.done_late.len() == model.added.len();
        while !all(&self.model) {
            let before = self.model.done.len() + self.model.done_late.len();
            self.take_within(0, 4 * GRACE).await?;
            while !self.held.is_empty() {
                self.ack().await;
            }
            if self.model.done.len() + self.model.done_late.len() == before {
                let missing = self.model.added.iter().filter(|id| !self.model.done.contains(id));
                return Err(format!("lost: {:?}", missing.collect::<Vec<_>>()));
            }
        }
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
        self.note(format!("add {ids:?}"));
        self.model.added.extend(ids);
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

    async fn take_within(&mut self, which: usize, patience: Duration) -> Result<(), String> {
        let instance = &mut self.instances[which];
        let Ok(next) = timeout(patience, instance.sink.next()).await else { return Ok(()) };
        let delivery = next.ok_or("the sink ended")?.map_err(|notice| notice.to_string())?;
        let (id, deliveries) = (delivery.id(), delivery.deliveries());
        let line = format!("instance {} takes {id}, delivery {deliveries}", instance.name);
        let model = &mut self.model;
        if model.done.contains(&id) {
            return Err(format!("{id} was acknowledged and is delivered again ({deliveries})"));
        }
        if model.done_late.get(&id).is_some_and(|by| by.contains(&instance.name)) {
            return Err(format!("{id} was acknowledged here, if late, and is delivered here again ({deliveries})"));
        }
        if !model.added.contains(&id) {
            return Err(format!("{id} was never added"));
        }
        if deliveries == 1 {
            if id <= instance.last_first {
                return Err(format!("{id} comes after {}", instance.last_first));
            }
            instance.last_first = id;
        }
        let before = model.deliveries.insert(id, deliveries).unwrap_or(0);
        if deliveries <= before {
            return Err(format!("{id} has delivery count {deliveries} after {before}"));
        }
        let by = instance.name;
        self.held.push(Held { delivery, by, since: Instant::now() });
        self.note(line);
        Ok(())
    }

    async fn ack(&mut self) {
        let Some(Held { delivery, by, since }) = self.pick() else { return };
        let id = delivery.id();
        delivery.ack().await.expect("the event is acknowledged");
        let in_time = since.elapsed() < IN_TIME;
        self.note(format!("ack {id}, in time: {in_time}"));
        if in_time {
            self.model.done.insert(id);
            self.model.done_late.remove(&id);
        } else if !self.model.done.contains(&id) {
            self.model.done_late.entry(id).or_default().insert(by);
        }
    }

    async fn nack(&mut self) {
        let Some(Held { delivery, .. }) = self.pick() else { return };
        self.note(format!("nack {}", delivery.id()));
        match delivery.nack().await {
            Ok(()) | Err(Error::Superseded { .. }) => {}
            Err(error) => panic!("the event is not given back: {error:?}"),
        }
    }

    fn forget(&mut self) {
        if let Some(Held { delivery, .. }) = self.pick() {
            self.note(format!("forget {}", delivery.id()));
        }
    }

    async fn extend(&mut self) {
        let Some(mut held) = self.pick() else { return };
        if held.delivery.in_progress().await.is_ok() {
            held.since = Instant::now();
            self.note(format!("extend {}", held.delivery.id()));
        }
        self.held.push(held);
    }

    async fn pause(&mut self) {
        let pause = GRACE.mul_f64(self.random.random_range(0.0..1.5));
        self.note(format!("pause {pause:?}"));
        tokio::time::sleep(pause).await;
    }

    fn crash(&mut self) {
        if self.instances.is_empty() {
            return;
        }
        let instance = self.instances.swap_remove(self.random.random_range(0..self.instances.len()));
        self.note(format!("instance {} crashes", instance.name));
    }

    async fn close(&mut self) {
        if self.instances.is_empty() {
            return;
        }
        let mut instance = self.instances.swap_remove(self.random.random_range(0..self.instances.len()));
        instance.sink.close().await;
        assert!(instance.sink.next().await.is_none(), "a closed sink hands something out");
        self.note(format!("instance {} closes", instance.name));
    }

    async fn join(&mut self) {
        if self.instances.len() == 4 {
            return;
        }
        let buffer = *[1, 2, 7, 64].choose(&mut self.random).expect("there are some");
        let builder = self.stream.sink("s").start(Start::Oldest).ack_grace(GRACE).buffer(buffer);
        let sink = builder.join().await.expect("the sink is joined");
        self.born += 1;
        self.instances.push(Instance { name: self.born, sink, last_first: EventId::ZERO });
        self.note(format!("instance {} joins with a buffer of {buffer}", self.born));
    }

    fn pick(&mut self) -> Option<Held> {
        if self.held.is_empty() {
            return None;
        }
        let which = self.random.random_range(0..self.held.len());
        Some(self.held.swap_remove(which))
    }

    fn note(&mut self, line: String) {
        self.log.push(line);
    }

    fn last_steps(&self) -> String {
        self.log[self.log.len().saturating_sub(60)..].join("\n")
    }
}
