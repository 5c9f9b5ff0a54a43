//! Transactions: expectations on the state before, then the writes on a copy, which is kept only if all succeed.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    scope::{Bound, Changed, ScopeState},
    store::millis,
    streams::StreamState,
};
use crate::{
    Binding, Committed, Deadline, Duplicates, Error, Expectation, FailedExpectation, Found, LeaseId, Limits, NewEvent,
    Once, Scope, Transaction, Version, Write, WriteResult,
    list::{decode_list, encode_list},
};

/// How many expired streams a commit frees in passing.
const EXPIRED_STREAMS: usize = 4;

pub(super) fn commit(
    state: ScopeState,
    transaction: &Transaction,
    limits: &Limits,
    now: u64,
) -> Result<(ScopeState, Changed, Committed), Error> {
    let scope = transaction.scope();
    for (index, expectation) in transaction.expectations().iter().enumerate() {
        if let Some(found) = contradiction(&state, expectation, now) {
            let failed = Box::new(FailedExpectation::new(index, expectation.clone(), found));
            return Err(Error::ExpectationFailed { scope: scope.to_string(), failed });
        }
    }
    let mut work = Work { scope, limits, state, changed: Changed::default(), now };
    work.state.free_expired_streams(now, EXPIRED_STREAMS);
    let results = transaction.writes().iter().map(|write| work.write(write)).collect::<Result<Vec<_>, _>>()?;
    work.set_deadlines(transaction.writes());
    work.changed.finish();
    let versions = versions(&work.state, transaction.writes());
    let committed = Committed::new(results, versions);
    let committed = if transaction.is_without_previous() { committed.forget_previous() } else { committed };
    Ok((work.state, work.changed, committed))
}

/// What is found in place of what was expected, `None` if the expectation holds.
fn contradiction(state: &ScopeState, expectation: &Expectation, now: u64) -> Option<Found> {
    let value = |map: &str, key: &str| state.entry(map, key).map(|entry| entry.value.clone());
    let (holds, found) = match expectation {
        Expectation::Equals { map, key, value: expected } => {
            let found = value(map, key);
            (found.as_ref() == Some(expected), Found::Value(found))
        }
        Expectation::Absent { map, key } => {
            let found = value(map, key);
            (found.is_none(), Found::Value(found))
        }
        Expectation::Present { map, key } => {
            let found = value(map, key);
            (found.is_some(), Found::Value(found))
        }
        Expectation::Version { map, version } => {
            let found = state.maps.get(map).map(|map| map.version);
            (found == *version, Found::Version(found))
        }
        Expectation::FewerThan { map, entries } => {
            let count = state.maps.get(map).map_or(0, |map| map.entries.len() as u64);
            (count < *entries, Found::Count(count))
        }
        Expectation::LeaseAlive { lease } => (state.is_alive(*lease, now), Found::LeaseExpired),
        Expectation::LeaseExpired { lease } => (!state.is_alive(*lease, now), Found::LeaseAlive),
        Expectation::StreamExists { stream } => (state.live_stream(stream, now).is_some(), Found::NoStream),
        Expectation::ShorterThan { stream, length } => {
            let count = state.live_stream(stream, now).map_or(0, |stream| stream.entries.len() as u64);
            (count < *length, Found::Count(count))
        }
    };
    (!holds).then_some(found)
}

/// A transaction at work on its copy of the scope.
struct Work<'a> {
    scope: &'a Scope,
    limits: &'a Limits,
    state: ScopeState,
    changed: Changed,
    now: u64,
}

impl Work<'_> {
    fn write(&mut self, write: &Write) -> Result<WriteResult, Error> {
        match write {
            Write::Put { map, key, value, binding } => self.put(map, key, value, binding),
            Write::Delete { map, key } => Ok(WriteResult::Previous(self.state.delete(&mut self.changed, map, key))),
            Write::Add { map, key, delta, binding } => self.add(map, key, *delta, binding),
            Write::ListAppend { map, key, items, duplicates } => self.list_append(map, key, items, *duplicates),
            Write::ListRemove { map, key, items } => self.list_remove(map, key, items),
            Write::Clear { map } => Ok(WriteResult::Count(self.state.clear(&mut self.changed, map))),
            Write::DestroyMap { map } => Ok(WriteResult::Count(self.state.destroy(&mut self.changed, map))),
            // They depend on what exists after all other writes, so they come last.
            Write::ExpireMap { .. } | Write::ExpireStream { .. } => Ok(WriteResult::Done),
            Write::Append { stream, event, once } => self.append(stream, event, once.as_ref()),
            Write::TrimStream { stream, trim } => {
                let stream = self.state.live_stream_mut(stream, self.now);
                Ok(WriteResult::Count(stream.map_or(0, |stream| stream.trim(*trim, self.now))))
            }
            Write::DeleteEvents { stream, ids } => {
                let stream = self.state.live_stream_mut(stream, self.now);
                Ok(WriteResult::Count(stream.map_or(0, |stream| stream.delete(ids))))
            }
            Write::Ack { stream, group, ids } => {
                let stream = self.state.live_stream_mut(stream, self.now);
                let group = stream.and_then(|stream| stream.groups.get_mut(group));
                Ok(WriteResult::Count(group.map_or(0, |group| group.ack(ids))))
            }
            Write::DestroyStream { stream } => {
                let count = self.state.live_stream(stream, self.now).map_or(0, |stream| stream.entries.len() as u64);
                self.state.remove_stream(stream);
                self.changed.streams.push(stream.clone());
                Ok(WriteResult::Count(count))
            }
            Write::GrantLease { lease, ttl } => {
                if self.state.leases.contains_key(lease) {
                    self.expect_alive(*lease)?;
                }
                self.state.set_lease(*lease, self.after(*ttl));
                Ok(WriteResult::Done)
            }
            Write::RenewLease { lease, ttl } => {
                self.expect_alive(*lease)?;
                self.state.set_lease(*lease, self.after(*ttl));
                Ok(WriteResult::Done)
            }
            Write::DropLease { lease } => Ok(WriteResult::Count(self.state.drop_lease(&mut self.changed, *lease))),
        }
    }

    fn after(&self, ttl: Duration) -> u64 {
        self.now.saturating_add(millis(ttl))
    }

    fn expect_alive(&self, lease: LeaseId) -> Result<(), Error> {
        if self.state.is_alive(lease, self.now) {
            return Ok(());
        }
        Err(Error::LeaseLost { scope: self.scope.to_string(), lease })
    }

    fn bound(&self, binding: &Binding) -> Result<Bound, Error> {
        Ok(match binding {
            Binding::Permanent => Bound::Nothing,
            Binding::Lease(lease) | Binding::Session { lease, .. } => {
                self.expect_alive(*lease)?;
                Bound::Lease(*lease)
            }
            Binding::Ttl(ttl) => Bound::Deadline(self.after(*ttl)),
        })
    }

    fn put(&mut self, map: &Arc<str>, key: &Arc<str>, value: &Bytes, binding: &Binding) -> Result<WriteResult, Error> {
        let bound = self.bound(binding)?;
        let previous = self.state.entry(map, key).map(|entry| entry.value.clone());
        self.state.put(&mut self.changed, map, key, value.clone(), bound);
        Ok(WriteResult::Previous(previous))
    }

    fn add(&mut self, map: &Arc<str>, key: &Arc<str>, delta: i64, binding: &Binding) -> Result<WriteResult, Error> {
        let given = self.bound(binding)?;
        let current = match self.state.entry(map, key) {
            None => 0,
            Some(entry) => parse_counter(&entry.value)
                .ok_or_else(|| self.wrong_value(map, key, "its value is not a 64-bit decimal integer"))?,
        };
        let sum = current
            .checked_add(delta)
            .ok_or_else(|| self.wrong_value(map, key, "the sum would leave the 64-bit range"))?;
        let bound = self.state.entry(map, key).map_or(given, |entry| entry.bound);
        self.state.put(&mut self.changed, map, key, Bytes::from(sum.to_string()), bound);
        Ok(WriteResult::Counter(sum))
    }

    fn list(&self, map: &str, key: &str) -> Result<Vec<Bytes>, Error> {
        match self.state.entry(map, key) {
            None => Ok(Vec::new()),
            Some(entry) => decode_list(&entry.value).map_err(|error| self.wrong_value(map, key, &error.to_string())),
        }
    }

    fn list_append(
        &mut self,
        map: &Arc<str>,
        key: &Arc<str>,
        new: &[Bytes],
        duplicates: Duplicates,
    ) -> Result<WriteResult, Error> {
        let mut items = self.list(map, key)?;
        let before = items.len();
        for item in new {
            if duplicates == Duplicates::Keep || !items.contains(item) {
                items.push(item.clone());
            }
        }
        let changed = items.len() > before;
        if changed {
            let value = encode_list(&items);
            self.limits.check_value(map, key, value.len())?;
            self.state.replace(&mut self.changed, map, key, value);
        }
        Ok(WriteResult::List { items, changed })
    }

    fn list_remove(&mut self, map: &Arc<str>, key: &Arc<str>, gone: &[Bytes]) -> Result<WriteResult, Error> {
        let mut items = self.list(map, key)?;
        let before = items.len();
        items.retain(|item| !gone.contains(item));
        let changed = items.len() < before;
        if changed && items.is_empty() {
            self.state.delete(&mut self.changed, map, key);
        } else if changed {
            self.state.replace(&mut self.changed, map, key, encode_list(&items));
        }
        Ok(WriteResult::List { items, changed })
    }

    fn append(&mut self, name: &Arc<str>, event: &NewEvent, once: Option<&Once>) -> Result<WriteResult, Error> {
        let known = |stream: &StreamState| stream.appended_once(&once?.id, self.now);
        if let Some(first) = self.state.live_stream(name, self.now).and_then(known) {
            return Ok(WriteResult::Event(first));
        }
        let deadline = once.map(|once| self.after(once.window));
        let stream = self.state.stream_mut(name, self.now);
        let Some(id) = stream.next_id(self.now) else {
            return Err(Error::StreamExhausted { stream: self.scope.stream(name)?, last: stream.last });
        };
        stream.append(id, event.clone());
        if let (Some(once), Some(deadline)) = (once, deadline) {
            stream.record_once(&once.id, id, deadline, self.now);
        }
        self.changed.streams.push(name.clone());
        Ok(WriteResult::Event(id))
    }

    fn set_deadlines(&mut self, writes: &[Write]) {
        for write in writes {
            match write {
                Write::ExpireMap { map, deadline } => {
                    let standing = self.state.maps.get(map).and_then(|map| map.deadline);
                    let deadline = self.deadline(standing, *deadline);
                    self.state.set_map_deadline(map, deadline);
                }
                Write::ExpireStream { stream, deadline } => {
                    let standing = self.state.live_stream(stream, self.now).and_then(|stream| stream.deadline);
                    let deadline = self.deadline(standing, *deadline);
                    if self.state.live_stream(stream, self.now).is_some() {
                        self.state.set_stream_deadline(stream, deadline);
                        // Whoever waits on the stream sleeps until its old deadline at most.
                        self.changed.streams.push(stream.clone());
                    }
                }
                _ => {}
            }
        }
    }

    fn deadline(&self, standing: Option<u64>, deadline: Deadline) -> Option<u64> {
        match deadline {
            Deadline::Never => None,
            Deadline::Renew(ttl) => Some(self.after(ttl)),
            Deadline::IfUnset(ttl) => Some(standing.unwrap_or_else(|| self.after(ttl))),
        }
    }

    fn wrong_value(&self, map: &str, key: &str, reason: &str) -> Error {
        Error::WrongValue { map: format!("{}/{map}", self.scope), key: key.to_owned(), reason: reason.to_owned() }
    }
}

/// Reads a counter in the one form that a counter is written in.
fn parse_counter(value: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == value).then_some(number)
}

/// The version of each map that the writes name, in order of first mention.
fn versions(state: &ScopeState, writes: &[Write]) -> Vec<(Arc<str>, Option<Version>)> {
    let mut seen = HashSet::new();
    let mut versions: Vec<(Arc<str>, Option<Version>)> = Vec::new();
    for write in writes {
        let (Write::Put { map, .. }
        | Write::Delete { map, .. }
        | Write::Add { map, .. }
        | Write::ListAppend { map, .. }
        | Write::ListRemove { map, .. }
        | Write::Clear { map }
        | Write::DestroyMap { map }
        | Write::ExpireMap { map, .. }) = write
        else {
            continue;
        };
        if seen.insert(map) {
            versions.push((map.clone(), state.maps.get(map).map(|map| map.version)));
        }
    }
    versions
}
