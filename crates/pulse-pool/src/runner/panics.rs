//! Steps that panicked, which is a defect of ours: for how long their jobs are left alone.

use std::{collections::HashMap, time::Duration};

use crate::JobKey;

/// How long a job is left alone after its first panic, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How often in a row the steps for a job panicked.
#[derive(Debug, Default)]
pub(super) struct Panics(HashMap<JobKey, u32>);

impl Panics {
    /// How long to leave the job alone if its next step panics.
    pub(super) fn pause_of(&self, key: &JobKey) -> Duration {
        let before = self.0.get(key).copied().unwrap_or(0);
        PAUSE.0.saturating_mul(2_u32.saturating_pow(before)).min(PAUSE.1)
    }

    pub(super) fn count(&mut self, key: &JobKey) {
        let count = self.0.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
    }

    /// A step for the job has come to its end.
    pub(super) fn forget(&mut self, key: &JobKey) {
        self.0.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_a_step_comes_to_its_end() {
        let (mut panics, key) = (Panics::default(), JobKey::new("aria").unwrap());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            pauses.push(panics.pause_of(&key).as_secs());
            panics.count(&key);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        panics.forget(&key);
        assert_eq!(panics.pause_of(&key), PAUSE.0);
    }
}
