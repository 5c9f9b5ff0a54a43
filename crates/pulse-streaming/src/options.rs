//! Checks of options that readers and sinks share.

use std::time::Duration;

use pulse_core::StreamId;

use crate::{Error, OptionValue};

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
    check_at_least(stream, "block", time, Duration::from_millis(1), "it must be at least one millisecond")
}

pub(crate) fn check_ack_grace(stream: &StreamId, time: Duration) -> Result<(), Error> {
    check_at_least(stream, "ack grace", time, Duration::from_millis(10), "it must be at least ten milliseconds")
}

fn check_at_least(
    stream: &StreamId,
    option: &'static str,
    time: Duration,
    least: Duration,
    reason: &'static str,
) -> Result<(), Error> {
    if time < least {
        let value = OptionValue::Duration(time);
        return Err(Error::InvalidOption { stream: stream.clone(), option, value, reason });
    }
    Ok(())
}
