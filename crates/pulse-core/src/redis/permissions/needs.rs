//! What a call needs to be permitted, as a set of kinds. The numbers are those of `lua/permissions.lua`.

use super::Denied;
use crate::{Transaction, Write};

/// A set of kinds of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needs(u16);

impl Needs {
    pub(super) const NONE: Self = Self(0);
    /// Writing to maps, to leases, and sweeping.
    pub(crate) const MAPS: Self = Self(1);
    /// Appending to streams.
    pub(crate) const APPENDS: Self = Self(2);
    /// Trimming streams, appending once, lifetimes, deletions.
    pub(crate) const UPKEEP: Self = Self(4);
    /// Acknowledging, claiming, and setting idle times.
    pub(crate) const ACKS: Self = Self(8);
    /// Listening to the commits of maps.
    pub(crate) const FEEDS: Self = Self(16);
    /// Listening to what is appended to streams.
    pub(crate) const WAKE_UPS: Self = Self(32);
    /// Describing a stream with its groups.
    pub(crate) const DETAILS: Self = Self(64);
    /// Taking what a group missed.
    pub(crate) const MISSED: Self = Self(128);
    /// Removing a consumer of a group.
    pub(crate) const CONSUMER_REMOVAL: Self = Self(256);
    /// Removing a group.
    pub(crate) const GROUP_REMOVAL: Self = Self(512);
    pub(super) const ALL: Self = Self(1023);

    /// What the writes of a transaction need. (What it expects is read before anything is written.)
    pub(crate) fn of(transaction: &Transaction) -> Self {
        let needs = transaction.writes().iter().map(|write| match write {
            Write::Append { once: None, .. } => Self::APPENDS.0,
            Write::Append { once: Some(_), .. } => Self::APPENDS.0 | Self::UPKEEP.0,
            Write::TrimStream { .. }
            | Write::ExpireStream { .. }
            | Write::DeleteEvents { .. }
            | Write::DestroyStream { .. } => Self::UPKEEP.0,
            Write::Ack { .. } => Self::ACKS.0,
            Write::Put { .. }
            | Write::Delete { .. }
            | Write::Add { .. }
            | Write::ListAppend { .. }
            | Write::ListRemove { .. }
            | Write::Clear { .. }
            | Write::DestroyMap { .. }
            | Write::ExpireMap { .. }
            | Write::GrantLease { .. }
            | Write::RenewLease { .. }
            | Write::DropLease { .. } => Self::MAPS.0,
        });
        Self(needs.fold(0, |all, need| all | need))
    }

    pub(super) fn from_bits(bits: u16) -> Self {
        Self(bits & Self::ALL.0)
    }

    pub(super) fn bits(self) -> u16 {
        self.0
    }

    pub(super) fn contain(self, others: Self) -> bool {
        others.0 & !self.0 == 0
    }

    /// Those of which nothing is denied.
    pub(super) fn without(self, denied: &[Denied]) -> Self {
        Self(denied.iter().fold(self.0, |left, denied| left & !denied.need.0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Group, LeaseId, NewEvent, Once, Scope, Trim};

    fn needs(build: impl FnOnce(Transaction) -> Transaction) -> Needs {
        let scope = Scope::new("s").unwrap();
        Needs::of(&build(Transaction::new(&scope)))
    }

    #[test]
    fn a_transaction_needs_what_each_of_its_writes_needs() {
        let (event, group) = (|| NewEvent::new("n", "p"), Group::new("g").unwrap());
        let all = |needs: &[Needs]| Needs(needs.iter().fold(0, |all, need| all | need.0));
        assert_eq!(needs(|t| t.put("m", "k", "v")), Needs::MAPS);
        assert_eq!(needs(|t| t.renew_lease(LeaseId(1), Duration::from_secs(1))), Needs::MAPS);
        assert_eq!(needs(|t| t.append("s", event())), Needs::APPENDS);
        let once = Once::new("1", Duration::from_secs(60));
        assert_eq!(needs(|t| t.append_once("s", event(), once)), all(&[Needs::APPENDS, Needs::UPKEEP]));
        assert_eq!(needs(|t| t.trim_stream("s", Trim::Consumed)), Needs::UPKEEP);
        let outbox = needs(|t| t.delete("m", "k").append("s", event()).ack("r", &group, Vec::new()));
        assert_eq!(outbox, all(&[Needs::MAPS, Needs::APPENDS, Needs::ACKS]));
        assert_eq!(needs(|t| t.expect_absent("m", "k")), Needs::NONE);
    }

    #[test]
    fn what_is_denied_takes_the_whole_need_away() {
        let denied = Denied { need: Needs::APPENDS, command: "xadd".into(), subject: "k".into() };
        let left = Needs::ALL.without(std::slice::from_ref(&denied));
        assert!(!left.contain(Needs::APPENDS) && left.contain(Needs::MAPS) && left.contain(Needs::FEEDS));
    }
}
