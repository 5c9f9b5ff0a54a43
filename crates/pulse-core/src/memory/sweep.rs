//! Removing what has passed its deadline.

use std::time::Duration;

use super::scope::{Changed, Due, ScopeState};
use crate::Swept;

/// The most deadlines that one sweep looks at, and the most entries of leases that it deletes. Only a map that expires
/// goes at once, whatever its size, because that is one change.
const BATCH: usize = 1024;

pub(super) fn sweep(mut state: ScopeState, now: u64) -> (ScopeState, Changed, Swept) {
    let mut changed = Changed::default();
    let mut swept = Swept::default();
    let mut left = BATCH;
    while left > 0 {
        let Some((deadline, due)) = state.deadlines.get_min().cloned() else { break };
        if deadline > now {
            break;
        }
        left -= 1;
        match &due {
            Due::Lease(lease) => {
                let deleted = state.delete_bound(&mut changed, *lease, left);
                swept.entries += deleted;
                left -= usize::try_from(deleted).unwrap_or(left);
                // With nothing left, more entries may hang on it: the lease stays, dead as it is, for the next sweep.
                if left > 0 {
                    state.drop_lease(&mut changed, *lease);
                    swept.leases.push(*lease);
                }
            }
            Due::Entry(map, key) => {
                state.delete(&mut changed, map, key);
                swept.entries += 1;
            }
            Due::Map(map) => {
                swept.entries += state.destroy(&mut changed, map);
            }
        }
    }
    state.free_expired_streams(now, BATCH);
    changed.finish();
    let next = state.deadlines.get_min().map(|(deadline, _)| *deadline);
    swept.next_deadline = next.map(|deadline| Duration::from_millis(deadline.saturating_sub(now)));
    (state, changed, swept)
}
