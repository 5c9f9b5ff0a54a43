//! The node program: this test program itself, told by the environment to be a node. It says every tenth of a second
//! what it runs.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pulse_core::{Client, ClientBuilder};
use pulse_pool::{HandlerError, Job, JobHandler, JobKey, Node, NodeBuilder};
use tests::Process;
use tokio::{io::AsyncReadExt, sync::mpsc};

use super::report::Sighting;

/// Tells a process to be a node on the server at this address.
const SERVER: &str = "PULSE_TEST_NODE_AT";
pub(super) const TTL: Duration = Duration::from_secs(2);
const EVERY: Duration = Duration::from_millis(100);

pub(super) async fn client(url: &str) -> Client {
    ClientBuilder::new(url).command_timeout(Duration::from_secs(2)).connect().await.expect("the server is there")
}

pub(super) fn node() -> NodeBuilder {
    Node::builder("fleet").worker_ttl(TTL)
}

/// Nanoseconds by the clock that all processes of the machine share.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
    u64::try_from(now.as_nanos()).expect("it is not the year 2554")
}

/// What runs here.
#[derive(Default, Clone)]
struct Runs(Arc<Mutex<HashMap<JobKey, Job>>>);

impl Runs {
    fn with<T>(&self, run: impl FnOnce(&mut HashMap<JobKey, Job>) -> T) -> T {
        run(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says it of each job that may run, with a moment from before it was asked whether it may.
    fn say(&self) {
        self.with(|jobs| {
            let mut output = std::io::stdout().lock();
            for (key, job) in &*jobs {
                let at = now();
                if job.may_run() {
                    writeln!(output, "{at} {} {key}", job.epoch()).expect("the test listens");
                }
            }
        });
    }
}

#[pulse_pool::async_trait]
impl JobHandler for Runs {
    async fn start(&self, job: Job) -> Result<(), HandlerError> {
        let at = now();
        if job.may_run() {
            writeln!(std::io::stdout(), "{at} {} {}", job.epoch(), job.key())?;
        }
        self.with(|jobs| jobs.insert(job.key().clone(), job));
        Ok(())
    }

    async fn stop(&self, key: &JobKey) -> Result<(), HandlerError> {
        self.with(|jobs| jobs.remove(key));
        Ok(())
    }
}

/// Runs jobs until its input ends, and then closes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_a_node_if_it_is_told_to() {
    let Ok(url) = std::env::var(SERVER) else { return };
    let client = client(&url).await;
    let node = node().join(&client).await.expect("it joins");
    let runs = Runs::default();
    node.add_worker(runs.clone()).await.expect("the worker is added");
    println!("\nready");
    std::thread::spawn(move || {
        loop {
            runs.say();
            std::thread::sleep(EVERY);
        }
    });
    // Ends with the input.
    let _ = tokio::io::stdin().read(&mut [0]).await;
    node.close().await.expect("it closes");
}

/// A node in a process of its own.
pub(super) struct Member {
    pub(super) process: Process,
    /// Its end tells the process to close its node.
    input: ChildStdin,
}

impl Member {
    /// Starts a process, and sends what it says to the test under its number. Returns when its worker takes jobs.
    pub(super) async fn start(url: &str, number: usize, says: &mpsc::UnboundedSender<Sighting>) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.args(["--exact", "processes::program::is_a_node_if_it_is_told_to", "--nocapture"]).env(SERVER, url);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("this program can be started again");
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let process = Process::new(child);
        let says = says.clone();
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        // It ends with the process.
        std::thread::spawn(move || {
            let mut ready = Some(ready);
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line == "ready"
                    && let Some(ready) = ready.take()
                {
                    // The test may have given up.
                    let _ = ready.send(());
                }
                let sighting = Sighting::read(number, &line);
                if sighting.is_some_and(|sighting| says.send(sighting).is_err()) {
                    return;
                }
            }
        });
        is_ready.await.expect("the process becomes a node");
        Self { process, input }
    }

    /// Has the node close, and waits for the end of the process.
    pub(super) async fn close(self) {
        drop(self.input);
        tokio::task::spawn_blocking(|| self.process.wait()).await.expect("it closes in good order");
    }
}
