//! Appends to one stream, the commonest transactions: of one event, alone, by the plain command with a ring behind it;
//! of several events, or with trims, lifetimes and expectations of that stream, by a script of their own; and those of
//! different callers gathered into one command, if they share what comes with the appends.
//!
//! Gathered transactions trim once, at the end, and the first of them is told of all that was dropped.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use fred::types::{Resp3Frame, Value};

use super::{
    Redis,
    commit::expectation_failed,
    encode::{LARGEST, LENGTH, deadline_parts, millis},
    errors::{Ask, Refusal, refusal},
    gather::{Given, Kind, Turn},
    link::{Answer, Repeat},
    reply::{self, Misfit},
    scripts::{self, Script},
    streams::event_fields,
};
use crate::{
    Committed, Deadline, Error, EventId, Expectation, FailedExpectation, Found, NewEvent, StreamId, Transaction, Trim,
    Write, WriteResult,
};

const APPEND: &str = "append";

impl Redis {
    /// Carries out a transaction that appends to one stream and otherwise only expects something of it, trims it and
    /// sets its lifetime; `None` if it is not one, or if the general script has to do it.
    pub(super) async fn commit_appends(&self, transaction: &Transaction) -> Result<Option<Committed>, Error> {
        let Some(plan) = Plan::of(transaction) else { return Ok(None) };
        let stream = transaction.scope().stream(plan.stream)?;
        let key = self.keys.stream(&stream);
        let bare = plan.is_bare();
        let lane = if bare { key.clone() } else { plan.lane(&key, self.repeat(transaction)) };
        let write = || {
            let kind = Appends {
                shared: if bare { Vec::new() } else { self.shared(transaction, &plan).into() },
                doorbell: self.keys.doorbell(&stream),
                stream: stream.clone(),
                key: key.clone(),
                repeat: self.repeat(transaction),
            };
            (kind, Item::new(plan.appends))
        };
        let done = match self.appends.turn(&lane, write).await? {
            Turn::Together(given) => given,
            Turn::Alone(_flight, made) => match plan.appends {
                [Write::Append { event, .. }] if bare => {
                    return Box::pin(self.append_alone(&stream, &key, event)).await.map(Some);
                }
                _ => Box::pin(self.append_several(made.unwrap_or_else(write))).await?,
            },
        };
        let ask = Ask::new(APPEND, &stream);
        match done {
            Ok(Share::Done(mut results, trimmed)) => {
                results.extend(plan.trim.map(|_| WriteResult::Count(trimmed)));
                results.extend(plan.deadline.map(|_| WriteResult::Done));
                Ok(Some(Committed::new(results, Vec::new())))
            }
            Ok(Share::Left(length)) => match plan.failed(transaction, length) {
                Some(failed) => Err(expectation_failed(transaction.scope(), failed)),
                None => Ok(None),
            },
            // The general one finds out which key it is.
            Err((Refusal::WrongType, _)) if !bare => Ok(None),
            Err((refusal, message)) => Err(Box::pin(self.append_error(ask, &stream, refusal, &message)).await),
        }
    }

    async fn append_alone(&self, stream: &StreamId, key: &Bytes, event: &NewEvent) -> Result<Committed, Error> {
        let ask = Ask::new(APPEND, stream);
        let attempts = AtomicU32::new(0);
        let fields = || {
            attempts.fetch_add(1, Ordering::Relaxed);
            event_fields(event).map(|(name, value)| (name.into(), value.into())).collect()
        };
        let append = self.link.append(ask, key, fields);
        match self.bells.ring_behind(self.keys.doorbell(stream), &attempts, append).await? {
            Answer::Reply(reply) => {
                let id = reply::event_id(reply).map_err(|misfit| ask.protocol(misfit))?;
                Ok(Committed::new(vec![WriteResult::Event(id)], Vec::new()))
            }
            Answer::Refused(refusal, message) => Err(self.append_error(ask, stream, refusal, &message).await),
        }
    }

    async fn append_several(&self, (kind, item): (Appends, Item)) -> Result<Given<Share>, Error> {
        let (ask, items) = (kind.ask(), std::slice::from_ref(&item));
        let arguments = |all: &mut Vec<Value>| {
            all.push(Value::Bytes(kind.key.clone()));
            kind.arguments(items, all);
        };
        let reply = match self.link.run(ask, kind.repeat, &scripts::APPEND, 1, arguments).await? {
            Answer::Reply(reply) => reply,
            Answer::Refused(refusal, message) => return Ok(Err((refusal, message))),
        };
        let mut shares = Appends::share(reply, items).map_err(|misfit| ask.protocol(misfit))?;
        shares.pop().ok_or_else(|| ask.protocol("no answer to an append"))
    }

    async fn append_error(&self, ask: Ask<'_>, stream: &StreamId, refusal: Refusal, message: &str) -> Error {
        if refusal != Refusal::Exhausted {
            return self.stream_error(ask, stream, refusal, message);
        }
        match self.read_stream_info(stream).await {
            Ok(info) => {
                let last = info.map_or(EventId::MAX, |info| info.last);
                Error::StreamExhausted { stream: stream.clone(), last }
            }
            Err(error) => error,
        }
    }

    /// What the transactions of one lane share, as the script takes it.
    fn shared(&self, transaction: &Transaction, plan: &Plan<'_>) -> [Value; SHARED] {
        let beside = |kind| Value::Bytes(self.keys.key(transaction.scope(), kind, plan.stream));
        let number = |number: u64| Value::Bytes(number.to_string().into());
        let empty = || Value::from_static_str("");
        let existence = match (plan.must_exist, plan.shorter) {
            (None, _) => 0,
            (Some(exists), Some((shorter, _))) if shorter < exists => 2,
            (Some(_), _) => 1,
        };
        let [code, approximate, operand] = match plan.trim {
            None => [empty(), empty(), empty()],
            Some(Trim::MaxLength { length, approximate }) => {
                [number(12), number(approximate.into()), number(length.min(LENGTH))]
            }
            Some(Trim::Before { id, approximate }) => {
                [number(13), number(approximate.into()), Value::Bytes(id.to_string().into())]
            }
            Some(Trim::OlderThan { age, approximate }) => {
                [number(22), number(approximate.into()), number(millis(age).min(LARGEST))]
            }
            Some(Trim::Consumed) => [number(23), empty(), empty()],
        };
        let [lifetime, ttl] = match plan.deadline {
            None => [empty(), empty()],
            Some(deadline) => {
                let (kind, ttl) = deadline_parts(deadline);
                [number(kind), number(ttl)]
            }
        };
        let longest = plan.shorter.map_or_else(empty, |(_, length)| number(length.min(LARGEST)));
        let (once, existence) = (number(plan.once.into()), number(existence));
        [beside("u:"), beside("x:"), once, longest, existence, code, approximate, operand, lifetime, ttl, beside("g:")]
    }
}

/// How many arguments tell the script what transactions share.
const SHARED: usize = 11;

/// What a transaction does with its one stream.
struct Plan<'a> {
    stream: &'a Arc<str>,
    /// The place of the expectation that the stream exists.
    must_exist: Option<usize>,
    /// The place of the expectation of a length, and the length.
    shorter: Option<(usize, u64)>,
    appends: &'a [Write],
    once: bool,
    trim: Option<Trim>,
    deadline: Option<Deadline>,
}

impl<'a> Plan<'a> {
    fn of(transaction: &'a Transaction) -> Option<Self> {
        let writes = transaction.writes();
        let Some(Write::Append { stream, .. }) = writes.first() else { return None };
        let is_append = |write: &Write| matches!(write, Write::Append { stream: of, .. } if of == stream);
        let appends = writes.iter().position(|write| !is_append(write)).unwrap_or(writes.len());
        let (appends, mut rest) = writes.split_at(appends);
        let once = appends.iter().any(|append| matches!(append, Write::Append { once: Some(_), .. }));
        let (mut trim, mut deadline) = (None, None);
        if let [Write::TrimStream { stream: of, trim: how }, more @ ..] = rest {
            (trim, rest) = ((of == stream).then_some(*how), if of == stream { more } else { rest });
        }
        if let [Write::ExpireStream { stream: of, deadline: when }] = rest {
            (deadline, rest) = ((of == stream).then_some(*when), if of == stream { &[] } else { rest });
        }
        let mut plan = Self { stream, must_exist: None, shorter: None, appends, once, trim, deadline };
        let fits = transaction.expectations().iter().enumerate().all(|(index, expectation)| match expectation {
            Expectation::StreamExists { stream: of } if of == stream && plan.must_exist.is_none() => {
                plan.must_exist = Some(index);
                true
            }
            Expectation::ShorterThan { stream: of, length } if of == stream && plan.shorter.is_none() => {
                plan.shorter = Some((index, *length));
                true
            }
            _ => false,
        });
        (fits && rest.is_empty()).then_some(plan)
    }

    /// Whether it does nothing but append.
    fn is_bare(&self) -> bool {
        let Self { must_exist, shorter, once, trim, deadline, .. } = self;
        must_exist.is_none() && shorter.is_none() && !once && trim.is_none() && deadline.is_none()
    }

    /// The lane of those who share the same.
    fn lane(&self, key: &Bytes, repeat: Repeat) -> Bytes {
        let Self { must_exist, shorter, once, trim, deadline, .. } = self;
        let shared = format!("{must_exist:?}{shorter:?}{once}{trim:?}{deadline:?}{repeat:?}");
        [&key[..], &[0], shared.as_bytes()].concat().into()
    }

    /// What did not hold, as the script's number has it; `None` if the general script has to say.
    fn failed(&self, transaction: &Transaction, found: i64) -> Option<FailedExpectation> {
        let (index, found) = match u64::try_from(found) {
            Ok(length) => (self.shorter?.0, Found::Count(length)),
            Err(_) if found == -1 => (self.must_exist?, Found::NoStream),
            Err(_) => return None,
        };
        let expected = transaction.expectations().get(index)?.clone();
        Some(FailedExpectation::new(index, expected, found))
    }
}

/// Transactions of different callers that append to one stream.
#[derive(Debug, Clone)]
pub(super) struct Appends {
    stream: StreamId,
    key: Bytes,
    doorbell: Bytes,
    /// What they share besides; empty if that is nothing.
    shared: Vec<Value>,
    repeat: Repeat,
}

/// One transaction: for each event a number that says what comes, then its strings.
#[derive(Debug)]
pub(super) struct Item {
    arguments: Vec<Value>,
    events: usize,
    weight: usize,
}

/// What became of one transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// The events, and how many were trimmed.
    Done(Vec<WriteResult>, u64),
    /// It was not carried out: the length that is too long, -1 if there is no stream, -2 if the general script has to
    /// do it.
    Left(i64),
}

impl Item {
    fn new(appends: &[Write]) -> Self {
        let mut item = Self { arguments: Vec::with_capacity(6 * appends.len()), events: 0, weight: 0 };
        for append in appends {
            let Write::Append { event, once, .. } = append else { continue };
            let place = item.arguments.len();
            item.arguments.push(Value::Null);
            if let Some(once) = once {
                item.weight += once.id.len();
                item.arguments.push(Value::Bytes(Bytes::copy_from_slice(once.id.as_bytes())));
                item.arguments.push(Value::Bytes(millis(once.window).to_string().into()));
            }
            let mut strings = 0;
            for (name, value) in event_fields(event) {
                item.weight += name.len() + value.len();
                strings += 2;
                item.arguments.extend([Value::from_static_str(name), Value::Bytes(value)]);
            }
            let (joined, once) = (i64::from(item.events > 0), i64::from(once.is_some()));
            item.arguments[place] = Value::Integer(strings + 100 * joined + 1000 * once);
            item.events += 1;
        }
        item
    }
}

impl Kind for Appends {
    type Item = Item;
    type Share = Share;

    fn script() -> &'static Script {
        &scripts::APPEND
    }

    fn key(&self) -> &Bytes {
        &self.key
    }

    fn repeat(&self) -> Repeat {
        self.repeat
    }

    fn weight(item: &Item) -> usize {
        item.weight
    }

    fn ask(&self) -> Ask<'_> {
        Ask::new(APPEND, &self.stream)
    }

    fn arguments(&self, items: &[Item], arguments: &mut Vec<Value>) {
        let more: usize = items.iter().map(|item| item.arguments.len()).sum();
        arguments.reserve_exact(2 + self.shared.len() + more);
        arguments.push(Value::Bytes(self.doorbell.clone()));
        arguments.push(Value::Integer(self.shared.len() as i64));
        arguments.extend_from_slice(&self.shared);
        for item in items {
            arguments.extend_from_slice(&item.arguments);
        }
    }

    fn share(reply: Resp3Frame, items: &[Item]) -> Result<Vec<Given<Share>>, Misfit> {
        let mut replies = reply::list(reply)?;
        let mut trimmed = reply::count(replies.pop().ok_or("an answer without events")?)?;
        let mut replies = replies.into_iter();
        let mut take = |item: &Item| {
            let mut share = Ok(Share::Done(Vec::with_capacity(item.events), 0));
            for _ in 0..item.events {
                let reply = replies.next().ok_or("fewer answers than events")?;
                match (read_event(reply)?, &mut share) {
                    (Ok(Ok(id)), Ok(Share::Done(ids, _))) => ids.push(WriteResult::Event(id)),
                    (Ok(Ok(_)), _) => return Err("an event of a transaction that was not carried out".to_owned()),
                    (Ok(Err(left)), _) => share = Ok(Share::Left(left)),
                    (Err(refused), _) => share = Err(refused),
                }
            }
            if let Ok(Share::Done(_, all)) = &mut share {
                *all = std::mem::take(&mut trimmed);
            }
            Ok::<_, Misfit>(share)
        };
        let shares = items.iter().map(&mut take).collect::<Result<_, _>>()?;
        if replies.next().is_some() {
            return Err("more answers than events".to_owned());
        }
        Ok(shares)
    }
}

/// Reads what the script replied for one event: its id, or why its transaction was left.
fn read_event(reply: Resp3Frame) -> Result<Given<Result<EventId, i64>>, Misfit> {
    match reply {
        Resp3Frame::SimpleError { data, .. } => Ok(Err((refusal(&data), data.to_string()))),
        Resp3Frame::BlobError { data, .. } => {
            let message = String::from_utf8_lossy(&data).into_owned();
            Ok(Err((refusal(&message), message)))
        }
        Resp3Frame::Number { data, .. } => Ok(Ok(Err(data))),
        id => Ok(Ok(Ok(reply::event_id(id)?))),
    }
}
