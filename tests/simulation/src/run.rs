//! Running seeds, one or many.

use std::{
    fmt,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use pulse_core::testing::Seeded;
use tokio::{runtime::Builder, time::timeout};

use crate::{Sabotage, stage::Stage, world::World};

/// Longer than any run takes, by the clock that jumps.
const LIMIT: Duration = Duration::from_secs(900);

/// A run in which every promise was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Everything that happened, in order.
    pub log: Vec<String>,
}

/// A run in which one was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Whose run it was.
    pub seed: u64,
    /// What must not be.
    pub violations: Vec<String>,
    /// Everything that happened, in order.
    pub log: Vec<String>,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.violations.join("; "))
    }
}

impl std::error::Error for Failed {}

/// Runs one seed.
///
/// # Errors
///
/// What went wrong.
pub fn run(seed: u64, sabotage: Option<Sabotage>) -> Result<Ran, Box<Failed>> {
    let _seeded = Seeded::new(seed);
    let runtime =
        Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime can be made");
    let (stage, violations) = runtime.block_on(async {
        let stage = Stage::new();
        if timeout(LIMIT, World::run(seed, &stage, sabotage)).await.is_err() {
            stage.violation("it does not come to an end");
        }
        let violations = stage.violations();
        (stage, violations)
    });
    // What is left ends with the runtime, and may still write to the log.
    let log = stage.take_log();
    drop(runtime);
    if violations.is_empty() { Ok(Ran { log }) } else { Err(Box::new(Failed { seed, violations, log })) }
}

/// Runs seeds on several threads until one fails. Returns the failure with the lowest seed of those that were found.
#[must_use]
pub fn first_failure(seeds: Range<u64>, threads: usize, sabotage: Option<Sabotage>) -> Option<Box<Failed>> {
    let (next, end) = (AtomicU64::new(seeds.start), AtomicU64::new(seeds.end));
    let found: Mutex<Option<Box<Failed>>> = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    if let Err(failed) = run(seed, sabotage) {
                        end.fetch_min(seed, Ordering::Relaxed);
                        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                        if found.as_ref().is_none_or(|found| failed.seed < found.seed) {
                            *found = Some(failed);
                        }
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}
