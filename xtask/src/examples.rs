//! The examples: each runs to its end by itself, and those that are made to meet run together.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Failure, run,
    servers::{Server, program},
};

/// How long an example may run.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs every example in memory and on a server, and then the processes of one pool beside each other.
pub(crate) fn run() -> Result<(), Failure> {
    run::succeed(run::cargo().args(["build", "--package", "examples", "--bins", "--quiet"]))?;
    let server = Server::start(&program()?, &[])?;
    for name in names()? {
        for url in [None, Some(server.url())] {
            let place = if url.is_some() { "a server" } else { "memory" };
            let began = Instant::now();
            let ended = Example::start(&name, url.as_deref()).and_then(Example::end);
            ended.map_err(|failure| format!("example {name} on {place}: {failure}"))?;
            println!("{name} on {place}: {:.1} s", began.elapsed().as_secs_f64());
        }
    }
    let began = Instant::now();
    one_pool(&server.url()).map_err(|failure| format!("workers, producer and scheduler together: {failure}"))?;
    println!("workers, producer and scheduler together: {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

fn names() -> Result<Vec<String>, Failure> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/src/bin");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        if let Some(name) = entry?.path().file_stem() {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Two workers share what a producer and a scheduler hand in. One of them is told to end meanwhile, and hands its jobs
/// over.
fn one_pool(url: &str) -> Result<(), Failure> {
    let mut leaves = Example::start("pool_worker", Some(url))?;
    let stays = Example::start("pool_worker", Some(url))?;
    leaves.until_it_says("works")?;
    let producer = Example::start("pool_producer", Some(url))?;
    let scheduler = Example::start("pool_scheduler", Some(url))?;
    thread::sleep(Duration::from_secs(1));
    leaves.terminate()?;
    producer.end()?;
    scheduler.end()?;
    let said = [leaves.end()?, stays.end()?];

    for of_worker in &said {
        let lit = lamps(of_worker).into_values().filter(|shines| *shines).count();
        if lit > 0 || !of_worker.ends_with("has left\n") {
            return Err(format!("a worker has left with {lit} lamps lit; it said:\n{of_worker}").into());
        }
    }
    let all: Vec<String> = said.iter().flat_map(|said| lamps(said).into_keys()).collect();
    for of in ["street ", "lamp "] {
        if !all.iter().any(|lamp| lamp.starts_with(of)) {
            return Err(format!("no job {of:?} has run; the workers said:\n{}", said.join("\n")).into());
        }
    }
    Ok(())
}

/// Whether each lamp that a worker speaks of shines at last.
fn lamps(said: &str) -> BTreeMap<String, bool> {
    let mut lamps = BTreeMap::new();
    for line in said.lines() {
        let line = line.split_once("] ").map_or(line, |(_process, line)| line);
        if let Some((lamp, _colour)) = line.split_once(" shines ") {
            lamps.insert(lamp.to_owned(), true);
        } else if let Some(lamp) = line.strip_suffix(" is out") {
            lamps.insert(lamp.to_owned(), false);
        }
    }
    lamps
}

/// An example that runs, as a process of its own.
struct Example {
    process: Child,
    lines: mpsc::Receiver<String>,
    said: String,
    deadline: Instant,
}

impl Example {
    fn start(name: &str, url: Option<&str>) -> Result<Self, Failure> {
        // Built beside this program. Not by `cargo run`, which might not be there yet to be told to end.
        let program = std::env::current_exe()?.with_file_name(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        let mut command = Command::new(program);
        command.env_remove("PULSE_URL");
        if let Some(url) = url {
            command.env("PULSE_URL", url);
        }
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let (sender, lines) = mpsc::channel();
        let output = process.stdout.take().ok_or("it has no output")?;
        // Read all the time, because a full pipe would stop it. Ends with the process.
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Ok(Self { process, lines, said: String::new(), deadline: Instant::now() + PATIENCE })
    }

    /// Waits until it says something.
    fn until_it_says(&mut self, what: &str) -> Result<(), Failure> {
        while !self.said.contains(what) {
            if !self.listen()? {
                return Err(format!("ended without saying {what:?}").into());
            }
        }
        Ok(())
    }

    /// Tells it to end, as a service manager does.
    fn terminate(&self) -> Result<(), Failure> {
        run::succeed(Command::new("kill").args(["-TERM", &self.process.id().to_string()]))
    }

    /// Waits until it has ended well, and returns what it said.
    fn end(mut self) -> Result<String, Failure> {
        while self.listen()? {}
        let status = self.process.wait()?;
        let said = std::mem::take(&mut self.said);
        if status.success() { Ok(said) } else { Err(format!("ended with {status}; it said:\n{said}").into()) }
    }

    /// Waits for another line; `false` if it ends.
    fn listen(&mut self) -> Result<bool, Failure> {
        match self.lines.recv_timeout(self.deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                self.said += &line;
                self.said.push('\n');
                Ok(true)
            }
            Err(RecvTimeoutError::Disconnected) => Ok(false),
            Err(RecvTimeoutError::Timeout) => Err(format!("still runs after {} s", PATIENCE.as_secs()).into()),
        }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // Both fail only if it has ended, as it should have.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
