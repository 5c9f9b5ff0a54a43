//! Does the same to a backend and to the model, and compares what can be seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use proptest::{prelude::TestCaseError, prop_assert, prop_assert_eq};
use pulse_core::{
    Backend, Binding, Change, Claimed, Consumer, Deadline, Duplicates, Error, EventId, Expectation, FeedItem, Group,
    GroupStart, Incarnation, LeaseId, MapFeed, NewEvent, PendingQuery, Revision, Scope, Transaction, Trim, Version,
    Write, WriteResult,
};

use crate::{
    steps::{At, Bound, Do, EventRef, Expect, Expiry, Idle, LEASES, LONG, MAPS, Name, STREAMS, Start, Step},
    world::{self, Pending, Refusal, World},
};

type Outcome<T = ()> = Result<T, TestCaseError>;

/// What the backend answered about a group, the events of its stream, and the model's group.
type Met<'a, T> = (T, BTreeMap<EventId, String>, &'a mut world::Group);

/// Runs all steps; the error says how backend and model differ.
pub(crate) async fn run(backend: &dyn Backend, scope: Scope, steps: &[Step]) -> Outcome {
    let mut driver = Driver::new(backend, scope).await?;
    for (index, step) in steps.iter().enumerate() {
        driver.step(step).await.map_err(|error| at(index, step, &error))?;
        driver.compare().await.map_err(|error| at(index, step, &error))?;
    }
    Ok(())
}

fn at(index: usize, step: &Step, error: &TestCaseError) -> TestCaseError {
    TestCaseError::fail(format!("at step {index}, {step:?}: {error}"))
}

fn unexpected(error: &Error) -> TestCaseError {
    TestCaseError::fail(format!("the backend failed: {error:?}"))
}

/// A backend, the model, and what is needed to translate between them.
struct Driver<'a> {
    backend: &'a dyn Backend,
    scope: Scope,
    world: World,
    leases: [LeaseId; LEASES],
    /// Every event ever appended, by stream.
    events: BTreeMap<Name, Vec<EventId>>,
    incarnations: BTreeSet<u64>,
    replicas: Vec<Replica>,
}

/// What the feed of one map adds up to.
struct Replica {
    map: Name,
    feed: MapFeed,
    version: Option<Version>,
    content: BTreeMap<String, Bytes>,
}

impl<'a> Driver<'a> {
    async fn new(backend: &'a dyn Backend, scope: Scope) -> Outcome<Self> {
        let mut replicas = Vec::new();
        for map in MAPS {
            let id = scope.map(map).map_err(|e| unexpected(&e))?;
            let feed = backend.map_feed(&id).await.map_err(|e| unexpected(&e))?;
            replicas.push(Replica { map, feed, version: None, content: BTreeMap::new() });
        }
        Ok(Self {
            backend,
            scope,
            world: World::default(),
            leases: std::array::from_fn(|_| LeaseId::random()),
            events: BTreeMap::new(),
            incarnations: BTreeSet::new(),
            replicas,
        })
    }

    async fn step(&mut self, step: &Step) -> Outcome {
        match step {
            Step::Commit(expects, writes) => self.commit(expects, writes).await,
            Step::Sweep => self.sweep().await,
            Step::Pass(time) => {
                tokio::time::advance(*time).await;
                self.world.pass(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
                Ok(())
            }
            Step::CreateGroup(stream, group, start) => self.create_group(stream, group, *start).await,
            Step::DestroyGroup(stream, group) => {
                let destroyed = self.backend.group_destroy(&self.stream(stream)?, &name(group)?).await;
                let groups = self.world.streams.get_mut(*stream).map(|stream| &mut stream.groups);
                let expected = groups.is_some_and(|groups| groups.remove(*group).is_some());
                prop_assert_eq!(destroyed.map_err(|e| unexpected(&e))?, expected);
                Ok(())
            }
            Step::Read(stream, group, consumer, limit) => self.read(stream, group, consumer, *limit).await,
            Step::Claim { stream, group, consumer, idle, limit } => {
                self.claim(stream, group, consumer, *idle, *limit).await
            }
            Step::SetIdle { stream, group, consumer, events, idle } => {
                self.set_idle(stream, group, consumer, events, *idle).await
            }
            Step::RemoveConsumer(stream, group, consumer) => self.remove_consumer(stream, group, consumer).await,
        }
    }

    fn stream(&self, stream: &str) -> Outcome<pulse_core::StreamId> {
        self.scope.stream(stream).map_err(|e| unexpected(&e))
    }

    fn event(&self, stream: &str, event: EventRef) -> EventId {
        match self.events.get(stream) {
            Some(events) if !events.is_empty() => events[event.0 % events.len()],
            _ => EventId::new(1, 1),
        }
    }

    fn ids(&self, stream: &str, events: &[EventRef]) -> Vec<EventId> {
        events.iter().map(|event| self.event(stream, *event)).collect()
    }

    async fn commit(&mut self, expects: &[Expect], writes: &[Do]) -> Outcome {
        let expectations: Vec<Expectation> = expects.iter().map(|expect| self.expectation(expect)).collect();
        let writes: Vec<Write> = writes.iter().map(|write| self.write(write)).collect::<Outcome<_>>()?;
        let transaction = expectations.iter().cloned().fold(Transaction::new(&self.scope), Transaction::expect);
        let transaction = writes.iter().cloned().fold(transaction, Transaction::write);
        // Which ids the backend will give is not known yet; any that grow do for finding out whether it should refuse.
        let predicted = self.world.clone().commit(&expectations, &writes, &mut |last| last.next().unwrap_or(last));
        let committed = match (self.backend.commit(transaction).await, predicted) {
            (Ok(committed), Ok(_)) => committed,
            (Err(error), Err(refusal)) => {
                prop_assert_eq!(as_refusal(&error), Some(refusal), "the backend refused: {:?}", error);
                return Ok(());
            }
            (Ok(committed), Err(refusal)) => {
                return Err(TestCaseError::fail(format!("should be refused ({refusal:?}), but {committed:?}")));
            }
            (Err(error), Ok(_)) => return Err(TestCaseError::fail(format!("should be committed, but {error:?}"))),
        };
        prop_assert_eq!(committed.results.len(), writes.len());
        let mut ids = Vec::new();
        for (write, result) in writes.iter().zip(&committed.results) {
            if let (Write::Append { stream, .. }, WriteResult::Event(id)) = (write, result) {
                ids.push(*id);
                let stream = STREAMS.into_iter().find(|name| **name == **stream);
                self.events.entry(stream.unwrap_or_default()).or_default().push(*id);
            }
        }
        let mut ids = ids.into_iter();
        let mut grown = true;
        let results = self.world.commit(&expectations, &writes, &mut |last| {
            let id = ids.next().unwrap_or_default();
            grown &= id > last;
            id
        });
        prop_assert!(grown, "an event id is not greater than the last: {:?}", committed);
        prop_assert_eq!(Ok(&committed.results), results.as_ref());
        self.learn_incarnations(&committed.versions)?;
        prop_assert_eq!(&committed.versions, &self.versions_of(&writes));
        Ok(())
    }

    /// Takes over the incarnations that the backend drew for new maps.
    fn learn_incarnations(&mut self, versions: &[(std::sync::Arc<str>, Option<Version>)]) -> Outcome {
        for (map, version) in versions {
            let Some(map) = self.world.maps.get_mut(&**map) else { continue };
            if let (None, Some(version)) = (map.incarnation, version) {
                prop_assert!(self.incarnations.insert(version.incarnation.0), "an incarnation came twice");
                map.incarnation = Some(version.incarnation);
            }
        }
        Ok(())
    }

    /// What a commit reports of the maps that its writes name.
    fn versions_of(&self, writes: &[Write]) -> Vec<(std::sync::Arc<str>, Option<Version>)> {
        let mut versions: Vec<(std::sync::Arc<str>, Option<Version>)> = Vec::new();
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
            if !versions.iter().any(|(named, _)| named == map) {
                versions.push((map.clone(), self.world.maps.get(&**map).and_then(world::Map::version)));
            }
        }
        versions
    }

    fn expectation(&self, expect: &Expect) -> Expectation {
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

    fn write(&self, write: &Do) -> Outcome<Write> {
        let bytes = |items: &[Name]| items.iter().map(|item| Bytes::from_static(item.as_bytes())).collect();
        Ok(match write {
            Do::Put(map, key, value, bound) => {
                let binding = match *bound {
                    Bound::Permanent => Binding::Permanent,
                    Bound::Lease(lease) => Binding::Lease(self.leases[lease]),
                    Bound::Ttl(ttl) => Binding::Ttl(ttl),
                };
                Write::Put { map: (*map).into(), key: (*key).into(), value: Bytes::from_static(value), binding }
            }
            Do::Delete(map, key) => Write::Delete { map: (*map).into(), key: (*key).into() },
            Do::Add(map, key, delta) => Write::Add { map: (*map).into(), key: (*key).into(), delta: *delta },
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
            Do::Append(stream, event) => Write::Append { stream: (*stream).into(), event: NewEvent::new(*event, "p") },
            Do::TrimLength(stream, length) => {
                let trim = Trim::MaxLength { length: *length, approximate: false };
                Write::TrimStream { stream: (*stream).into(), trim }
            }
            Do::TrimBefore(stream, event) => {
                let trim = Trim::Before { id: self.event(stream, *event), approximate: false };
                Write::TrimStream { stream: (*stream).into(), trim }
            }
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

    async fn sweep(&mut self) -> Outcome {
        let swept = self.backend.sweep(&self.scope).await.map_err(|e| unexpected(&e))?;
        let expected = self.world.sweep();
        prop_assert_eq!(swept.leases.iter().copied().collect::<BTreeSet<_>>(), expected.leases.clone());
        prop_assert_eq!((swept.leases.len(), swept.entries), (expected.leases.len(), expected.entries));
        // On a server, time has gone on since the model's clock was started.
        let close = |found: Duration, expected| expected - found.min(expected) < LONG / 10 && found <= expected;
        let next = expected.next_deadline.map(Duration::from_millis);
        let agree = match (swept.next_deadline, next) {
            (Some(found), Some(expected)) if expected < LONG / 2 => found == expected,
            (Some(found), Some(expected)) => close(found, expected),
            (found, expected) => found == expected,
        };
        prop_assert!(agree, "the next deadline is in {:?}, not {:?}", next, swept.next_deadline);
        for lease in &mut self.leases {
            if expected.leases.contains(lease) {
                // How long a backend remembers a swept lease is its own business, so none is granted again.
                *lease = LeaseId::random();
            }
        }
        Ok(())
    }

    async fn create_group(&mut self, stream: Name, group: Name, start: Start) -> Outcome {
        let after = match start {
            Start::After(event) => self.event(stream, event),
            _ => EventId::ZERO,
        };
        let asked = match start {
            Start::Newest => GroupStart::Newest,
            Start::Oldest => GroupStart::Oldest,
            Start::After(_) => GroupStart::After(after),
        };
        let created = self.backend.group_create(&self.stream(stream)?, &name(group)?, asked).await;
        let stream = self.world.streams.entry(stream.to_owned()).or_default();
        let cursor = if let Start::Newest = start { stream.last } else { after };
        let expected = !stream.groups.contains_key(group);
        stream.groups.entry(group.to_owned()).or_insert_with(|| world::Group { cursor, ..world::Group::default() });
        prop_assert_eq!(created.map_err(|e| unexpected(&e))?, expected);
        Ok(())
    }

    /// The model's group, or the check that the backend has none either.
    fn group<T>(
        world: &'a mut World,
        (stream, group): (Name, Name),
        answer: Result<T, Error>,
    ) -> Outcome<Option<Met<'a, T>>> {
        let stream = world.streams.get_mut(stream);
        let found = stream.and_then(|stream| Some((stream.events.clone(), stream.groups.get_mut(group)?)));
        match (answer, found) {
            (Ok(answer), Some((events, group))) => Ok(Some((answer, events, group))),
            (Err(Error::NoGroup { .. }), None) => Ok(None),
            (Err(error), _) => Err(unexpected(&error)),
            (Ok(_), None) => Err(TestCaseError::fail("there is no such group, but the backend knows it")),
        }
    }

    async fn read(&mut self, stream: Name, group: Name, consumer: Name, limit: usize) -> Outcome {
        let (id, of, by) = (self.stream(stream)?, name(group)?, consumer_name(consumer)?);
        let answer = self.backend.group_read(&id, &of, &by, limit, Duration::ZERO).await;
        let mut world = std::mem::take(&mut self.world);
        let result = (|| {
            let Some((deliveries, events, group)) = Driver::group(&mut world, (stream, group), answer)? else {
                return Ok(());
            };
            let expected: Vec<EventId> = events.keys().copied().filter(|id| *id > group.cursor).take(limit).collect();
            let read: Vec<EventId> = deliveries.iter().map(|delivery| delivery.entry.id).collect();
            prop_assert_eq!(&read, &expected);
            for delivery in deliveries {
                prop_assert_eq!(delivery.deliveries, 1);
                let event = delivery.entry.event.map(|event| event.name.to_string());
                prop_assert_eq!(event.as_ref().ok(), events.get(&delivery.entry.id));
                group.consumers.insert(consumer.to_owned());
                group.cursor = delivery.entry.id;
                let pending = Pending { consumer: consumer.to_owned(), deliveries: 1, long_idle: Some(false) };
                group.pending.insert(delivery.entry.id, pending);
            }
            Ok(())
        })();
        self.world = world;
        result
    }

    async fn claim(&mut self, stream: Name, group: Name, consumer: Name, idle: Idle, limit: usize) -> Outcome {
        let (id, of, by) = (self.stream(stream)?, name(group)?, consumer_name(consumer)?);
        let min_idle = duration(idle, LONG);
        let answer = self.backend.group_claim(&id, &of, &by, min_idle, limit).await;
        let mut world = std::mem::take(&mut self.world);
        let result = (|| {
            let Some((claimed, events, group)) = Driver::group(&mut world, (stream, group), answer)? else {
                return Ok(());
            };
            if !claimed.deliveries.is_empty() {
                group.consumers.insert(consumer.to_owned());
            }
            follow_claim(group, &events, &claimed, (consumer, idle, limit))
        })();
        self.world = world;
        result
    }

    async fn set_idle(
        &mut self,
        stream: Name,
        group: Name,
        consumer: Name,
        events: &[EventRef],
        idle: Idle,
    ) -> Outcome {
        let (id, of, by) = (self.stream(stream)?, name(group)?, consumer_name(consumer)?);
        let ids = self.ids(stream, events);
        let answer = self.backend.group_set_idle(&id, &of, &by, &ids, duration(idle, LONG * 2)).await;
        let mut world = std::mem::take(&mut self.world);
        let result = (|| {
            let Some((set, events, group)) = Driver::group(&mut world, (stream, group), answer)? else {
                return Ok(());
            };
            let set: BTreeSet<EventId> = set.into_iter().collect();
            let mut expected = BTreeSet::new();
            for id in ids {
                let Some(pending) = group.pending.get_mut(&id) else { continue };
                if pending.consumer == consumer {
                    expected.insert(id);
                    pending.long_idle = events.contains_key(&id).then_some(matches!(idle, Idle::Long));
                }
            }
            prop_assert_eq!(set, expected);
            Ok(())
        })();
        self.world = world;
        result
    }

    async fn remove_consumer(&mut self, stream: Name, group: Name, consumer: Name) -> Outcome {
        let (id, of, by) = (self.stream(stream)?, name(group)?, consumer_name(consumer)?);
        let answer = self.backend.group_remove_consumer(&id, &of, &by).await;
        let mut world = std::mem::take(&mut self.world);
        let result = (|| {
            let Some((removed, _, group)) = Driver::group(&mut world, (stream, group), answer)? else { return Ok(()) };
            let free = group.pending.values().all(|pending| pending.consumer != consumer);
            prop_assert_eq!(removed, free);
            if free {
                group.consumers.remove(consumer);
            }
            Ok(())
        })();
        self.world = world;
        result
    }

    async fn compare(&mut self) -> Outcome {
        for index in 0..self.replicas.len() {
            self.compare_map(index).await?;
        }
        for stream in STREAMS {
            self.compare_stream(stream).await?;
        }
        Ok(())
    }

    async fn compare_map(&mut self, index: usize) -> Outcome {
        let replica = &mut self.replicas[index];
        let map = self.scope.map(replica.map).map_err(|e| unexpected(&e))?;
        let expected = self.world.maps.get(replica.map).cloned().unwrap_or_default();
        let version = self.backend.map_version(&map).await.map_err(|e| unexpected(&e))?;
        prop_assert_eq!(version, expected.version(), "the version of map {}", replica.map);
        let truth: BTreeMap<String, Bytes> =
            expected.entries.into_iter().map(|(key, entry)| (key, entry.value)).collect();
        let page = self.backend.map_page(&map, None, 1000).await.map_err(|e| unexpected(&e))?;
        let content: BTreeMap<String, Bytes> =
            page.entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        prop_assert_eq!(&content, &truth, "the content of map {}", replica.map);
        replica.catch_up(version).await?;
        prop_assert_eq!(&replica.content, &truth, "what the feed of map {} adds up to", replica.map);
        Ok(())
    }

    async fn compare_stream(&self, stream: Name) -> Outcome {
        let id = self.stream(stream)?;
        let info = self.backend.stream_info(&id).await.map_err(|e| unexpected(&e))?;
        let Some(expected) = self.world.streams.get(stream) else {
            prop_assert_eq!(info, None, "stream {} does not exist", stream);
            return Ok(());
        };
        let Some(info) = info else { return Err(TestCaseError::fail(format!("stream {stream} should exist"))) };
        prop_assert_eq!(
            (info.length, info.appended, info.first, info.last, info.max_deleted, info.groups),
            (
                expected.events.len() as u64,
                expected.appended,
                expected.events.keys().next().copied(),
                expected.last,
                expected.max_deleted,
                expected.groups.len() as u64
            ),
            "the description of stream {}",
            stream
        );
        let read = self.backend.stream_read(&id, EventId::ZERO, 10_000, Duration::ZERO).await;
        let events: BTreeMap<EventId, String> = read
            .map_err(|e| unexpected(&e))?
            .into_iter()
            .map(|entry| {
                (entry.id, entry.event.map_or_else(|malformed| malformed.reason, |event| event.name.to_string()))
            })
            .collect();
        prop_assert_eq!(&events, &expected.events, "the events of stream {}", stream);
        for (group, expected_group) in &expected.groups {
            self.compare_group(stream, group, expected, expected_group).await?;
        }
        Ok(())
    }

    async fn compare_group(&self, stream: Name, group: &str, of: &world::Stream, expected: &world::Group) -> Outcome {
        let (id, group) = (self.stream(stream)?, name(group)?);
        let pending = self.backend.group_pending(&id, &group, PendingQuery::new(10_000)).await;
        let pending: Vec<(EventId, String, u64)> = pending
            .map_err(|e| unexpected(&e))?
            .into_iter()
            .map(|pending| (pending.id, pending.consumer.as_str().to_owned(), pending.deliveries))
            .collect();
        let expected_pending: Vec<(EventId, String, u64)> =
            expected.pending.iter().map(|(id, p)| (*id, p.consumer.clone(), p.deliveries)).collect();
        prop_assert_eq!(pending, expected_pending, "what is pending in group {} of {}", group, stream);
        let info = self.backend.group_info(&id, &group).await.map_err(|e| unexpected(&e))?;
        let Some(info) = info else { return Err(TestCaseError::fail(format!("group {group} should exist"))) };
        prop_assert_eq!((info.last_delivered, info.pending), (expected.cursor, expected.pending.len() as u64));
        if let Some(lag) = info.lag {
            prop_assert_eq!(lag, of.after(expected.cursor).count() as u64, "the lag of group {} of {}", group, stream);
        }
        for consumer in &info.consumers {
            let held = expected.pending.values().filter(|pending| pending.consumer == consumer.name.as_str()).count();
            prop_assert_eq!(consumer.pending, held as u64, "what is pending for {}", consumer.name);
        }
        for consumer in &expected.consumers {
            let known = info.consumers.iter().any(|known| known.name.as_str() == consumer);
            prop_assert!(known, "consumer {} of group {} of {} should exist", consumer, group, stream);
        }
        Ok(())
    }
}

impl Replica {
    /// Applies the feed until it has brought the replica to the version.
    async fn catch_up(&mut self, version: Option<Version>) -> Outcome {
        while self.version != version {
            let next = tokio::time::timeout(Duration::from_secs(10), self.feed.next()).await;
            let Ok(Some(FeedItem::Commit(commit))) = next else {
                return Err(TestCaseError::fail(format!(
                    "the feed of {} stands at {:?}, then {next:?}, but the map is at {version:?}",
                    self.map, self.version
                )));
            };
            prop_assert!(commit.continues(self.version), "the feed jumps from {:?} to {:?}", self.version, commit);
            prop_assert_eq!(commit.after.0, commit.before.0 + 1);
            for change in &commit.changes {
                match change {
                    Change::Put { key, value } => {
                        self.content.insert(key.to_string(), value.clone());
                    }
                    Change::Deleted { key } => {
                        self.content.remove(&**key);
                    }
                    Change::Cleared | Change::Destroyed => self.content.clear(),
                    other => return Err(TestCaseError::fail(format!("unknown change {other:?}"))),
                }
            }
            self.version = commit.version();
        }
        Ok(())
    }
}

/// Checks a claim and makes the model follow it.
fn follow_claim(
    group: &mut world::Group,
    events: &BTreeMap<EventId, String>,
    claimed: &Claimed,
    (consumer, idle, limit): (Name, Idle, usize),
) -> Outcome {
    let mut expected = (Vec::new(), Vec::new());
    for (id, pending) in &group.pending {
        let there = events.contains_key(id);
        let eligible = match (idle, pending.long_idle) {
            (Idle::Zero, _) => true,
            (Idle::Long, Some(long_idle)) => long_idle,
            (Idle::Long, None) => claimed.deleted.contains(id),
        };
        if eligible && expected.0.len() + expected.1.len() < limit {
            if there { &mut expected.0 } else { &mut expected.1 }.push(*id);
        }
    }
    let taken: Vec<EventId> = claimed.deliveries.iter().map(|delivery| delivery.entry.id).collect();
    prop_assert_eq!((&taken, &claimed.deleted), (&expected.0, &expected.1), "what was claimed, and what was deleted");
    for id in &claimed.deleted {
        group.pending.remove(id);
    }
    for delivery in &claimed.deliveries {
        let Some(pending) = group.pending.get_mut(&delivery.entry.id) else { continue };
        pending.consumer = consumer.to_owned();
        pending.deliveries += 1;
        pending.long_idle = Some(false);
        prop_assert_eq!(delivery.deliveries, pending.deliveries);
        prop_assert!(delivery.entry.event.is_ok(), "{:?}", delivery);
    }
    Ok(())
}

fn as_refusal(error: &Error) -> Option<Refusal> {
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

fn name(group: &str) -> Outcome<Group> {
    Group::new(group).map_err(|e| unexpected(&e))
}

fn consumer_name(consumer: &str) -> Outcome<Consumer> {
    Consumer::new(consumer).map_err(|e| unexpected(&e))
}

fn deadline(expiry: Expiry) -> Deadline {
    match expiry {
        Expiry::IfUnset(ttl) => Deadline::IfUnset(ttl),
        Expiry::Renew(ttl) => Deadline::Renew(ttl),
        Expiry::Never => Deadline::Never,
    }
}

fn duration(idle: Idle, long: Duration) -> Duration {
    match idle {
        Idle::Zero => Duration::ZERO,
        Idle::Long => long,
    }
}
