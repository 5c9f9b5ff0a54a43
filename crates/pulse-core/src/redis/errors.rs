//! What an answer or a failure means for the caller: a typed error, or that the command may be sent again.
//!
//! Everything rests on one question: can the command have been carried out? The server's own refusals say that it was
//! not. What the client library says is read with care, because several of its errors cover both cases.

use std::{fmt, sync::Arc, time::Duration};

use fred::error::{Error as FredError, ErrorKind};

use super::permissions::what_is_missing;
use crate::{Error, Outcome, Source};

/// What is being asked, for error messages.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    /// What is done, as in "commit".
    pub(super) operation: &'static str,
    /// What it is done to.
    pub(super) subject: &'a (dyn fmt::Display + Sync),
}

impl<'a> Ask<'a> {
    pub(super) fn new(operation: &'static str, subject: &'a (dyn fmt::Display + Sync)) -> Self {
        Self { operation, subject }
    }

    pub(super) fn timeout(&self, after: Duration, outcome: Outcome) -> Error {
        Error::Timeout { operation: self.operation, subject: self.subject.to_string(), after, outcome }
    }

    pub(super) fn unavailable(&self, outcome: Outcome, source: Source) -> Error {
        Error::Unavailable { operation: self.operation, subject: self.subject.to_string(), outcome, source }
    }

    pub(super) fn protocol(&self, reason: impl Into<String>) -> Error {
        Error::Protocol { operation: self.operation, subject: self.subject.to_string(), reason: reason.into() }
    }

    pub(super) fn denied(&self, missing: String, words: Option<&str>) -> Error {
        Error::Denied {
            operation: self.operation,
            subject: self.subject.to_string(),
            missing,
            source: words.map(|words| Arc::new(ServerSaid(words.to_owned())) as Source),
        }
    }

    pub(super) fn refused(&self, message: &str, transient: bool) -> Error {
        Error::Refused {
            operation: self.operation,
            subject: self.subject.to_string(),
            message: message.to_owned(),
            transient,
        }
    }
}

/// The server's words, as the source of an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct ServerSaid(pub(super) String);

/// What a refusal of the server means. In every case but [`Refusal::Halfway`] the command was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Passes by itself, soon.
    Passing,
    /// Another node of the cluster is responsible.
    Redirected,
    /// The server is a replica.
    ReadOnly,
    /// The script is not in the server's cache.
    NoScript,
    /// A key holds another type.
    WrongType,
    /// There is no such consumer group, or no stream for it.
    NoGroup,
    /// The consumer group exists already.
    BusyGroup,
    /// The stream does not exist, where that is an error.
    NoKey,
    /// The stream has used up its ids.
    Exhausted,
    /// User or password.
    Auth,
    /// The user lacks a permission.
    Denied,
    /// A script failed after it had begun to write.
    Halfway,
    /// Something else, which may pass when somebody acts.
    Lasting,
    /// Something else, which will not pass.
    Final,
}

/// Reads a refusal.
pub(super) fn refusal(message: &str) -> Refusal {
    let code = message.split_whitespace().next().unwrap_or_default();
    match code {
        "LOADING" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" | "BUSY" | "UNBLOCKED" => Refusal::Passing,
        "MOVED" | "ASK" => Refusal::Redirected,
        "READONLY" => Refusal::ReadOnly,
        "NOSCRIPT" => Refusal::NoScript,
        "WRONGTYPE" => Refusal::WrongType,
        "NOGROUP" => Refusal::NoGroup,
        "BUSYGROUP" => Refusal::BusyGroup,
        "NOAUTH" | "WRONGPASS" => Refusal::Auth,
        "HALFWAY" => Refusal::Halfway,
        "OOM" | "MISCONF" | "NOREPLICAS" => Refusal::Lasting,
        _ if what_is_missing(message).is_some() => Refusal::Denied,
        // What a script says when the slot is leaving the node and a key of it has left already.
        _ if message.contains("attempted to access a non local key") => Refusal::Passing,
        _ if message.contains("-READONLY") || message.contains("read only replica") => Refusal::ReadOnly,
        _ if message.contains("requires the key to exist") || message.contains("no such key") => Refusal::NoKey,
        _ if message.contains("exhausted the last possible ID") => Refusal::Exhausted,
        _ if message.contains("invalid username-password pair") => Refusal::Auth,
        _ => Refusal::Final,
    }
}

/// What a failure of the client library means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The command was certainly not carried out, and can be sent again.
    NotSent,
    /// It may have been carried out.
    Unknown,
    /// No answer came in time; it may have been carried out.
    TimedOut,
    /// The user or the password was refused, on connecting.
    Auth,
}

/// Reads a failure of the client library.
///
/// With a single attempt, as all commands are sent: "Failed to route command" comes before the command is written, as do
/// the errors of a client that has ended. "Too many failed write attempts" looks as harmless, but is also what becomes
/// of commands that were written and not answered.
pub(super) fn failure(error: &FredError) -> Failure {
    let details = error.details();
    match error.kind() {
        ErrorKind::Timeout => Failure::TimedOut,
        ErrorKind::Auth => Failure::Auth,
        _ if details.starts_with("Failed to route command")
            || details.starts_with("Failed to send command to router")
            || details.starts_with("Client is not initialized") =>
        {
            Failure::NotSent
        }
        ErrorKind::InvalidArgument | ErrorKind::InvalidCommand | ErrorKind::Backpressure => Failure::NotSent,
        _ => Failure::Unknown,
    }
}

/// Whether the error says that user or password are wrong, or that the user may not do this.
pub(super) fn is_credentials(error: &FredError) -> bool {
    *error.kind() == ErrorKind::Auth || refusal(error.details()) == Refusal::Auth
}

/// Whether the error is a refusal in the server's own words, found when it was asked directly.
pub(super) fn is_said(error: &FredError) -> bool {
    *error.kind() == ErrorKind::Unknown && was_said_by_server(error)
}

/// Whether the error is an answer of the server, which begins with a word in capitals, and not one that the library
/// made itself.
pub(super) fn was_said_by_server(error: &FredError) -> bool {
    let made_here = matches!(
        error.kind(),
        ErrorKind::IO | ErrorKind::Timeout | ErrorKind::Canceled | ErrorKind::Routing | ErrorKind::Backpressure
    );
    let word = error.details().split(' ').next().unwrap_or_default();
    // This one ends the connection, and every command on it gets it for an answer, carried out or not.
    let made_here = made_here || word == "CLUSTERDOWN";
    !made_here && word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Keeps the library's error as a source.
pub(super) fn source(error: FredError) -> Source {
    // What the library says of commands that were under way when a connection was given up.
    if error.details() == "channel closed" {
        return Arc::new(ServerSaid("the connection was given up with the answer still owed".into()));
    }
    Arc::new(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_by_what_can_be_done() {
        for (message, expected) in [
            ("LOADING Redis is loading the dataset in memory", Refusal::Passing),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Refusal::Passing),
            ("CLUSTERDOWN The cluster is down", Refusal::Passing),
            ("MOVED 3999 127.0.0.1:6381", Refusal::Redirected),
            ("ASK 3999 127.0.0.1:6381", Refusal::Redirected),
            ("ERR Script attempted to access a non local key in a cluster node", Refusal::Passing),
            ("READONLY You can't write against a read only replica.", Refusal::ReadOnly),
            ("NOSCRIPT No matching script. Please use EVAL.", Refusal::NoScript),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Refusal::WrongType),
            ("NOGROUP No such key 's' or consumer group 'g'", Refusal::NoGroup),
            ("BUSYGROUP Consumer Group name already exists", Refusal::BusyGroup),
            ("NOPERM this user has no permissions to access one of the channels", Refusal::Denied),
            ("ERR The user executing the script can't run this command or subcommand", Refusal::Denied),
            ("HALFWAY The user executing the script can't publish to the channel", Refusal::Halfway),
            ("WRONGPASS invalid username-password pair or user is disabled.", Refusal::Auth),
            ("OOM command not allowed when used memory > 'maxmemory'.", Refusal::Lasting),
            ("MISCONF Redis is configured to save RDB snapshots", Refusal::Lasting),
            ("NOREPLICAS Not enough good replicas to write.", Refusal::Lasting),
            ("ERR no such key", Refusal::NoKey),
            ("HALFWAY attempted to access a non local key", Refusal::Halfway),
            ("ERR oracles are not asked", Refusal::Final),
            ("ERR something new", Refusal::Final),
        ] {
            assert_eq!(refusal(message), expected, "{message}");
        }
    }

    #[test]
    fn answers_of_the_server_are_told_from_errors_of_the_library() {
        for details in ["ERR no", "WRONGTYPE Operation against a key", "OOM command not allowed"] {
            assert!(was_said_by_server(&FredError::new(ErrorKind::Unknown, details)), "{details}");
        }
        for (kind, details) in [
            (ErrorKind::IO, "IO error"),
            (ErrorKind::Unknown, "Failed to route command."),
            (ErrorKind::Unknown, "Too many failed write attempts."),
            (ErrorKind::Canceled, "Canceled."),
            (ErrorKind::Cluster, "CLUSTERDOWN The cluster is down"),
        ] {
            assert!(!was_said_by_server(&FredError::new(kind, details)), "{details}");
        }
    }

    #[test]
    fn only_what_was_certainly_not_written_counts_as_not_sent() {
        let error = |kind, details: &'static str| FredError::new(kind, details);
        assert_eq!(failure(&error(ErrorKind::Unknown, "Failed to route command.")), Failure::NotSent);
        assert_eq!(failure(&error(ErrorKind::Unknown, "Too many failed write attempts.")), Failure::Unknown);
        assert_eq!(failure(&error(ErrorKind::IO, "Connection closed.")), Failure::Unknown);
        assert_eq!(failure(&error(ErrorKind::Cluster, "CLUSTERDOWN Hash slot not served")), Failure::Unknown);
        assert_eq!(failure(&error(ErrorKind::Timeout, "Request timed out.")), Failure::TimedOut);
    }
}
