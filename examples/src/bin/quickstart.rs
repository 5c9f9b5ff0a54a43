//! The three packages together: three nodes share a map, a stream of events and a pool of jobs; then one node dies, and
//! its jobs go on elsewhere.
//!
//! ```text
//! cargo run -p examples --bin quickstart                                      # embedded, needs no server
//! PULSE_URL=redis://127.0.0.1:6379 cargo run -p examples --bin quickstart     # through a server
//! ```
//!
//! The three nodes live in one process here, each with a client of its own, as three processes would. It ends with an
//! error if anything did not happen that should have.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pulse_core::{Client, Scope, Transaction};
use pulse_pool::{HandlerError, Job, JobHandler, JobKey, Node};
use pulse_rmap::{Map, Update};
use pulse_streaming::{EventStream, Sink, Start};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A node that was silent for so long is dead.
const WORKER_TTL: Duration = Duration::from_secs(1);
/// How long anything may take before the example gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a song stays at one bar.
const BAR: Duration = Duration::from_millis(100);

/// Which node is at which bar of a song.
type Bar = (String, u64);

/// What each of the three nodes has of its own.
struct Member {
    name: &'static str,
    client: Client,
    /// How far each song is. Every node has all of it in memory.
    bars: Map<Bar>,
    orders: EventStream,
    node: Node,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = run().await else { return ExitCode::SUCCESS };
    eprintln!("\nThe quick start failed: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        eprintln!("  because: {cause}");
        source = cause.source();
    }
    ExitCode::FAILURE
}

async fn run() -> Result {
    // By name: a plain `memory:` would give each of the three a store of its own.
    let url = std::env::var("PULSE_URL").ok().filter(|url| url != "memory:");
    let url = url.unwrap_or_else(|| "memory:quickstart".into());
    // A name that no other run uses: several may share a server.
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let scope = Scope::new(format!("quickstart-{}-{now:x}", std::process::id()))?;
    println!("Three nodes meet at {}\n", url.split('@').next_back().unwrap_or_default());

    let mut members = Vec::new();
    for name in ["anna", "ben", "cleo"] {
        members.push(Member::join(name, &url, &scope).await?);
    }
    share_a_map(&members).await?;
    share_events(&members).await?;
    run_jobs(&members).await?;
    let survivors = lose_a_node(members).await?;
    clean_up(survivors, &scope).await?;
    println!("\nEverything happened as promised.");
    Ok(())
}

impl Member {
    async fn join(name: &'static str, url: &str, scope: &Scope) -> Result<Self> {
        let client = pulse_core::connect(url).await?;
        let bars = Map::builder("bars").scope(scope.clone()).join(&client).await?;
        let orders = EventStream::in_scope(&client, scope, "orders")?;
        let node = Node::builder(scope.as_str()).worker_ttl(WORKER_TTL).join(&client).await?;
        Ok(Self { name, client, bars, orders, node })
    }
}

/// A change made on one node reaches the others.
async fn share_a_map(members: &[Member]) -> Result {
    println!("1. A replicated map: what one node sets, every node has in memory");
    let (first, others) = members.split_first().ok_or("nobody is there")?;
    let changes: Vec<_> = others.iter().map(|member| (member.name, member.bars.subscribe())).collect();
    first.bars.set("prelude", &("nobody".into(), 7)).await?;
    println!("   {} sets \"prelude\" to bar 7", first.name);
    for (name, mut changes) in changes {
        match timeout(PATIENCE, changes.next()).await? {
            Some(Update::Change(change)) => {
                let (_, bar) = change.value.as_deref().ok_or("the value is missing")?;
                println!("   {name} sees {:?} at bar {bar}", change.key);
            }
            other => return Err(format!("{name} saw {other:?}").into()),
        }
    }
    first.bars.delete("prelude").await?;
    Ok(())
}

/// Events go to one of the instances of a sink, and are done when that one says so.
async fn share_events(members: &[Member]) -> Result {
    println!("\n2. An event stream: anna takes orders, ben and cleo share the work");
    let [anna, ben, cleo] = members else { return Err("three nodes are needed".into()) };
    let mut done = JoinSet::new();
    for cook in [ben, cleo] {
        let kitchen = cook.orders.sink("kitchen").start(Start::Oldest).buffer(1).join().await?;
        done.spawn(timeout(PATIENCE, prepare_three(cook.name, kitchen)));
    }
    for dish in ["soup", "bread", "fish", "salad", "cheese", "cake"] {
        anna.orders.add("ordered", dish).await?;
    }
    let mut prepared = BTreeSet::new();
    while let Some(dishes) = done.join_next().await {
        prepared.extend(dishes???);
    }
    if prepared.len() == 6 { Ok(()) } else { Err(format!("only {prepared:?} were prepared").into()) }
}

/// Takes three events, one after the other, and says of each when it is done.
async fn prepare_three(cook: &str, mut kitchen: Sink) -> Result<Vec<String>> {
    let mut dishes = Vec::new();
    while dishes.len() < 3 {
        let delivery = kitchen.next().await.ok_or("the sink is closed")??;
        let dish = String::from_utf8(delivery.payload().to_vec())?;
        sleep(Duration::from_millis(20)).await;
        delivery.ack().await?;
        println!("   {cook} prepared the {dish}");
        dishes.push(dish);
    }
    kitchen.close().await;
    Ok(dishes)
}

/// Plays songs: one job is one song. It writes every bar into the shared map, and goes on from there.
struct Player {
    name: &'static str,
    bars: Map<Bar>,
}

#[pulse_pool::async_trait]
impl JobHandler for Player {
    async fn start(&self, job: Job) -> std::result::Result<(), HandlerError> {
        let (name, bars) = (self.name, self.bars.clone());
        tokio::spawn(async move {
            while job.may_run() {
                let bar = bars.get(job.key().as_str()).map_or(0, |bar| bar.1);
                // A bar that cannot be written is played again.
                if let Ok(set) = bars.set(job.key().as_str(), &(name.to_owned(), bar + 1)).await {
                    let _ = bars.wait_for(set.version).await;
                }
                tokio::select! {
                    () = job.stopped() => {}
                    () = sleep(BAR) => {}
                }
            }
        });
        Ok(())
    }

    async fn stop(&self, _: &JobKey) -> std::result::Result<(), HandlerError> {
        Ok(())
    }
}

/// Each key runs on one node, the one that it belongs to.
async fn run_jobs(members: &[Member]) -> Result {
    println!("\n3. A worker pool: ten songs, dispatched by anna, each played by one node");
    for member in members {
        member.node.add_worker(Player { name: member.name, bars: member.bars.clone() }).await?;
    }
    for song in 1..=10 {
        members[0].node.dispatch(format!("song-{song}"), "").await?;
    }
    let bars = &members[0].bars;
    let under_way = || songs(bars).values().filter(|(_, bar)| *bar >= 5).count() == 10;
    until("all songs are played", || under_way().then_some(())).await?;
    print_places(bars);
    Ok(())
}

/// One node vanishes without a word: the others take over when its lease has run out.
async fn lose_a_node(mut members: Vec<Member>) -> Result<Vec<Member>> {
    let bars = members[0].bars.clone();
    // Anna dispatches; of the other two, the one that plays more makes the better story.
    let playing = |name: &str| songs(&bars).into_iter().filter(|(_, bar)| bar.0 == name).count();
    let index = if playing(members[1].name) >= playing(members[2].name) { 1 } else { 2 };
    let victim = members.remove(index);
    println!("\n4. {} dies in the middle of it all; its lease runs out within {WORKER_TTL:?}", victim.name);
    let name = victim.name;
    // Not closed: dropped with its lease, like a process that was killed.
    drop(victim);
    let at_death: BTreeMap<_, _> = songs(&bars).into_iter().filter(|(_, bar)| bar.0 == name).collect();
    for (song, (_, bar)) in &at_death {
        let (heir, next) = until("its songs go on elsewhere", || {
            let now = bars.get(song)?;
            (now.0 != name).then(|| (now.0.clone(), now.1))
        })
        .await?;
        println!("   {song} stopped at bar {bar} on {name} and goes on at bar {next} on {heir}");
    }
    print_places(&bars);
    Ok(members)
}

/// Ends in good order, and leaves nothing behind in the server.
async fn clean_up(members: Vec<Member>, scope: &Scope) -> Result {
    println!("\n5. The others stop the songs and leave");
    for song in members[0].node.jobs().await? {
        members[0].node.stop(&song.key).await?;
    }
    for member in &members {
        member.node.close().await?;
        member.bars.close().await;
    }
    let client = &members[0].client;
    pulse_pool::destroy(client, scope.as_str()).await?;
    client.commit(Transaction::new(scope).destroy_map("bars").destroy_stream("orders")).await?;
    for member in members {
        member.client.close().await;
    }
    Ok(())
}

fn songs(bars: &Map<Bar>) -> BTreeMap<String, Bar> {
    bars.snapshot().iter().map(|(song, bar)| (song.to_string(), bar.clone())).collect()
}

fn print_places(bars: &Map<Bar>) {
    let mut places = BTreeMap::<String, Vec<String>>::new();
    for (song, (name, _)) in songs(bars) {
        places.entry(name).or_default().push(song);
    }
    for (name, songs) in places {
        println!("   {name} plays {}", songs.join(", "));
    }
}

/// Waits until there is something to see.
async fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> Result<T> {
    let seen = timeout(PATIENCE, async {
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
    seen.await.map_err(|_| format!("waited {PATIENCE:?} in vain until {what}").into())
}
