//! Does the same to a backend and to the model, and compares what can be seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use proptest::{prelude::TestCaseError, prop_assert, prop_assert_eq};
use pulse_core::{
    Backend, Error, EventId, Expectation, LeaseId, MapFeed, Scope, Transaction, Version, Write, WriteResult,
};

use super::{
    steps::{Do, Expect, LEASES, LONG, MAPS, Name, STREAMS, Step},
    translate::{as_refusal, name},
    world::{self, World},
};

pub(super) type Outcome<T = ()> = Result<T, TestCaseError>;

/// What the backend answered about a group, the events of its stream, and the model's group.
pub(super) type Met<'a, T> = (T, BTreeMap<EventId, String>, &'a mut world::Group);

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

pub(super) fn unexpected(error: &Error) -> TestCaseError {
    TestCaseError::fail(format!("the backend failed: {error:?}"))
}

/// A backend, the model, and what is needed to translate between them.
pub(super) struct Driver<'a> {
    pub(super) backend: &'a dyn Backend,
    pub(super) scope: Scope,
    pub(super) world: World,
    pub(super) leases: [LeaseId; LEASES],
    /// Every event ever appended, by stream.
    pub(super) events: BTreeMap<Name, Vec<EventId>>,
    pub(super) incarnations: BTreeSet<u64>,
    pub(super) replicas: Vec<Replica>,
}

/// What the feed of one map adds up to.
pub(super) struct Replica {
    pub(super) map: Name,
    pub(super) feed: MapFeed,
    pub(super) version: Option<Version>,
    pub(super) content: BTreeMap<String, Bytes>,
}

impl<'a> Driver<'a> {
    async fn new(backend: &'a dyn Backend, scope: Scope) -> Outcome<Self> {
        let mut replicas = Vec::new();
        for map in MAPS {
            let id = scope.map(map).map_err(|e| unexpected(&e))?;
            let feed = backend.map_feed(&id).await.map_err(|e| unexpected(&e))?;
            replicas.push(Replica { map, feed, version: None, content: BTreeMap::new() });
        }
        let began = backend.server_time(&scope).await.map_err(|e| unexpected(&e))?.0;
        Ok(Self {
            backend,
            scope,
            world: World { began, ..World::default() },
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
            Step::Missed(stream, group) => self.missed(stream, group).await,
            Step::RemoveConsumer(stream, group, consumer) => self.remove_consumer(stream, group, consumer).await,
        }
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
                let stream = STREAMS.into_iter().find(|name| **name == **stream);
                let events = self.events.entry(stream.unwrap_or_default()).or_default();
                // One that was appended by the same once-id before is nothing new.
                if !events.contains(id) {
                    ids.push(*id);
                    events.push(*id);
                }
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
}
