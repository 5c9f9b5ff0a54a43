//! Whatever the feeds lose: when it is quiet, every replica is the map, and every subscriber was told exactly how it
//! became so.

mod lossy;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use pulse_rmap::{
    Changes, Client, Map, Scope, Snapshot, Transaction, Update, Version,
    pulse_core::{Limits, Memory},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use self::lossy::{Lossy, Trouble};

type Content = BTreeMap<String, u32>;

fn content(snapshot: &Snapshot<u32>) -> Content {
    snapshot.iter().map(|(key, value)| (key.to_string(), *value)).collect()
}

/// Applies every change to what it knew, and checks that each fits.
struct Folding {
    content: Content,
    changes: Changes<u32>,
    last: Option<Version>,
    lags: u32,
}

impl Folding {
    fn begin(map: &Map<u32>) -> Self {
        let (snapshot, changes) = map.snapshot_and_subscribe();
        Self { content: content(&snapshot), changes, last: snapshot.version(), lags: 0 }
    }

    fn take_one(&mut self) {
        if let Some(update) = self.changes.try_next() {
            self.fold(update);
        }
    }

    fn take_all(&mut self) {
        while let Some(update) = self.changes.try_next() {
            self.fold(update);
        }
    }

    fn fold(&mut self, update: Update<u32>) {
        let change = match update {
            Update::Change(change) => change,
            Update::Cleared(cleared) => {
                assert_eq!(cleared.keys, self.content.len() as u64, "{cleared:?} does not tell what was there");
                return;
            }
            _ => {
                self.lags += 1;
                return;
            }
        };
        if let (Some(last), Some(version)) = (self.last, change.version) {
            let same_life = last.incarnation == version.incarnation;
            assert!(!same_life || version.revision >= last.revision, "{version} after {last}");
        }
        self.last = change.version;
        let before = match &change.value {
            Some(value) => self.content.insert(change.key.to_string(), **value),
            None => self.content.remove(&*change.key),
        };
        assert_eq!(before, change.previous.as_deref().copied(), "{change:?} does not continue what was told before");
    }
}

/// One replica with its own lossy link, and two who subscribe to it.
struct Node {
    map: Map<u32>,
    fast: Folding,
    slow: Folding,
}

async fn node(store: &Arc<Memory>, scope: &Scope, seed: u64, trouble: &Trouble) -> Node {
    let client = Client::from_backend(Arc::new(Lossy::new(store.clone(), seed, trouble.clone())));
    let map = loop {
        // The link may fail while joining, which is an error to the one who joins.
        match Map::builder("m").scope(scope.clone()).change_buffer(8).join(&client).await {
            Ok(map) => break map,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    };
    let (fast, slow) = (Folding::begin(&map), Folding::begin(&map));
    Node { map, fast, slow }
}

/// The map as it must be, with everything that it ever was.
#[derive(Default)]
struct Model {
    content: Content,
    history: HashMap<Version, Content>,
}

impl Model {
    /// Commits a few random writes together, and does the same to the model.
    async fn commit_some(&mut self, draw: &mut StdRng, client: &Client, map: &Map<u32>) {
        let mut transaction = Transaction::new(map.id().scope());
        for _ in 0..draw.random_range(1..4) {
            let (key, value) = (format!("k{}", draw.random_range(0..12)), draw.random());
            transaction = match draw.random_range(0..40) {
                emptying @ 0..2 => {
                    self.content.clear();
                    if emptying == 0 { transaction.clear("m") } else { transaction.destroy_map("m") }
                }
                2..12 => {
                    self.content.remove(&key);
                    transaction.delete("m", key)
                }
                _ => {
                    self.content.insert(key.clone(), value);
                    transaction.put("m", key, map.encode(&value).unwrap())
                }
            };
        }
        if let Some(version) = client.commit(transaction).await.unwrap().version("m") {
            self.history.insert(version, self.content.clone());
        }
    }

    fn at(&self, version: Option<Version>) -> Content {
        version.map_or_else(Content::new, |version| self.history[&version].clone())
    }
}

/// Returns how often the slow subscribers lagged.
async fn run(seed: u64) -> u32 {
    let mut draw = StdRng::seed_from_u64(seed);
    let store = Arc::new(Memory::with_limits(Limits::default()));
    let writer = Client::from_backend(store.clone());
    let scope = Scope::new("s").unwrap();
    let truth: Map<u32> = Map::builder("m").scope(scope.clone()).join(&writer).await.unwrap();

    let trouble: Trouble = Arc::new(AtomicU32::new(20));
    let (mut model, mut nodes) = (Model::default(), Vec::new());
    for link in 0..4 {
        nodes.push(node(&store, &scope, seed ^ (link << 32), &trouble).await);
    }
    for _ in 0..200 {
        model.commit_some(&mut draw, &writer, &truth).await;
        if draw.random_range(0..3) == 0 {
            tokio::time::sleep(Duration::from_millis(draw.random_range(0..30))).await;
        }
        for Node { map, fast, slow } in &mut nodes {
            fast.take_all();
            slow.take_one();
            let snapshot = map.snapshot();
            assert_eq!(content(&snapshot), model.at(snapshot.version()), "a replica shows what never was");
            assert_eq!(fast.content, content(&snapshot), "a subscriber was told something else");
        }
    }

    trouble.store(0, Ordering::Relaxed);
    // Without another commit, only comparing versions can find what was lost at the end.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let expected = model.content;
    assert_eq!(content(&truth.snapshot()), expected);
    for Node { map, fast, slow } in &mut nodes {
        assert!(map.is_synced(), "a replica is not synced");
        assert_eq!(map.version(), truth.version(), "a replica has another version");
        assert_eq!(content(&map.snapshot()), expected, "a replica has another content");
        for subscriber in [fast, slow] {
            subscriber.take_all();
            assert_eq!(subscriber.content, expected, "a subscriber was told something else");
        }
        map.close().await;
    }
    nodes.iter().map(|node| node.slow.lags).sum()
}

#[tokio::test(start_paused = true)]
async fn replicas_and_subscribers_converge_whatever_their_feeds_lose() {
    let first = std::env::var("PULSE_SEED").ok().and_then(|seed| seed.parse().ok());
    let (seeds, mut lags) = (first.map_or(0..60_u32, |seed| seed..seed + 1), 0);
    for seed in seeds.clone() {
        // Shown when the test fails; PULSE_SEED runs this one alone.
        println!("PULSE_SEED={seed}");
        lags += run(seed.into()).await;
    }
    assert!(seeds.len() == 1 || lags > 0, "no subscriber lagged, so that was not tested");
}

#[tokio::test]
async fn a_map_can_be_joined_that_is_written_faster_than_it_is_read() {
    let store = Arc::new(Memory::with_limits(Limits::default()));
    let writer = Client::from_backend(store.clone());
    let mut filling = Transaction::new(&Scope::new("m").unwrap());
    for number in 0..300 {
        filling = filling.put("m", format!("k{number}"), Bytes::from_static(b"\x01"));
    }
    writer.commit(filling).await.unwrap();
    // Ten thousand commits while it is read, more than a feed holds; and no wait in which it would be emptied.
    let client = Client::from_backend(Arc::new(Lossy::busy(store, 100)));
    let map: Map<u32> = Map::builder("m").join(&client).await.unwrap();
    assert_eq!((map.snapshot().len(), map.get("beside").as_deref()), (301, Some(&7)));
    map.close().await;
}

#[tokio::test]
async fn while_a_large_map_is_joined_others_have_their_turn() {
    // Of a thousand entries each.
    const PAGES: u32 = 80;
    let client = Client::from_backend(Arc::new(Memory::with_limits(Limits::default())));
    for page in 0..PAGES {
        let filling = Transaction::new(&Scope::new("m").unwrap());
        let fill =
            |filling: Transaction, number| filling.put("m", format!("{page}-{number}"), Bytes::from_static(b"\x01"));
        client.commit((0..1000).fold(filling, fill)).await.unwrap();
    }
    let turns = Arc::new(AtomicU32::new(0));
    let other = tokio::spawn({
        let turns = turns.clone();
        async move {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    let map: Map<u32> = Map::builder("m").join(&client).await.unwrap();
    assert_eq!(map.snapshot().len(), 80_000);
    // Nothing else in the join waits, so that the other task runs only where the reading gives way.
    assert!(turns.load(Ordering::Relaxed) >= PAGES / 10, "{turns:?} turns");
    other.abort();
    map.close().await;
}
