//! What sinks promise when their processes, their server or their connections fail in the middle of the work. The
//! processes are this program itself, told by the environment to work.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    pin::Pin,
    process::{ChildStdin, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt, stream::FuturesUnordered};
use pulse_core::ClientBuilder;
use pulse_streaming::{Client, Delivery, EventStream, NewEvent, Notice, PartitionedStream, Sink, Start};
use tests::{Process, Server, eventually, in_time, soon};
use tokio::{io::AsyncReadExt, sync::mpsc};

use crate::number;

/// Tells a process to work on the server at this address.
const SERVER: &str = "PULSE_TEST_WORK_AT";
/// Tells it to be an instance of a partitioned sink.
const PARTITIONED: &str = "PULSE_TEST_WORK_PARTITIONED";
const GRACE: Duration = Duration::from_secs(2);
const PARTITIONS: u32 = 12;
const BATCH: u32 = 500;

async fn client(url: &str) -> Client {
    ClientBuilder::new(url).command_timeout(Duration::from_secs(2)).connect().await.unwrap()
}

fn stream(client: &Client) -> EventStream {
    EventStream::new(client, "work").unwrap()
}

fn partitioned(client: &Client) -> PartitionedStream {
    PartitionedStream::new(client, "work", PARTITIONS).unwrap()
}

type Deliveries = Pin<Box<dyn Stream<Item = Result<Delivery, Notice>>>>;

/// What a process is told to do: it says `D n` of each event that it is handed and `A n` once it is acknowledged, until
/// its input ends.
#[tokio::test]
async fn works_if_it_is_told_to() {
    let Ok(url) = std::env::var(SERVER) else { return };
    let client = client(&url).await;
    let mut sink: Deliveries = if std::env::var(PARTITIONED).is_ok() {
        let sink = partitioned(&client).sink("s").start(Start::Oldest).lease(GRACE);
        Box::pin(sink.join().await.unwrap())
    } else {
        Box::pin(stream(&client).sink("s").start(Start::Oldest).ack_grace(GRACE).join().await.unwrap())
    };
    let mut output = std::io::stdout();
    writeln!(output, "\nready").unwrap();
    let mut acks = FuturesUnordered::new();
    let (mut input, mut nothing) = (tokio::io::stdin(), [0]);
    let ended = input.read(&mut nothing);
    tokio::pin!(ended);
    loop {
        tokio::select! {
            _ = &mut ended => return,
            Some((number, acked)) = acks.next() => {
                if let Ok(()) = acked {
                    writeln!(output, "A {number}").unwrap();
                }
            }
            delivery = sink.next(), if acks.len() < 256 => {
                let Ok(delivery) = delivery.unwrap() else { continue };
                let number = number(&delivery);
                writeln!(output, "D {number}").unwrap();
                acks.push(async move { (number, delivery.ack().await) });
            }
        }
    }
}

/// A process that works.
struct Worker {
    process: Process,
    /// Its end tells the process to end.
    input: ChildStdin,
}

/// What a worker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Ready,
    Delivered(u32),
    Acked(u32),
}

impl Worker {
    /// Starts a process, and sends what it says to the test under its number.
    fn start(server: &Server, number: usize, says: &mpsc::UnboundedSender<(usize, Line)>, partitioned: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "processes::works_if_it_is_told_to", "--nocapture"]).env(SERVER, server.url());
        if partitioned {
            command.env(PARTITIONED, "yes");
        }
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("this program can be started again");
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let says = says.clone();
        // It ends with the process.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let said = match line.split_once(' ') {
                    None if line == "ready" => Line::Ready,
                    Some(("D", number)) => Line::Delivered(number.parse().unwrap()),
                    Some(("A", number)) => Line::Acked(number.parse().unwrap()),
                    _ => continue,
                };
                if says.send((number, said)).is_err() {
                    return;
                }
            }
        });
        Self { process: Process::new(child), input }
    }

    async fn finish(self) {
        drop(self.input);
        tokio::task::spawn_blocking(|| self.process.wait()).await.unwrap();
    }
}

/// What all workers said so far.
#[derive(Default)]
struct Report {
    delivered: BTreeMap<u32, Vec<usize>>,
    acked: BTreeMap<u32, BTreeSet<usize>>,
}

impl Report {
    fn note(&mut self, worker: usize, line: Line) {
        match line {
            Line::Ready => {}
            Line::Delivered(number) => self.delivered.entry(number).or_default().push(worker),
            Line::Acked(number) => drop(self.acked.entry(number).or_default().insert(worker)),
        }
    }
}

async fn hear(says: &mut mpsc::UnboundedReceiver<(usize, Line)>, report: &mut Report) -> (usize, Line) {
    let (worker, line) = soon("a word of a worker", says.recv()).await.expect("the test holds a sender");
    report.note(worker, line);
    (worker, line)
}

async fn start_all(
    server: &Server,
    count: usize,
    partitioned: bool,
) -> (Vec<Worker>, mpsc::UnboundedReceiver<(usize, Line)>, mpsc::UnboundedSender<(usize, Line)>) {
    let (sender, mut says) = mpsc::unbounded_channel();
    let workers = (0..count).map(|number| Worker::start(server, number, &sender, partitioned)).collect();
    for _ in 0..count {
        let said = soon("a worker", says.recv()).await;
        assert!(matches!(said, Some((_, Line::Ready))), "{said:?}");
    }
    (workers, says, sender)
}

mod standalone {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_sink_process_that_is_killed_under_load_costs_no_event_and_repeats_only_what_was_not_acknowledged() {
        const COUNT: u32 = 200_000;
        in_time(async {
            let server = Server::start();
            let client = client(&server.url()).await;
            let (mut workers, mut says, _open) = start_all(&server, 3, false).await;
            let writing = tokio::spawn({
                let stream = stream(&client);
                async move {
                    for batch in 0..COUNT / BATCH {
                        let events = (batch * BATCH..(batch + 1) * BATCH).map(|n| NewEvent::new("n", n.to_string()));
                        stream.add_batch(events).await.unwrap();
                    }
                }
            });
            let mut report = Report::default();
            while report.acked.len() < COUNT as usize / 4 {
                hear(&mut says, &mut report).await;
            }
            workers.remove(0).process.kill();
            while report.delivered.len() < COUNT as usize {
                hear(&mut says, &mut report).await;
            }
            writing.await.unwrap();
            let stream = stream(&client);
            eventually("everything is acknowledged", async || {
                let info = stream.sink_info("s").await.unwrap().unwrap();
                if (info.pending, info.lag) == (0, Some(0)) { Ok(()) } else { Err(info) }
            })
            .await;
            for worker in workers {
                worker.finish().await;
            }
            while let Ok((worker, line)) = says.try_recv() {
                report.note(worker, line);
            }
            for (number, by) in &report.delivered {
                let acked_by_dead = report.acked.get(number).is_some_and(|by| by.contains(&0));
                let often = if by.contains(&0) && !acked_by_dead { 2 } else { 1 };
                assert!(
                    by.len() <= often,
                    "{number} was delivered to {by:?}, acknowledged by the dead: {acked_by_dead}"
                );
            }
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_process_that_is_stopped_beyond_the_grace_period_does_no_harm_when_it_returns() {
        const COUNT: u32 = 20_000;
        in_time(async {
            let server = Server::start();
            let client = client(&server.url()).await;
            let (workers, mut says, _open) = start_all(&server, 2, false).await;
            let stream = stream(&client);
            let mut report = Report::default();
            for batch in 0..COUNT / BATCH {
                let events = (batch * BATCH..(batch + 1) * BATCH).map(|n| NewEvent::new("n", n.to_string()));
                stream.add_batch(events).await.unwrap();
                if batch == COUNT / BATCH / 4 {
                    workers[0].process.pause();
                }
            }
            // The other one works off everything, also what the stopped one held.
            eventually("everything is acknowledged", async || {
                let info = stream.sink_info("s").await.unwrap().unwrap();
                if (info.pending, info.lag) == (0, Some(0)) { Ok(()) } else { Err(info) }
            })
            .await;
            workers[0].process.resume();
            while report.delivered.len() < COUNT as usize {
                hear(&mut says, &mut report).await;
            }
            // Both go on.
            let mut working = BTreeSet::new();
            let mut next = COUNT;
            while working.len() < 2 {
                stream.add("n", next.to_string()).await.unwrap();
                while !report.acked.contains_key(&next) {
                    let (worker, line) = hear(&mut says, &mut report).await;
                    if line == Line::Acked(next) {
                        working.insert(worker);
                    }
                }
                next += 1;
            }
            for worker in workers {
                worker.finish().await;
            }
            for (number, by) in &report.delivered {
                assert!(by.len() <= 2, "{number} was delivered to {by:?}");
                assert!(by.len() == 1 || by.contains(&0), "{number} was never in the hands of the stopped one: {by:?}");
            }
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn partitions_keep_their_order_when_the_process_that_owns_them_is_killed() {
        const COUNT: u32 = 20_000;
        in_time(async {
            let server = Server::start();
            let client = client(&server.url()).await;
            let (mut workers, mut says, _open) = start_all(&server, 3, true).await;
            let stream = partitioned(&client);
            let key = |n: u32| format!("key-{}", n % 97);
            let mut report = Report::default();
            for batch in 0..COUNT / BATCH {
                let events = batch * BATCH..(batch + 1) * BATCH;
                stream.add_batch(events.map(|n| (key(n), NewEvent::new("n", n.to_string())))).await.unwrap();
                if batch == COUNT / BATCH / 2 {
                    workers.remove(0).process.kill();
                }
            }
            // The words of the dead were all said before another one took over, but may be heard later.
            let (mut living, mut dead) = (vec![Vec::new(); PARTITIONS as usize], BTreeMap::<u32, u32>::new());
            while report.delivered.len() < COUNT as usize {
                let (worker, line) = hear(&mut says, &mut report).await;
                let Line::Delivered(number) = line else { continue };
                let partition = stream.partition_of(key(number));
                if worker == 0 {
                    assert!(dead.insert(partition, number).is_none_or(|last| last < number));
                } else {
                    living[partition as usize].push((worker, number));
                }
            }
            for seen in living {
                // Each owner sees its part of the partition in order; only what the dead one held comes twice.
                for worker in 1..3 {
                    let part: Vec<u32> =
                        seen.iter().filter(|(by, _)| *by == worker).map(|(_, number)| *number).collect();
                    assert!(part.is_sorted_by(|a, b| a < b), "worker {worker} sees {part:?}");
                }
            }
            for (number, by) in &report.delivered {
                let acked_by_dead = report.acked.get(number).is_some_and(|by| by.contains(&0));
                assert!(by.len() == 1 || (by.contains(&0) && !acked_by_dead), "{number} was delivered to {by:?}");
            }
            for worker in workers {
                worker.finish().await;
            }
        })
        .await;
    }

    /// Works off numbered events while something else goes on, and checks that none comes after its acknowledgement.
    async fn work_off(mut sink: Sink, count: u32) {
        let mut done = BTreeSet::new();
        while done.len() < count as usize {
            let Ok(delivery) = soon("a delivery", sink.next()).await.unwrap() else { continue };
            let number = number(&delivery);
            assert!(!done.contains(&number), "{number} was acknowledged and came again");
            if delivery.ack().await.is_ok() {
                done.insert(number);
            }
        }
        soon("the closing", sink.close()).await;
    }

    /// Adds numbered events, each exactly once, whatever happens to the server meanwhile.
    async fn write(stream: EventStream, count: u32, pause: Duration) {
        let mut numbers = 0..count;
        let mut number = numbers.next();
        while let Some(this) = number {
            match stream.add_once(format!("once-{this}"), NewEvent::new("n", this.to_string())).await {
                Ok(_) => number = numbers.next(),
                Err(error) => assert!(error.is_retryable() || error.is_outcome_unknown(), "{error:?}"),
            }
            tokio::time::sleep(pause).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_durable_server_that_restarts_under_load_loses_nothing() {
        const COUNT: u32 = 3_000;
        in_time(async {
            let mut server = Server::start_durable();
            let (writer, worker) = (client(&server.url()).await, client(&server.url()).await);
            let sink = stream(&worker).sink("s").start(Start::Oldest).ack_grace(GRACE).join().await.unwrap();
            let writing = tokio::spawn(write(stream(&writer), COUNT, Duration::ZERO));
            let working = tokio::spawn(work_off(sink, COUNT));
            for share in 1..4 {
                eventually("some more is added", async || {
                    let added = stream(&writer).info().await.ok().flatten().map_or(0, |info| info.appended);
                    if added > u64::from(COUNT / 5 * share) { Ok(()) } else { Err(added) }
                })
                .await;
                tokio::task::block_in_place(|| server.restart());
            }
            writing.await.unwrap();
            working.await.unwrap();
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn connections_that_are_cut_five_times_a_second_lose_nothing() {
        // A third of this in a common run is as good as the whole on a build machine.
        let seconds = if std::env::var("PULSE_TEST_LONG").is_ok() { 30 } else { 10 };
        in_time(async move {
            let server = Arc::new(Server::start());
            let (writer, worker) = (client(&server.url()).await, client(&server.url()).await);
            let sink = stream(&worker).sink("s").start(Start::Oldest).ack_grace(GRACE).join().await.unwrap();
            let count = seconds * 50;
            let writing = tokio::spawn(write(stream(&writer), count, Duration::from_millis(10)));
            let working = tokio::spawn(work_off(sink, count));
            let cutting = tokio::task::spawn_blocking(move || {
                for kind in ["normal", "pubsub"].iter().cycle().take(seconds as usize * 5) {
                    server.cli(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]);
                    std::thread::sleep(Duration::from_millis(200));
                }
                server
            });
            let _server = cutting.await.unwrap();
            writing.await.unwrap();
            working.await.unwrap();
        })
        .await;
    }
}
