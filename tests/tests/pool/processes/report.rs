//! What all nodes said, and the proof that it is in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ::tests::eventually;
use tokio::sync::mpsc;

use super::program::now;

/// A node said that it runs a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sighting {
    process: usize,
    at: u64,
    epoch: u64,
    key: String,
}

impl Sighting {
    pub(super) fn read(process: usize, line: &str) -> Option<Self> {
        let mut parts = line.splitn(3, ' ');
        let (at, epoch) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { process, at, epoch, key: parts.next()?.to_owned() })
    }
}

/// One activation of a job: when it was seen first and last, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    process: usize,
    first: u64,
    last: u64,
}

/// What was said of each job.
pub(super) struct Report {
    says: mpsc::UnboundedReceiver<Sighting>,
    /// By key and epoch.
    runs: BTreeMap<String, BTreeMap<u64, Run>>,
}

impl Report {
    pub(super) fn new() -> (mpsc::UnboundedSender<Sighting>, Self) {
        let (sender, says) = mpsc::unbounded_channel();
        (sender, Self { says, runs: BTreeMap::new() })
    }

    fn catch_up(&mut self) {
        while let Ok(Sighting { process, at, epoch, key }) = self.says.try_recv() {
            let runs = self.runs.entry(key.clone()).or_default();
            let run = runs.entry(epoch).or_insert(Run { process, first: at, last: at });
            assert_eq!(run.process, process, "{key} runs in two processes under epoch {epoch}");
            (run.first, run.last) = (run.first.min(at), run.last.max(at));
        }
    }

    /// Waits until each of these jobs was seen to run after now, and returns by whom.
    pub(super) async fn all_run(&mut self, keys: &[String]) -> BTreeMap<String, usize> {
        let since = now();
        eventually("all jobs run", async || {
            self.catch_up();
            let run = |key: &String| {
                let latest = self.runs.get(key)?.values().max_by_key(|run| run.last)?;
                (latest.last > since).then(|| (key.clone(), latest.process))
            };
            let placed: BTreeMap<String, usize> = keys.iter().filter_map(run).collect();
            let missing: Vec<&String> = keys.iter().filter(|key| !placed.contains_key(*key)).collect();
            if missing.is_empty() { Ok(placed) } else { Err(format!("{} are missing: {missing:?}", missing.len())) }
        })
        .await
    }

    /// How often each job was started.
    pub(super) fn starts(&mut self) -> BTreeMap<String, usize> {
        self.catch_up();
        self.runs.iter().map(|(key, runs)| (key.clone(), runs.len())).collect()
    }

    /// The jobs that were seen to run in the last moments.
    pub(super) fn seen_within(&mut self, time: Duration) -> BTreeSet<String> {
        self.catch_up();
        let since = now() - u64::try_from(time.as_nanos()).expect("short");
        let is_seen = |runs: &BTreeMap<u64, Run>| runs.values().any(|run| run.last > since);
        self.runs.iter().filter(|(_, runs)| is_seen(runs)).map(|(key, _)| key.clone()).collect()
    }

    /// Fails if a job was ever run by two at once, or by an epoch after a greater one.
    pub(super) fn check(&mut self) {
        self.catch_up();
        for (key, runs) in &self.runs {
            for ((epoch, before), (next, after)) in runs.iter().zip(runs.iter().skip(1)) {
                assert!(
                    before.last < after.first,
                    "{key} was run by epoch {epoch} until {} ms after epoch {next} began: {runs:?}",
                    (before.last - after.first) / 1_000_000
                );
            }
        }
    }
}

#[cfg(test)]
mod checks {
    use super::*;

    fn report(lines: &[(usize, &str)]) -> Report {
        let (says, report) = Report::new();
        for (process, line) in lines {
            says.send(Sighting::read(*process, line).unwrap()).unwrap();
        }
        report
    }

    #[test]
    fn runs_one_after_the_other_are_in_order() {
        report(&[(1, "100 1 violin"), (1, "200 1 violin"), (2, "300 2 violin"), (1, "150 7 cello")]).check();
    }

    #[test]
    #[should_panic(expected = "violin was run by epoch 1")]
    fn an_overlap_is_found() {
        report(&[(1, "100 1 violin"), (2, "200 2 violin"), (1, "300 1 violin")]).check();
    }

    #[test]
    #[should_panic(expected = "two processes")]
    fn an_epoch_of_two_processes_is_found() {
        report(&[(1, "100 1 violin"), (2, "200 1 violin")]).check();
    }
}
