//! The terms on which events are added: what a stream keeps, how much it takes, how long it lives. They become parts of
//! the transaction that adds, and options of the builders of streams.

use std::{sync::Arc, time::Duration};

use pulse_core::{Deadline, StreamId, Transaction};

use super::Retention;
use crate::{
    Error, OptionValue,
    options::{LONGEST, check_time},
};

/// The terms on which events are added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) retention: Retention,
    /// The length at which adds are refused.
    pub(crate) capacity: Option<u64>,
    pub(crate) lifetime: Option<Deadline>,
    /// How long the id of an event that was added once is remembered.
    pub(crate) once_within: Duration,
}

impl Terms {
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a number of zero or a time under a millisecond or over a year.
    pub(crate) fn check(&self, id: &StreamId) -> Result<(), Error> {
        let least = Duration::from_millis(1);
        let time =
            |option, time| check_time(id, option, time, least..=LONGEST, "it must be from a millisecond to a year");
        let count = |option, count| {
            let value = OptionValue::Count(usize::try_from(count).unwrap_or(usize::MAX));
            let invalid = Error::InvalidOption { stream: id.clone(), option, value, reason: "it must be at least one" };
            if count == 0 { Err(invalid) } else { Ok(()) }
        };
        match self.retention {
            Retention::Newest(events) | Retention::AboutNewest(events) => count("retention", events)?,
            Retention::Within(age) => time("retention", age)?,
            Retention::Unlimited | Retention::UntilConsumed => {}
        }
        if let Some(capacity) = self.capacity {
            count("capacity", capacity)?;
        }
        if let Some(Deadline::IfUnset(ttl) | Deadline::Renew(ttl)) = self.lifetime {
            time("lifetime", ttl)?;
        }
        time("time to remember ids of events", self.once_within)
    }

    /// Puts what adds between what must hold before and what follows from it.
    pub(crate) fn around(
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

/// Writes the methods of a builder that set the terms; `$each` says what they hold for, if that is not the stream.
macro_rules! term_options {
    ($each:literal) => {
        /// Sets which events are kept. Default: all.
        #[doc = $each]
        pub fn retention(mut self, retention: $crate::Retention) -> Self {
            self.terms.retention = retention;
            self
        }

        /// Refuses to add while the stream has that many events, with [`Error::Full`](crate::Error::Full). With
        /// [`Retention::UntilConsumed`](crate::Retention::UntilConsumed) that is back-pressure: producers are refused
        /// until sinks have caught up. Default: no bound.
        ///
        /// A batch is taken as a whole as long as there is room for one.
        #[doc = $each]
        pub fn capacity(mut self, events: u64) -> Self {
            self.terms.capacity = Some(events);
            self
        }

        /// Lets the stream expire that long after the first event that was added through a handle that says so; later
        /// ones do not put it off. It then vanishes with all its events and sinks. At a resolution of one millisecond,
        /// by the server's clock.
        pub fn expires_after(mut self, time: std::time::Duration) -> Self {
            self.terms.lifetime = Some(pulse_core::Deadline::IfUnset(time));
            self
        }

        /// Lets the stream expire that long after the last event that was added through a handle that says so. It then
        /// vanishes with all its events and sinks. At a resolution of one millisecond, by the server's clock.
        pub fn expires_unless_added_to_for(mut self, time: std::time::Duration) -> Self {
            self.terms.lifetime = Some(pulse_core::Deadline::Renew(time));
            self
        }

        /// Sets how long [`add_once`](crate::EventStream::add_once) remembers an id. Default: ten minutes.
        pub fn once_within(mut self, time: std::time::Duration) -> Self {
            self.terms.once_within = time;
            self
        }
    };
}
pub(crate) use term_options;
