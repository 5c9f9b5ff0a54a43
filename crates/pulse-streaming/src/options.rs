//! Checks of options that readers and sinks share.

use std::time::Duration;

use pulse_core::StreamId;

use crate::{Error, OptionValue};

/// The longest time that an option may be: as good as for ever, and far from where adding times overflows.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

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

pub(crate) fn check_block(stream: &StreamId, time: Duration) -> Result<(), Error> {
    check_time(stream, "block", time, Duration::from_millis(1), "it must be from one millisecond to a year")
}

pub(crate) fn check_ack_grace(stream: &StreamId, time: Duration) -> Result<(), Error> {
    check_time(stream, "ack grace", time, Duration::from_millis(10), "it must be from ten milliseconds to a year")
}

fn check_time(
    stream: &StreamId,
    option: &'static str,
    time: Duration,
    least: Duration,
    reason: &'static str,
) -> Result<(), Error> {
    if !(least..=LONGEST).contains(&time) {
        let value = OptionValue::Duration(time);
        return Err(Error::InvalidOption { stream: stream.clone(), option, value, reason });
    }
    Ok(())
}
