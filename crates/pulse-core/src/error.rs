//! What can go wrong, cut by what the caller can do about it.
//!
//! Every error names the key, stream or target it is about, keeps its cause as [`std::error::Error::source`], and
//! answers the questions a caller acts on: [`Error::is_retryable`], [`Error::is_outcome_unknown`],
//! [`Error::is_conflict`].

use std::{sync::Arc, time::Duration};

use crate::{EventId, Group, LeaseId, StreamId, transaction::FailedExpectation};

/// A cause from a lower layer.
pub type Source = Arc<dyn std::error::Error + Send + Sync>;

/// Whether a request that failed may have taken effect all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It changed nothing: sending it again is safe.
    NotApplied,
    /// It may or may not have taken effect: look before sending it again, unless repeating it changes nothing.
    Unknown,
}

/// Why a call to a backend failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL makes no sense, or does not go with the options.
    #[error("cannot use {url:?} as a Pulse URL: {reason}")]
    InvalidUrl {
        /// The URL, without its password.
        url: String,
        /// What is wrong with it and what would be right.
        reason: String,
    },
    /// A certificate, key or name that was given for TLS cannot be used.
    #[error("cannot use the {what} for TLS: {reason}")]
    InvalidTls {
        /// What was given.
        what: &'static str,
        /// What is wrong with it and what would be right; nothing of a key.
        reason: String,
    },
    /// An option makes no sense. Nothing was sent.
    #[error("invalid {option} of {value}: {reason}")]
    InvalidOption {
        /// The option, as the builder calls it.
        option: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        reason: &'static str,
    },
    /// No connection could be made when connecting for the first time.
    #[error(
        "cannot connect to {target}: check that the server runs there, accepts connections, and speaks TLS if the URL says so"
    )]
    Connect {
        /// The server, without its password.
        target: String,
        /// What was tried and how it failed.
        #[source]
        source: Source,
    },
    /// The server refused the credentials.
    #[error("{target} refused the credentials: check user and password")]
    Auth {
        /// The server, without its password.
        target: String,
        /// The server's words.
        #[source]
        source: Source,
    },
    /// The user may not do what was asked. Nothing was changed.
    ///
    /// What users must be granted stands in the [guide on permissions](crate::guide::permissions).
    #[error("{operation} on {subject} was denied: {missing}")]
    Denied {
        /// What was asked.
        operation: &'static str,
        /// What it was about.
        subject: String,
        /// Which permission is missing, and what to grant.
        missing: String,
        /// The server's words, if it was not asked beforehand.
        #[source]
        source: Option<Source>,
    },
    /// The server lacks what Pulse needs.
    #[error("{target} runs {found}, but Pulse needs {needed}")]
    UnsupportedServer {
        /// The server, without its password.
        target: String,
        /// What the server says it is.
        found: String,
        /// The minimum.
        needed: &'static str,
    },
    /// A write reached a read-only replica.
    #[error(
        "cannot write {subject}: the server is a read-only replica; connect to the primary, or by Sentinel or Cluster URL"
    )]
    ReadOnly {
        /// The key or scope that was to be written.
        subject: String,
    },
    /// A name is empty or too long.
    #[error("invalid {what} name {name:?}: {reason}")]
    InvalidName {
        /// What was to be named.
        what: &'static str,
        /// The name, shortened if it is long.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A request makes no sense, whatever the state of the backend.
    #[error("invalid request on {subject}: {reason}")]
    InvalidRequest {
        /// What it was about.
        subject: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A key, value, event or transaction is larger than the limit; nothing was sent.
    #[error(
        "{what} of {subject} is {size}, over the limit of {limit}: make it smaller or raise the limit in the client builder"
    )]
    LimitExceeded {
        /// What is measured, with its unit.
        what: &'static str,
        /// The key, stream or scope.
        subject: String,
        /// Its size.
        size: usize,
        /// The largest accepted size.
        limit: usize,
    },
    /// An expectation of a transaction did not hold; nothing was changed.
    #[error("transaction on {scope} not committed: {failed}")]
    ExpectationFailed {
        /// The scope of the transaction.
        scope: String,
        /// Which expectation, and what was found instead.
        failed: Box<FailedExpectation>,
    },
    /// Something of one scope was put into a transaction of another one; nothing was sent.
    #[error(
        "{subject} belongs to scope {scope:?} and cannot take part in a transaction of scope {transaction:?}: give both the same scope"
    )]
    OtherScope {
        /// What was put into the transaction.
        subject: String,
        /// The scope that it belongs to.
        scope: String,
        /// The scope of the transaction.
        transaction: String,
    },
    /// The lease has expired or was dropped: its owner has been declared dead. Nothing was changed.
    #[error(
        "lease {lease} is not alive in scope {scope:?}: it expired, was dropped, or was granted in another scope; ask for a new one"
    )]
    LeaseLost {
        /// The scope of the transaction, in which the lease was looked for.
        scope: String,
        /// The lease.
        lease: LeaseId,
    },
    /// A counter or list operation met a value that is no counter or list, or would leave the 64-bit range. Nothing was
    /// changed.
    #[error("cannot change {key:?} of {map}: {reason}")]
    WrongValue {
        /// The map.
        map: String,
        /// The key in the map.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// The key in the server holds another type, written by somebody else. Nothing was changed.
    #[error(
        "the server's key {key:?} holds another type than Pulse writes: find out who writes it, delete it, or use another key prefix"
    )]
    WrongType {
        /// The key in the server.
        key: String,
    },
    /// The key in the server holds data that Pulse did not write.
    #[error(
        "the server's key {key:?} holds data that Pulse cannot read ({reason}): find out who writes it, or delete it"
    )]
    Corrupt {
        /// The key in the server.
        key: String,
        /// What is wrong with the data.
        reason: String,
    },
    /// The stream has no such consumer group: it was never created, or was destroyed with its stream.
    #[error("stream {stream} has no consumer group {group}: create it first")]
    NoGroup {
        /// The stream.
        stream: StreamId,
        /// The group.
        group: Group,
    },
    /// An event id cannot follow the last one of its stream (the stream has reached the largest id).
    #[error("stream {stream} cannot take another event after {last}")]
    StreamExhausted {
        /// The stream.
        stream: StreamId,
        /// Its last id.
        last: EventId,
    },
    /// No answer came in time.
    #[error("{operation} on {subject} timed out after {after:?}{}", outcome_hint(*.outcome))]
    Timeout {
        /// What was asked.
        operation: &'static str,
        /// What it was about.
        subject: String,
        /// How long was waited.
        after: Duration,
        /// Whether it may have taken effect.
        outcome: Outcome,
    },
    /// The backend cannot be reached, or the connection broke before the answer.
    #[error("{operation} on {subject} failed: the backend is unavailable{}", outcome_hint(*.outcome))]
    Unavailable {
        /// What was asked.
        operation: &'static str,
        /// What it was about.
        subject: String,
        /// Whether it may have taken effect.
        outcome: Outcome,
        /// The connection's error.
        #[source]
        source: Source,
    },
    /// The server refused for a reason of its own: out of memory, disk full, loading, and the like.
    #[error("{operation} on {subject} was refused by the server: {message}")]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// What it was about.
        subject: String,
        /// The server's words.
        message: String,
        /// Whether the server may accept the same request later.
        transient: bool,
    },
    /// The server's answer makes no sense: a proxy, a foreign script, or a defect of Pulse.
    #[error("{operation} on {subject} got an answer that makes no sense: {reason}")]
    Protocol {
        /// What was asked.
        operation: &'static str,
        /// What it was about.
        subject: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

fn outcome_hint(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::NotApplied => "; nothing was changed",
        Outcome::Unknown => "; it is unknown whether it took effect",
    }
}

impl Error {
    /// Whether the same call may succeed later without anybody changing anything.
    ///
    /// Retry blindly only what repeating cannot harm; check [`Error::is_outcome_unknown`] for the rest.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Unavailable { .. } | Self::Connect { .. } | Self::ReadOnly { .. } => true,
            Self::Refused { transient, .. } => *transient,
            _ => false,
        }
    }

    /// Whether the request may have taken effect although it failed.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(
            self,
            Self::Timeout { outcome: Outcome::Unknown, .. }
                | Self::Unavailable { outcome: Outcome::Unknown, .. }
                | Self::Protocol { .. }
        )
    }

    /// Whether the transaction met another state than it expected: read again and decide anew.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::ExpectationFailed { .. })
    }

    /// The expectation that failed, if that is what happened.
    #[must_use]
    pub fn failed_expectation(&self) -> Option<&FailedExpectation> {
        match self {
            Self::ExpectationFailed { failed, .. } => Some(failed),
            _ => None,
        }
    }

    pub(crate) fn invalid_name(what: &'static str, name: &str, reason: &'static str) -> Self {
        Self::InvalidName { what, name: name.chars().take(64).collect(), reason }
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error as _, io};

    use super::*;
    use crate::{Expectation, Found, Scope};

    fn timeout(outcome: Outcome) -> Error {
        Error::Timeout { operation: "commit", subject: "s".into(), after: Duration::from_secs(1), outcome }
    }

    fn unavailable(outcome: Outcome) -> Error {
        let source: Source = Arc::new(io::Error::from(io::ErrorKind::ConnectionReset));
        Error::Unavailable { operation: "commit", subject: "s".into(), outcome, source }
    }

    fn refused(transient: bool) -> Error {
        Error::Refused { operation: "commit", subject: "s".into(), message: "OOM".into(), transient }
    }

    fn conflict() -> Error {
        let expected = Expectation::Absent { map: "m".into(), key: "k".into() };
        let failed = FailedExpectation::new(0, expected, Found::Value(Some("v".into())));
        Error::ExpectationFailed { scope: "s".into(), failed: Box::new(failed) }
    }

    #[test]
    fn what_may_pass_by_itself_is_retryable() {
        for passing in [timeout(Outcome::Unknown), unavailable(Outcome::NotApplied), refused(true)] {
            assert!(passing.is_retryable(), "{passing}");
        }
        for lasting in [refused(false), conflict(), Error::Closed, Error::invalid_name("map", "", "it is empty")] {
            assert!(!lasting.is_retryable(), "{lasting}");
        }
    }

    #[test]
    fn only_what_may_have_taken_effect_has_an_unknown_outcome() {
        assert!(timeout(Outcome::Unknown).is_outcome_unknown());
        assert!(unavailable(Outcome::Unknown).is_outcome_unknown());
        for known in [timeout(Outcome::NotApplied), unavailable(Outcome::NotApplied), refused(true), conflict()] {
            assert!(!known.is_outcome_unknown(), "{known}");
        }
    }

    #[test]
    fn a_conflict_carries_the_expectation_that_failed() {
        assert!(conflict().is_conflict());
        assert_eq!(conflict().failed_expectation().map(|failed| failed.index), Some(0));
        assert!(!Error::Closed.is_conflict() && Error::Closed.failed_expectation().is_none());
    }

    #[test]
    fn messages_name_the_subject_the_outcome_and_keep_the_cause() {
        let error = unavailable(Outcome::Unknown);
        assert_eq!(
            error.to_string(),
            "commit on s failed: the backend is unavailable; it is unknown whether it took effect"
        );
        assert!(error.source().is_some_and(|cause| cause.is::<Source>() || cause.to_string().contains("reset")));
        let scope = Scope::new("s").expect("a valid name");
        let group = Group::new("g").expect("a valid name");
        let error = Error::NoGroup { stream: scope.stream("e").expect("a valid name"), group };
        assert_eq!(error.to_string(), "stream s/e has no consumer group g: create it first");
    }

    #[test]
    fn a_denial_says_what_is_missing_and_is_not_worth_a_repetition() {
        let denied = |source| Error::Denied {
            operation: "commit",
            subject: "orders".into(),
            missing: "the user may not run HSET: grant +hset".into(),
            source,
        };
        let error = denied(None);
        assert_eq!(error.to_string(), "commit on orders was denied: the user may not run HSET: grant +hset");
        assert!(error.source().is_none() && !error.is_retryable() && !error.is_outcome_unknown());
        assert!(denied(Some(Arc::new(io::Error::from(io::ErrorKind::Other)))).source().is_some());
    }

    #[test]
    fn a_long_name_is_shortened_between_characters() {
        let error = Error::invalid_name("map", &"ä".repeat(2000), "it is longer than 1024 bytes");
        let Error::InvalidName { name, .. } = error else { panic!("{error}") };
        assert_eq!(name, "ä".repeat(64));
    }
}
