//! Servers for as long as a chore runs: on free ports of the loopback interface, with their files in temporary folders.
//!
//! A [`Server`] cannot outlive this process, however that ends. A small shell starts it and watches a pipe whose other
//! end this process holds; when the pipe closes (dropped, panicked, interrupted or killed), the shell kills the server
//! and removes its folder. The shell itself ignores the interrupt that Ctrl-C sends to everybody in the terminal.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{Failure, install, resp};

/// How long servers may take until they answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// `$1` is the folder, the rest is the command. SIGKILL, because nothing is worth keeping.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
folder=$1; shift
"$@" </dev/null >/dev/null 2>&1 &
server=$!
read -r _
kill -9 "$server" 2>/dev/null
wait "$server" 2>/dev/null
rm -rf -- "$folder"
"#;

/// One running server.
#[derive(Debug)]
pub(crate) struct Server {
    port: u16,
    watchdog: Child,
    /// Closing it makes the watchdog kill the server.
    leash: Option<ChildStdin>,
}

impl Server {
    /// Starts a server and waits until it answers.
    pub(crate) fn start(program: &Path, options: &[&str]) -> Result<Self, Failure> {
        let mut log = String::new();
        // Somebody else may take the port between the look for a free one and the start.
        for _ in 0..5 {
            let folder = new_folder()?;
            let server = Self::launch(program, options, free_port()?, &folder)?;
            if server.wait_until_it_answers() {
                return Ok(server);
            }
            log = std::fs::read_to_string(folder.join("server.log")).unwrap_or_default();
        }
        Err(format!("{} does not start; its log:\n{log}", program.display()).into())
    }

    fn launch(program: &Path, options: &[&str], port: u16, folder: &Path) -> Result<Self, Failure> {
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(folder)
            .arg(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--logfile", "server.log"])
            .args(["--enable-debug-command", "yes"])
            .arg("--dir")
            .arg(folder)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot run sh: {error}"))?;
        let leash = watchdog.stdin.take();
        Ok(Self { port, watchdog, leash })
    }

    fn wait_until_it_answers(&self) -> bool {
        wait_until(|| resp::ask(self.port, &["PING"]).is_ok()).is_ok()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.leash.take());
        // The watchdog ends by itself now; if it was killed, there is nothing left to wait for.
        let _ = self.watchdog.wait();
    }
}

/// Three primaries that share the slots.
#[derive(Debug)]
pub(crate) struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// Starts a cluster and waits until each node finds it healthy.
    pub(crate) fn start(program: &Path) -> Result<Self, Failure> {
        let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        let nodes = (0..3).map(|_| Server::start(program, &options)).collect::<Result<Vec<_>, _>>()?;
        let cluster = Self { nodes };
        form(&cluster.nodes.iter().map(Server::port).collect::<Vec<_>>())?;
        Ok(cluster)
    }

    pub(crate) fn url(&self) -> String {
        cluster_url(&self.nodes.iter().map(Server::port).collect::<Vec<_>>())
    }
}

pub(crate) fn cluster_url(ports: &[u16]) -> String {
    let others: Vec<String> = ports[1..].iter().map(|port| format!("node=127.0.0.1:{port}")).collect();
    format!("redis-cluster://127.0.0.1:{}?{}", ports[0], others.join("&"))
}

/// Makes one cluster of empty nodes: shares out the slots, introduces the nodes to each other, and waits until all of
/// them agree.
pub(crate) fn form(ports: &[u16]) -> Result<(), Failure> {
    const SLOTS: usize = 16_384;
    for (index, port) in ports.iter().enumerate() {
        let first = SLOTS * index / ports.len();
        let last = SLOTS * (index + 1) / ports.len() - 1;
        resp::ask(*port, &["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()])?;
        resp::ask(*port, &["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()])?;
        resp::ask(*port, &["CLUSTER", "MEET", "127.0.0.1", &ports[0].to_string()])?;
    }
    let known = format!("cluster_known_nodes:{}\r\n", ports.len());
    let agreed = |port: &u16| {
        resp::ask(*port, &["CLUSTER", "INFO"])
            .is_ok_and(|info| info.contains("cluster_state:ok") && info.contains(&known))
    };
    wait_until(|| ports.iter().all(agreed)).map_err(|_| "the nodes do not form a cluster".into())
}

/// What the chores that need servers start them with.
pub(crate) fn program() -> Result<PathBuf, Failure> {
    install::server_program()
}

fn wait_until(mut holds: impl FnMut() -> bool) -> Result<(), ()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() > deadline {
            return Err(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn new_folder() -> Result<PathBuf, Failure> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("pulse-xtask-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    Ok(folder)
}

/// A port that is free, and whose neighbour for the bus of a cluster exists.
pub(crate) fn free_port() -> Result<u16, Failure> {
    for _ in 0..100 {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        if let Some(bus) = port.checked_add(10_000)
            && TcpListener::bind((Ipv4Addr::LOCALHOST, bus)).is_ok()
        {
            return Ok(port);
        }
    }
    // High ports are what the system hands out first on some machines; look below them.
    for port in 20_000..30_000 {
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if free(port) && free(port + 10_000) {
            return Ok(port);
        }
    }
    Err("no port of 127.0.0.1 is free".into())
}
