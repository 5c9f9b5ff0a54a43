//! The model: what a scope is, as plainly as it can be said.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pulse_core::{
    Binding, Deadline, Duplicates, EventId, Expectation, Found, Incarnation, LeaseId, Revision, Trim, Version, Write,
    WriteResult,
};

/// Milliseconds of the model's clock.
pub(crate) type Millis = u64;

#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub now: Millis,
    /// What the backend's clock showed when the model's showed 0.
    pub began: Millis,
    pub maps: BTreeMap<String, Map>,
    pub streams: BTreeMap<String, Stream>,
    /// Deadlines.
    pub leases: BTreeMap<LeaseId, Millis>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Map {
    /// Drawn by the backend, and told to the model after the commit that began the map.
    pub incarnation: Option<Incarnation>,
    pub revision: u64,
    pub entries: BTreeMap<String, Entry>,
    pub deadline: Option<Millis>,
    /// By the transaction that is being carried out.
    changed: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub value: Bytes,
    bound: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Permanent,
    Lease(LeaseId),
    Until(Millis),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Stream {
    pub events: BTreeMap<EventId, String>,
    pub appended: u64,
    pub last: EventId,
    pub max_deleted: EventId,
    pub groups: BTreeMap<String, Group>,
    /// The event of each once-id, and the end of its window.
    onces: BTreeMap<String, (EventId, Millis)>,
    deadline: Option<Millis>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    pub cursor: EventId,
    pub pending: BTreeMap<EventId, Pending>,
    pub consumers: BTreeSet<String>,
    /// What trims took from it: after which id, before which, and how many.
    pub missed: Option<(EventId, EventId, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    pub consumer: String,
    pub deliveries: u64,
    /// `None`: it was asked for on an event that was deleted from the stream, so a backend may or may not have set it.
    pub long_idle: Option<bool>,
}

/// Why a transaction is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    Expectation(usize, Found),
    LeaseLost(LeaseId),
    WrongValue(String, String),
}

/// What a sweep did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Swept {
    pub leases: BTreeSet<LeaseId>,
    pub entries: u64,
    pub next_deadline: Option<Millis>,
}

impl Map {
    pub(crate) fn version(&self) -> Option<Version> {
        self.incarnation.map(|incarnation| Version { incarnation, revision: Revision(self.revision) })
    }

    fn remove_where(&mut self, gone: impl Fn(&Entry) -> bool) -> u64 {
        let before = self.entries.len();
        self.entries.retain(|_, entry| !gone(entry));
        let removed = before - self.entries.len();
        self.changed |= removed > 0;
        removed as u64
    }
}

impl World {
    /// Lets time pass; streams vanish by themselves.
    pub(crate) fn pass(&mut self, millis: Millis) {
        self.now += millis;
        let now = self.now;
        self.streams.retain(|_, stream| stream.deadline.is_none_or(|deadline| deadline > now));
    }

    pub(crate) fn alive(&self, lease: LeaseId) -> bool {
        self.leases.get(&lease).is_some_and(|deadline| *deadline > self.now)
    }

    fn value(&self, map: &str, key: &str) -> Option<Bytes> {
        Some(self.maps.get(map)?.entries.get(key)?.value.clone())
    }

    fn length(&self, stream: &str) -> u64 {
        self.streams.get(stream).map_or(0, |stream| stream.events.len() as u64)
    }

    fn judge(&self, expectation: &Expectation) -> Result<(), Found> {
        let (holds, found) = match expectation {
            Expectation::Equals { map, key, value } => {
                let found = self.value(map, key);
                (found.as_ref() == Some(value), Found::Value(found))
            }
            Expectation::Absent { map, key } => {
                let found = self.value(map, key);
                (found.is_none(), Found::Value(found))
            }
            Expectation::Present { map, key } => {
                let found = self.value(map, key);
                (found.is_some(), Found::Value(found))
            }
            Expectation::Version { map, version } => {
                let found = self.maps.get(&**map).and_then(Map::version);
                (found == *version, Found::Version(found))
            }
            Expectation::FewerThan { map, entries } => {
                let found = self.maps.get(&**map).map_or(0, |map| map.entries.len() as u64);
                (found < *entries, Found::Count(found))
            }
            Expectation::LeaseAlive { lease } => (self.alive(*lease), Found::LeaseExpired),
            Expectation::LeaseExpired { lease } => (!self.alive(*lease), Found::LeaseAlive),
            Expectation::StreamExists { stream } => (self.streams.contains_key(&**stream), Found::NoStream),
            Expectation::ShorterThan { stream, length } => {
                let found = self.length(stream);
                (found < *length, Found::Count(found))
            }
            other => panic!("the model does not know {other:?}"),
        };
        if holds { Ok(()) } else { Err(found) }
    }

    /// Carries out a transaction, or changes nothing and says why. `ids` are the ids of the events that it appends.
    pub(crate) fn commit(
        &mut self,
        expectations: &[Expectation],
        writes: &[Write],
        ids: &mut dyn FnMut(EventId) -> EventId,
    ) -> Result<Vec<WriteResult>, Refusal> {
        for (index, expectation) in expectations.iter().enumerate() {
            self.judge(expectation).map_err(|found| Refusal::Expectation(index, found))?;
        }
        let mut after = self.clone();
        let results = writes.iter().map(|write| after.write(write, ids)).collect::<Result<_, _>>()?;
        for write in writes {
            after.expire(write);
        }
        after.settle();
        *self = after;
        Ok(results)
    }

    /// Ends a transaction: what changed is one revision further.
    fn settle(&mut self) {
        for map in self.maps.values_mut() {
            map.revision += u64::from(std::mem::take(&mut map.changed));
        }
    }

    fn map_to_change(&mut self, map: &str) -> &mut Map {
        let map = self.maps.entry(map.to_owned()).or_default();
        map.changed = true;
        map
    }

    fn bound(&self, binding: &Binding) -> Result<Bound, Refusal> {
        Ok(match binding {
            Binding::Permanent => Bound::Permanent,
            Binding::Lease(lease) if self.alive(*lease) => Bound::Lease(*lease),
            Binding::Lease(lease) => return Err(Refusal::LeaseLost(*lease)),
            Binding::Ttl(ttl) => Bound::Until(self.now + millis(*ttl)),
            other => panic!("the model does not know {other:?}"),
        })
    }

    /// Sets a value; the binding counts only if the key is absent.
    fn set(&mut self, map: &str, key: &str, value: Bytes, bound: Bound) {
        let entry = Entry { value: value.clone(), bound };
        self.map_to_change(map).entries.entry(key.to_owned()).or_insert(entry).value = value;
    }

    fn write(&mut self, write: &Write, ids: &mut dyn FnMut(EventId) -> EventId) -> Result<WriteResult, Refusal> {
        let now = self.now;
        Ok(match write {
            Write::Put { map, key, value, binding } => {
                let bound = self.bound(binding)?;
                let entry = Entry { value: value.clone(), bound };
                let previous = self.map_to_change(map).entries.insert(key.to_string(), entry);
                WriteResult::Previous(previous.map(|entry| entry.value))
            }
            Write::Delete { map, key } => {
                let removed = self.maps.get_mut(&**map).and_then(|map| {
                    let removed = map.entries.remove(&**key)?;
                    map.changed = true;
                    Some(removed.value)
                });
                WriteResult::Previous(removed)
            }
            Write::Add { map, key, delta, binding } => {
                let bound = self.bound(binding)?;
                let wrong = || Refusal::WrongValue(map.to_string(), key.to_string());
                let before = self.value(map, key).map_or(Some(0), |value| counter(&value)).ok_or_else(wrong)?;
                let sum = before.checked_add(*delta).ok_or_else(wrong)?;
                self.set(map, key, Bytes::from(sum.to_string()), bound);
                WriteResult::Counter(sum)
            }
            Write::ListAppend { map, key, items, duplicates } => {
                let before = self.list(map, key)?;
                let mut after = before.clone();
                for item in items {
                    if *duplicates == Duplicates::Keep || !after.contains(item) {
                        after.push(item.clone());
                    }
                }
                self.set_list(map, key, &before, after)
            }
            Write::ListRemove { map, key, items } => {
                let before = self.list(map, key)?;
                let after = before.iter().filter(|item| !items.contains(item)).cloned().collect();
                self.set_list(map, key, &before, after)
            }
            Write::Clear { map } => {
                let removed = self.maps.get_mut(&**map).map_or(0, |map| {
                    map.changed = true;
                    map.remove_where(|_| true)
                });
                WriteResult::Count(removed)
            }
            Write::DestroyMap { map } => {
                WriteResult::Count(self.maps.remove(&**map).map_or(0, |map| map.entries.len() as u64))
            }
            // Deadlines of maps and streams are set when all else is done.
            Write::ExpireMap { .. } | Write::ExpireStream { .. } => WriteResult::Done,
            Write::Append { stream, event, once } => {
                let stream = self.streams.entry(stream.to_string()).or_default();
                let known = once.as_ref().and_then(|once| stream.onces.get(&*once.id));
                if let Some((first, _)) = known.filter(|(_, deadline)| *deadline > now) {
                    return Ok(WriteResult::Event(*first));
                }
                let id = ids(stream.last);
                if let Some(once) = once {
                    stream.onces.insert(once.id.to_string(), (id, now + millis(once.window)));
                }
                stream.events.insert(id, event.name().to_owned());
                stream.appended += 1;
                stream.last = id;
                WriteResult::Event(id)
            }
            Write::TrimStream { stream, trim } => {
                let excess = |length: u64, all: u64| all.saturating_sub(length);
                let gone: Vec<EventId> = match (self.streams.get(&**stream), trim) {
                    (None, _) => Vec::new(),
                    (Some(stream), Trim::MaxLength { length, .. }) => {
                        let excess = excess(*length, stream.events.len() as u64);
                        stream.events.keys().copied().take(excess as usize).collect()
                    }
                    (Some(stream), Trim::Before { id, .. }) => stream.events.range(..id).map(|(id, _)| *id).collect(),
                    (Some(stream), Trim::OlderThan { age, .. }) => {
                        let first = EventId::new((self.began + now).saturating_sub(millis(*age)), 0);
                        stream.events.range(..first).map(|(id, _)| *id).collect()
                    }
                    (Some(stream), Trim::Consumed) => {
                        let needed = |id: &EventId| stream.groups.values().any(|group| group.needs(*id));
                        let consumed = stream.events.keys().take_while(|id| !stream.groups.is_empty() && !needed(id));
                        consumed.copied().collect()
                    }
                    (_, other) => panic!("the model does not know {other:?}"),
                };
                let dropped = self.delete_events(stream, &gone).len() as u64;
                if let Some(stream) = self.streams.get_mut(&**stream) {
                    stream.miss(&gone);
                }
                WriteResult::Count(dropped)
            }
            Write::DeleteEvents { stream, ids } => {
                let deleted = self.delete_events(stream, ids);
                if let (Some(stream), Some(last)) = (self.streams.get_mut(&**stream), deleted.iter().max()) {
                    stream.max_deleted = stream.max_deleted.max(*last);
                }
                WriteResult::Count(deleted.len() as u64)
            }
            Write::Ack { stream, group, ids } => {
                let group = self.streams.get_mut(&**stream).and_then(|stream| stream.groups.get_mut(group.as_str()));
                let acked = group.map_or(0, |group| ids.iter().filter(|id| group.pending.remove(id).is_some()).count());
                WriteResult::Count(acked as u64)
            }
            Write::DestroyStream { stream } => {
                WriteResult::Count(self.streams.remove(&**stream).map_or(0, |stream| stream.events.len() as u64))
            }
            Write::GrantLease { lease, ttl } => {
                if self.leases.contains_key(lease) && !self.alive(*lease) {
                    return Err(Refusal::LeaseLost(*lease));
                }
                self.leases.insert(*lease, now + millis(*ttl));
                WriteResult::Done
            }
            Write::RenewLease { lease, ttl } => {
                if !self.alive(*lease) {
                    return Err(Refusal::LeaseLost(*lease));
                }
                self.leases.insert(*lease, now + millis(*ttl));
                WriteResult::Done
            }
            Write::DropLease { lease } => {
                self.leases.remove(lease);
                let bound = |entry: &Entry| entry.bound == Bound::Lease(*lease);
                WriteResult::Count(self.maps.values_mut().map(|map| map.remove_where(bound)).sum())
            }
            other => panic!("the model does not know {other:?}"),
        })
    }

    fn expire(&mut self, write: &Write) {
        let now = self.now;
        let (slot, deadline) = match write {
            Write::ExpireMap { map, deadline } => (self.maps.get_mut(&**map).map(|map| &mut map.deadline), deadline),
            Write::ExpireStream { stream, deadline } => {
                (self.streams.get_mut(&**stream).map(|stream| &mut stream.deadline), deadline)
            }
            _ => return,
        };
        let Some(slot) = slot else { return };
        *slot = match deadline {
            Deadline::IfUnset(ttl) => Some(slot.unwrap_or(now + millis(*ttl))),
            Deadline::Renew(ttl) => Some(now + millis(*ttl)),
            Deadline::Never => None,
            other => panic!("the model does not know {other:?}"),
        };
    }

    fn list(&self, map: &str, key: &str) -> Result<Vec<Bytes>, Refusal> {
        let Some(value) = self.value(map, key) else { return Ok(Vec::new()) };
        decode(&value).ok_or_else(|| Refusal::WrongValue(map.to_owned(), key.to_owned()))
    }

    fn set_list(&mut self, map: &str, key: &str, before: &[Bytes], after: Vec<Bytes>) -> WriteResult {
        let changed = before != after;
        if changed && after.is_empty() {
            self.map_to_change(map).entries.remove(key);
        } else if changed {
            self.set(map, key, encode(&after), Bound::Permanent);
        }
        WriteResult::List { items: after, changed }
    }

    fn delete_events(&mut self, stream: &str, ids: &[EventId]) -> Vec<EventId> {
        let Some(stream) = self.streams.get_mut(stream) else { return Vec::new() };
        ids.iter().copied().filter(|id| stream.events.remove(id).is_some()).collect()
    }

    /// Removes what has passed its deadline.
    pub(crate) fn sweep(&mut self) -> Swept {
        let now = self.now;
        let leases: BTreeSet<LeaseId> =
            self.leases.iter().filter(|(_, deadline)| **deadline <= now).map(|(lease, _)| *lease).collect();
        self.leases.retain(|lease, _| !leases.contains(lease));
        let mut entries = 0;
        self.maps.retain(|_, map| {
            let expired = map.deadline.is_some_and(|deadline| deadline <= now);
            entries += if expired { map.entries.len() as u64 } else { 0 };
            !expired
        });
        for map in self.maps.values_mut() {
            entries += map.remove_where(|entry| match entry.bound {
                Bound::Permanent => false,
                Bound::Lease(lease) => leases.contains(&lease),
                Bound::Until(deadline) => deadline <= now,
            });
        }
        self.settle();
        Swept { leases, entries, next_deadline: self.next_deadline() }
    }

    fn next_deadline(&self) -> Option<Millis> {
        let of_entries =
            self.maps.values().flat_map(|map| map.entries.values()).filter_map(|entry| match entry.bound {
                Bound::Until(deadline) => Some(deadline),
                _ => None,
            });
        let of_maps = self.maps.values().filter_map(|map| map.deadline);
        of_entries.chain(of_maps).chain(self.leases.values().copied()).min().map(|deadline| deadline - self.now)
    }
}

impl Group {
    /// Whether it still needs an event, or one before it.
    fn needs(&self, id: EventId) -> bool {
        id > self.cursor || self.pending.keys().next().is_some_and(|pending| *pending <= id)
    }
}

impl Stream {
    /// Remembers for each group what a trim dropped that it had not been handed.
    fn miss(&mut self, gone: &[EventId]) {
        let before = self.events.keys().next().copied().or(self.last.next()).unwrap_or(EventId::MAX);
        for group in self.groups.values_mut() {
            let events = gone.iter().filter(|id| **id > group.cursor).count() as u64;
            if events > 0 {
                let (after, _, earlier) = group.missed.unwrap_or((group.cursor, before, 0));
                group.missed = Some((after, before, earlier + events));
            }
        }
    }

    /// The events after an id.
    pub(crate) fn after(&self, id: EventId) -> impl Iterator<Item = EventId> {
        self.events.keys().copied().filter(move |event| *event > id)
    }
}

fn millis(ttl: std::time::Duration) -> Millis {
    u64::try_from(ttl.as_millis()).expect("the steps have no such lifetimes")
}

fn counter(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    text.parse::<i64>().ok().filter(|number| number.to_string() == text)
}

/// A list as MessagePack; the steps have only short items and lists of moderate length.
fn encode(items: &[Bytes]) -> Bytes {
    let count = u16::try_from(items.len()).expect("the steps make no such lists");
    let mut bytes = match count {
        0..16 => vec![0x90 | count.to_be_bytes()[1]],
        _ => vec![0xdc, count.to_be_bytes()[0], count.to_be_bytes()[1]],
    };
    for item in items {
        bytes.extend([0xc4, u8::try_from(item.len()).expect("the steps have no such items")]);
        bytes.extend(item);
    }
    bytes.into()
}

fn decode(mut bytes: &[u8]) -> Option<Vec<Bytes>> {
    let mut take = |count: usize| {
        let (taken, rest) = bytes.split_at_checked(count)?;
        bytes = rest;
        Some(taken)
    };
    let count = match take(1)?[0] {
        head @ 0x90..=0x9f => usize::from(head & 0x0f),
        0xdc => take(2)?.iter().fold(0, |count, byte| count << 8 | usize::from(*byte)),
        _ => return None,
    };
    let mut items = Vec::new();
    for _ in 0..count {
        let [0xc4, length] = *take(2)? else { return None };
        items.push(Bytes::copy_from_slice(take(usize::from(length))?));
    }
    bytes.is_empty().then_some(items)
}
