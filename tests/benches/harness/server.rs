//! What the server tells about itself, asked over a connection that exists only for the question.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// The server that everything is measured on.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    address: String,
}

impl Server {
    /// The server at `HOST:PORT`.
    pub(crate) fn new(address: &str) -> Self {
        Self { address: address.to_owned() }
    }

    /// The host.
    pub(crate) fn host(&self) -> &str {
        self.address.rsplit_once(':').map_or(&self.address, |(host, _)| host)
    }

    /// The port.
    pub(crate) fn port(&self) -> &str {
        self.address.rsplit_once(':').map_or("6379", |(_, port)| port)
    }

    /// Name and version.
    pub(crate) fn version(&self) -> String {
        let info = self.ask("INFO server");
        match (field(&info, "valkey_version"), field(&info, "redis_version")) {
            (Some(version), _) => format!("Valkey {version}"),
            (None, Some(version)) => format!("Redis {version}"),
            (None, None) => "a server that does not tell its version".into(),
        }
    }

    /// How many commands it has carried out, those of scripts not counted, nor the one that asks.
    pub(crate) fn commands(&self) -> u64 {
        let info = self.ask("INFO stats");
        field(&info, "total_commands_processed").and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// How many connections it has, the one that asks left out.
    pub(crate) fn connections(&self) -> usize {
        self.ask("CLIENT LIST").lines().filter(|line| !line.contains("cmd=client")).count()
    }

    /// Forgets how long commands took.
    pub(crate) fn forget_times(&self) {
        self.ask("CONFIG RESETSTAT");
    }

    /// For how many microseconds one of a thousand commands, or the longest of fewer, kept the server busy since the
    /// times were forgotten.
    pub(crate) fn longest_command(&self) -> f64 {
        let info = self.ask("INFO latencystats");
        let longest = info.lines().filter_map(|line| line.rsplit_once("p99.9=")?.1.trim().parse().ok());
        longest.fold(0.0, f64::max)
    }

    /// Deletes all data.
    pub(crate) fn flush(&self) {
        self.ask("FLUSHALL SYNC");
    }

    /// Sends one command and returns the answer as text.
    fn ask(&self, command: &str) -> String {
        let asked = || -> std::io::Result<String> {
            let mut connection = TcpStream::connect(&self.address)?;
            connection.set_read_timeout(Some(Duration::from_secs(30)))?;
            connection.write_all(command.as_bytes())?;
            connection.write_all(b"\r\n")?;
            let mut answer = BufReader::new(connection);
            let mut head = String::new();
            answer.read_line(&mut head)?;
            let Some(length) = head.strip_prefix('$').and_then(|length| length.trim_end().parse().ok()) else {
                return Ok(head);
            };
            let mut body = vec![0; length];
            answer.read_exact(&mut body)?;
            Ok(String::from_utf8_lossy(&body).into_owned())
        };
        asked().unwrap_or_else(|error| panic!("cannot ask the server at {} for {command}: {error}", self.address))
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}
