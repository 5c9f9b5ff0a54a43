//! Where a reader or a sink begins.
//!
//! The position is settled once, when the reader or sink is created, and is an event id from then on. Nothing later
//! asks for "the newest" again, so events that are added during a pause in reading are not skipped.

use std::time::SystemTime;

use pulse_core::{EventId, GroupStart, StreamInfo};

/// Where to begin reading a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Start {
    /// After the last event there is: only later ones are read.
    #[default]
    Newest,
    /// With the oldest event there is.
    Oldest,
    /// After this event, whether or not it still stands in the stream.
    After(EventId),
    /// With the first event that was added at this time or later, by the server's clock.
    At(SystemTime),
}

impl Start {
    /// The id after which to read, given the stream as it is now.
    pub(crate) fn position(self, info: Option<&StreamInfo>) -> EventId {
        match self {
            Self::Newest => info.map_or(EventId::ZERO, |info| info.last),
            Self::Oldest => EventId::ZERO,
            Self::After(id) => id,
            Self::At(time) => last_before(time),
        }
    }

    /// Where to put the cursor of a new consumer group.
    pub(crate) fn group_start(self) -> GroupStart {
        match self {
            Self::Newest => GroupStart::Newest,
            Self::Oldest => GroupStart::Oldest,
            Self::After(id) => GroupStart::After(id),
            Self::At(time) => GroupStart::After(last_before(time)),
        }
    }
}

/// The largest id that an event added before `time` can have.
fn last_before(time: SystemTime) -> EventId {
    let millis = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    match u64::try_from(millis).unwrap_or(u64::MAX).checked_sub(1) {
        Some(millis) => EventId::new(millis, u64::MAX),
        None => EventId::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn info(last: EventId) -> StreamInfo {
        let mut info = StreamInfo::default();
        info.last = last;
        info
    }

    #[test]
    fn newest_is_after_the_last_id_and_before_everything_if_there_is_no_stream() {
        assert_eq!(Start::Newest.position(Some(&info(EventId::new(7, 3)))), EventId::new(7, 3));
        assert_eq!(Start::Newest.position(None), EventId::ZERO);
    }

    #[test]
    fn a_time_includes_the_first_event_of_its_millisecond() {
        let at = Start::At(SystemTime::UNIX_EPOCH + Duration::from_millis(1_000));
        assert_eq!(at.position(None), EventId::new(999, u64::MAX));
        assert_eq!(at.position(None).next(), Some(EventId::new(1_000, 0)));
        assert_eq!(at.group_start(), GroupStart::After(EventId::new(999, u64::MAX)));
    }

    #[test]
    fn a_time_before_the_epoch_is_before_everything() {
        let at = Start::At(SystemTime::UNIX_EPOCH - Duration::from_secs(5));
        assert_eq!(at.position(None), EventId::ZERO);
        assert_eq!(Start::At(SystemTime::UNIX_EPOCH).position(None), EventId::ZERO);
    }
}
