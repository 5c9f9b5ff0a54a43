//! `cargo xtask test`: the tests on every backend, and an honest summary of what ran on what.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    Failure,
    args::{Backend, TestOptions},
    libtest::Tally,
    run,
    servers::{Cluster, Server, program},
    tls,
};

/// The servers of a run; dropping them stops them.
struct Servers {
    program: Option<std::path::PathBuf>,
    standalone: Option<Server>,
    cluster: Option<Cluster>,
    speak_tls: bool,
}

impl Servers {
    fn start(backends: &[Backend]) -> Result<Self, Failure> {
        let mut servers = Self { program: None, standalone: None, cluster: None, speak_tls: false };
        if backends == [Backend::Memory] {
            return Ok(servers);
        }
        let program = program()?;
        println!("xtask: servers are {}", program.display());
        if backends.contains(&Backend::Standalone) {
            servers.standalone = Some(Server::start(&program, &[])?);
        }
        if backends.contains(&Backend::Cluster) {
            servers.cluster = Some(Cluster::start(&program)?);
        }
        servers.speak_tls = tls::is_spoken_by(&program)?;
        if !servers.speak_tls {
            println!("xtask: this server has no TLS: the tests that need it are skipped");
        }
        servers.program = Some(program);
        Ok(servers)
    }

    /// Tells the tests where the servers are.
    fn tell(&self, command: &mut Command) {
        if let Some(program) = &self.program {
            command.env("PULSE_REDIS_SERVER", program);
        }
        if let Some(server) = &self.standalone {
            command.env("PULSE_TEST_REDIS_URL", server.url());
        }
        if let Some(cluster) = &self.cluster {
            command.env("PULSE_TEST_CLUSTER_URL", cluster.url());
        }
    }
}

pub(crate) fn run(options: &TestOptions) -> Result<(), Failure> {
    let servers = Servers::start(&options.backends)?;
    let commands = commands(options, servers.speak_tls)?;
    let mut tally = Tally::default();
    let mut broken = Vec::new();
    for round in 1..=options.repeat {
        if options.repeat > 1 {
            println!("xtask: round {round} of {}", options.repeat);
        }
        for arguments in &commands {
            let mut command = run::cargo();
            command.args(arguments);
            servers.tell(&mut command);
            if !run_counted(&mut command, &mut tally)? {
                broken.push(format!("cargo {}", arguments.join(" ")));
            }
        }
    }
    drop(servers);
    summarise(options, &tally, &broken)
}

/// Runs cargo, shows what it prints, and counts the tests. Returns whether it succeeded.
fn run_counted(command: &mut Command, tally: &mut Tally) -> Result<bool, Failure> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if let Some(output) = child.stdout.take() {
        // Tests print bytes; what is no text must not end the run.
        for line in BufReader::new(output).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            tally.read(&line);
        }
    }
    Ok(child.wait()?.success())
}

fn summarise(options: &TestOptions, tally: &Tally, broken: &[String]) -> Result<(), Failure> {
    println!("\nWhat ran on what:");
    let mut silent = Vec::new();
    for backend in Backend::ALL {
        let counts = tally.counts.get(&backend).copied().unwrap_or_default();
        if options.backends.contains(&backend) || counts.total() > 0 {
            println!(
                "  {:<12}{:>6} passed{:>6} failed{:>6} skipped",
                backend.name(),
                counts.passed,
                counts.failed,
                counts.skipped
            );
            if counts.total() == 0 && options.filter.is_none() && options.package.is_none() {
                silent.push(backend.name());
            }
        } else {
            println!("  {:<12}   not asked for", backend.name());
        }
    }
    for failure in &tally.failures {
        println!("  FAILED: {failure}");
    }
    let total = tally.total();
    println!("\n{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    if !silent.is_empty() {
        return Err(format!("no test ran on {}", silent.join(", ")).into());
    }
    if total.total() == 0 {
        return Err("no test has that name".into());
    }
    if !broken.is_empty() {
        return Err(format!("failed: {}", broken.join("; ")).into());
    }
    Ok(())
}

/// The cargo commands that run what is asked for, on servers that speak TLS or do not.
fn commands(options: &TestOptions, speak_tls: bool) -> Result<Vec<Vec<String>>, Failure> {
    let servers: Vec<&str> =
        options.backends.iter().filter(|backend| **backend != Backend::Memory).map(|backend| backend.name()).collect();
    let of_tests: Vec<&str> = servers.iter().copied().chain(speak_tls.then_some("tls")).collect();
    let in_memory = options.backends.contains(&Backend::Memory);
    let mut features: Vec<String> = of_tests.iter().map(|feature| format!("tests/{feature}")).collect();
    if options.backends.contains(&Backend::Standalone) {
        features.push("xtask/standalone".to_owned());
    }
    features.extend(
        [
            "pulse-core/conformance",
            "pulse-core/testing",
            "pulse-core/metrics",
            "pulse-core/opentelemetry",
            "pulse-streaming/metrics",
            "pulse-streaming/opentelemetry",
            "pulse-pool/cron",
            "pulse-pool/metrics",
            "pulse-pool/opentelemetry",
        ]
        .map(str::to_owned),
    );
    let features = format!("--features={}", features.join(","));
    let base = |scope: &[&str]| {
        let mut arguments: Vec<String> = ["test", "--no-fail-fast"].map(str::to_owned).to_vec();
        arguments.extend(scope.iter().map(|word| (*word).to_owned()));
        arguments
    };
    let mut commands = Vec::new();
    match (&options.package, in_memory) {
        (None, true) => {
            let mut all = base(&["--workspace"]);
            all.push(features);
            commands.push(all);
        }
        (None, false) => commands.push(base(&["--package=tests", &tests_features(&of_tests)])),
        (Some(package), _) => {
            if in_memory {
                if package == "pulse-pool" {
                    commands.push(base(&["--package=simulation"]));
                }
                commands.push(base(&[&format!("--package={package}"), "--all-targets"]));
                commands.push(base(&[&format!("--package={package}"), "--doc"]));
            }
            let targets = targets_of(package)?;
            if !targets.is_empty() {
                let mut cross = base(&["--package=tests", &tests_features(&of_tests)]);
                cross.extend(targets.iter().map(|target| format!("--test={target}")));
                commands.push(cross);
            }
        }
    }
    // The harness takes several filters as alternatives. So without memory the filter is either the modules of the
    // servers or the text without the modules of memory.
    for command in &mut commands {
        match (&options.filter, in_memory) {
            (Some(filter), true) => command.extend(["--".to_owned(), filter.clone()]),
            (Some(filter), false) => command.extend(["--", filter, "--skip", "memory::"].map(str::to_owned)),
            (None, false) => {
                command.push("--".to_owned());
                command.extend(servers.iter().map(|server| format!("{server}::")));
            }
            (None, true) => {}
        }
    }
    Ok(commands)
}

fn tests_features(features: &[&str]) -> String {
    format!("--features={}", features.join(","))
}

/// The targets of the package `tests` that are about a crate: those of its name without `pulse-`; what is named after
/// no crate is about the core.
fn targets_of(package: &str) -> Result<Vec<String>, Failure> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/tests");
    let mut targets = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_target = path.extension().is_some_and(|ending| ending == "rs") || path.join("main.rs").exists();
        if let (true, Some(name)) = (is_target, path.file_stem()) {
            targets.push(name.to_string_lossy().into_owned());
        }
    }
    let subject = package.strip_prefix("pulse-").unwrap_or(package);
    let others = ["rmap", "streaming", "pool"];
    targets.retain(|target| if subject == "core" { !others.contains(&target.as_str()) } else { target == subject });
    targets.sort_unstable();
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_options_one_command_runs_everything() {
        let commands = commands(&TestOptions::default(), true).unwrap();
        assert_eq!(commands.len(), 1);
        assert!(commands[0].contains(&"--workspace".to_owned()));
        assert!(commands[0].iter().any(|word| word.contains("tests/standalone,tests/cluster,tests/tls,")));
    }

    #[test]
    fn what_needs_tls_is_left_out_where_the_server_has_none() {
        for package in [None, Some("pulse-core".to_owned())] {
            let options = TestOptions { package, ..TestOptions::default() };
            let asks_for_tls = |speak_tls| {
                let commands = commands(&options, speak_tls).unwrap();
                commands.iter().flatten().any(|word| word.starts_with("--features") && word.contains("tls"))
            };
            assert!(asks_for_tls(true) && !asks_for_tls(false), "{options:?}");
        }
    }

    #[test]
    fn one_server_alone_runs_only_the_tests_of_its_modules() {
        let options = TestOptions { backends: vec![Backend::Cluster], ..TestOptions::default() };
        let commands = commands(&options, false).unwrap();
        assert_eq!(commands[0].last().unwrap(), "cluster::");
        assert!(commands[0].contains(&"--package=tests".to_owned()));
    }

    #[test]
    fn a_filter_reaches_the_harness() {
        let options = TestOptions { filter: Some("lease".into()), ..TestOptions::default() };
        let commands = commands(&options, false).unwrap();
        assert_eq!(commands[0][commands[0].len() - 2..], ["--", "lease"]);
    }
}
