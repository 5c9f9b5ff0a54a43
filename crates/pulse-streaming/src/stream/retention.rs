//! What a stream keeps, how much it takes, and how long it lives, as parts of the transaction that adds.

use std::{sync::Arc, time::Duration};

use pulse_core::{Deadline, Transaction, Trim};

/// Which events a stream keeps. The events beyond are dropped in the same step as an event is added, from the oldest on.
///
/// Readers and sinks that had not had them yet are told ([`Notice::Missed`](crate::Notice::Missed)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Retention {
    /// All, until the stream is destroyed or expires.
    #[default]
    Unlimited,
    /// The newest ones, so many of them exactly.
    Newest(u64),
    /// The newest ones, at least so many. Redis drops whole nodes of about a hundred events, which is cheaper.
    AboutNewest(u64),
    /// Those that were added within this time, at least. Old ones stay until the next event is added.
    Within(Duration),
    /// Those that some sink has not acknowledged yet. A stream without sinks keeps all. Readers do not count.
    UntilConsumed,
}

impl Retention {
    /// What to drop when an event was added.
    pub(super) fn trim(self) -> Option<Trim> {
        match self {
            Self::Unlimited => None,
            Self::Newest(length) => Some(Trim::MaxLength { length, approximate: false }),
            Self::AboutNewest(length) => Some(Trim::MaxLength { length, approximate: true }),
            Self::Within(age) => Some(Trim::OlderThan { age, approximate: true }),
            Self::UntilConsumed => Some(Trim::Consumed),
        }
    }
}

/// The terms on which events are added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) retention: Retention,
    /// The length at which adds are refused.
    pub(super) capacity: Option<u64>,
    pub(super) lifetime: Option<Deadline>,
    /// How long the id of an event that was added once is remembered.
    pub(super) once_within: Duration,
}

impl Terms {
    /// Puts what adds between what must hold before and what follows from it.
    pub(super) fn around(
        &self,
        stream: &Arc<str>,
        transaction: Transaction,
        add: impl FnOnce(Transaction) -> Transaction,
    ) -> Transaction {
        let mut transaction = transaction;
        if let Some(capacity) = self.capacity {
            transaction = transaction.expect_shorter_than(stream.clone(), capacity);
        }
        transaction = add(transaction);
        if let Some(trim) = self.retention.trim() {
            transaction = transaction.trim_stream(stream.clone(), trim);
        }
        if let Some(lifetime) = self.lifetime {
            transaction = transaction.expire_stream(stream.clone(), lifetime);
        }
        transaction
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            retention: Retention::Unlimited,
            capacity: None,
            lifetime: None,
            once_within: Duration::from_secs(10 * 60),
        }
    }
}
