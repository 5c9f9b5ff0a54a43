//! Transactions as the script of `lua/transaction/` takes them.
//!
//! The structure travels as numbers in one MessagePack argument; keys, values and events are arguments of their own, so
//! that large ones are never copied into an encoding, and one command of the script can take many of them at once.

use std::sync::Arc;

use bytes::Bytes;
use fred::types::Value;
use rmp::encode::{write_array_len, write_uint};

use super::{keys::Keys, streams::event_fields};
use crate::{Binding, Deadline, Duplicates, EventId, Expectation, LeaseId, Scope, Transaction, Trim, Version, Write};

/// The largest number that the script's doubles hold exactly.
pub(super) const LARGEST: u64 = 1 << 53;

/// A transaction ready to be sent.
#[derive(Debug)]
pub(super) struct Encoded {
    /// How many of the arguments are keys.
    pub(super) keys: usize,
    /// Keys, program, strings.
    pub(super) args: Vec<Value>,
    /// The maps in order of first mention, and whether a write names them.
    pub(super) maps: Vec<(Arc<str>, bool)>,
    /// The streams in order of first mention.
    pub(super) streams: Vec<Arc<str>>,
    /// The leases that are named.
    leases: Vec<String>,
}

impl Encoded {
    /// The keys that the script may touch, by kind and name, and what type each has to be.
    pub(super) fn keys_by_type(&self) -> impl Iterator<Item = (&'static str, &str, &'static str)> {
        let maps = self.maps.iter().flat_map(|(name, _)| [("m:", &**name, "hash"), ("b:", &**name, "hash")]);
        let streams = self.streams.iter().flat_map(|name| {
            [("s:", &**name, "stream"), ("u:", &**name, "hash"), ("x:", &**name, "zset"), ("g:", &**name, "hash")]
        });
        let leases = self.leases.iter().map(|id| ("e:", id.as_str(), "set"));
        maps.chain(streams).chain([("l", "", "zset"), ("d", "", "zset")]).chain(leases)
    }
}

/// Encodes a transaction.
pub(super) fn transaction(keys: &Keys, transaction: &Transaction, largest_value: usize) -> Encoded {
    let mut encoder = Encoder::new(keys, transaction.scope());
    encoder.largest_value = largest_value as u64;
    for expectation in transaction.expectations() {
        encoder.mention(&expectation_place(expectation), false);
    }
    for write in transaction.writes() {
        encoder.mention(&write_place(write), true);
    }
    encoder.lay_out_keys();
    for expectation in transaction.expectations() {
        encoder.expectation(expectation);
    }
    for write in transaction.writes() {
        encoder.write(write);
    }
    encoder.finish()
}

/// Encodes a sweep of at most so many entries.
pub(super) fn sweep(keys: &Keys, scope: &Scope, budget: u32) -> Encoded {
    let mut encoder = Encoder::new(keys, scope);
    encoder.lay_out_keys();
    encoder.writes.extend([21, u64::from(budget)]);
    encoder.finish()
}

/// What an operation is about.
enum Place<'a> {
    Map(&'a Arc<str>),
    Key(&'a Arc<str>),
    Stream(&'a Arc<str>),
    Append(&'a Arc<str>),
    Lease,
}

fn expectation_place(expectation: &Expectation) -> Place<'_> {
    match expectation {
        Expectation::Equals { map, .. } | Expectation::Absent { map, .. } | Expectation::Present { map, .. } => {
            Place::Key(map)
        }
        Expectation::Version { map, .. } | Expectation::FewerThan { map, .. } => Place::Map(map),
        Expectation::LeaseAlive { .. } | Expectation::LeaseExpired { .. } => Place::Lease,
        Expectation::StreamExists { stream } | Expectation::ShorterThan { stream, .. } => Place::Stream(stream),
    }
}

fn write_place(write: &Write) -> Place<'_> {
    match write {
        Write::Put { map, .. }
        | Write::Delete { map, .. }
        | Write::Add { map, .. }
        | Write::ListAppend { map, .. }
        | Write::ListRemove { map, .. } => Place::Key(map),
        Write::Clear { map } | Write::DestroyMap { map } | Write::ExpireMap { map, .. } => Place::Map(map),
        Write::Append { stream, .. } => Place::Append(stream),
        Write::TrimStream { stream, .. }
        | Write::DeleteEvents { stream, .. }
        | Write::Ack { stream, .. }
        | Write::DestroyStream { stream }
        | Write::ExpireStream { stream, .. } => Place::Stream(stream),
        Write::GrantLease { .. } | Write::RenewLease { .. } | Write::DropLease { .. } => Place::Lease,
    }
}

struct MapUse {
    name: Arc<str>,
    written: bool,
    /// How many of its keys the operations name.
    keys: u64,
    /// Where the next of them goes, among the arguments of the script.
    next: u64,
}

struct StreamUse {
    name: Arc<str>,
    appends: u64,
}

struct Encoder<'a> {
    keys: &'a Keys,
    scope: &'a Scope,
    maps: Vec<MapUse>,
    streams: Vec<StreamUse>,
    /// The first string of the strings, then the keys of the maps in one run for each map, then the rest.
    strings: Vec<Value>,
    expectations: Vec<u64>,
    writes: Vec<u64>,
    largest_value: u64,
    leases: Vec<String>,
}

/// The place of the first string among the script's arguments, which count from 1.
const FIRST: u64 = 4;

impl<'a> Encoder<'a> {
    fn new(keys: &'a Keys, scope: &'a Scope) -> Self {
        Self {
            keys,
            scope,
            maps: Vec::new(),
            streams: Vec::new(),
            strings: Vec::new(),
            expectations: Vec::new(),
            writes: Vec::new(),
            largest_value: LARGEST,
            leases: Vec::new(),
        }
    }

    fn mention(&mut self, place: &Place<'_>, written: bool) {
        match place {
            Place::Map(map) => {
                self.map_index(map, written);
            }
            Place::Key(map) => {
                let index = self.map_index(map, written);
                self.maps[index].keys += 1;
            }
            Place::Stream(stream) => {
                self.stream_index(stream);
            }
            Place::Append(stream) => {
                let index = self.stream_index(stream);
                self.streams[index].appends += 1;
            }
            Place::Lease => {}
        }
    }

    fn map_index(&mut self, name: &Arc<str>, written: bool) -> usize {
        if let Some(index) = self.maps.iter().position(|map| map.name == *name) {
            self.maps[index].written |= written;
            return index;
        }
        self.maps.push(MapUse { name: name.clone(), written, keys: 0, next: 0 });
        self.maps.len() - 1
    }

    fn stream_index(&mut self, name: &Arc<str>) -> usize {
        if let Some(index) = self.streams.iter().position(|stream| stream.name == *name) {
            return index;
        }
        self.streams.push(StreamUse { name: name.clone(), appends: 0 });
        self.streams.len() - 1
    }

    /// Reserves the places of the maps' keys, one run for each map.
    fn lay_out_keys(&mut self) {
        let mut next = FIRST;
        for map in &mut self.maps {
            map.next = next;
            next += map.keys;
        }
        self.strings.resize((next - FIRST) as usize, Value::Null);
    }

    /// Adds a string, and says where it stands.
    fn string(&mut self, string: impl Into<Bytes>) -> u64 {
        self.strings.push(Value::Bytes(string.into()));
        FIRST + self.strings.len() as u64 - 1
    }

    fn text(&mut self, text: &str) -> u64 {
        self.string(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// Adds strings, and says where the first and the last stand.
    fn strings<S: Into<Bytes>>(&mut self, strings: impl IntoIterator<Item = S>) -> (u64, u64) {
        let first = FIRST + self.strings.len() as u64;
        self.strings.extend(strings.into_iter().map(|string| Value::Bytes(string.into())));
        (first, FIRST + self.strings.len() as u64 - 1)
    }

    fn lease(&mut self, lease: LeaseId) -> u64 {
        let id = lease.to_string();
        let place = self.text(&id);
        self.leases.push(id);
        place
    }

    fn ids(&mut self, ids: &[EventId]) -> (u64, u64) {
        self.strings(ids.iter().map(ToString::to_string))
    }

    /// The place of a map in the program's table, from 1.
    fn map(&mut self, name: &Arc<str>) -> u64 {
        self.map_index(name, false) as u64 + 1
    }

    fn stream(&mut self, name: &Arc<str>) -> u64 {
        self.stream_index(name) as u64 + 1
    }

    /// The places of a map and of one of its keys.
    fn key(&mut self, name: &Arc<str>, key: &Arc<str>) -> (u64, u64) {
        let index = self.map_index(name, false);
        let map = &mut self.maps[index];
        let place = map.next;
        map.next += 1;
        self.strings[(place - FIRST) as usize] = Value::Bytes(Bytes::copy_from_slice(key.as_bytes()));
        (index as u64 + 1, place)
    }

    fn expectation(&mut self, expectation: &Expectation) {
        let operation = match expectation {
            Expectation::Equals { map, key, value } => {
                let (map, key) = self.key(map, key);
                op([1, map, key, self.string(value.clone())])
            }
            Expectation::Absent { map, key } => {
                let (map, key) = self.key(map, key);
                op([2, map, key])
            }
            Expectation::Present { map, key } => {
                let (map, key) = self.key(map, key);
                op([3, map, key])
            }
            Expectation::Version { map, version } => op([4, self.map(map), self.text(&version_text(*version))]),
            Expectation::FewerThan { map, entries } => op([5, self.map(map), (*entries).min(LARGEST)]),
            Expectation::LeaseAlive { lease } => op([6, self.lease(*lease)]),
            Expectation::LeaseExpired { lease } => op([7, self.lease(*lease)]),
            Expectation::StreamExists { stream } => op([8, self.stream(stream)]),
            Expectation::ShorterThan { stream, length } => op([9, self.stream(stream), (*length).min(LARGEST)]),
        };
        push(&mut self.expectations, operation);
    }

    fn write(&mut self, write: &Write) {
        let operation = match write {
            Write::Put { map, key, value, binding } => {
                let (map, key) = self.key(map, key);
                let value = self.string(value.clone());
                match binding {
                    Binding::Permanent => op([1, map, key, value]),
                    Binding::Lease(lease) | Binding::Session { lease, .. } => {
                        op([2, map, key, value, self.lease(*lease)])
                    }
                    Binding::Ttl(ttl) => op([3, map, key, value, millis(*ttl)]),
                }
            }
            Write::Delete { map, key } => {
                let (map, key) = self.key(map, key);
                op([4, map, key])
            }
            Write::Add { map, key, delta, binding } => {
                let (map, key) = self.key(map, key);
                let delta = self.text(&delta.to_string());
                match binding {
                    Binding::Permanent => op([5, map, key, delta]),
                    Binding::Lease(lease) | Binding::Session { lease, .. } => {
                        op([25, map, key, delta, self.lease(*lease)])
                    }
                    Binding::Ttl(ttl) => op([26, map, key, delta, millis(*ttl)]),
                }
            }
            Write::ListAppend { map, key, items, duplicates } => {
                let (map, key) = self.key(map, key);
                let (first, last) = self.strings(items.iter().cloned());
                op([6, map, key, u64::from(*duplicates == Duplicates::Skip), first, last])
            }
            Write::ListRemove { map, key, items } => {
                let (map, key) = self.key(map, key);
                let (first, last) = self.strings(items.iter().cloned());
                op([7, map, key, first, last])
            }
            Write::Clear { map } => op([8, self.map(map)]),
            Write::DestroyMap { map } => op([9, self.map(map)]),
            Write::ExpireMap { map, deadline } => {
                let (kind, ttl) = deadline_parts(*deadline);
                op([10, self.map(map), kind, ttl])
            }
            Write::Append { stream, event, once } => {
                let fields = event_fields(event).flat_map(|(name, value)| [Bytes::from_static(name.as_bytes()), value]);
                let (first, last) = self.strings(fields);
                match once {
                    None => op([11, self.stream(stream), first, last]),
                    Some(once) => {
                        let id = self.text(&once.id);
                        op([24, self.stream(stream), first, last, id, millis(once.window)])
                    }
                }
            }
            Write::TrimStream { stream, trim: Trim::MaxLength { length, approximate } } => {
                op([12, self.stream(stream), u64::from(*approximate), self.text(&(*length).min(LENGTH).to_string())])
            }
            Write::TrimStream { stream, trim: Trim::Before { id, approximate } } => {
                op([13, self.stream(stream), u64::from(*approximate), self.text(&id.to_string())])
            }
            Write::TrimStream { stream, trim: Trim::OlderThan { age, approximate } } => {
                op([22, self.stream(stream), u64::from(*approximate), millis(*age).min(LARGEST)])
            }
            Write::TrimStream { stream, trim: Trim::Consumed } => op([23, self.stream(stream)]),
            Write::DeleteEvents { stream, ids } => {
                let (first, last) = self.ids(ids);
                op([14, self.stream(stream), first, last])
            }
            Write::Ack { stream, group, ids } => {
                let group = self.text(group.as_str());
                let (first, last) = self.ids(ids);
                op([15, self.stream(stream), group, first, last])
            }
            Write::DestroyStream { stream } => op([16, self.stream(stream)]),
            Write::ExpireStream { stream, deadline } => {
                let (kind, ttl) = deadline_parts(*deadline);
                op([17, self.stream(stream), kind, ttl])
            }
            Write::GrantLease { lease, ttl } => op([18, self.lease(*lease), millis(*ttl)]),
            Write::RenewLease { lease, ttl } => op([19, self.lease(*lease), millis(*ttl)]),
            Write::DropLease { lease } => op([20, self.lease(*lease)]),
        };
        push(&mut self.writes, operation);
    }

    fn finish(mut self) -> Encoded {
        let map_names: Vec<u64> = (0..self.maps.len()).map(|index| self.text(&self.maps[index].name.clone())).collect();
        let stream_names: Vec<u64> =
            (0..self.streams.len()).map(|index| self.text(&self.streams[index].name.clone())).collect();

        let mut program = Vec::with_capacity(64 + 3 * (self.expectations.len() + self.writes.len()));
        array(&mut program, 5);
        array(&mut program, self.maps.len());
        for (map, name) in self.maps.iter().zip(map_names) {
            array(&mut program, 3);
            // After encoding, `next` stands behind the last key.
            numbers(&mut program, &[name, map.next - map.keys, map.next - 1]);
        }
        array(&mut program, self.streams.len());
        for (stream, name) in self.streams.iter().zip(stream_names) {
            array(&mut program, 2);
            numbers(&mut program, &[name, stream.appends]);
        }
        array(&mut program, self.expectations.len());
        numbers(&mut program, &self.expectations);
        array(&mut program, self.writes.len());
        numbers(&mut program, &self.writes);
        numbers(&mut program, &[self.largest_value.min(LARGEST)]);

        let scope_key = |kind: &str, name: &str| Value::Bytes(self.keys.key(self.scope, kind, name));
        let mut args = Vec::with_capacity(self.maps.len() + self.streams.len() + 4 + self.strings.len());
        args.extend(self.maps.iter().map(|map| scope_key("m:", &map.name)));
        args.extend(self.streams.iter().map(|stream| scope_key("s:", &stream.name)));
        if args.is_empty() {
            args.push(Value::Bytes(self.keys.leases(self.scope)));
        }
        let keys = args.len();
        args.push(Value::Bytes(program.into()));
        args.push(Value::Bytes(self.keys.scope(self.scope).into()));
        args.push(Value::Bytes(format!("{:016x}", crate::entropy::number()).into()));
        args.append(&mut self.strings);
        Encoded {
            keys,
            args,
            maps: self.maps.into_iter().map(|map| (map.name, map.written)).collect(),
            streams: self.streams.into_iter().map(|stream| stream.name).collect(),
            leases: self.leases,
        }
    }
}

/// One operation: its code and operands, and how many they are.
type Operation = ([u64; 6], usize);

fn op<const N: usize>(numbers: [u64; N]) -> Operation {
    let mut operation = [0; 6];
    operation[..N].copy_from_slice(&numbers);
    (operation, N)
}

fn push(program: &mut Vec<u64>, (operation, count): Operation) {
    program.extend_from_slice(&operation[..count]);
}

/// The longest stream length that the server takes as a limit.
pub(super) const LENGTH: u64 = i64::MAX as u64;

/// A version as the script writes it.
pub(super) fn version_text(version: Option<Version>) -> String {
    version.map_or_else(String::new, |version| format!("{}{}", version.incarnation, version.revision))
}

pub(super) fn deadline_parts(deadline: Deadline) -> (u64, u64) {
    match deadline {
        Deadline::IfUnset(ttl) => (0, millis(ttl)),
        Deadline::Renew(ttl) => (1, millis(ttl)),
        Deadline::Never => (2, 0),
    }
}

/// Lifetimes are at most a hundred years, so this fits.
pub(super) fn millis(ttl: std::time::Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(LARGEST)
}

fn array(program: &mut Vec<u8>, length: usize) {
    // Writing to a vector cannot fail, and no transaction has so many operations.
    let _ = write_array_len(program, u32::try_from(length).unwrap_or(u32::MAX));
}

fn numbers(program: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        // Writing to a vector cannot fail.
        let _ = write_uint(program, *number);
    }
}
