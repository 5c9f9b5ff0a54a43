//! What goes on before a fault, and how long it takes until each part of it goes on again.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use pulse_core::Client;
use pulse_rmap::Map;
use tests::scene::{LEASE, Pool, SCOPE, Taker, Writer, connect, map, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::harness::{Bench, Paired, Row};

/// What is not back by then is not waited for.
const LIMIT: Duration = Duration::from_secs(20);

/// How much later than the servers writes, maps and sinks may go on.
pub(super) const WITHIN: Duration = Duration::from_secs(2);

/// A client that writes all the time, one whose map and sink follow, and a pool of three nodes with thirty jobs.
pub(super) struct Activity {
    sets: Writer,
    adds: Writer,
    replica: Map<u64>,
    taker: Taker,
    pool: Pool,
    /// They stay connected for as long as this lives.
    _clients: [Client; 2],
}

impl Activity {
    pub(super) async fn begin(url: &str) -> Self {
        let (writes, reads) = (connect(url).await, connect(url).await);
        let (source, replica) = (map(&writes).await, map(&reads).await);
        let taker = Taker::join(&stream(&reads)).await;
        let pool = Pool::start(url, 3, 30).await;
        let (sets, adds) = (Writer::of_map(&source), Writer::of_stream(&stream(&writes)));
        sets.goes_on(20).await;
        adds.goes_on(20).await;
        Self { sets, adds, replica, taker, pool, _clients: [writes, reads] }
    }

    /// Watches until everything goes on after a fault of this moment. The servers are back when the one at this port
    /// takes writes.
    pub(super) async fn resumes(&self, port: u16) -> Times {
        let fault = Instant::now();
        let (set, added) = (self.sets.begun(), self.adds.begun());
        let servers_are_back = Cell::new(false);
        let servers = async {
            let taken = until(fault, async || takes_writes(port).await).await;
            servers_are_back.set(true);
            taken
        };
        let writes = until(fault, async || self.sets.newest() > set && self.adds.newest() > added);
        let follows = || self.replica.is_synced() && self.replica.get("n").is_some_and(|found| *found > set);
        let maps = until(fault, async || follows());
        let sinks = until(fault, async || self.taker.newest() > added);
        let jobs = self.jobs_run_again(fault, &servers_are_back);
        let (servers, writes, maps, sinks, jobs) = tokio::join!(servers, writes, maps, sinks, jobs);
        Times { servers, writes, maps, sinks, jobs }
    }

    /// When not all jobs ran for the last time, once all of them have run for a lease: what only runs on does not
    /// count.
    async fn jobs_run_again(&self, fault: Instant, servers_are_back: &Cell<bool>) -> Duration {
        let (mut gap, mut all_run_since) = (fault, fault);
        while fault.elapsed() < LIMIT {
            let now = Instant::now();
            if self.pool.jobs.running() != self.pool.keys {
                gap = now;
            }
            if !servers_are_back.get() {
                all_run_since = now;
            }
            if all_run_since.max(gap).elapsed() > LEASE {
                return gap - fault;
            }
            sleep(Duration::from_millis(5)).await;
        }
        LIMIT
    }
}

/// How long it took.
pub(super) struct Times {
    servers: Duration,
    writes: Duration,
    maps: Duration,
    sinks: Duration,
    jobs: Duration,
}

/// The times of several rounds.
#[derive(Default)]
pub(super) struct Outage {
    parts: [Paired; 4],
}

impl Outage {
    pub(super) fn push(&mut self, times: &Times) {
        let servers = times.servers.as_secs_f64();
        for (part, time) in self.parts.iter_mut().zip([times.writes, times.maps, times.sinks, times.jobs]) {
            part.push(time.as_secs_f64(), servers);
        }
    }

    /// Lines for a fault, with how much later than the servers everything may be back; jobs a lease later still.
    pub(super) fn rows(&self, fault: &str, within: Duration) -> Vec<Row> {
        let [writes, maps, sinks, jobs] = &self.parts;
        let row = |scenario: String, part: &Paired, within| Row::later(scenario, shown(part.ours()), part, within);
        vec![
            row(format!("{fault}: until a client writes again"), writes, within),
            row("the same: until a map follows again".into(), maps, within),
            row("the same: until a sink delivers again".into(), sinks, within),
            row("the same: until all jobs of a pool run again".into(), jobs, within + LEASE),
        ]
    }
}

fn shown(seconds: f64) -> String {
    match seconds {
        0.0 => "no pause".into(),
        seconds if seconds >= LIMIT.as_secs_f64() => format!("over {LIMIT:?}"),
        seconds => format!("{seconds:.2} s"),
    }
}

/// How often each fault is done. A round takes a quarter of a minute, most of which the servers need to come up and to
/// agree.
pub(super) fn rounds(bench: &Bench) -> usize {
    bench.options.rounds.div_ceil(6)
}

/// How long it takes until something holds.
async fn until(fault: Instant, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    while fault.elapsed() < LIMIT && !holds().await {
        sleep(Duration::from_millis(2)).await;
    }
    fault.elapsed().min(LIMIT)
}

/// Whether the server at this port takes a write of the scope.
async fn takes_writes(port: u16) -> bool {
    let ask = async {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
        connection.write_all(format!("SET {{{SCOPE}}}probe 1\r\n").as_bytes()).await?;
        let mut answer = [0; 5];
        connection.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer == *b"+OK\r\n")
    };
    matches!(timeout(Duration::from_millis(200), ask).await, Ok(Ok(true)))
}
