//! Sending commands: each goes to the server that is responsible for it, and again where that cannot do harm.
//!
//! A command travels on the connection that [`Router`] names, once. What was certainly not carried out is sent again
//! here until the command time-out: while a connection is made again, while slots move, while a server loads its data or
//! has just become a replica. So resharding, failover and restarts show as latency, and as errors only where the outcome
//! is truly unknown: when a connection ends, or is given up because it is silent, with the command's answer still owed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fred::{
    clients::{Client as Fred, WithOptions},
    error::Error as FredError,
    interfaces::{ClientLike, PubsubInterface, StreamsInterface},
    types::{ClusterHash, CustomCommand, Key, Resp3Frame, Value},
    util::redis_keyslot,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    connection::{Connection, Endpoint, Router},
    errors::{Ask, Failure, Refusal, ServerSaid, failure, is_credentials, refusal, source, was_said_by_server},
    permissions::what_is_missing,
    scripts::Script,
};
use crate::{Error, Outcome};

/// Whether a command may be sent again when it is unknown whether it was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Repeating it changes nothing, nor does it matter whether it was carried out.
    Freely,
    /// Repeating it changes nothing, but whoever asked must know whether it may have been carried out.
    Safely,
    /// Only after it was certainly not carried out.
    Never,
}

/// An answer: a reply, or a refusal that the caller may know what to do with.
#[derive(Debug)]
pub(super) enum Answer {
    Reply(Resp3Frame),
    Refused(Refusal, String),
}

/// Which node of a cluster a command goes to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Route {
    /// The owner of the key that stands at this place of the arguments.
    Key(usize),
    /// The owner of this slot.
    Slot(u16),
    /// Any.
    Any,
}

impl Route {
    fn slot(self, args: &[Value]) -> Option<u16> {
        match self {
            Self::Key(place) => match args.get(place) {
                Some(Value::Bytes(key)) => Some(redis_keyslot(key)),
                _ => None,
            },
            Self::Slot(slot) => Some(slot),
            Self::Any => None,
        }
    }
}

/// Sends commands.
#[derive(Debug)]
pub(super) struct Link {
    router: Arc<Router>,
    clustered: bool,
    target: Arc<str>,
    timeout: Duration,
    closed: CancellationToken,
}

impl Link {
    pub(super) fn new(router: Arc<Router>, target: Arc<str>, timeout: Duration, closed: CancellationToken) -> Self {
        Self { clustered: router.is_clustered(), router, target, timeout, closed }
    }

    pub(super) fn router(&self) -> &Router {
        &self.router
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Takes no more commands.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    /// Sends a command whose first argument is its key, and turns every refusal into an error.
    pub(super) async fn call(
        &self,
        ask: Ask<'_>,
        repeat: Repeat,
        command: &'static str,
        args: impl Fn() -> Vec<Value> + Send + Sync,
    ) -> Result<Resp3Frame, Error> {
        match self.try_call(ask, repeat, command, Route::Key(0), args).await? {
            Answer::Reply(reply) => Ok(reply),
            Answer::Refused(refusal, message) => Err(self.error(ask, refusal, &message)),
        }
    }

    /// Runs a script with one key or more, loading it first where the server does not know it.
    pub(super) async fn run(
        &self,
        ask: Ask<'_>,
        repeat: Repeat,
        script: &'static Script,
        keys: usize,
        args: impl Fn(&mut Vec<Value>) + Send + Sync,
    ) -> Result<Answer, Error> {
        self.run_since(Instant::now(), ask, repeat, script, keys, args).await
    }

    /// As [`Link::run`], for what was asked at that moment: the command time-out counts from there.
    pub(super) async fn run_since(
        &self,
        since: Instant,
        ask: Ask<'_>,
        repeat: Repeat,
        script: &'static Script,
        keys: usize,
        args: impl Fn(&mut Vec<Value>) + Send + Sync,
    ) -> Result<Answer, Error> {
        let with = |first: Bytes| {
            let mut all = Vec::with_capacity(6);
            all.push(Value::Bytes(first));
            all.push(Value::Integer(keys as i64));
            args(&mut all);
            all
        };
        let mut call = Call::new(since, ask, repeat);
        let answer = self.send(&mut call, "EVALSHA", Route::Key(2), || with(script.sha.clone())).await?;
        match answer {
            // This attempt certainly did not run the script.
            Answer::Refused(Refusal::NoScript, _) => {
                let source = Bytes::from_static(script.source.as_bytes());
                let load = self.send(&mut call, "EVAL", Route::Key(2), || with(source.clone()));
                // In a box, because it is rare: else every command would carry its state around.
                Box::pin(load).await
            }
            answer => Ok(answer),
        }
    }

    /// Sends a command until there is an answer, the outcome is unknown, or the time is over.
    pub(super) async fn try_call(
        &self,
        ask: Ask<'_>,
        repeat: Repeat,
        command: &'static str,
        route: Route,
        args: impl Fn() -> Vec<Value> + Send + Sync,
    ) -> Result<Answer, Error> {
        self.send(&mut Call::new(Instant::now(), ask, repeat), command, route, args).await
    }

    async fn send(
        &self,
        call: &mut Call<'_>,
        command: &'static str,
        route: Route,
        args: impl Fn() -> Vec<Value> + Send + Sync,
    ) -> Result<Answer, Error> {
        // Only a cluster asks for the slot, and so for the arguments before it is known where they go.
        let mut first = self.clustered.then(&args);
        let slot = first.as_deref().and_then(|args| route.slot(args));
        let send = |client: WithOptions<Fred>| {
            let args = first.take().unwrap_or_else(&args);
            let size = args.iter().map(payload_len).sum();
            let command = CustomCommand::new_static(command, ClusterHash::Random, false);
            (size, async move { client.custom_raw(command, args).await })
        };
        self.attempt(call, slot, send).await
    }

    /// Appends one entry to a stream. Not by [`Link::try_call`], because the library flushes the connection after each
    /// command that it does not know, and so makes a system call of each of many simultaneous appends.
    pub(super) async fn append(
        &self,
        ask: Ask<'_>,
        key: &Bytes,
        fields: impl Fn() -> Vec<(Key, Value)> + Send + Sync,
    ) -> Result<Answer, Error> {
        let send = |client: WithOptions<Fred>| {
            let (key, fields) = (key.clone(), fields());
            let size = fields.iter().map(|(_, value)| payload_len(value)).sum();
            let send = async move {
                match client.xadd::<Value, _, _, _, _>(key, false, None::<()>, "*", fields).await {
                    Ok(Value::Bytes(data)) => Ok(Resp3Frame::BlobString { data, attributes: None }),
                    Ok(Value::String(id)) => Ok(Resp3Frame::BlobString { data: id.into_inner(), attributes: None }),
                    Ok(_) => Ok(Resp3Frame::Null),
                    Err(error) if was_said_by_server(&error) => {
                        Ok(Resp3Frame::SimpleError { data: error.details().into(), attributes: None })
                    }
                    Err(error) => Err(error),
                }
            };
            (size, send)
        };
        let slot = self.clustered.then(|| redis_keyslot(key));
        self.attempt(&mut Call::new(Instant::now(), ask, Repeat::Never), slot, send).await
    }

    /// Sends a message to a channel. As [`Link::append`], and for the same reason.
    pub(super) async fn publish(&self, ask: Ask<'_>, channel: &Bytes) -> Result<Answer, Error> {
        let send = |client: WithOptions<Fred>| {
            let channel = String::from_utf8_lossy(channel).into_owned();
            let send = async move {
                match client.spublish::<i64, _, _>(channel, "").await {
                    Ok(data) => Ok(Resp3Frame::Number { data, attributes: None }),
                    Err(error) if was_said_by_server(&error) => {
                        Ok(Resp3Frame::SimpleError { data: error.details().into(), attributes: None })
                    }
                    Err(error) => Err(error),
                }
            };
            (0, send)
        };
        let slot = self.clustered.then(|| redis_keyslot(channel));
        self.attempt(&mut Call::new(Instant::now(), ask, Repeat::Freely), slot, send).await
    }

    /// Sends until there is an answer, the outcome is unknown, or the time is over. `send` makes one attempt, and says
    /// how many bytes travel.
    async fn attempt<F>(
        &self,
        call: &mut Call<'_>,
        slot: Option<u16>,
        mut send: impl FnMut(WithOptions<Fred>) -> (usize, F) + Send,
    ) -> Result<Answer, Error>
    where
        F: Future<Output = Result<Resp3Frame, FredError>> + Send,
    {
        let (ask, repeat, deadline) = (call.ask, call.repeat, call.since + self.timeout);
        let mut pauses = Pauses::default();
        // What the attempt before met: if it lasts, it is the reason.
        let mut met = None;
        loop {
            let connection = self.connected(ask, slot, deadline).await.map_err(|error| call.truly(error))?;
            if Instant::now() >= deadline {
                let late = || ask.timeout(self.timeout, Outcome::NotApplied);
                return Err(call.truly(met.unwrap_or_else(late)));
            }
            let answer = {
                let (size, answer) = send(self.until(&connection, deadline));
                let owed = connection.traffic.sent(size);
                let answer = answer.await;
                if answer.as_ref().map_or_else(was_said_by_server, |_| true) {
                    owed.answered();
                }
                answer
            };
            let refused = match answer {
                Ok(Resp3Frame::SimpleError { data, .. }) => Ok(data.to_string()),
                Ok(Resp3Frame::BlobError { data, .. }) => Ok(String::from_utf8_lossy(&data).into_owned()),
                Ok(reply) => return Ok(Answer::Reply(reply)),
                Err(error) => Err(error),
            };
            let problem = match refused {
                Ok(message) => match self.judge(refusal(&message), &message, &connection)? {
                    Verdict::Report(refusal) if call.begun && refusal != Refusal::NoScript => {
                        return Err(call.truly(self.error(ask, refusal, &message)));
                    }
                    Verdict::Report(refusal) => return Ok(Answer::Refused(refusal, message)),
                    Verdict::Again(refusal) => self.error(ask, refusal, &message),
                },
                Err(error) => match failure(&error) {
                    Failure::NotSent => ask.unavailable(Outcome::NotApplied, source(error)),
                    Failure::Unknown if repeat == Repeat::Freely => ask.unavailable(Outcome::NotApplied, source(error)),
                    Failure::Unknown if repeat == Repeat::Safely => {
                        call.begun = true;
                        ask.unavailable(Outcome::Unknown, source(error))
                    }
                    Failure::Unknown => return Err(ask.unavailable(Outcome::Unknown, source(error))),
                    Failure::TimedOut => {
                        let outcome = match repeat {
                            Repeat::Freely => Outcome::NotApplied,
                            Repeat::Safely | Repeat::Never => Outcome::Unknown,
                        };
                        return Err(ask.timeout(self.timeout, outcome));
                    }
                    Failure::Auth => {
                        let error = Error::Auth { target: self.target.to_string(), source: source(error) };
                        return Err(call.truly(error));
                    }
                },
            };
            if !pauses.wait(deadline, &self.closed).await {
                let error = if self.closed.is_cancelled() { Error::Closed } else { problem };
                return Err(call.truly(error));
            }
            met = Some(problem);
        }
    }

    /// The client library's handle for an attempt that has to end by then.
    fn until(&self, connection: &Connection, deadline: Instant) -> WithOptions<Fred> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        // Almost always the whole time is left, and the handle for that is there already.
        if left > self.timeout - self.timeout / 16 { connection.once() } else { connection.once_within(left) }
    }

    /// Decides what to do about a refusal, and has wrong ways mended.
    fn judge(&self, refusal: Refusal, message: &str, connection: &Connection) -> Result<Verdict, Error> {
        match refusal {
            Refusal::Redirected if !self.clustered => {
                return Err(Error::InvalidUrl { url: self.target.to_string(), reason: CLUSTER_NODE.into() });
            }
            Refusal::Redirected => self.router.moved(message, connection),
            Refusal::Passing if message.starts_with("CLUSTERDOWN") => self.router.trouble(),
            Refusal::Passing => {}
            Refusal::ReadOnly => self.router.demoted(connection),
            _ => return Ok(Verdict::Report(refusal)),
        }
        Ok(Verdict::Again(refusal))
    }

    /// A connection to the server that is responsible, as soon as there is one: a command that finds none is known to
    /// be unsent.
    async fn connected(&self, ask: Ask<'_>, slot: Option<u16>, deadline: Instant) -> Result<Arc<Connection>, Error> {
        if self.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        match self.router.connection(slot) {
            Some(connection) => Ok(connection),
            // In a box, because it is rare: else every command would carry its state around.
            None => Box::pin(self.wait_for_connection(ask, slot, deadline)).await,
        }
    }

    async fn wait_for_connection(
        &self,
        ask: Ask<'_>,
        slot: Option<u16>,
        deadline: Instant,
    ) -> Result<Arc<Connection>, Error> {
        let mut changes = self.router.changes();
        loop {
            changes.borrow_and_update();
            if let Some(connection) = self.router.connection(slot) {
                return Ok(connection);
            }
            tokio::select! {
                () = self.closed.cancelled() => return Err(Error::Closed),
                () = tokio::time::sleep_until(deadline) => return Err(self.not_connected(ask, self.router.commands(slot))),
                changed = changes.changed() => if changed.is_err() { return Err(Error::Closed) },
            }
        }
    }

    /// Why a channel could not be subscribed to in time.
    pub(super) fn not_subscribed(&self, ask: Ask<'_>, channel: &Bytes) -> Error {
        self.not_connected(ask, self.router.feeds(redis_keyslot(channel)))
    }

    /// Why there is no connection, or none that serves.
    fn not_connected(&self, ask: Ask<'_>, endpoint: Option<Arc<Endpoint>>) -> Error {
        match endpoint.and_then(|endpoint| endpoint.problem()) {
            Some(error) if is_credentials(&error) => {
                Error::Auth { target: self.target.to_string(), source: source(error) }
            }
            Some(error) => ask.unavailable(Outcome::NotApplied, source(error)),
            None => {
                let words = format!("{} did not serve this for {:?}", self.target, self.timeout);
                ask.unavailable(Outcome::NotApplied, Arc::new(ServerSaid(words)))
            }
        }
    }

    /// The error for a refusal that nobody knew better what to do with.
    pub(super) fn error(&self, ask: Ask<'_>, refusal: Refusal, message: &str) -> Error {
        match refusal {
            Refusal::ReadOnly => Error::ReadOnly { subject: ask.subject.to_string() },
            Refusal::WrongType => Error::WrongType { key: ask.subject.to_string() },
            Refusal::Auth => {
                Error::Auth { target: self.target.to_string(), source: Arc::new(ServerSaid(message.to_owned())) }
            }
            Refusal::Denied => ask.denied(what_is_missing(message).unwrap_or_default(), Some(message)),
            Refusal::Halfway => ask.unavailable(Outcome::Unknown, Arc::new(ServerSaid(message.to_owned()))),
            Refusal::Passing | Refusal::Redirected | Refusal::Lasting => ask.refused(message, true),
            _ => ask.refused(message, false),
        }
    }
}

/// What a node of a cluster is reached by.
pub(super) const CLUSTER_NODE: &str =
    "the server is a node of a cluster: begin the URL with redis-cluster:// (with TLS: rediss-cluster://)";

/// What is done about a refusal.
enum Verdict {
    /// The caller may know what to do.
    Report(Refusal),
    /// It passes, or another server is responsible.
    Again(Refusal),
}

/// About how many bytes an argument is.
fn payload_len(value: &Value) -> usize {
    match value {
        Value::Bytes(bytes) => bytes.len(),
        Value::String(text) => text.len(),
        _ => 0,
    }
}

/// An attempt with less time than this would only make the outcome unknown.
const LEAST: Duration = Duration::from_millis(20);

/// The pauses between attempts: growing, jittered.
#[derive(Debug, Default)]
struct Pauses {
    taken: u32,
}

impl Pauses {
    /// Waits before the next attempt; `false` if there is no time for one.
    async fn wait(&mut self, deadline: Instant, closed: &CancellationToken) -> bool {
        // The first repetition comes at once: after a redirection everything is known that is needed.
        let longest = Duration::from_millis(5 << self.taken.min(6)) * self.taken.min(1);
        self.taken += 1;
        let until = Instant::now() + longest.mul_f64(0.5 + 0.5 * crate::entropy::fraction());
        if until + LEAST >= deadline {
            return false;
        }
        tokio::select! {
            () = closed.cancelled() => false,
            () = tokio::time::sleep_until(until) => true,
        }
    }
}

/// One call, which may take several attempts.
struct Call<'a> {
    since: Instant,
    ask: Ask<'a>,
    repeat: Repeat,
    /// Whether an attempt before may have been carried out, where that matters.
    begun: bool,
}

impl<'a> Call<'a> {
    fn new(since: Instant, ask: Ask<'a>, repeat: Repeat) -> Self {
        Self { since, ask, repeat, begun: false }
    }

    /// The error as the caller has to see it: whatever a later attempt met, an earlier one may have been carried out.
    fn truly(&self, error: Error) -> Error {
        if !self.begun || error.is_outcome_unknown() {
            return error;
        }
        match error {
            Error::Timeout { after, .. } => self.ask.timeout(after, Outcome::Unknown),
            Error::Unavailable { source, .. } => self.ask.unavailable(Outcome::Unknown, source),
            other => self.ask.unavailable(Outcome::Unknown, Arc::new(other)),
        }
    }
}
