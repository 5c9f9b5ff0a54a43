//! Removing what has passed its deadline.

use std::time::Duration;

use super::scope::{Changed, Due, ScopeState};
use crate::Swept;

/// The most deadlines that one sweep looks at.
const BATCH: usize = 1024;

pub(super) fn sweep(mut state: ScopeState, now: u64) -> (ScopeState, Changed, Swept) {
    let mut changed = Changed::default();
    let mut swept = Swept::default();
    for _ in 0..BATCH {
        let Some((deadline, due)) = state.deadlines.get_min().cloned() else { break };
        if deadline > now {
            break;
        }
        match &due {
            Due::Lease(lease) => {
                swept.entries += state.drop_lease(&mut changed, *lease);
                swept.leases.push(*lease);
            }
            Due::Entry(map, key) => {
                state.delete(&mut changed, map, key);
                swept.entries += 1;
            }
            Due::Map(map) => {
                swept.entries += state.clear(&mut changed, map);
                state.set_map_deadline(map, None);
            }
        }
    }
    changed.finish();
    let next = state.deadlines.get_min().map(|(deadline, _)| *deadline);
    swept.next_deadline = next.map(|deadline| Duration::from_millis(deadline.saturating_sub(now)));
    (state, changed, swept)
}
