//! Which span something was made in, as text that travels with it: the crates above put it into the headers of events
//! and jobs, so that the span that handles one can link to the span that made it. The form is that of the W3C Trace
//! Context recommendation (<https://www.w3.org/TR/trace-context/>).

use std::str::FromStr;

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The header of the span itself.
pub const PARENT: &str = "traceparent";
/// The header of what the vendors of tracing systems say beside it.
pub const STATE: &str = "tracestate";

/// The values of the two headers for the current span; `None` outside of any. What is empty is left out.
#[must_use]
pub fn current() -> Option<(String, Option<String>)> {
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    if !span.is_valid() {
        return None;
    }
    let parent = format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags());
    let state = span.trace_state().header();
    Some((parent, (!state.is_empty()).then_some(state)))
}

/// What the values of the two headers say; `None` if they make no sense. A state that makes none is left out.
#[must_use]
pub fn parse(parent: &str, state: Option<&str>) -> Option<SpanContext> {
    let mut parts = parent.split('-');
    let mut part = |length| parts.next().filter(|part| part.len() == length && part.bytes().all(is_lower_hex));
    let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    // Later versions may have more parts; this one must not.
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let state = state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
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

    #[test]
    fn a_context_is_read_as_it_was_written() {
        let context = parse(GOOD, Some("vendor=7")).unwrap();
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id().to_string(), "00f067aa0ba902b7");
        assert_eq!(context.trace_state().get("vendor"), Some("7"));
        assert!(context.is_sampled() && context.is_remote());
        let later = GOOD.replace("00-4", "cc-4").replace("-01", "-01-more");
        assert!(parse(&later, Some("=,nonsense")).is_some(), "a later version");
    }

    #[test]
    fn what_makes_no_sense_is_no_context() {
        let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let upper = GOOD.to_uppercase();
        let more = format!("{GOOD}-more");
        for bad in ["", "00", "ä-b-c-d", zero, &upper, &more, &GOOD.replace("00-4", "ff-4"), &GOOD[..54]] {
            assert_eq!(parse(bad, None), None, "{bad}");
        }
    }

    #[test]
    fn outside_of_any_span_there_is_no_context() {
        assert_eq!(current(), None);
    }
}
