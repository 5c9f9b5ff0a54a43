//! Steps and answers in the words of the backend and of the model.

use std::time::Duration;

use bytes::Bytes;
use pulse_core::{
    Binding, Consumer, Deadline, Duplicates, Error, EventId, Expectation, Group, Incarnation, NewEvent, Once, Revision,
    Trim, Version, Write,
};

use super::{
    drive::{Driver, Outcome, unexpected},
    steps::{At, Bound, Do, EventRef, Expect, Expiry, Idle, Name},
    world::{self, Refusal},
};

impl Driver<'_> {
    pub(super) fn stream(&self, stream: &str) -> Outcome<pulse_core::StreamId> {
        self.scope.stream(stream).map_err(|e| unexpected(&e))
    }

    pub(super) fn event(&self, stream: &str, event: EventRef) -> EventId {
        match self.events.get(stream) {
            Some(events) if !events.is_empty() => events[event.0 % events.len()],
            _ => EventId::new(1, 1),
        }
    }

    pub(super) fn ids(&self, stream: &str, events: &[EventRef]) -> Vec<EventId> {
        events.iter().map(|event| self.event(stream, *event)).collect()
    }

    pub(super) fn expectation(&self, expect: &Expect) -> Expectation {
        match *expect {
            Expect::Equals(map, key, value) => {
                Expectation::Equals { map: map.into(), key: key.into(), value: value.into() }
            }
            Expect::Absent(map, key) => Expectation::Absent { map: map.into(), key: key.into() },
            Expect::Present(map, key) => Expectation::Present { map: map.into(), key: key.into() },
            Expect::Version(map, at) => {
                let now = self.world.maps.get(map).and_then(world::Map::version);
                let nowhere = Version { incarnation: Incarnation(1), revision: Revision(1) };
                let version = match at {
                    At::Now => now,
                    At::Nothing => None,
                    At::Earlier => {
                        let now = now.unwrap_or(nowhere);
                        Some(Version { revision: Revision(now.revision.0 - 1), ..now })
                    }
                };
                Expectation::Version { map: map.into(), version }
            }
            Expect::FewerThan(map, entries) => Expectation::FewerThan { map: map.into(), entries },
            Expect::LeaseAlive(lease) => Expectation::LeaseAlive { lease: self.leases[lease] },
            Expect::LeaseExpired(lease) => Expectation::LeaseExpired { lease: self.leases[lease] },
            Expect::StreamExists(stream) => Expectation::StreamExists { stream: stream.into() },
            Expect::ShorterThan(stream, length) => Expectation::ShorterThan { stream: stream.into(), length },
        }
    }

    fn binding(&self, bound: Bound) -> Binding {
        match bound {
            Bound::Permanent => Binding::Permanent,
            Bound::Lease(lease) => Binding::Lease(self.leases[lease]),
            Bound::Ttl(ttl) => Binding::Ttl(ttl),
        }
    }

    pub(super) fn write(&self, write: &Do) -> Outcome<Write> {
        let bytes = |items: &[Name]| items.iter().map(|item| Bytes::from_static(item.as_bytes())).collect();
        Ok(match write {
            Do::Put(map, key, value, bound) => {
                let binding = self.binding(*bound);
                Write::Put { map: (*map).into(), key: (*key).into(), value: Bytes::from_static(value), binding }
            }
            Do::Delete(map, key) => Write::Delete { map: (*map).into(), key: (*key).into() },
            Do::Add(map, key, delta, bound) => {
                let binding = self.binding(*bound);
                Write::Add { map: (*map).into(), key: (*key).into(), delta: *delta, binding }
            }
            Do::ListAppend { map, key, items, skip } => {
                let duplicates = if *skip { Duplicates::Skip } else { Duplicates::Keep };
                Write::ListAppend { map: (*map).into(), key: (*key).into(), items: bytes(items), duplicates }
            }
            Do::ListRemove(map, key, items) => {
                Write::ListRemove { map: (*map).into(), key: (*key).into(), items: bytes(items) }
            }
            Do::Clear(map) => Write::Clear { map: (*map).into() },
            Do::DestroyMap(map) => Write::DestroyMap { map: (*map).into() },
            Do::ExpireMap(map, expiry) => Write::ExpireMap { map: (*map).into(), deadline: deadline(*expiry) },
            Do::Append(stream, event) => {
                Write::Append { stream: (*stream).into(), event: NewEvent::new(*event, "p"), once: None }
            }
            Do::AppendOnce { stream, event, once, window } => Write::Append {
                stream: (*stream).into(),
                event: NewEvent::new(*event, "p"),
                once: Some(Once::new(*once, *window)),
            },
            Do::TrimLength(stream, length) => {
                let trim = Trim::MaxLength { length: *length, approximate: false };
                Write::TrimStream { stream: (*stream).into(), trim }
            }
            Do::TrimBefore(stream, event) => {
                let trim = Trim::Before { id: self.event(stream, *event), approximate: false };
                Write::TrimStream { stream: (*stream).into(), trim }
            }
            Do::TrimOlder(stream, age) => {
                Write::TrimStream { stream: (*stream).into(), trim: Trim::OlderThan { age: *age, approximate: false } }
            }
            Do::TrimConsumed(stream) => Write::TrimStream { stream: (*stream).into(), trim: Trim::Consumed },
            Do::DeleteEvents(stream, events) => {
                Write::DeleteEvents { stream: (*stream).into(), ids: self.ids(stream, events) }
            }
            Do::Ack(stream, group, events) => {
                Write::Ack { stream: (*stream).into(), group: name(group)?, ids: self.ids(stream, events) }
            }
            Do::DestroyStream(stream) => Write::DestroyStream { stream: (*stream).into() },
            Do::ExpireStream(stream, expiry) => {
                Write::ExpireStream { stream: (*stream).into(), deadline: deadline(*expiry) }
            }
            Do::Grant(lease, ttl) => Write::GrantLease { lease: self.leases[*lease], ttl: *ttl },
            Do::Renew(lease, ttl) => Write::RenewLease { lease: self.leases[*lease], ttl: *ttl },
            Do::Drop(lease) => Write::DropLease { lease: self.leases[*lease] },
        })
    }
}

pub(super) fn as_refusal(error: &Error) -> Option<Refusal> {
    match error {
        Error::ExpectationFailed { failed, .. } => Some(Refusal::Expectation(failed.index, failed.found.clone())),
        Error::LeaseLost { lease, .. } => Some(Refusal::LeaseLost(*lease)),
        Error::WrongValue { map, key, .. } => {
            let map = map.rsplit('/').next().unwrap_or_default();
            Some(Refusal::WrongValue(map.to_owned(), key.clone()))
        }
        _ => None,
    }
}

pub(super) fn name(group: &str) -> Outcome<Group> {
    Group::new(group).map_err(|e| unexpected(&e))
}

pub(super) fn consumer_name(consumer: &str) -> Outcome<Consumer> {
    Consumer::new(consumer).map_err(|e| unexpected(&e))
}

pub(super) fn deadline(expiry: Expiry) -> Deadline {
    match expiry {
        Expiry::IfUnset(ttl) => Deadline::IfUnset(ttl),
        Expiry::Renew(ttl) => Deadline::Renew(ttl),
        Expiry::Never => Deadline::Never,
    }
}

pub(super) fn duration(idle: Idle, long: Duration) -> Duration {
    match idle {
        Idle::Zero => Duration::ZERO,
        Idle::Long => long,
    }
}
