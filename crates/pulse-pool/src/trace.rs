//! Spans around what a node does for a job, with the fields `pool`, `node`, `worker`, `key`, `epoch` and `attempt`, and
//! the trace context of the span in which a job was dispatched, which travels in the job's headers.
//!
//! | span | level | around |
//! |---|---|---|
//! | `start`, `stop`, `notify` | info | one call of the handler for a job |
//! | `attempt` | info | one call of the function of a [`worker_fn`](crate::Node::worker_fn) |
//! | `pull`, `hand_over`, `remove` | debug | a transaction that gives a job to another worker, or removes it |
//!
//! With the feature `opentelemetry` those of level info link to the span in which the job was dispatched. An attempt
//! has no parent: a span lasts as long as its children, and the start that begins an attempt is over long before.
//!
//! Without the feature nothing is carried; spans that nobody listens to cost a look at a flag.

use tracing::{Span, field::Empty};

use crate::{Epoch, Job, JobKey, WorkerId, decide::Step, headers::Headers, pool::Pool, record::JobRecord};

/// Where a job comes from: the span in which it was dispatched, if it is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    #[cfg(feature = "opentelemetry")]
    context: Option<std::sync::Arc<opentelemetry::trace::SpanContext>>,
}

impl Origin {
    #[cfg(feature = "opentelemetry")]
    pub(crate) fn of(headers: &Headers) -> Self {
        Self { context: w3c::read(headers).map(std::sync::Arc::new) }
    }

    #[cfg(not(feature = "opentelemetry"))]
    pub(crate) fn of(_: &Headers) -> Self {
        Self {}
    }

    #[cfg(feature = "opentelemetry")]
    fn linked_by(&self, span: Span) -> Span {
        use tracing_opentelemetry::OpenTelemetrySpanExt;
        if let Some(context) = self.context.as_ref().filter(|_| !span.is_disabled()) {
            span.add_link((**context).clone());
        }
        span
    }

    #[cfg(not(feature = "opentelemetry"))]
    #[expect(clippy::unused_self, reason = "it has something to link to only by a feature")]
    fn linked_by(&self, span: Span) -> Span {
        span
    }
}

/// One start of a job, as its spans name it.
#[derive(Debug, Clone)]
pub(crate) struct Activity {
    pub(crate) worker: WorkerId,
    pub(crate) epoch: Epoch,
    pub(crate) attempt: u32,
    pub(crate) origin: Origin,
}

macro_rules! span_of_activity {
    ($name:ident) => {
        /// Around one call of the handler.
        pub(crate) fn $name(&self, pool: &Pool, key: &JobKey) -> Span {
            let Self { worker, epoch, attempt, origin } = self;
            let (pool, node) = (&pool.name, pool.node);
            origin.linked_by(
                tracing::info_span!(stringify!($name), %pool, %node, %worker, %key, %epoch, attempt),
            )
        }
    };
}

impl Activity {
    span_of_activity!(start);
    span_of_activity!(stop);
    span_of_activity!(notify);
}

/// Around one call of a function for a job.
pub(crate) fn attempt(job: &Job) -> Span {
    let (worker, key, epoch, attempt) = (job.worker(), job.key(), job.epoch(), job.attempt());
    let span = tracing::info_span!(
        parent: None, "attempt", pool = Empty, node = Empty, %worker, %key, %epoch, attempt
    );
    if !span.is_disabled()
        && let Some(pool) = job.pool()
    {
        span.record("pool", tracing::field::display(&pool.name)).record("node", tracing::field::display(pool.node));
    }
    job.origin().linked_by(span)
}

/// Around a transaction for a job that does not run here.
pub(crate) fn change(pool: &Pool, key: &JobKey, record: &JobRecord, step: Step) -> Span {
    let (node, attempt) = (pool.node, record.failed().saturating_add(1));
    let pool = &pool.name;
    let span = match step {
        Step::Pull { to: worker, .. } => {
            tracing::debug_span!("pull", %pool, %node, %worker, %key, epoch = Empty, attempt, from = Empty)
        }
        Step::HandOver { from: worker, .. } => {
            tracing::debug_span!("hand_over", %pool, %node, %worker, %key, epoch = Empty, attempt, to = Empty)
        }
        _ => tracing::debug_span!("remove", %pool, %node, worker = Empty, %key, epoch = Empty, attempt),
    };
    if !span.is_disabled() {
        let note = |name: &'static str, worker: Option<WorkerId>| {
            if let Some(worker) = worker {
                span.record(name, tracing::field::display(worker));
            }
        };
        match step {
            Step::Pull { dead, .. } => note("from", dead),
            Step::HandOver { to, .. } => note("to", to),
            _ => note("worker", record.owner()),
        }
        if let Some(epoch) = record.epoch() {
            span.record("epoch", tracing::field::display(epoch));
        }
    }
    span
}

/// Puts the current span's context into the headers of a job that say nothing of it themselves, if an entry may be that
/// much longer.
#[cfg_attr(
    not(feature = "opentelemetry"),
    expect(clippy::missing_const_for_fn, reason = "it is empty only by a feature")
)]
pub(crate) fn carrying(headers: Headers, room: usize) -> Headers {
    #[cfg(feature = "opentelemetry")]
    return w3c::carrying(headers, room);
    #[cfg(not(feature = "opentelemetry"))]
    {
        let _ = room;
        headers
    }
}

#[cfg(feature = "opentelemetry")]
pub(crate) mod w3c {
    use opentelemetry::trace::SpanContext;
    use pulse_core::trace_context::{PARENT, STATE, current, parse};

    use crate::headers::Headers;

    pub(super) fn carrying(mut headers: Headers, room: usize) -> Headers {
        if headers.get(PARENT).is_some() {
            return headers;
        }
        let Some((parent, state)) = current() else { return headers };
        let Some(room) = room.checked_sub(Headers::size_of(PARENT, &parent)) else { return headers };
        headers.set(PARENT.to_owned(), parent);
        // One that is there belongs to another parent.
        match state {
            Some(state) if Headers::size_of(STATE, &state) <= room => headers.set(STATE.to_owned(), state),
            _ => headers.remove(STATE),
        }
        headers
    }

    /// What the headers say; `None` if they say nothing, or nothing that makes sense.
    pub(crate) fn read(headers: &Headers) -> Option<SpanContext> {
        parse(headers.get(PARENT)?, headers.get(STATE))
    }
}
