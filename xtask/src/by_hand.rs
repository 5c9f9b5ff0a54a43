//! `cargo xtask redis`: servers that stay until they are told to go.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Failure, resp, run,
    servers::{cluster_url, form, free_port, program},
};

/// What to do with the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Up,
    Cluster,
    Status,
    Down,
}

pub(crate) fn run(action: Action) -> Result<(), Failure> {
    match action {
        Action::Up => up("standalone", 1),
        Action::Cluster => up("cluster", 3),
        Action::Status => status(),
        Action::Down => down(),
    }
}

/// Where the servers keep their files; one folder for each kind, with the ports in a file.
fn home() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    workspace.join("target").join("redis")
}

fn running(kind: &str) -> Vec<u16> {
    let ports = fs::read_to_string(home().join(kind).join("ports")).unwrap_or_default();
    let ports = ports.split_whitespace().filter_map(|port| port.parse().ok());
    ports.filter(|port| resp::ask(*port, &["PING"]).is_ok()).collect()
}

fn url(kind: &str, ports: &[u16]) -> String {
    if kind == "cluster" { cluster_url(ports) } else { format!("redis://127.0.0.1:{}", ports[0]) }
}

fn up(kind: &str, nodes: usize) -> Result<(), Failure> {
    let standing = running(kind);
    if standing.len() == nodes {
        return tell(kind, &standing);
    }
    stop(&standing);
    let program = program()?;
    let home = home().join(kind);
    // What an earlier cluster left would keep the new one from forming.
    let _ = fs::remove_dir_all(&home);
    let mut ports = Vec::new();
    for _ in 0..nodes {
        let port = free_port()?;
        let folder = home.join(port.to_string());
        fs::create_dir_all(&folder)?;
        let mut server = Command::new(&program);
        server.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--daemonize", "yes", "--save", ""]);
        server.args(["--logfile", "server.log"]).arg("--dir").arg(&folder);
        if kind == "cluster" {
            server.args(["--cluster-enabled", "yes"]);
        }
        run::output(&mut server)?;
        ports.push(port);
    }
    let text: Vec<String> = ports.iter().map(u16::to_string).collect();
    fs::write(home.join("ports"), text.join("\n"))?;
    for port in &ports {
        for _ in 0..250 {
            if resp::ask(*port, &["PING"]).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    if kind == "cluster" {
        form(&ports)?;
    }
    tell(kind, &ports)
}

fn tell(kind: &str, ports: &[u16]) -> Result<(), Failure> {
    println!("{kind}: export PULSE_URL='{}'", url(kind, ports));
    Ok(())
}

fn status() -> Result<(), Failure> {
    for kind in ["standalone", "cluster"] {
        match running(kind).as_slice() {
            [] => println!("{kind}: not running"),
            ports => tell(kind, ports)?,
        }
    }
    Ok(())
}

fn down() -> Result<(), Failure> {
    for kind in ["standalone", "cluster"] {
        let ports = running(kind);
        stop(&ports);
        println!("{kind}: {} stopped", ports.len());
        let _ = fs::remove_dir_all(home().join(kind));
    }
    Ok(())
}

fn stop(ports: &[u16]) {
    for port in ports {
        // A server that shuts down closes the connection instead of answering.
        let _ = resp::ask(*port, &["SHUTDOWN", "NOSAVE"]);
    }
}
