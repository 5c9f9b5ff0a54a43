//! Trace context: which span an event was added in, carried in its headers as the W3C Trace Context recommendation
//! (<https://www.w3.org/TR/trace-context/>) writes it, so that the span that handles it can link to that one.
//!
//! Without the feature `opentelemetry` nothing is carried; handlers run in a span all the same.

use pulse_core::NewEvent;
use tracing::Span;

use crate::Delivery;

/// The span in which a handler works on deliveries of one sink.
pub(crate) fn handling(deliveries: &[Delivery]) -> Span {
    let Some(first) = deliveries.first() else { return Span::none() };
    let (stream, sink) = (first.stream(), first.sink());
    let events = deliveries.len();
    let span = tracing::info_span!("handle", %stream, sink, id = %first.id(), deliveries = first.deliveries(), events);
    #[cfg(feature = "opentelemetry")]
    w3c::link(&span, deliveries);
    span
}

/// Puts the current span's context into an event that says nothing of it itself, if there is room for it.
#[cfg_attr(
    not(feature = "opentelemetry"),
    expect(clippy::missing_const_for_fn, reason = "it is empty only by a feature")
)]
pub(crate) fn carrying(event: NewEvent, most: usize) -> NewEvent {
    #[cfg(feature = "opentelemetry")]
    return w3c::carrying(event, most);
    #[cfg(not(feature = "opentelemetry"))]
    {
        let _ = most;
        event
    }
}

#[cfg(feature = "opentelemetry")]
pub(crate) mod w3c {
    use opentelemetry::trace::SpanContext;
    use pulse_core::{
        Headers, NewEvent,
        trace_context::{PARENT, STATE, current, parse},
    };
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    use crate::Delivery;

    pub(super) fn carrying(event: NewEvent, most: usize) -> NewEvent {
        if event.headers().get(PARENT).is_some() {
            return event;
        }
        let Some((parent, state)) = current() else { return event };
        let left = most.saturating_sub(event.size());
        if left < PARENT.len() + parent.len() {
            return event;
        }
        let left = left - PARENT.len() - parent.len();
        let event = event.with_header(PARENT, parent);
        match state {
            Some(state) if left >= STATE.len() + state.len() => event.with_header(STATE, state),
            _ => event,
        }
    }

    pub(super) fn link(span: &Span, deliveries: &[Delivery]) {
        for context in deliveries.iter().filter_map(|delivery| read(delivery.headers())) {
            span.add_link(context);
        }
    }

    /// What the headers say; `None` if they say nothing, or nothing that makes sense.
    pub(crate) fn read(headers: &Headers) -> Option<SpanContext> {
        let text = |name| std::str::from_utf8(headers.get(name)?).ok();
        parse(text(PARENT)?, text(STATE))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_is_no_text_is_no_context() {
            let headers = |parent: &'static [u8]| NewEvent::new("n", "p").with_header(PARENT, parent).headers().clone();
            assert!(read(&headers(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")).is_some());
            assert_eq!(read(&headers(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-\xff1")), None);
            assert_eq!(read(&Headers::default()), None);
        }
    }
}
