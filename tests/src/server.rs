//! A server of one test's own, to be stopped, killed, restarted, flushed or reconfigured at will.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{Process, wait::wait_until};

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a configuration is called in the server's folder.
const CONFIG: &str = "server.conf";

/// Where the server says why it does not even begin.
const COMPLAINTS: &str = "complaints.log";

/// A `redis-server` (or `valkey-server`) on a free port of the loopback interface, with its files in a temporary
/// folder.
///
/// It is killed when this is dropped, and also when the process of the tests dies. The methods block the thread for a
/// moment; tests that use them run on the real clock.
///
/// ```no_run
/// # async fn example() -> Result<(), pulse_core::Error> {
/// let mut server = tests::Server::start_durable();
/// let client = pulse_core::connect(server.url()).await?;
/// server.kill();
/// // … the client finds nobody …
/// server.restart();
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Server {
    port: u16,
    /// Whether its folder holds a configuration to begin with.
    configured: bool,
    arguments: Vec<String>,
    folder: TempDir,
    running: Option<Process>,
}

impl Server {
    /// Starts a server that keeps nothing on disk.
    ///
    /// # Panics
    ///
    /// If none can be started.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server that has its data again after a restart: every write is on disk before it is answered.
    ///
    /// # Panics
    ///
    /// If none can be started.
    #[must_use]
    pub fn start_durable() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// Starts a server with more options, as on its command line: `["--requirepass", "secret"]`.
    ///
    /// # Panics
    ///
    /// If none can be started.
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_from(None, arguments)
    }

    fn start_from(config: Option<&str>, arguments: &[&str]) -> Self {
        let mut log = String::new();
        // Another process may take the port between the look for a free one and the start.
        for _ in 0..5 {
            let folder = tempfile::tempdir().expect("no temporary folder can be made");
            let arguments = arguments.iter().map(ToString::to_string).collect();
            if let Some(config) = config {
                std::fs::write(folder.path().join(CONFIG), config).expect("no file can be written");
            }
            let mut server = Self { port: free_port(), configured: config.is_some(), arguments, folder, running: None };
            if server.launch() {
                return server;
            }
            log = server.log();
        }
        panic!("no server could be started; the last one's log:\n{log}");
    }

    /// Starts a replica of that server, which serves once it is [in step](Self::is_in_step).
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn start_replica_of(primary: &Self) -> Self {
        let port = primary.port.to_string();
        Self::start_with(&["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"])
    }

    /// Starts a sentinel that watches this primary by the name of `main`, and decides alone: the primary is dead after
    /// half a second.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn start_sentinel(primary: &Self) -> Self {
        Self::start_sentinel_of(primary, 1)
    }

    /// Starts a sentinel that needs so many, itself among them, to agree that the primary is dead.
    pub(crate) fn start_sentinel_of(primary: &Self, quorum: usize) -> Self {
        let config = format!(
            "sentinel monitor main 127.0.0.1 {} {quorum}\n\
             sentinel down-after-milliseconds main 500\n\
             sentinel failover-timeout main 2000\n",
            primary.port
        );
        Self::start_from(Some(&config), &["--sentinel"])
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL for [`pulse_core::connect`], without credentials.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// What the server logged since its first start, and what it complained about before it had a log.
    #[must_use]
    pub fn log(&self) -> String {
        let read = |file| std::fs::read_to_string(self.folder.path().join(file)).unwrap_or_default();
        read(COMPLAINTS) + &read("server.log")
    }

    /// Kills the server without a chance to say goodbye, and waits for its end.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Starts the server again on the same port and folder; kills it before if it still runs.
    ///
    /// # Panics
    ///
    /// If it does not come up.
    pub fn restart(&mut self) {
        self.kill();
        assert!(self.launch(), "the server did not come up again; its log:\n{}", self.log());
    }

    /// Stops the process where it stands (`SIGSTOP`): connections stay open and nothing answers.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn pause(&self) {
        self.process().pause();
    }

    /// Whether it is paused.
    ///
    /// # Panics
    ///
    /// If it does not run.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.process().is_paused()
    }

    /// Lets a paused process go on.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn resume(&self) {
        self.process().resume();
    }

    /// Waits until the replica of this primary says that it has everything that was written until now. It says so once a
    /// second; a failover right after this loses the newest writes at most.
    ///
    /// # Panics
    ///
    /// If that takes too long.
    pub fn wait_until_replicated(&self) {
        let info = || self.cli(&["INFO", "replication"]);
        let number = |text: &str, before: &str| -> Option<u64> {
            let digits = text.split(before).nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse().ok()
        };
        let written = number(&info(), "master_repl_offset:").unwrap_or(u64::MAX);
        wait_until("the replica has what was written", || {
            let info = info();
            let replica = info.lines().find(|line| line.starts_with("slave0:") && line.contains("state=online"));
            replica.and_then(|replica| number(replica, "offset=")).is_some_and(|offset| offset >= written)
        });
    }

    /// Whether it is a primary. While it changes its role it cuts its connections, and does not say.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.try_cli(&["ROLE"]).is_ok_and(|role| role.starts_with("master"))
    }

    /// Whether it is a replica that follows its primary.
    ///
    /// # Panics
    ///
    /// If it does not answer.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        self.cli(&["INFO", "replication"]).contains("master_link_status:up")
    }

    /// Runs one command through the server's own command-line client and returns what it prints:
    /// `server.cli(&["FLUSHALL"])`.
    ///
    /// # Panics
    ///
    /// If it cannot be run, or the server answers with an error.
    pub fn cli(&self, command: &[&str]) -> String {
        self.try_cli(command).unwrap_or_else(|error| panic!("{command:?} failed: {error}"))
    }

    /// The same, for a command that the server may refuse.
    ///
    /// # Errors
    ///
    /// What the client prints if the server answers with an error or not at all.
    ///
    /// # Panics
    ///
    /// If it cannot be run.
    pub fn try_cli(&self, command: &[&str]) -> Result<String, String> {
        let port = self.port.to_string();
        let output = either_of(&clients(), |program| {
            Command::new(program).args(["-e", "-h", "127.0.0.1", "-p", &port]).args(command).output()
        });
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stdout) + &text(&output.stderr))
        }
    }

    fn process(&self) -> &Process {
        self.running.as_ref().expect("the server does not run")
    }

    /// Starts the process; returns whether it answers.
    fn launch(&mut self) -> bool {
        let port = self.port.to_string();
        let complaints = File::create(self.folder.path().join(COMPLAINTS)).expect("no file can be written");
        let mut server = either_of(&servers(), |program| {
            Command::new(program)
                .args(self.configured.then_some(CONFIG))
                .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--logfile", "server.log"])
                .args(["--enable-debug-command", "yes"])
                .args(&self.arguments)
                .current_dir(self.folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(complaints.try_clone()?)
                .spawn()
        });
        let deadline = Instant::now() + PATIENCE;
        let answers = loop {
            if self.answers() {
                break true;
            }
            let ended = matches!(server.try_wait(), Ok(Some(_)));
            if ended || Instant::now() > deadline {
                break false;
            }
            thread::sleep(Duration::from_millis(10));
        };
        self.running = Some(Process::new(server));
        answers
    }

    /// Whether the server serves commands. Asking for a password is serving; loading its data is not.
    fn answers(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            connection.set_read_timeout(Some(Duration::from_secs(1)))?;
            connection.write_all(b"PING\r\n")?;
            let mut answer = [0; 7];
            connection.read_exact(&mut answer)?;
            Ok(answer == *b"+PONG\r\n" || answer == *b"-NOAUTH")
        };
        ask().unwrap_or(false)
    }
}

/// The server programs that will do: the one that the environment names, or those in the PATH.
fn servers() -> Vec<PathBuf> {
    match named() {
        Some(server) => vec![server],
        None => ["redis-server", "valkey-server"].map(PathBuf::from).to_vec(),
    }
}

/// The command-line clients that will do: one that stands beside the server, or those in the PATH.
fn clients() -> Vec<PathBuf> {
    let names = ["redis-cli", "valkey-cli"].map(PathBuf::from);
    let beside = named().and_then(|server| Some(server.parent()?.to_owned()));
    let beside = beside.into_iter().flat_map(|folder| names.clone().map(|name| folder.join(name)));
    beside.chain(names.clone()).collect()
}

fn named() -> Option<PathBuf> {
    std::env::var_os("PULSE_REDIS_SERVER").map(PathBuf::from)
}

/// Runs the first of the programs that is there.
fn either_of<T>(programs: &[PathBuf], mut run: impl FnMut(&Path) -> std::io::Result<T>) -> T {
    for program in programs {
        match run(program) {
            Ok(done) => return done,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => panic!("cannot run {}: {error}", program.display()),
        }
    }
    panic!("none of {programs:?} is installed: `cargo xtask test` says how to get them");
}

/// A port that is free, and whose neighbour for the bus of a cluster is free too.
fn free_port() -> u16 {
    let ports = std::iter::repeat_with(|| {
        let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("no port is free");
        probe.local_addr().expect("a bound socket has an address").port()
    });
    let has_bus = |port: &u16| {
        let bus = port.checked_add(10_000);
        bus.is_some_and(|bus| TcpListener::bind((Ipv4Addr::LOCALHOST, bus)).is_ok())
    };
    ports.take(1000).find(has_bus).expect("no port with a neighbour is free")
}
