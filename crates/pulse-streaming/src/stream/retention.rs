//! Which events a stream keeps.

use std::time::Duration;

use pulse_core::Trim;

/// Which events a stream keeps. The events beyond are dropped in the same step as an event is added, from the oldest
/// on.
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
    /// Those that some sink has not acknowledged yet. A stream without sinks keeps all. Readers do not count. A sink that
    /// nobody runs any more holds back what it has not had until it is
    /// [removed](crate::EventStream::remove_sink); [`EventStream::sinks`](crate::EventStream::sinks) tells which do.
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
