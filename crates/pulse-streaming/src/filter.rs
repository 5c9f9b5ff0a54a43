//! Which events of a stream a subscription wants.

use std::sync::Arc;

/// Decides whether an event is handed out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Filter {
    /// All of them.
    #[default]
    Everything,
    /// Those with exactly this topic.
    Topic(Arc<str>),
}

impl Filter {
    pub(crate) fn accepts(&self, event: &pulse_core::Event) -> bool {
        match self {
            Self::Everything => true,
            Self::Topic(topic) => event.topic.as_ref() == Some(topic),
        }
    }
}

#[cfg(test)]
mod tests {
    use pulse_core::{EventId, NewEvent};

    use super::*;

    #[test]
    fn a_topic_accepts_that_topic_only() {
        let filter = Filter::Topic("eu".into());
        let event = NewEvent::new("n", "p");
        assert!(filter.accepts(&event.clone().with_topic("eu").with_id(EventId::ZERO)));
        assert!(!filter.accepts(&event.clone().with_topic("eu.west").with_id(EventId::ZERO)));
        assert!(!filter.accepts(&event.clone().with_id(EventId::ZERO)));
        assert!(Filter::Everything.accepts(&event.with_id(EventId::ZERO)));
    }
}
