//! Checks of options that streams, readers and sinks share.

use std::{ops::RangeInclusive, time::Duration};

use pulse_core::StreamId;

use crate::{Error, OptionValue};

/// The longest time that an option may be: as good as for ever, and far from where adding times overflows.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The shortest time-out.
pub(crate) const SHORTEST: Duration = Duration::from_millis(1);

/// The most events that are asked for at once, however large a buffer is: a server serves no other client meanwhile,
/// and not every backend takes any number.
pub(crate) const MOST_AT_ONCE: usize = 10_000;

pub(crate) fn check_buffer(stream: &StreamId, events: usize) -> Result<(), Error> {
    if events == 0 {
        return Err(Error::InvalidOption {
            stream: stream.clone(),
            option: "buffer",
            value: OptionValue::Count(events),
            reason: "it must hold at least one event",
        });
    }
    Ok(())
}

pub(crate) fn check_max_deliveries(stream: &StreamId, deliveries: Option<u64>) -> Result<(), Error> {
    if deliveries == Some(0) {
        return Err(Error::InvalidOption {
            stream: stream.clone(),
            option: "max deliveries",
            value: OptionValue::Count(0),
            reason: "it must be at least one",
        });
    }
    Ok(())
}

pub(crate) fn check_block(stream: &StreamId, time: Duration) -> Result<(), Error> {
    let least = Duration::from_millis(1);
    check_time(stream, "block", time, least..=LONGEST, "it must be from one millisecond to a year")
}

pub(crate) fn check_ack_grace(stream: &StreamId, time: Duration) -> Result<(), Error> {
    let least = Duration::from_millis(10);
    check_time(stream, "ack grace", time, least..=LONGEST, "it must be from ten milliseconds to a year")
}

pub(crate) fn check_lease(stream: &StreamId, time: Duration) -> Result<(), Error> {
    let least = Duration::from_millis(100);
    check_time(stream, "lease", time, least..=LONGEST, "it must be from a tenth of a second to a year")
}

pub(crate) fn check_in_flight(stream: &StreamId, events: usize) -> Result<(), Error> {
    if events == 0 {
        return Err(Error::InvalidOption {
            stream: stream.clone(),
            option: "in flight",
            value: OptionValue::Count(events),
            reason: "at least one event must be allowed in flight",
        });
    }
    Ok(())
}

pub(crate) fn check_time(
    stream: &StreamId,
    option: &'static str,
    time: Duration,
    bounds: RangeInclusive<Duration>,
    reason: &'static str,
) -> Result<(), Error> {
    if !bounds.contains(&time) {
        let value = OptionValue::Duration(time);
        return Err(Error::InvalidOption { stream: stream.clone(), option, value, reason });
    }
    Ok(())
}
