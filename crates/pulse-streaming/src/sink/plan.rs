//! Decisions of a sink instance: when to look after what is pending, which consumers are dead, where to begin anew.
//! Plain functions: no clock, no I/O.

use std::time::Duration;

use pulse_core::{Consumer, EventId, GroupInfo, GroupStart, StreamInfo};

/// The shortest time between two looks at what is pending.
const MIN_TICK: Duration = Duration::from_millis(5);
/// The longest.
const MAX_TICK: Duration = Duration::from_secs(5);
/// How old gauges may be.
const GAUGED: Duration = Duration::from_secs(15);
/// An idle time that is beyond the grace period of any sensible sink.
const LONG_IDLE: Duration = Duration::from_secs(60 * 60);

/// The times that a sink instance lives by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timing {
    /// How long a delivery may stay unacknowledged before it is made again.
    pub(super) grace: Duration,
    /// How long one read waits at the backend.
    pub(super) block: Duration,
}

impl Timing {
    /// When to look after pending events next: about every quarter of the grace period, jittered by `random` from 0 to
    /// 1 so that the instances take turns.
    pub(super) fn tick(&self, random: f64) -> Duration {
        (self.grace / 4).clamp(MIN_TICK, MAX_TICK).mul_f64(0.75 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// When to look at the group next: for dead consumers, and for the gauges where there are some.
    pub(super) fn tidy(&self, random: f64) -> Duration {
        let longest = if cfg!(feature = "metrics") { GAUGED } else { Duration::MAX };
        self.dead_after().min(longest).mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// A buffered event is kept from being claimed once it has been idle this long. With the tick it is touched well
    /// before the grace period ends.
    pub(super) fn touch_after(&self) -> Duration {
        self.grace / 3
    }

    /// An event that waited this long in the buffer has its grace period begun anew when it is handed out.
    pub(super) fn touch_at_hand_out_after(&self) -> Duration {
        self.grace / 16
    }

    /// What a call brings that took this long may be another instance's by now. A read does not wait for longer than to
    /// the next tick, which comes sooner.
    pub(super) fn doubtful_after(&self) -> Duration {
        self.grace / 2
    }

    /// A consumer that did nothing for this long is dead. One that lives reads or touches at least once in the
    /// time of a read and a grace period; a wrong verdict does no harm, since the next read brings it back.
    pub(super) fn dead_after(&self) -> Duration {
        2 * (self.grace + self.block)
    }

    /// The idle time given to events that anybody may claim now.
    pub(super) fn released(&self) -> Duration {
        LONG_IDLE.max(2 * self.grace)
    }
}

/// The consumers to remove from the group: those that have been silent for long and have nothing pending. Who has
/// something pending stays until that has been claimed.
pub(super) fn dead_consumers(info: &GroupInfo, me: &Consumer, dead_after: Duration) -> Vec<Consumer> {
    let dead = info.consumers.iter().filter(|c| c.name != *me && c.pending == 0 && c.idle >= dead_after);
    dead.map(|consumer| consumer.name.clone()).collect()
}

/// The event after which to begin anew when the group is gone, given the last event that this instance knew of.
///
/// A stream whose last id lies before it is another one than the instance knew, so all of it is new.
pub(super) fn restart_after(known: EventId, stream: Option<&StreamInfo>) -> EventId {
    match stream {
        Some(stream) if stream.last >= known => known,
        _ => EventId::ZERO,
    }
}

/// The largest id that is smaller.
pub(crate) fn id_before(id: EventId) -> EventId {
    match (id.millis, id.sequence.checked_sub(1)) {
        (millis, Some(sequence)) => EventId::new(millis, sequence),
        (0, None) => EventId::ZERO,
        (millis, None) => EventId::new(millis - 1, u64::MAX),
    }
}

/// The cursor that hands out everything after this event.
pub(super) fn cursor_after(id: EventId) -> GroupStart {
    if id == EventId::ZERO { GroupStart::Oldest } else { GroupStart::After(id) }
}

#[cfg(test)]
mod tests {
    use pulse_core::ConsumerInfo;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn timing(grace: Duration) -> Timing {
        Timing { grace, block: SECOND }
    }

    #[test]
    fn a_buffered_event_is_touched_before_its_grace_period_ends_whatever_the_jitter() {
        for millis in [20, 100, 1_000, 30_000, 600_000] {
            let timing = timing(Duration::from_millis(millis));
            assert!(timing.touch_after() + timing.tick(1.0) < timing.grace, "{millis} ms");
        }
    }

    #[test]
    fn ticks_are_jittered_around_a_quarter_of_the_grace_period_and_bounded() {
        let millis = |grace, random| timing(grace).tick(random).as_millis();
        assert_eq!((millis(4 * SECOND, 0.0), millis(4 * SECOND, 1.0)), (750, 1250));
        assert!(millis(3600 * SECOND, 1.0) <= 6_250);
    }

    #[test]
    fn only_silent_consumers_with_nothing_pending_are_dead() -> Result<(), pulse_core::Error> {
        let name = |name| Consumer::new(name);
        let consumers = vec![
            ConsumerInfo::new(name("me")?, 0, 9 * SECOND),
            ConsumerInfo::new(name("alive")?, 0, 2 * SECOND),
            ConsumerInfo::new(name("dead")?, 0, 3 * SECOND),
            ConsumerInfo::new(name("dead-with-pending")?, 1, 9 * SECOND),
        ];
        let info = GroupInfo::new(EventId::ZERO, 1, None, consumers);
        assert_eq!(dead_consumers(&info, &name("me")?, 3 * SECOND), [name("dead")?]);
        Ok(())
    }

    #[test]
    fn a_sink_begins_anew_where_it_was_unless_the_stream_is_another_one() {
        let known = EventId::new(50, 0);
        let stream = |last| {
            let mut info = StreamInfo::default();
            info.last = EventId::new(last, 0);
            info
        };
        assert_eq!(restart_after(known, Some(&stream(50))), known);
        assert_eq!(restart_after(known, Some(&stream(70))), known);
        assert_eq!(restart_after(known, Some(&stream(49))), EventId::ZERO);
        assert_eq!(restart_after(known, None), EventId::ZERO);
    }
}
