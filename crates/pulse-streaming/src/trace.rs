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
    use std::str::FromStr;

    use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
    use pulse_core::{Headers, NewEvent};
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    use crate::Delivery;

    const PARENT: &str = "traceparent";
    const STATE: &str = "tracestate";

    pub(super) fn carrying(event: NewEvent, most: usize) -> NewEvent {
        if event.headers().get(PARENT).is_some() {
            return event;
        }
        let context = Span::current().context();
        let span = context.span();
        let span = span.span_context();
        if !span.is_valid() {
            return event;
        }
        let parent = format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags());
        let state = span.trace_state().header();
        let left = most.saturating_sub(event.size());
        if left < PARENT.len() + parent.len() {
            return event;
        }
        let left = left - PARENT.len() - parent.len();
        let event = event.with_header(PARENT, parent);
        if state.is_empty() || left < STATE.len() + state.len() { event } else { event.with_header(STATE, state) }
    }

    pub(super) fn link(span: &Span, deliveries: &[Delivery]) {
        for context in deliveries.iter().filter_map(|delivery| read(delivery.headers())) {
            span.add_link(context);
        }
    }

    /// What the headers say; `None` if they say nothing, or nothing that makes sense.
    pub(crate) fn read(headers: &Headers) -> Option<SpanContext> {
        let text = |name| std::str::from_utf8(headers.get(name)?).ok();
        let parent = text(PARENT)?;
        let mut parts = parent.split('-');
        let mut part = |length| parts.next().filter(|part| part.len() == length && part.bytes().all(is_lower_hex));
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        // Later versions may have more parts; this one must not.
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
        let state = text(STATE).and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
        let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
        let context = SpanContext::new(trace, span, flags, true, state);
        context.is_valid().then_some(context)
    }

    fn is_lower_hex(byte: u8) -> bool {
        matches!(byte, b'0'..=b'9' | b'a'..=b'f')
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

        fn headers(parent: &str) -> Headers {
            NewEvent::new("n", "p").with_header(PARENT, parent.to_owned()).headers().clone()
        }

        #[test]
        fn a_context_is_read_as_it_was_written() {
            let context = read(&headers(GOOD)).unwrap();
            assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
            assert_eq!(context.span_id().to_string(), "00f067aa0ba902b7");
            assert!(context.is_sampled() && context.is_remote());
            assert!(
                read(&headers(&GOOD.replace("00-4", "cc-4").replace("-01", "-01-more"))).is_some(),
                "a later version"
            );
        }

        #[test]
        fn what_makes_no_sense_is_no_context() {
            let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
            let upper = GOOD.to_uppercase();
            let more = format!("{GOOD}-more");
            for bad in ["", "00", "ä-b-c-d", zero, &upper, &more, &GOOD.replace("00-4", "ff-4"), &GOOD[..54]] {
                assert_eq!(read(&headers(bad)), None, "{bad}");
            }
            assert_eq!(read(&Headers::default()), None);
        }
    }
}
