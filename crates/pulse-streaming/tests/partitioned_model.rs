//! Random histories of a partitioned sink, whose instances join, leave and crash, checked against what was promised:
//! the events of a partition are handed out for the first time in their order, whoever owns it; none is lost; none is
//! in two hands at once by right; none comes again after its acknowledgement; and with one in flight nothing newer
//! comes before everything older is done.
//!
//! A failure names its seed; `PULSE_SEED=… cargo test -p pulse-streaming --test partitioned_model` runs that history
//! alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use pulse_streaming::{
    Client, Delivery, Error, NewEvent, PartitionedSink, PartitionedStream, Start, StreamId, connect,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::time::{Instant, timeout};

const GRACE: Duration = Duration::from_secs(20);
/// The grace period begins when an event is handed out, up to a sixteenth of it earlier.
const IN_TIME: Duration = Duration::from_secs(18);
const LEASE: Duration = Duration::from_secs(3);
const PARTITIONS: u32 = 5;
const STEPS: usize = 150;
const HISTORIES: u64 = 60;

struct Instance {
    name: usize,
    sink: PartitionedSink,
}

/// A delivery that the user holds.
struct Held {
    delivery: Delivery,
    event: u32,
    by: usize,
    since: Instant,
}

/// What the promises are checked against. Events are numbered in the order of their adding.
#[derive(Default)]
struct Model {
    /// The events of each partition in order, and how many of them were handed out.
    added: BTreeMap<StreamId, (Vec<u32>, usize)>,
    count: u32,
    /// Acknowledged, by the right owner and in time: never to be seen again.
    done: BTreeSet<u32>,
    /// Acknowledged by somebody else or too late: may be seen again.
    done_late: BTreeSet<u32>,
}

struct History {
    random: StdRng,
    client: Client,
    stream: PartitionedStream,
    in_flight: Option<usize>,
    instances: Vec<Instance>,
    held: Vec<Held>,
    born: usize,
    model: Model,
    log: Vec<String>,
}

#[tokio::test(start_paused = true)]
async fn random_histories_keep_the_order_of_every_partition() {
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
        let stream = PartitionedStream::new(&client, "orders", PARTITIONS).expect("a valid name");
        let mut random = StdRng::seed_from_u64(seed);
        let in_flight = *[None, None, Some(1), Some(3)].choose(&mut random).expect("there are some");
        let (instances, held, log, model) = (Vec::new(), Vec::new(), Vec::new(), Model::default());
        let mut history = Self { random, client, stream, in_flight, instances, held, born: 0, model, log };
        history.join().await;
        history
    }

    async fn step(&mut self) -> Result<(), String> {
        match self.random.random_range(0..100) {
            0..20 => self.add().await,
            20..60 => self.take().await?,
            60..78 => self.ack().await,
            78..84 => self.nack().await,
            84..87 => self.forget(),
            87..90 => self.pause().await,
            90..93 => self.crash(),
            93..96 => self.close().await,
            _ => self.join().await,
        }
        Ok(())
    }

    /// Lets one last instance work off everything, and looks whether that is everything.
    async fn end(&mut self) -> Result<(), String> {
        self.held.clear();
        self.instances.clear();
        self.join().await;
        while self.model.done.len() + self.model.done_late.len() < self.model.count as usize {
            let before = self.model.done.len() + self.model.done_late.len();
            self.take_within(0, 4 * GRACE).await?;
            while !self.held.is_empty() {
                self.ack().await;
            }
            if self.model.done.len() + self.model.done_late.len() == before {
                let done = |event: &u32| self.model.done.contains(event) || self.model.done_late.contains(event);
                let missing: Vec<u32> = (0..self.model.count).filter(|event| !done(event)).collect();
                return Err(format!("lost: {missing:?}"));
            }
        }
        // Nothing comes again, and the dead vanish.
        self.take_within(0, 4 * GRACE).await?;
        for partition in self.stream.partitions() {
            let info = partition.sink_info("s").await.map_err(|error| error.to_string())?.ok_or("no sink")?;
            if (info.pending, info.lag) != (0, Some(0)) || info.consumers.len() > 1 {
                return Err(format!("left behind: {info:?}"));
            }
        }
        self.instances[0].sink.close().await;
        self.client.close().await;
        Ok(())
    }

    async fn add(&mut self) {
        for _ in 0..self.random.random_range(1..4) {
            let key = format!("key-{}", self.random.random_range(0..12));
            let count = self.random.random_range(1..8);
            let events =
                (self.model.count..self.model.count + count).map(|n| (&key, NewEvent::new("n", n.to_string())));
            self.stream.add_batch(events).await.expect("events are added");
            let stream = self.stream.partitions()[self.stream.partition_of(&key) as usize].id().clone();
            let numbers = self.model.count..self.model.count + count;
            self.note(format!("add {numbers:?} to {stream}"));
            self.model.added.entry(stream).or_default().0.extend(numbers);
            self.model.count += count;
        }
    }

    async fn take(&mut self) -> Result<(), String> {
        if self.instances.is_empty() {
            return Ok(());
        }
        let which = self.random.random_range(0..self.instances.len());
        for _ in 0..self.random.random_range(1..10) {
            let patience = Duration::from_millis(self.random.random_range(0..1_500));
            self.take_within(which, patience).await?;
        }
        Ok(())
    }

    async fn take_within(&mut self, which: usize, patience: Duration) -> Result<(), String> {
        let instance = &mut self.instances[which];
        let Ok(next) = timeout(patience, instance.sink.next()).await else { return Ok(()) };
        let delivery = next.ok_or("the sink ended")?.map_err(|notice| notice.to_string())?;
        let event: u32 =
            std::str::from_utf8(delivery.payload()).ok().and_then(|n| n.parse().ok()).ok_or("no number")?;
        let (by, deliveries) = (instance.name, delivery.deliveries());
        self.note(format!("instance {by} takes {event} of {}, delivery {deliveries}", delivery.stream()));
        self.check(&delivery, event, by)?;
        self.held.push(Held { delivery, event, by, since: Instant::now() });
        Ok(())
    }

    fn check(&mut self, delivery: &Delivery, event: u32, by: usize) -> Result<(), String> {
        let model = &mut self.model;
        if model.done.contains(&event) {
            return Err(format!("{event} was acknowledged and is delivered again"));
        }
        let (events, seen) = model.added.get_mut(delivery.stream()).ok_or("a stream that nothing was added to")?;
        let place = events.iter().position(|added| *added == event).ok_or("never added to this partition")?;
        if place > *seen {
            return Err(format!("{event} comes before {}", events[*seen]));
        }
        *seen = (*seen).max(place + 1);
        let open = |event: &&u32| !model.done.contains(event) && !model.done_late.contains(event);
        if let Some(most) = self.in_flight {
            let older: Vec<&u32> = events[..place].iter().filter(open).collect();
            if older.len() >= most {
                return Err(format!("{event} comes while {older:?} are not acknowledged, in flight {most}"));
            }
        }
        let alive = |name| self.instances.iter().any(|instance| instance.name == name);
        let holder =
            self.held.iter().find(|held| held.event == event && held.since.elapsed() < IN_TIME && alive(held.by));
        match holder {
            Some(holder) => Err(format!("{event} is delivered to {by} while {} holds it", holder.by)),
            None => Ok(()),
        }
    }

    async fn ack(&mut self) {
        let Some(Held { delivery, event, by, since }) = self.pick() else { return };
        delivery.ack().await.expect("the event is acknowledged");
        let by_right = since.elapsed() < IN_TIME && self.instances.iter().any(|instance| instance.name == by);
        self.note(format!("ack {event}, by right: {by_right}"));
        if by_right {
            self.model.done.insert(event);
            self.model.done_late.remove(&event);
        } else if !self.model.done.contains(&event) {
            self.model.done_late.insert(event);
        }
    }

    async fn nack(&mut self) {
        let Some(Held { delivery, event, .. }) = self.pick() else { return };
        self.note(format!("nack {event}"));
        match delivery.nack().await {
            Ok(()) | Err(Error::Superseded { .. }) => {}
            Err(error) => panic!("the event is not given back: {error:?}"),
        }
    }

    fn forget(&mut self) {
        if let Some(Held { event, .. }) = self.pick() {
            self.note(format!("forget {event}"));
        }
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
        self.note(format!("instance {} closes", instance.name));
        if self.random.random_bool(0.7) {
            self.held.retain(|held| held.by != instance.name);
        }
        instance.sink.close().await;
        assert!(instance.sink.next().await.is_none(), "a closed sink hands something out");
    }

    async fn join(&mut self) {
        if self.instances.len() == 4 {
            return;
        }
        let buffer = *[1, 2, 7, 64].choose(&mut self.random).expect("there are some");
        let builder = self.stream.sink("s").start(Start::Oldest).ack_grace(GRACE).lease(LEASE).buffer(buffer);
        let builder = match self.in_flight {
            Some(events) => builder.in_flight(events),
            None => builder,
        };
        let sink = builder.join().await.expect("the sink is joined");
        self.born += 1;
        self.instances.push(Instance { name: self.born, sink });
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
        self.log[self.log.len().saturating_sub(80)..].join("\n")
    }
}
