//! What a dead letter is made of: the original event, with headers that say what became of it.

use std::{ops::Deref, time::SystemTime};

use bytes::Bytes;
use pulse_core::{Event as CoreEvent, EventId, Group, Headers, NewEvent, StreamId};

use crate::Event;

/// Why the event is dead.
const REASON: &str = "pulse-dead-reason";
/// The id that the event had.
const ID: &str = "pulse-dead-id";
/// How often it was delivered.
const DELIVERIES: &str = "pulse-dead-deliveries";
/// The only sink that a replayed event is for.
const FOR: &str = "pulse-for";

/// The longest reason that is kept, in bytes: an error's text may have any length.
const LONGEST_REASON: usize = 4096;

/// The name of the stream of the dead letters of a sink.
pub(crate) fn stream_name(source: &StreamId, group: &Group) -> String {
    format!("{}/dead/{group}", source.name())
}

/// An event that a sink gave up on. Dereferences to the [`Event`] as it stands among the dead letters: name, topic and
/// payload are those of the original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    event: Event,
    reason: String,
    original: EventId,
    deliveries: u64,
}

impl DeadLetter {
    /// Makes sense of an event of [`DeadLetters::stream`](super::DeadLetters::stream); `None` if it is no dead letter.
    #[must_use]
    pub fn read(event: Event) -> Option<Self> {
        let text = |name| std::str::from_utf8(event.headers().get(name)?).ok();
        let reason = text(REASON)?.to_owned();
        let original = text(ID)?.parse().ok()?;
        let deliveries = text(DELIVERIES)?.parse().ok()?;
        Some(Self { event, reason, original, deliveries })
    }

    /// Why the sink gave up.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The id that the event had in the stream.
    #[must_use]
    pub fn original_id(&self) -> EventId {
        self.original
    }

    /// How often it had been delivered.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// When the sink gave up, by the server's clock.
    #[must_use]
    pub fn died_at(&self) -> SystemTime {
        self.event.created_at()
    }

    /// The event as it is added again.
    pub(super) fn revive(&self, group: &Group) -> NewEvent {
        let mut headers = originals(self.headers());
        headers.push(FOR, Bytes::copy_from_slice(group.as_str().as_bytes()));
        again(self.name(), self.topic(), headers, self.payload().clone())
    }
}

impl Deref for DeadLetter {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.event
    }
}

/// The letter of an event that a sink gives up on.
pub(crate) fn bury(event: &CoreEvent, reason: &str, deliveries: u64) -> NewEvent {
    let mut headers = originals(&event.headers);
    let end = (0..=reason.len().min(LONGEST_REASON)).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    headers.push(REASON, reason[..end].to_owned());
    headers.push(ID, event.id.to_string());
    headers.push(DELIVERIES, deliveries.to_string());
    again(&event.name, event.topic.as_deref(), headers, event.payload.clone())
}

/// Whether an event is for this sink (`None`: for readers).
pub(crate) fn is_for(event: &CoreEvent, sink: Option<&str>) -> bool {
    if event.headers.is_empty() {
        return true;
    }
    event.headers.get(FOR).is_none_or(|only| sink.is_some_and(|sink| only == sink.as_bytes()))
}

/// The headers without ours.
fn originals(headers: &Headers) -> Headers {
    let theirs = headers.iter().filter(|(name, _)| ![REASON, ID, DELIVERIES, FOR].contains(name));
    theirs.map(|(name, value)| (name, value.clone())).collect()
}

fn again(name: &str, topic: Option<&str>, headers: Headers, payload: Bytes) -> NewEvent {
    let event = NewEvent::new(name, payload).with_headers(headers);
    match topic {
        Some(topic) => event.with_topic(topic),
        None => event,
    }
}

#[cfg(test)]
mod tests {
    use pulse_core::Scope;

    use super::*;

    fn original() -> NewEvent {
        NewEvent::new("placed", "order 7").with_topic("eu").with_header("tenant", "a")
    }

    fn letter(reason: &str) -> DeadLetter {
        let dead = bury(&original().with_id(EventId::new(7, 1)), reason, 3).with_id(EventId::new(9, 0));
        DeadLetter::read(Event::new(Scope::new("s").unwrap().stream("d").unwrap(), dead)).unwrap()
    }

    #[test]
    fn a_letter_says_what_it_was_and_why_it_is_dead() {
        let letter = letter("no such card");
        assert_eq!(
            (letter.reason(), letter.original_id(), letter.deliveries()),
            ("no such card", EventId::new(7, 1), 3)
        );
        assert_eq!((letter.name(), letter.topic(), &letter.payload()[..]), ("placed", Some("eu"), &b"order 7"[..]));
    }

    #[test]
    fn a_letter_that_is_replayed_is_the_original_for_one_sink() {
        let group = Group::new("billing").unwrap();
        let again = letter("r").revive(&group).with_id(EventId::new(10, 0));
        assert_eq!((&*again.name, again.topic.as_deref()), ("placed", Some("eu")));
        assert_eq!(originals(&again.headers), *original().headers());
        assert!(is_for(&again, Some("billing")) && !is_for(&again, Some("audit")) && !is_for(&again, None));
        assert!(is_for(&original().with_id(EventId::ZERO), None));
        let twice = bury(&again, "r", 1).with_id(EventId::ZERO);
        assert!(is_for(&twice, None), "a letter is for whoever reads the letters");
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let reason = letter(&"ä".repeat(5_000)).reason().to_owned();
        assert!(reason.len() <= LONGEST_REASON && reason.chars().all(|character| character == 'ä'));
    }
}
