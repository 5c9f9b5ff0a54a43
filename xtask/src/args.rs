//! The command line.

use crate::{
    by_hand::Action,
    fetch::{Fetched, SERVERS},
};

pub(crate) const HELP: &str = "\
cargo xtask test [--backend memory|standalone|cluster]... [-p CRATE] [--filter TEXT] [--repeat N]
    Runs the tests on every backend, or on those named. Starts the servers that they need on free
    ports of this machine and stops them again.
cargo xtask simulate [--seeds N] [--from N] [--seed N] [--sabotage NAME]
    Runs pools under seeded schedules of failures: ten thousand seeds, or so many, or one of them
    with all that happens in it; or with a promise broken, to see that it is noticed.
cargo xtask redis up|cluster|status|down
    A standalone server or a cluster of three to work with by hand.
cargo xtask server redis-8|valkey-9
    Fetches a newer server than most systems have, built without TLS, and says how to use it.
cargo xtask ci
    Everything that CI checks.
cargo xtask package
    Packages each crate and checks it as if it were published alone.
cargo xtask bench core|rmap|streaming|pool|faults [--quick]
    Measures, and prints the figures beside their goals.

A server is redis-server 7.0+ or valkey-server 7.2+ from the PATH, or what PULSE_REDIS_SERVER names.";

/// One chore with its options.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chore {
    Help,
    Test(TestOptions),
    Simulate(Vec<String>),
    Redis(Action),
    Fetch(&'static Fetched),
    Ci,
    Package,
    Bench { name: String, quick: bool },
}

/// What to test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestOptions {
    pub(crate) backends: Vec<Backend>,
    /// Only the tests of this crate.
    pub(crate) package: Option<String>,
    /// Only the tests with this in their names.
    pub(crate) filter: Option<String>,
    /// How many times.
    pub(crate) repeat: u32,
}

impl Default for TestOptions {
    fn default() -> Self {
        Self { backends: Backend::ALL.to_vec(), package: None, filter: None, repeat: 1 }
    }
}

/// What tests run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Backend {
    Memory,
    Standalone,
    Cluster,
}

impl Backend {
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Standalone, Self::Cluster];

    /// Its name on the command line, which is that of its test modules and of its cargo feature as well.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Standalone => "standalone",
            Self::Cluster => "cluster",
        }
    }
}

pub(crate) fn parse(arguments: &[String]) -> Result<Chore, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] | ["help" | "--help" | "-h", ..] => Ok(Chore::Help),
        ["test", options @ ..] => parse_test(options).map(Chore::Test),
        ["simulate", options @ ..] => Ok(Chore::Simulate(options.iter().map(|word| (*word).to_owned()).collect())),
        ["redis", "up"] => Ok(Chore::Redis(Action::Up)),
        ["redis", "cluster"] => Ok(Chore::Redis(Action::Cluster)),
        ["redis", "status"] => Ok(Chore::Redis(Action::Status)),
        ["redis", "down"] => Ok(Chore::Redis(Action::Down)),
        ["server", name] => match SERVERS.iter().find(|server| server.name == *name) {
            Some(server) => Ok(Chore::Fetch(server)),
            None => Err(format!("I know no server {name}")),
        },
        ["ci"] => Ok(Chore::Ci),
        ["package"] => Ok(Chore::Package),
        ["bench", name] => Ok(Chore::Bench { name: (*name).to_owned(), quick: false }),
        ["bench", name, "--quick"] => Ok(Chore::Bench { name: (*name).to_owned(), quick: true }),
        _ => Err(format!("I do not understand `{}`", words.join(" "))),
    }
}

fn parse_test(words: &[&str]) -> Result<TestOptions, String> {
    let mut options = TestOptions { backends: Vec::new(), ..TestOptions::default() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().copied().ok_or(format!("{word} needs a value"));
        match *word {
            "--backend" => {
                let name = value()?;
                let backend = Backend::ALL.into_iter().find(|backend| backend.name() == name);
                options.backends.push(backend.ok_or(format!("{name} is no backend"))?);
            }
            "-p" | "--package" => options.package = Some(value()?.to_owned()),
            "--filter" => options.filter = Some(value()?.to_owned()),
            "--repeat" => {
                let count = value()?;
                let count = count.parse().ok().filter(|count| *count > 0);
                options.repeat = count.ok_or("--repeat needs a number from 1")?;
            }
            _ => return Err(format!("`test` has no option {word}")),
        }
    }
    if options.backends.is_empty() {
        options.backends = Backend::ALL.to_vec();
    }
    options.backends.sort_unstable();
    options.backends.dedup();
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Chore, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn test_without_options_means_every_backend_once() {
        assert_eq!(parsed("test"), Ok(Chore::Test(TestOptions::default())));
    }

    #[test]
    fn options_of_test_are_understood() {
        let options = TestOptions {
            backends: vec![Backend::Memory, Backend::Cluster],
            package: Some("pulse-core".into()),
            filter: Some("lease".into()),
            repeat: 50,
        };
        let line = "test --backend cluster --backend memory -p pulse-core --filter lease --repeat 50";
        assert_eq!(parsed(line), Ok(Chore::Test(options)));
    }

    #[test]
    fn a_server_is_fetched_by_its_name() {
        assert_eq!(parsed("server valkey-9"), Ok(Chore::Fetch(&SERVERS[1])));
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for line in ["tset", "test --backend mars", "test --repeat 0", "test --filter", "redis", "server mars", "bench"]
        {
            assert!(parsed(line).is_err(), "{line} was accepted");
        }
    }
}
