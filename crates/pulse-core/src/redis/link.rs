//! The connection for commands: sends one command, and sends it again where that cannot do harm.
//!
//! The client library re-sends nothing that [`Repeat::Never`] forbids, and follows no redirection: when it (fred 10.1)
//! follows an `ASK`, it reads one answer off that connection for its own `ASKING`, even if other commands wait for
//! theirs there, and then somebody gets the wrong one. What it reports as certainly not carried out is sent again here,
//! until the command time-out: while the connection is being made again, while slots move, while a server loads its
//! data. So resharding, failover and restarts show as latency, and as errors only where the outcome is truly unknown.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fred::{
    clients::{Client as Fred, WithOptions},
    error::Error as FredError,
    interfaces::{ClientLike, PubsubInterface, StreamsInterface},
    types::{ClusterHash, CustomCommand, Key, Resp3Frame, Value, config::Options},
    util::redis_keyslot,
};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    errors::{Ask, Failure, Refusal, ServerSaid, failure, refusal, source, was_said_by_server},
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
    fn hash(self, args: &[Value]) -> ClusterHash {
        match self {
            // Of the library's own ways to find a custom command's slot, only an explicit number works.
            Self::Key(place) => match args.get(place) {
                Some(Value::Bytes(key)) => ClusterHash::Custom(redis_keyslot(key)),
                _ => ClusterHash::Random,
            },
            Self::Slot(slot) => ClusterHash::Custom(slot),
            Self::Any => ClusterHash::Random,
        }
    }
}

/// How many answers are awaited on the connection for commands.
#[derive(Debug, Clone, Default)]
pub(super) struct Awaited(Arc<AtomicUsize>);

impl Awaited {
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn one(&self) -> OneAwaited<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        OneAwaited(self)
    }
}

/// One of them, until it is there or nobody waits for it any more.
struct OneAwaited<'a>(&'a Awaited);

impl Drop for OneAwaited<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends commands.
#[derive(Debug)]
pub(super) struct Link {
    client: Fred,
    awaited: Awaited,
    clustered: bool,
    /// For what must not be repeated.
    once: WithOptions<Fred>,
    /// For what may be repeated.
    freely: WithOptions<Fred>,
    target: Arc<str>,
    timeout: Duration,
    /// Whether the client is ours to reconnect, and not the caller's.
    own: bool,
    reconnecting: Arc<AtomicBool>,
    tasks: TaskTracker,
    closed: CancellationToken,
}

const ONCE: Options = Options {
    max_attempts: Some(1),
    max_redirections: None,
    timeout: None,
    cluster_node: None,
    cluster_hash: None,
    fail_fast: false,
};

const FREELY: Options = Options { max_attempts: Some(3), ..ONCE };

impl Link {
    pub(super) fn new(
        client: Fred,
        target: Arc<str>,
        timeout: Duration,
        own: bool,
        tasks: TaskTracker,
        closed: CancellationToken,
    ) -> Self {
        let once = client.with_options(&Options { timeout: Some(timeout), ..ONCE });
        let freely = client.with_options(&Options { timeout: Some(timeout), ..FREELY });
        let clustered = client.is_clustered();
        let (awaited, reconnecting) = (Awaited::default(), Arc::default());
        Self { client, awaited, clustered, once, freely, target, timeout, own, reconnecting, tasks, closed }
    }

    pub(super) fn awaited(&self) -> &Awaited {
        &self.awaited
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
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
        let answer = self.call_since(since, ask, repeat, "EVALSHA", Route::Key(2), || with(script.sha.clone())).await?;
        match answer {
            // The script was certainly not run.
            Answer::Refused(Refusal::NoScript, _) => {
                let source = Bytes::from_static(script.source.as_bytes());
                let load = self.call_since(since, ask, repeat, "EVAL", Route::Key(2), || with(source.clone()));
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
        self.call_since(Instant::now(), ask, repeat, command, route, args).await
    }

    async fn call_since(
        &self,
        since: Instant,
        ask: Ask<'_>,
        repeat: Repeat,
        command: &'static str,
        route: Route,
        args: impl Fn() -> Vec<Value> + Send + Sync,
    ) -> Result<Answer, Error> {
        let send = |client: WithOptions<Fred>| {
            let args = args();
            let hash = if self.clustered { route.hash(&args) } else { ClusterHash::Random };
            let command = CustomCommand::new_static(command, hash, false);
            async move { client.custom_raw(command, args).await }
        };
        self.attempt(since, ask, repeat, send).await
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
            async move {
                match client.xadd::<Value, _, _, _, _>(key, false, None::<()>, "*", fields).await {
                    Ok(Value::Bytes(data)) => Ok(Resp3Frame::BlobString { data, attributes: None }),
                    Ok(Value::String(id)) => Ok(Resp3Frame::BlobString { data: id.into_inner(), attributes: None }),
                    Ok(_) => Ok(Resp3Frame::Null),
                    Err(error) if was_said_by_server(&error) => {
                        Ok(Resp3Frame::SimpleError { data: error.details().into(), attributes: None })
                    }
                    Err(error) => Err(error),
                }
            }
        };
        self.attempt(Instant::now(), ask, Repeat::Never, send).await
    }

    /// Sends a message to a channel. As [`Link::append`], and for the same reason.
    pub(super) async fn publish(&self, ask: Ask<'_>, channel: &Bytes) -> Result<Answer, Error> {
        let send = |client: WithOptions<Fred>| {
            let channel = String::from_utf8_lossy(channel).into_owned();
            async move {
                match client.spublish::<i64, _, _>(channel, "").await {
                    Ok(data) => Ok(Resp3Frame::Number { data, attributes: None }),
                    Err(error) if was_said_by_server(&error) => {
                        Ok(Resp3Frame::SimpleError { data: error.details().into(), attributes: None })
                    }
                    Err(error) => Err(error),
                }
            }
        };
        self.attempt(Instant::now(), ask, Repeat::Freely, send).await
    }

    async fn attempt<F>(
        &self,
        since: Instant,
        ask: Ask<'_>,
        repeat: Repeat,
        send: impl Fn(WithOptions<Fred>) -> F + Send + Sync,
    ) -> Result<Answer, Error>
    where
        F: Future<Output = Result<Resp3Frame, FredError>> + Send,
    {
        let deadline = since + self.timeout;
        let mut pauses = Pauses::default();
        // Whether an earlier attempt may have been carried out, where that matters.
        let mut begun = false;
        let known = |begun: bool, error: Error| if begun { as_unknown(error) } else { error };
        loop {
            self.connected(ask, deadline).await.map_err(|error| known(begun, error))?;
            let answer = {
                let _awaited = self.awaited.one();
                send(self.until(deadline, repeat)).await
            };
            let problem = match answer {
                Ok(Resp3Frame::SimpleError { data, .. }) => match self.judge(refusal(&data)) {
                    Ok(refusal) => return Ok(Answer::Refused(refusal, data.to_string())),
                    Err(refusal) => self.error(ask, refusal, &data),
                },
                Ok(Resp3Frame::BlobError { data, .. }) => {
                    let message = String::from_utf8_lossy(&data).into_owned();
                    match self.judge(refusal(&message)) {
                        Ok(refusal) => return Ok(Answer::Refused(refusal, message)),
                        Err(refusal) => self.error(ask, refusal, &message),
                    }
                }
                Ok(reply) => return Ok(Answer::Reply(reply)),
                Err(error) => match failure(&error) {
                    _ if self.closed.is_cancelled() => return Err(Error::Closed),
                    Failure::NotSent => ask.unavailable(Outcome::NotApplied, source(error)),
                    Failure::Unknown if repeat == Repeat::Freely => ask.unavailable(Outcome::NotApplied, source(error)),
                    Failure::Unknown if repeat == Repeat::Safely => {
                        begun = true;
                        ask.unavailable(Outcome::Unknown, source(error))
                    }
                    Failure::Unknown => return Err(ask.unavailable(Outcome::Unknown, source(error))),
                    Failure::TimedOut => {
                        if !self.clustered {
                            self.reconnect();
                        }
                        let outcome = match repeat {
                            Repeat::Freely => Outcome::NotApplied,
                            Repeat::Safely | Repeat::Never => Outcome::Unknown,
                        };
                        return Err(ask.timeout(self.timeout, outcome));
                    }
                    Failure::Auth => {
                        return Err(Error::Auth { target: self.target.to_string(), source: source(error) });
                    }
                },
            };
            if !pauses.wait(deadline, &self.closed).await {
                return Err(if self.closed.is_cancelled() { Error::Closed } else { known(begun, problem) });
            }
        }
    }

    /// The client for an attempt that has to end by then.
    fn until(&self, deadline: Instant, repeat: Repeat) -> WithOptions<Fred> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        // Almost always the whole time is left, and the client for that is at hand.
        if left > self.timeout - self.timeout / 16 {
            return match repeat {
                Repeat::Freely | Repeat::Safely => self.freely.clone(),
                Repeat::Never => self.once.clone(),
            };
        }
        self.client.with_options(&match repeat {
            Repeat::Freely | Repeat::Safely => Options { timeout: Some(left), ..FREELY },
            Repeat::Never => Options { timeout: Some(left), ..ONCE },
        })
    }

    /// Which refusals to try again (`Err`), and which to report (`Ok`).
    fn judge(&self, refusal: Refusal) -> Result<Refusal, Refusal> {
        match refusal {
            Refusal::Passing => Err(refusal),
            // A primary that was demoted: Sentinel knows the new one.
            Refusal::ReadOnly if self.client.uses_sentinels() => {
                self.reconnect();
                Err(refusal)
            }
            _ => Ok(refusal),
        }
    }

    /// Gives the connection up: it leads to the wrong server, or to one that does not answer.
    fn reconnect(&self) {
        if self.own && !self.reconnecting.swap(true, Ordering::AcqRel) {
            let (client, reconnecting) = (self.client.clone(), self.reconnecting.clone());
            let limit = self.timeout;
            self.tasks.spawn(async move {
                // If it fails, the next command that finds the same says so again.
                let _ = tokio::time::timeout(limit, client.force_reconnection()).await;
                reconnecting.store(false, Ordering::Release);
            });
        }
    }

    /// Waits until the connection stands, so that a command that finds none is known to be unsent.
    async fn connected(&self, ask: Ask<'_>, deadline: Instant) -> Result<(), Error> {
        if self.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        // The library tells of connections on a channel that is subscribed to after the state was read, so a
        // connection made in between is missed: look again from time to time.
        const LOOK: Duration = Duration::from_millis(100);
        while !self.client.is_connected() {
            tokio::select! {
                () = self.closed.cancelled() => return Err(Error::Closed),
                () = tokio::time::sleep_until(deadline) => {
                    let source = ServerSaid(format!("not connected to {} for {:?}", self.target, self.timeout));
                    return Err(ask.unavailable(Outcome::NotApplied, Arc::new(source)));
                }
                _ = tokio::time::timeout(LOOK, self.client.wait_for_connect()) => {}
            }
        }
        Ok(())
    }

    /// The error for a refusal that nobody knew better what to do with.
    pub(super) fn error(&self, ask: Ask<'_>, refusal: Refusal, message: &str) -> Error {
        match refusal {
            Refusal::ReadOnly => Error::ReadOnly { subject: ask.subject.to_string() },
            Refusal::WrongType => Error::WrongType { key: ask.subject.to_string() },
            Refusal::Auth => {
                Error::Auth { target: self.target.to_string(), source: Arc::new(ServerSaid(message.to_owned())) }
            }
            Refusal::Halfway => ask.unavailable(Outcome::Unknown, Arc::new(ServerSaid(message.to_owned()))),
            Refusal::Passing | Refusal::Lasting => ask.refused(message, true),
            _ => ask.refused(message, false),
        }
    }
}

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
        if until >= deadline {
            return false;
        }
        tokio::select! {
            () = closed.cancelled() => false,
            () = tokio::time::sleep_until(until) => true,
        }
    }
}

/// The error of a later attempt, where an earlier one may have been carried out.
fn as_unknown(error: Error) -> Error {
    match error {
        Error::Timeout { operation, subject, after, .. } => {
            Error::Timeout { operation, subject, after, outcome: Outcome::Unknown }
        }
        Error::Unavailable { operation, subject, source, .. } => {
            Error::Unavailable { operation, subject, source, outcome: Outcome::Unknown }
        }
        Error::Refused { operation, subject, message, .. } => {
            Error::Unavailable { operation, subject, source: Arc::new(ServerSaid(message)), outcome: Outcome::Unknown }
        }
        other => other,
    }
}
