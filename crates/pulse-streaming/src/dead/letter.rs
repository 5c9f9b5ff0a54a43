//! What a dead letter is made of: the original event, with headers that say what became of it.

use std::{ops::Deref, time::SystemTime};

use bytes::Bytes;
use pulse_core::{Event as CoreEvent, EventId, Group, Headers, NewEvent, StreamId};

use xxhash_rust::xxh3::xxh3_128;

use crate::Event;

/// Why the event is dead.
const REASON: &str = "pulse-dead-reason";
/// The id that the event had.
const ID: &str = "pulse-dead-id";
/// How often it was delivered.
const DELIVERIES: &str = "pulse-dead-deliveries";
/// The only sink that a replayed event is for.
const FOR: &str = "pulse-for";

/// How many bytes the payload had that did not fit.
const CUT: &str = "pulse-dead-cut";

/// The longest reason that is kept, in bytes: an error's text may have any length.
const LONGEST_REASON: usize = 4096;
/// The longest name of a stream, and of an id of an event.
const LONGEST_NAME: usize = 1024;

/// The name of the stream of the dead letters of a sink: `STREAM/dead/SINK`, or a name that is harder to read where
/// slashes in the names would make that ambiguous. No two sinks share one.
pub(crate) fn stream_name(source: &StreamId, group: &Group) -> String {
    let (stream, group) = (source.name(), group.as_str());
    if stream.contains('/') || group.contains('/') {
        return short(format!("dead/{}/{stream}/{group}", stream.len()));
    }
    short(format!("{stream}/dead/{group}"))
}

/// A text that may be a name. One that is too long is replaced by its hash.
pub(super) fn short(name: String) -> String {
    if name.len() <= LONGEST_NAME { name } else { format!("dead/#{:032x}", xxh3_128(name.as_bytes())) }
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

    /// Whether the payload was left out, because the letter would have been larger than an event may be. The original
    /// has it, as long as the stream keeps that.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.headers().get(CUT).is_some()
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
    pub(super) fn revive(&self, group: &Group, payload: Bytes) -> NewEvent {
        let mut headers = originals(self.headers());
        headers.push(FOR, Bytes::copy_from_slice(group.as_str().as_bytes()));
        again(self.name(), self.topic(), headers, payload)
    }
}

impl Deref for DeadLetter {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.event
    }
}

/// The letter of an event that a sink gives up on. It must not be larger than `most` bytes, or the event would come
/// again for ever: the reason is cut first, and as the last resort the payload is left out.
pub(crate) fn bury(event: &CoreEvent, reason: &str, deliveries: u64, most: usize) -> NewEvent {
    let letter = |longest: usize, cut: bool| {
        let mut headers = originals(&event.headers);
        let end = (0..=reason.len().min(longest)).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
        headers.push(REASON, reason[..end].to_owned());
        headers.push(ID, event.id.to_string());
        headers.push(DELIVERIES, deliveries.to_string());
        if cut {
            headers.push(CUT, event.payload.len().to_string());
        }
        let payload = if cut { Bytes::new() } else { event.payload.clone() };
        again(&event.name, event.topic.as_deref(), headers, payload)
    };
    let whole = letter(LONGEST_REASON, false);
    if whole.size() <= most {
        return whole;
    }
    match most.checked_sub(letter(0, false).size()) {
        Some(left) => letter(left, false),
        None => letter(LONGEST_REASON.min(most.saturating_sub(letter(0, true).size())), true),
    }
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
    let theirs = headers.iter().filter(|(name, _)| ![REASON, ID, DELIVERIES, CUT, FOR].contains(name));
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
        let dead = bury(&original().with_id(EventId::new(7, 1)), reason, 3, usize::MAX).with_id(EventId::new(9, 0));
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
        let again = letter("r").revive(&group, Bytes::from_static(b"order 7")).with_id(EventId::new(10, 0));
        assert_eq!((&*again.name, again.topic.as_deref()), ("placed", Some("eu")));
        assert_eq!(originals(&again.headers), *original().headers());
        assert!(is_for(&again, Some("billing")) && !is_for(&again, Some("audit")) && !is_for(&again, None));
        assert!(is_for(&original().with_id(EventId::ZERO), None));
        let twice = bury(&again, "r", 1, usize::MAX).with_id(EventId::ZERO);
        assert!(is_for(&twice, None), "a letter is for whoever reads the letters");
    }

    #[test]
    fn a_letter_is_never_larger_than_an_event_may_be() {
        let event = NewEvent::new("n", vec![0; 500]).with_header("h", vec![0; 100]).with_id(EventId::new(7, 1));
        let read = |most| {
            let letter = bury(&event, &"r".repeat(200), 3, most);
            assert!(letter.size() <= most, "{} of {most}", letter.size());
            DeadLetter::read(Event::new(Scope::new("s").unwrap().stream("d").unwrap(), letter.with_id(EventId::ZERO)))
                .unwrap()
        };
        let whole = read(1_000);
        assert_eq!((whole.reason().len(), whole.payload().len(), whole.is_cut()), (200, 500, false));
        let shorter = read(750);
        assert!(!shorter.reason().is_empty() && shorter.reason().len() < 200);
        assert_eq!((shorter.payload().len(), shorter.is_cut()), (500, false));
        let cut = read(601);
        assert_eq!((cut.reason().len(), cut.payload().len(), cut.is_cut()), (200, 0, true));
    }

    #[test]
    fn no_two_sinks_share_a_stream_of_letters() {
        let names = ["a", "b", "dead", "a/dead/b", "b/dead/c", "1", "a/", "/a", &"x".repeat(1024), &"x".repeat(1000)];
        let mut seen = std::collections::HashMap::new();
        for (stream, group) in names.iter().flat_map(|stream| names.iter().map(move |group| (*stream, *group))) {
            let source = Scope::new("s").unwrap().stream(stream).unwrap();
            let name = stream_name(&source, &Group::new(group).unwrap());
            assert!(name.len() <= LONGEST_NAME);
            assert_eq!(seen.insert(name, (stream, group)), None);
        }
        let source = Scope::new("s").unwrap().stream("orders").unwrap();
        assert_eq!(stream_name(&source, &Group::new("billing").unwrap()), "orders/dead/billing");
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let reason = letter(&"ä".repeat(5_000)).reason().to_owned();
        assert!(reason.len() <= LONGEST_REASON && reason.chars().all(|character| character == 'ä'));
    }
}
