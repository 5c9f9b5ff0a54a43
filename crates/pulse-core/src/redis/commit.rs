//! Commits: which way a transaction takes, and what its answer means.
//!
//! Any can go through `lua/transaction/`. Four kinds have a shorter way with the same effect: unbound puts into one map
//! (`puts`), comparisons with deletions and puts that are not bound to leases (`plain`), appends to one stream
//! (`appends`), and a single acknowledgement (`XACK`).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fred::types::{Resp3Frame, Value};

use super::{
    Redis, encode,
    errors::{Ask, Refusal},
    link::{Answer, Repeat},
    permissions::Needs,
    puts::one_map,
    reply::{self, Misfit},
    scripts,
    streams::take_string,
};
use crate::{
    Committed, Error, EventId, Expectation, FailedExpectation, Found, Incarnation, Revision, Scope, Swept, Transaction,
    Version, Write, WriteResult,
};

/// How long the destruction of a stream is kept to oneself. The server begins the ids of a stream anew with its clock's
/// milliseconds; what is appended once the destruction is known must not get ids that the old stream had.
const ID_STEP: Duration = Duration::from_millis(2);

/// How many entries one sweep removes at most.
const SWEEP_BUDGET: u32 = 512;

pub(super) const COMMIT: &str = "commit";

impl Redis {
    pub(super) async fn commit_transaction(&self, transaction: Transaction) -> Result<Committed, Error> {
        transaction.validate(&self.limits)?;
        if !self.permissions.are_complete() {
            let ask = Ask::new(COMMIT, transaction.scope());
            Box::pin(self.permissions.require(ask, transaction.scope(), Needs::of(&transaction))).await?;
        }
        let committed = match self.commit_shortly(&transaction).await? {
            Some(committed) => committed,
            // In a box, so that the short ways do not carry its state around.
            None => Box::pin(self.commit_generally(&transaction)).await?,
        };
        Ok(if transaction.is_without_previous() { committed.forget_previous() } else { committed })
    }

    async fn commit_generally(&self, transaction: &Transaction) -> Result<Committed, Error> {
        let scope = transaction.scope();
        for write in transaction.writes() {
            if let Write::GrantLease { ttl, .. } | Write::RenewLease { ttl, .. } = write {
                self.link.router().lease(*ttl);
            }
        }
        let repeat = self.repeat(transaction);
        let encoded = encode::transaction(&self.keys, transaction, self.limits.value_bytes);
        let ask = Ask::new(COMMIT, scope);
        let answer = self
            .link
            .run(ask, repeat, &scripts::TRANSACTION, encoded.keys, |args| args.extend_from_slice(&encoded.args))
            .await?;
        let reply = match answer {
            Answer::Reply(reply) => reply,
            Answer::Refused(refusal, message) => {
                return Err(self.commit_error(ask, scope, refusal, &message, &encoded).await);
            }
        };
        let outcome = read_outcome(reply).map_err(|misfit| ask.protocol(misfit))?;
        match outcome {
            Outcome::Committed { versions, results } => {
                if transaction.writes().iter().any(|write| matches!(write, Write::DestroyStream { .. })) {
                    tokio::time::sleep(ID_STEP).await;
                }
                read_committed(transaction, &encoded, versions, results).map_err(|misfit| ask.protocol(misfit))
            }
            Outcome::Left(code, details) => Err(self
                .read_failure(transaction, &encoded, code, details)
                .unwrap_or_else(|misfit| ask.protocol(misfit))),
        }
    }

    /// Whether the transaction may be sent again after an unknown outcome.
    pub(super) fn repeat(&self, transaction: &Transaction) -> Repeat {
        let writes = transaction.writes();
        let onces = || {
            writes.iter().filter_map(|write| match write {
                Write::Append { once, .. } => once.as_ref(),
                _ => None,
            })
        };
        if onces().next().is_none() {
            return if transaction.is_idempotent() { Repeat::Freely } else { Repeat::Never };
        }
        // Retention and lifetimes go by the moment anyway, so a moment later will do for them as well.
        let harmless = |write: &Write| match write {
            Write::Append { once, .. } => once.is_some(),
            Write::TrimStream { .. } | Write::ExpireStream { .. } | Write::Ack { .. } => true,
            _ => false,
        };
        let lasting = onces().all(|once| once.window > self.link.timeout());
        let safe = transaction.expectations().is_empty() && lasting && writes.iter().all(harmless);
        if safe { Repeat::Safely } else { Repeat::Never }
    }

    pub(super) async fn sweep_scope(&self, scope: &Scope) -> Result<Swept, Error> {
        let encoded = encode::sweep(&self.keys, scope, SWEEP_BUDGET);
        let ask = Ask::new("sweep", scope);
        self.permissions.require(ask, scope, Needs::MAPS).await?;
        // What a lost first attempt swept is swept, so the second only finds less to do.
        let answer = self
            .link
            .run(ask, Repeat::Freely, &scripts::TRANSACTION, encoded.keys, |args| args.extend_from_slice(&encoded.args))
            .await?;
        match answer {
            Answer::Reply(reply) => read_swept(reply).map_err(|misfit| ask.protocol(misfit)),
            Answer::Refused(refusal, message) => Err(self.commit_error(ask, scope, refusal, &message, &encoded).await),
        }
    }

    /// Takes one of the short ways, if one leads to the same.
    async fn commit_shortly(&self, transaction: &Transaction) -> Result<Option<Committed>, Error> {
        match transaction.writes() {
            [Write::Append { .. }, ..] => self.commit_appends(transaction).await,
            [Write::Ack { stream, group, ids }] if transaction.expectations().is_empty() => {
                let stream = transaction.scope().stream(stream)?;
                let count = Box::pin(self.acknowledge(&stream, group, ids)).await?;
                Ok(Some(Committed::new(vec![WriteResult::Count(count)], Vec::new())))
            }
            _ => match one_map(transaction) {
                Some(map) => self.commit_puts(transaction, map).await,
                None => Box::pin(self.commit_plainly(transaction)).await,
            },
        }
    }

    /// Finds out which key it is that the server complains of.
    async fn commit_error(
        &self,
        ask: Ask<'_>,
        scope: &Scope,
        refusal: Refusal,
        message: &str,
        encoded: &encode::Encoded,
    ) -> Error {
        if refusal != Refusal::WrongType {
            return self.link.error(ask, refusal, message);
        }
        for (kind, name, expected) in encoded.keys_by_type() {
            let key = self.keys.key(scope, kind, name);
            let args = || vec![Value::Bytes(key.clone())];
            // The commit has had its time; the search ends with the first question that gets no answer.
            let Ok(reply) = self.link.call(ask, Repeat::Freely, "TYPE", args).await else { break };
            if reply::text(reply).is_ok_and(|found| found != expected && found != "none") {
                return Error::WrongType { key: String::from_utf8_lossy(&key).into_owned() };
            }
        }
        Error::WrongType { key: format!("one of the keys of {}", ask.subject) }
    }

    fn read_failure(
        &self,
        transaction: &Transaction,
        encoded: &encode::Encoded,
        code: i64,
        details: Vec<Resp3Frame>,
    ) -> Result<Error, Misfit> {
        let scope = transaction.scope();
        let mut details = details.into_iter();
        let mut next = || details.next().unwrap_or(Resp3Frame::Null);
        match code {
            1 => {
                let index = usize::try_from(reply::count(next())?).map_err(|_| "an index out of range")?;
                let expected = transaction.expectations().get(index).ok_or("an index out of range")?.clone();
                let found = read_found(&expected, next())?;
                Ok(expectation_failed(scope, FailedExpectation::new(index, expected, found)))
            }
            2 => {
                let id = reply::text(next())?;
                let lease = u64::from_str_radix(&id, 16).map_err(|_| "a lease that is none")?;
                Ok(Error::LeaseLost { scope: scope.to_string(), lease: crate::LeaseId(lease) })
            }
            3 => {
                let (map, key) = listed(transaction, next())?;
                let map = format!("{scope}/{map}");
                Ok(Error::WrongValue { map, key: key.to_string(), reason: reply::text(next())? })
            }
            4 => Ok(Error::Corrupt { key: reply::text(next())?, reason: reply::text(next())? }),
            5 => {
                let place = usize::try_from(reply::count(next())?).map_err(|_| "an index out of range")?;
                let name = place.checked_sub(1).and_then(|place| encoded.streams.get(place));
                let stream = scope.stream(name.ok_or("an index out of range")?).map_err(|error| error.to_string())?;
                Ok(Error::StreamExhausted { stream, last: reply::event_id(next())? })
            }
            6 => {
                let (map, key) = listed(transaction, next())?;
                let size = usize::try_from(reply::count(next())?).unwrap_or(usize::MAX);
                match self.limits.check_value(map, key, size) {
                    Err(error) => Ok(error),
                    Ok(_) => Err("a list within the limit".to_owned()),
                }
            }
            other => Err(format!("an unknown code {other}")),
        }
    }
}

/// The map and key of a write that reads a value, given its place from 1.
fn listed(transaction: &Transaction, place: Resp3Frame) -> Result<(&Arc<str>, &Arc<str>), Misfit> {
    let place = usize::try_from(reply::count(place)?).map_err(|_| "an index out of range")?;
    match place.checked_sub(1).and_then(|place| transaction.writes().get(place)) {
        Some(Write::Add { map, key, .. } | Write::ListAppend { map, key, .. } | Write::ListRemove { map, key, .. }) => {
            Ok((map, key))
        }
        _ => Err("a complaint about a write that reads no value".to_owned()),
    }
}

pub(super) fn expectation_failed(scope: &Scope, failed: FailedExpectation) -> Error {
    Error::ExpectationFailed { scope: scope.to_string(), failed: Box::new(failed) }
}

/// What the script replied.
enum Outcome {
    Committed { versions: Vec<Resp3Frame>, results: Vec<Resp3Frame> },
    Left(i64, Vec<Resp3Frame>),
}

fn read_outcome(reply: Resp3Frame) -> Result<Outcome, Misfit> {
    let mut items = reply::list(reply)?;
    if items.is_empty() {
        return Err("an empty answer".to_owned());
    }
    let code = reply::number(items.remove(0))?;
    if code != 0 {
        return Ok(Outcome::Left(code, items));
    }
    let Ok([versions, results]) = <[Resp3Frame; 2]>::try_from(items) else {
        return Err("an answer without versions and results".to_owned());
    };
    Ok(Outcome::Committed { versions: reply::list(versions)?, results: reply::list(results)? })
}

fn read_committed(
    transaction: &Transaction,
    encoded: &encode::Encoded,
    versions: Vec<Resp3Frame>,
    results: Vec<Resp3Frame>,
) -> Result<Committed, Misfit> {
    let writes = transaction.writes();
    if results.len() != writes.len() || versions.len() != encoded.maps.len() {
        return Err("another number of results than of writes".to_owned());
    }
    let results = writes.iter().zip(results).map(|(write, result)| read_result(write, result));
    let named = encoded.maps.iter().zip(versions).filter(|((_, written), _)| *written);
    let mut versions: Vec<_> =
        named.map(|((name, _), version)| Ok((name.clone(), read_version(version)?))).collect::<Result<_, Misfit>>()?;
    order_by_writes(writes, &mut versions);
    Ok(Committed::new(results.collect::<Result<_, Misfit>>()?, versions))
}

/// Maps that an expectation named first may stand in another order than the writes name them.
fn order_by_writes(writes: &[Write], versions: &mut [(Arc<str>, Option<Version>)]) {
    if versions.len() > 1 {
        let first = |name: &Arc<str>| writes.iter().position(|write| written_map(write) == Some(name));
        versions.sort_by_key(|(name, _)| first(name));
    }
}

fn written_map(write: &Write) -> Option<&Arc<str>> {
    match write {
        Write::Put { map, .. }
        | Write::Delete { map, .. }
        | Write::Add { map, .. }
        | Write::ListAppend { map, .. }
        | Write::ListRemove { map, .. }
        | Write::Clear { map }
        | Write::DestroyMap { map }
        | Write::ExpireMap { map, .. } => Some(map),
        _ => None,
    }
}

fn read_result(write: &Write, result: Resp3Frame) -> Result<WriteResult, Misfit> {
    Ok(match write {
        Write::Put { .. } | Write::Delete { .. } => WriteResult::Previous(reply::optional_bytes(result)?),
        Write::Add { .. } => {
            WriteResult::Counter(reply::text(result)?.parse().map_err(|_| "a counter that is not a 64-bit integer")?)
        }
        Write::ListAppend { .. } | Write::ListRemove { .. } => {
            let [changed, items] = reply::exactly(result)?;
            let items = reply::bytes(items)?;
            let items = if items.is_empty() { Vec::new() } else { decode_list(&items)? };
            WriteResult::List { items, changed: reply::number(changed)? == 1 }
        }
        Write::Append { .. } => WriteResult::Event(reply::event_id(result)?),
        Write::ExpireMap { .. } | Write::ExpireStream { .. } | Write::GrantLease { .. } | Write::RenewLease { .. } => {
            WriteResult::Done
        }
        Write::Clear { .. }
        | Write::DestroyMap { .. }
        | Write::TrimStream { .. }
        | Write::DeleteEvents { .. }
        | Write::Ack { .. }
        | Write::DestroyStream { .. }
        | Write::DropLease { .. } => WriteResult::Count(reply::count(result)?),
    })
}

fn decode_list(encoded: &Bytes) -> Result<Vec<Bytes>, Misfit> {
    let mut rest = &encoded[..];
    let count = rmp::decode::read_array_len(&mut rest).map_err(|_| "a list that is none")?;
    let mut encoded = encoded.slice(encoded.len() - rest.len()..);
    (0..count).map(|_| take_string(&mut encoded).ok_or_else(|| "a list that ends early".to_owned())).collect()
}

fn read_found(expected: &Expectation, found: Resp3Frame) -> Result<Found, Misfit> {
    Ok(match expected {
        Expectation::Equals { .. } | Expectation::Absent { .. } | Expectation::Present { .. } => {
            Found::Value(reply::optional_bytes(found)?)
        }
        Expectation::Version { .. } => Found::Version(read_version(found)?),
        Expectation::FewerThan { .. } | Expectation::ShorterThan { .. } => Found::Count(reply::count(found)?),
        Expectation::LeaseAlive { .. } => Found::LeaseExpired,
        Expectation::LeaseExpired { .. } => Found::LeaseAlive,
        Expectation::StreamExists { .. } => Found::NoStream,
    })
}

fn read_swept(reply: Resp3Frame) -> Result<Swept, Misfit> {
    let Outcome::Committed { results, .. } = read_outcome(reply)? else {
        return Err("a sweep that failed".to_owned());
    };
    let [result]: [Resp3Frame; 1] = results.try_into().map_err(|_| "another number of results than 1")?;
    let [leases, entries, next] = reply::exactly(result)?;
    let mut swept = Swept::default();
    for lease in reply::list(leases)? {
        // An id that is none was written by a stranger, and is gone now.
        let id = reply::bytes(lease)?;
        if let Some(id) = std::str::from_utf8(&id).ok().and_then(|id| u64::from_str_radix(id, 16).ok()) {
            swept.leases.push(crate::LeaseId(id));
        }
    }
    swept.entries = reply::count(entries)?;
    swept.next_deadline = u64::try_from(reply::number(next)?).ok().map(std::time::Duration::from_millis);
    Ok(swept)
}

/// Reads a version as the scripts write it; an empty text says that there is no map.
pub(super) fn read_version(frame: Resp3Frame) -> Result<Option<Version>, Misfit> {
    let text = reply::text(frame)?;
    if text.is_empty() {
        return Ok(None);
    }
    parse_version(&text).map(Some).ok_or_else(|| format!("expected a version, found {text:?}"))
}

pub(super) fn parse_version(text: &str) -> Option<Version> {
    let (incarnation, revision) = text.split_at_checked(16)?;
    if !revision.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Version {
        incarnation: Incarnation(u64::from_str_radix(incarnation, 16).ok()?),
        revision: Revision(revision.parse().ok()?),
    })
}

/// Reads the version in the header of a map, which may go on with flags and a deadline.
pub(super) fn parse_header(header: &str) -> Option<Version> {
    let (_, rest) = header.split_at_checked(16)?;
    let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    let more = &rest[digits..];
    (more.is_empty() || more.starts_with(['b', '@'])).then(|| parse_version(&header[..16 + digits])).flatten()
}

/// Used by the short ways.
pub(super) fn ids(ids: &[EventId]) -> impl Iterator<Item = Value> + '_ {
    ids.iter().map(|id| Value::Bytes(id.to_string().into()))
}
