//! Sizes that are checked before anything is sent.
//!
//! A server answers an oversized request by closing the connection or by stalling everybody else; checking here turns
//! both into a typed error that names the key. The limits are per client and can be changed in
//! [`ClientBuilder::limits`](crate::ClientBuilder::limits).

use crate::{Error, NewEvent};

/// The largest sizes that a client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The longest key of a map entry, in bytes.
    pub key_bytes: usize,
    /// The largest value of a map entry, in bytes.
    pub value_bytes: usize,
    /// The largest event, in bytes: name, topic, headers and payload together.
    pub event_bytes: usize,
    /// The most operations in a transaction: expectations and writes together.
    pub operations: usize,
    /// The largest transaction, in bytes: all keys, values and events together.
    pub transaction_bytes: usize,
}

impl Default for Limits {
    /// Keys of 64 KiB, values and events of 64 MiB, transactions of 4,096 operations and 128 MiB.
    fn default() -> Self {
        Self {
            key_bytes: 64 << 10,
            value_bytes: 64 << 20,
            event_bytes: 64 << 20,
            operations: 4096,
            transaction_bytes: 128 << 20,
        }
    }
}

impl Limits {
    /// Sets the longest key of a map entry, in bytes.
    #[must_use]
    pub fn with_key_bytes(mut self, bytes: usize) -> Self {
        self.key_bytes = bytes;
        self
    }

    /// Sets the largest value of a map entry, in bytes.
    #[must_use]
    pub fn with_value_bytes(mut self, bytes: usize) -> Self {
        self.value_bytes = bytes;
        self
    }

    /// Sets the largest event, in bytes.
    #[must_use]
    pub fn with_event_bytes(mut self, bytes: usize) -> Self {
        self.event_bytes = bytes;
        self
    }

    /// Sets the most operations in a transaction.
    #[must_use]
    pub fn with_operations(mut self, operations: usize) -> Self {
        self.operations = operations;
        self
    }

    /// Sets the largest transaction, in bytes.
    #[must_use]
    pub fn with_transaction_bytes(mut self, bytes: usize) -> Self {
        self.transaction_bytes = bytes;
        self
    }

    pub(crate) fn check_key(&self, map: &str, key: &str) -> Result<usize, Error> {
        if key.is_empty() {
            return Err(Error::InvalidRequest { subject: format!("map {map}"), reason: "the key is empty".into() });
        }
        within("the key in bytes", map, key.len(), self.key_bytes)
    }

    pub(crate) fn check_value(&self, map: &str, key: &str, size: usize) -> Result<usize, Error> {
        if size <= self.value_bytes {
            return Ok(size);
        }
        let start: String = key.chars().take(64).collect();
        within("the value in bytes", &format!("{start:?} in {map}"), size, self.value_bytes)
    }

    pub(crate) fn check_event(&self, stream: &str, event: &NewEvent) -> Result<usize, Error> {
        within("the event in bytes", stream, event.size(), self.event_bytes)
    }

    pub(crate) fn check_transaction(&self, scope: &str, operations: usize, bytes: usize) -> Result<(), Error> {
        within("the transaction in operations", scope, operations, self.operations)?;
        within("the transaction in bytes", scope, bytes, self.transaction_bytes)?;
        Ok(())
    }
}

pub(crate) fn within(what: &'static str, subject: &str, size: usize, limit: usize) -> Result<usize, Error> {
    if size > limit {
        return Err(Error::LimitExceeded { what, subject: subject.to_owned(), size, limit });
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_at_the_limit_passes_and_one_more_does_not() {
        let limits = Limits::default().with_key_bytes(3).with_value_bytes(0).with_event_bytes(5);
        assert!(matches!(limits.check_key("m", "abc"), Ok(3)));
        assert!(matches!(limits.check_key("m", "abcd"), Err(Error::LimitExceeded { size: 4, limit: 3, .. })));
        assert!(limits.check_value("m", "k", 0).is_ok() && limits.check_value("m", "k", 1).is_err());
        assert!(limits.check_event("e", &NewEvent::new("abc", "de")).is_ok());
        assert!(limits.check_event("e", &NewEvent::new("abc", "def")).is_err());
    }

    #[test]
    fn a_long_key_is_not_repeated_whole_in_the_error() {
        let refused = Limits::default().with_value_bytes(0).check_value("m", &"ä".repeat(5000), 1);
        let Err(Error::LimitExceeded { subject, .. }) = refused else { panic!("{refused:?}") };
        assert!(subject.len() < 200 && subject.ends_with("in m"), "{subject}");
    }
}
