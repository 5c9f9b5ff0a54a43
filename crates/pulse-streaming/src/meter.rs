//! Counters and gauges through the `metrics` facade (feature `metrics`); nothing at all without it. The guide of the
//! crate lists them.

/// The counters and gauges of one stream and sink.
#[derive(Clone)]
pub(crate) struct Meter {
    #[cfg(feature = "metrics")]
    counters: std::sync::Arc<Counters>,
}

#[cfg(feature = "metrics")]
struct Counters {
    added: metrics::Counter,
    delivered: metrics::Counter,
    acked: metrics::Counter,
    claimed: metrics::Counter,
    malformed: metrics::Counter,
    lost: metrics::Counter,
    missed: metrics::Counter,
    dead_lettered: metrics::Counter,
    gaps: metrics::Counter,
    lag: metrics::Gauge,
    pending: metrics::Gauge,
    oldest_pending: metrics::Gauge,
}

macro_rules! counters {
    ($($name:ident),*) => {
        $(pub(crate) fn $name(&self, count: usize) {
            #[cfg(feature = "metrics")]
            self.counters.$name.increment(count as u64);
            #[cfg(not(feature = "metrics"))]
            let _ = count;
        })*
    };
}

impl Meter {
    #[cfg(feature = "metrics")]
    pub(crate) fn new(stream: &pulse_core::StreamId, sink: &str) -> Self {
        let labels = [("stream", stream.to_string()), ("sink", sink.to_owned())];
        let counters = Counters {
            added: metrics::counter!("pulse_streaming_added_total", "stream" => stream.to_string()),
            delivered: metrics::counter!("pulse_streaming_delivered_total", &labels),
            acked: metrics::counter!("pulse_streaming_acked_total", &labels),
            claimed: metrics::counter!("pulse_streaming_claimed_total", &labels),
            malformed: metrics::counter!("pulse_streaming_malformed_total", &labels),
            lost: metrics::counter!("pulse_streaming_lost_total", &labels),
            missed: metrics::counter!("pulse_streaming_missed_total", &labels),
            dead_lettered: metrics::counter!("pulse_streaming_dead_lettered_total", &labels),
            gaps: metrics::counter!("pulse_streaming_gaps_total", &labels),
            lag: metrics::gauge!("pulse_streaming_lag", &labels),
            pending: metrics::gauge!("pulse_streaming_pending", &labels),
            oldest_pending: metrics::gauge!("pulse_streaming_oldest_pending_seconds", &labels),
        };
        Self { counters: std::sync::Arc::new(counters) }
    }

    #[cfg(not(feature = "metrics"))]
    pub(crate) fn new(_: &pulse_core::StreamId, _: &str) -> Self {
        Self {}
    }

    /// Tells where the sink stands, and how old the oldest pending event is.
    #[cfg(feature = "metrics")]
    pub(crate) fn stands(&self, info: &pulse_core::GroupInfo, oldest_pending: std::time::Duration) {
        #[expect(clippy::cast_precision_loss, reason = "gauges are floating-point numbers")]
        let number = |count: u64| count as f64;
        // What the backend cannot tell is no number.
        self.counters.lag.set(info.lag.map_or(f64::NAN, number));
        self.counters.pending.set(number(info.pending));
        self.counters.oldest_pending.set(oldest_pending.as_secs_f64());
    }

    #[cfg(not(feature = "metrics"))]
    pub(crate) fn stands(&self, _: &pulse_core::GroupInfo, _: std::time::Duration) {}

    counters!(added, delivered, acked, claimed, malformed, lost, missed, gaps, dead_lettered);
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meter")
    }
}
