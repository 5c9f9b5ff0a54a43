//! What this process costs.

use std::{fs, time::Duration};

/// How much CPU time the process has used, all threads together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuTime(Duration);

impl CpuTime {
    /// Reads it; `None` where the system does not tell (anything but Linux).
    pub(crate) fn now() -> Option<Self> {
        Self::from_threads().or_else(Self::from_ticks)
    }

    /// The time since an earlier reading, as a share of one core.
    pub(crate) fn share_since(self, earlier: Self, elapsed: Duration) -> f64 {
        self.0.saturating_sub(earlier.0).as_secs_f64() / elapsed.as_secs_f64()
    }

    /// To the nanosecond, where the kernel keeps statistics of its scheduler. Threads that ended in between are missed.
    fn from_threads() -> Option<Self> {
        let mut sum = 0;
        for thread in fs::read_dir("/proc/self/task").ok()? {
            let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            sum += text.split_whitespace().next()?.parse::<u64>().ok()?;
        }
        (sum > 0).then_some(Self(Duration::from_nanos(sum)))
    }

    /// To the hundredth of a second.
    fn from_ticks() -> Option<Self> {
        let text = fs::read_to_string("/proc/self/stat").ok()?;
        // The name of the program stands in brackets and may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self(Duration::from_millis(10 * (ticks(11)? + ticks(12)?))))
    }
}

/// How much memory of the process is in RAM; `None` where the system does not tell (anything but Linux).
pub(crate) fn resident_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1024)
}
