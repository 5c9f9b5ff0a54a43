//! Which events of a stream a subscription wants.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use pulse_core::StreamId;
use regex::Regex;

use crate::{Error, Event};

type Predicate = Arc<dyn Fn(&Event) -> bool + Send + Sync>;

/// Decides whether an event is handed out: all that was asked for must hold.
#[derive(Clone, Default)]
pub(crate) struct Filter {
    /// Exactly this topic.
    topic: Option<Arc<str>>,
    /// A topic in which this is found.
    pattern: Option<Regex>,
    predicate: Option<Predicate>,
}

/// A filter as it was asked for, before its pattern is known to make sense.
#[derive(Clone, Default)]
pub(crate) struct Wanted {
    topic: Option<Arc<str>>,
    pattern: Option<String>,
    predicate: Option<Predicate>,
}

impl Wanted {
    pub(crate) fn topic(&mut self, topic: Arc<str>) {
        self.topic = Some(topic);
    }

    pub(crate) fn pattern(&mut self, pattern: String) {
        self.pattern = Some(pattern);
    }

    pub(crate) fn predicate(&mut self, predicate: impl Fn(&Event) -> bool + Send + Sync + 'static) {
        self.predicate = Some(Arc::new(predicate));
    }

    /// # Errors
    ///
    /// [`Error::InvalidPattern`].
    pub(crate) fn compile(self, stream: &StreamId) -> Result<Filter, Error> {
        let Self { topic, pattern, predicate } = self;
        let compile = |pattern: String| {
            Regex::new(&pattern).map_err(|error| Error::InvalidPattern {
                stream: stream.clone(),
                pattern,
                source: Arc::new(error),
            })
        };
        Ok(Filter { topic, pattern: pattern.map(compile).transpose()?, predicate })
    }
}

impl Filter {
    /// Gives the event back if it is wanted.
    pub(crate) fn pass(
        &self,
        stream: &StreamId,
        event: pulse_core::Event,
    ) -> Result<pulse_core::Event, pulse_core::EventId> {
        let id = event.id;
        let topic = event.topic.as_ref();
        if self.topic.is_some() && topic != self.topic.as_ref() {
            return Err(id);
        }
        let is_found = |pattern: &Regex| topic.is_some_and(|topic| pattern.is_match(topic));
        if !self.pattern.as_ref().is_none_or(is_found) {
            return Err(id);
        }
        let Some(predicate) = &self.predicate else { return Ok(event) };
        let event = Event::new(stream.clone(), event);
        // The user's code must not end the reading, nor lose the event that it could not judge.
        let wanted = catch_unwind(AssertUnwindSafe(|| predicate(&event))).unwrap_or_else(|_| {
            tracing::error!(%stream, %id, "a filter panicked; the event is handed out");
            true
        });
        if wanted { Ok(event.into_core()) } else { Err(id) }
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pattern = self.pattern.as_ref().map(Regex::as_str);
        f.debug_struct("Filter").field("topic", &self.topic).field("pattern", &pattern).finish_non_exhaustive()
    }
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted").field("topic", &self.topic).field("pattern", &self.pattern).finish_non_exhaustive()
    }
}

/// Writes the methods of a builder that set the filter.
macro_rules! filter_options {
    ($rejected:literal) => {
        /// Hands out only events with exactly this topic.
        #[doc = $rejected]
        pub fn topic(mut self, topic: impl Into<std::sync::Arc<str>>) -> Self {
            self.wanted.topic(topic.into());
            self
        }

        /// Hands out only events with a topic in which this regular expression (of the crate `regex`) is found; `^` and
        /// `$` tie it to the whole topic. Compiled once, when joining.
        #[doc = $rejected]
        pub fn topics_matching(mut self, pattern: impl Into<String>) -> Self {
            self.wanted.pattern(pattern.into());
            self
        }

        /// Hands out only events of which this is true. It is asked in the task that reads, so it should be quick. An
        /// event on which it panics is handed out.
        #[doc = $rejected]
        pub fn filter(mut self, wanted: impl Fn(&$crate::Event) -> bool + Send + Sync + 'static) -> Self {
            self.wanted.predicate(wanted);
            self
        }
    };
}
pub(crate) use filter_options;

#[cfg(test)]
mod tests {
    use pulse_core::{EventId, NewEvent, Scope};

    use super::*;

    fn passes(ask: impl FnOnce(&mut Wanted), topic: Option<&str>) -> bool {
        let stream = Scope::new("s").unwrap().stream("s").unwrap();
        let mut wanted = Wanted::default();
        ask(&mut wanted);
        let event = NewEvent::new("n", "p");
        let event = match topic {
            Some(topic) => event.with_topic(topic),
            None => event,
        };
        wanted.compile(&stream).unwrap().pass(&stream, event.with_id(EventId::ZERO)).is_ok()
    }

    #[test]
    fn a_topic_accepts_that_topic_only() {
        let eu = |wanted: &mut Wanted| wanted.topic("eu".into());
        assert!(passes(eu, Some("eu")) && !passes(eu, Some("eu.west")) && !passes(eu, None));
        assert!(passes(|_| {}, None));
    }

    #[test]
    fn a_pattern_accepts_the_topics_in_which_it_is_found() {
        let eu = |wanted: &mut Wanted| wanted.pattern(r"^eu\.(west|north)$".into());
        assert!(passes(eu, Some("eu.west")) && !passes(eu, Some("eu.west.1")) && !passes(eu, None));
        assert!(passes(|wanted| wanted.pattern("west".into()), Some("eu.west.1")));
    }

    #[test]
    fn all_that_was_asked_for_must_hold() {
        let both = |wanted: &mut Wanted| {
            wanted.topic("eu".into());
            wanted.predicate(|event| event.name() == "another");
        };
        assert!(!passes(both, Some("eu")));
    }

    #[test]
    fn an_event_on_which_the_predicate_panics_is_not_lost() {
        assert!(passes(|wanted| wanted.predicate(|_| panic!("no idea")), None));
    }

    #[test]
    fn a_pattern_without_sense_is_an_error() {
        let stream = Scope::new("s").unwrap().stream("s").unwrap();
        let mut wanted = Wanted::default();
        wanted.pattern("(".into());
        assert!(matches!(wanted.compile(&stream), Err(Error::InvalidPattern { .. })));
    }
}
