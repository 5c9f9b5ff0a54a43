//! Consumer groups: does the same to both, and follows what the backend handed out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::{prelude::TestCaseError, prop_assert, prop_assert_eq};
use pulse_core::{Acks, Claimed, Error, EventId, GroupStart, Missed};

use super::{
    drive::{Driver, Met, Outcome, unexpected},
    steps::{EventRef, Idle, LONG, Name, Start},
    translate::{consumer_name, duration, name},
    world::{self, Pending, World},
};

impl<'a> Driver<'a> {
    pub(super) async fn create_group(&mut self, stream: Name, group: Name, start: Start) -> Outcome {
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
    pub(super) fn group<T>(
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

    pub(super) async fn read(&mut self, stream: Name, group: Name, consumer: Name, limit: usize) -> Outcome {
        let (id, of, by) = (self.stream(stream)?, name(group)?, consumer_name(consumer)?);
        let answer = self.backend.group_read(&id, &of, &by, limit, Duration::ZERO, Acks::Explicit).await;
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

    pub(super) async fn claim(
        &mut self,
        stream: Name,
        group: Name,
        consumer: Name,
        idle: Idle,
        limit: usize,
    ) -> Outcome {
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

    pub(super) async fn set_idle(
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

    pub(super) async fn missed(&mut self, stream: Name, group: Name) -> Outcome {
        let taken = self.backend.group_missed(&self.stream(stream)?, &name(group)?).await;
        let group = self.world.streams.get_mut(stream).and_then(|stream| stream.groups.get_mut(group));
        let expected = group.and_then(|group| group.missed.take());
        let expected = expected.map(|(after, before, events)| Missed::new(after, before, Some(events)));
        prop_assert_eq!(taken.map_err(|e| unexpected(&e))?, expected);
        Ok(())
    }

    pub(super) async fn remove_consumer(&mut self, stream: Name, group: Name, consumer: Name) -> Outcome {
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
