//! Reading what Rust's test harness prints, to count what ran on what.

use std::collections::BTreeMap;

use crate::args::Backend;

/// How many tests ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    pub(crate) fn total(self) -> u64 {
        self.passed + self.failed + self.skipped
    }
}

/// The counts of each backend, and which tests failed.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) counts: BTreeMap<Backend, Counts>,
    pub(crate) failures: Vec<String>,
}

impl Tally {
    /// Takes note of one line of output, if it reports the end of a test.
    pub(crate) fn read(&mut self, line: &str) {
        let Some((name, end)) = parse(line) else { return };
        let counts = self.counts.entry(backend_of(name)).or_default();
        match end {
            End::Passed => counts.passed += 1,
            End::Skipped => counts.skipped += 1,
            End::Failed => {
                counts.failed += 1;
                self.failures.push(name.to_owned());
            }
        }
    }

    pub(crate) fn total(&self) -> Counts {
        self.counts.values().fold(Counts::default(), |sum, counts| Counts {
            passed: sum.passed + counts.passed,
            failed: sum.failed + counts.failed,
            skipped: sum.skipped + counts.skipped,
        })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Passed,
    Failed,
    Skipped,
}

/// Takes a line like `test feeds::standalone::a_gap_shows ... ok` apart.
fn parse(line: &str) -> Option<(&str, End)> {
    let (name, end) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let end = match end.split([',', ' ']).next()? {
        "ok" => End::Passed,
        "FAILED" => End::Failed,
        "ignored" => End::Skipped,
        _ => return None,
    };
    Some((name, end))
}

/// Tests of a server stand in a module of its kind; all others run in memory.
fn backend_of(name: &str) -> Backend {
    let modules: Vec<&str> = name.split("::").collect();
    let server = [Backend::Standalone, Backend::Cluster].into_iter().find(|kind| modules.contains(&kind.name()));
    server.unwrap_or(Backend::Memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted_by_the_module_that_names_their_backend() {
        let mut tally = Tally::default();
        for line in [
            "running 5 tests",
            "test standalone::a ... ok",
            "test cluster::feeds::b ... FAILED",
            "test memory::feeds::c ... ok",
            "test cluster_of_words::d ... ok",
            "test crates/pulse-core/src/lib.rs - connect (line 51) ... ok",
            "test standalone::e ... ignored, for a reason",
            "test result: FAILED. 4 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.04s",
        ] {
            tally.read(line);
        }
        assert_eq!(tally.counts[&Backend::Memory], Counts { passed: 3, failed: 0, skipped: 0 });
        assert_eq!(tally.counts[&Backend::Standalone], Counts { passed: 1, failed: 0, skipped: 1 });
        assert_eq!(tally.counts[&Backend::Cluster], Counts { passed: 0, failed: 1, skipped: 0 });
        assert_eq!(tally.failures, ["cluster::feeds::b"]);
        assert_eq!(tally.total(), Counts { passed: 4, failed: 1, skipped: 1 });
    }
}
