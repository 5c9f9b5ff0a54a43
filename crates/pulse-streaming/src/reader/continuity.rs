//! Whether a reader has seen everything that the stream ever had after its start.
//!
//! Retention drops events from the old end only. So as long as the last entry that was read still stands, nothing after
//! it was dropped, and reading tells that at no cost. Only where it does not stand, the stream is asked how many
//! entries it ever had and has: what is gone and was not read was missed. Plain decisions: no clock, no I/O.

use pulse_core::{EventId, StreamInfo};

use crate::Start;

/// What a reader has seen of a stream.
#[derive(Debug)]
pub(super) struct Continuity {
    /// The last entry that was read, or where reading began.
    position: EventId,
    /// How many entries were appended up to the position, `None` while that is not known: a start in the middle.
    index: Option<u64>,
    /// Whether the last read left entries behind, as far as it could tell.
    behind: bool,
}

/// Entries that were dropped before they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missed {
    /// The last entry before them that was read.
    pub(crate) after: EventId,
    /// The first one after them, `None` if the stream is gone.
    pub(crate) before: Option<EventId>,
    /// How many; `None` if that cannot be told, also whether there were any.
    pub(crate) events: Option<u64>,
}

impl Continuity {
    /// Begins, given the stream as it is then.
    pub(super) fn begin(start: Start, info: Option<&StreamInfo>) -> (Self, Option<Missed>) {
        let position = start.position(info);
        let Some(info) = info else {
            return (Self { position, index: Some(0), behind: false }, None);
        };
        let removed = removed(info);
        let (index, missed) = if position >= info.last {
            (Some(info.appended), None)
        } else if info.first.is_some_and(|first| position >= first) {
            (None, None)
        } else {
            // All that was dropped so far lies before what will be read. Whoever goes on somewhere wanted it.
            let wanted = removed > 0 && !matches!(start, Start::Oldest);
            let missed = Missed { after: position, before: Some(info.first.unwrap_or(info.last)), events: None };
            (Some(removed), wanted.then_some(missed))
        };
        (Self { position, index, behind: false }, missed)
    }

    /// After which entry to read next.
    pub(super) fn position(&self) -> EventId {
        self.position
    }

    /// Whether there is nothing more to read, as far as the last read could tell.
    pub(super) fn caught_up(&self) -> bool {
        !self.behind
    }

    /// Whether the stream has to be asked about a read: where its `stands` does not vouch for it, and where a look at
    /// the stream tells the place that was not known.
    pub(super) fn doubts(&self, stands: bool, read: &[EventId]) -> bool {
        !stands || (self.index.is_none() && read.is_empty())
    }

    /// Takes note of a read that nothing was dropped before.
    pub(super) fn follows(&mut self, read: &[EventId], full: bool) {
        self.index = self.index.map(|index| index + read.len() as u64);
        self.advance(read, full);
    }

    /// Takes note of a read after which the stream was asked, and says what was missed.
    pub(super) fn verify(&mut self, read: &[EventId], full: bool, info: Option<&StreamInfo>) -> Option<Missed> {
        let missed = match info {
            None => {
                let lost = self.behind && read.is_empty();
                self.index = Some(0);
                lost.then_some(Missed { after: self.position, before: None, events: None })
            }
            Some(info) if info.first.is_some_and(|first| first <= self.position) => {
                // Something older stands, so nothing was dropped from the end: the last entry was removed by itself.
                self.index = self.index.map(|index| index + read.len() as u64);
                None
            }
            Some(info) => self.compare(read, info),
        };
        if info.is_some_and(|info| info.last <= self.position.max(read.last().copied().unwrap_or(EventId::ZERO))) {
            self.index = info.map(|info| info.appended);
        }
        self.advance(read, full);
        missed
    }

    fn compare(&mut self, read: &[EventId], info: &StreamInfo) -> Option<Missed> {
        let removed = removed(info);
        let another = info.last < self.position || self.index.is_some_and(|index| index > info.appended);
        let known = if another { Some(0) } else { self.index };
        // Those that were read and have been dropped since; what stands begins after them.
        let dropped = read.iter().filter(|id| info.first.is_none_or(|first| **id < first)).count() as u64;
        self.index = Some(removed + read.len() as u64 - dropped);
        let exact = info.max_deleted == EventId::ZERO;
        let events = known.map(|index| removed.saturating_sub(index + dropped));
        let events = match events {
            Some(0) if another && self.behind => None,
            Some(0) => return None,
            Some(events) => exact.then_some(events),
            // Everything that was ever dropped may have come before the start.
            None if removed == 0 => return None,
            None => None,
        };
        // If all that was read is gone by now, more may have been dropped behind it, and both are told of at once.
        let one_gap = read.is_empty() || dropped < read.len() as u64;
        let before = read.first().copied().filter(|_| one_gap).or(info.first).or(info.last.next());
        Some(Missed { after: self.position, before, events })
    }

    fn advance(&mut self, read: &[EventId], full: bool) {
        if let Some(last) = read.last() {
            self.position = self.position.max(*last);
        }
        self.behind = full;
    }
}

/// How many entries of the stream are gone.
fn removed(info: &StreamInfo) -> u64 {
    info.appended.saturating_sub(info.length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(millis: u64) -> EventId {
        EventId::new(millis, 0)
    }

    fn ids(millis: impl IntoIterator<Item = u64>) -> Vec<EventId> {
        millis.into_iter().map(id).collect()
    }

    /// Of the entries 1 to `last`, those from `first` on stand.
    fn standing(first: u64, last: u64) -> StreamInfo {
        let mut info = StreamInfo::default();
        info.length = last + 1 - first;
        info.appended = last;
        info.first = (first <= last).then(|| id(first));
        info.last = id(last);
        info
    }

    fn begun(start: Start, info: &StreamInfo) -> Continuity {
        let (continuity, missed) = Continuity::begin(start, Some(info));
        assert_eq!(missed, None);
        continuity
    }

    #[test]
    fn nothing_was_missed_while_the_last_entry_stands() {
        let mut reader = begun(Start::Oldest, &standing(4, 9));
        assert!(reader.doubts(false, &ids(4..=9)), "nothing was read before");
        assert_eq!(reader.verify(&ids(4..=9), false, Some(&standing(4, 9))), None);
        assert!(!reader.doubts(true, &[]));
        reader.follows(&ids(10..=12), false);
        assert_eq!(reader.position(), id(12));
    }

    #[test]
    fn what_was_dropped_unread_is_counted_exactly() {
        let mut reader = begun(Start::Newest, &standing(1, 5));
        let missed = reader.verify(&ids(9..=12), false, Some(&standing(9, 12)));
        assert_eq!(missed, Some(Missed { after: id(5), before: Some(id(9)), events: Some(3) }));
        assert_eq!(
            reader.verify(&[], false, Some(&standing(13, 12))),
            None,
            "all of it was read before it was dropped"
        );
        let missed = reader.verify(&[], false, Some(&standing(15, 14)));
        assert_eq!(missed.and_then(|missed| missed.events), Some(2), "nothing stands any more");
        assert_eq!(reader.verify(&ids(15..=16), false, Some(&standing(15, 16))), None, "told once");
    }

    #[test]
    fn what_is_dropped_between_the_read_and_the_question_is_no_hole_if_it_was_read() {
        let mut reader = begun(Start::Newest, &standing(1, 5));
        assert_eq!(reader.verify(&ids(6..=8), true, Some(&standing(8, 20))), None);
        let missed = reader.verify(&ids(15..=20), false, Some(&standing(15, 20)));
        assert_eq!(missed.and_then(|missed| missed.events), Some(6), "9 to 14");
        let missed = reader.verify(&ids(25..=28), false, Some(&standing(27, 28))).unwrap();
        assert_eq!((missed.before, missed.events), (Some(id(25)), Some(4)), "25 and 26 were read in time");
    }

    #[test]
    fn an_entry_that_was_removed_by_itself_is_no_hole() {
        let mut reader = begun(Start::Newest, &standing(1, 5));
        let mut info = standing(1, 7);
        (info.length, info.max_deleted) = (6, id(5));
        assert_eq!(reader.verify(&ids(6..=7), false, Some(&info)), None);
    }

    #[test]
    fn where_entries_were_removed_by_themselves_the_number_is_not_told() {
        let mut reader = begun(Start::Newest, &standing(1, 5));
        let mut info = standing(9, 12);
        (info.length, info.max_deleted) = (3, id(11));
        let missed = reader.verify(&ids([9, 10, 12]), false, Some(&info)).unwrap();
        assert_eq!((missed.before, missed.events), (Some(id(9)), None));
    }

    #[test]
    fn who_goes_on_after_an_event_that_is_gone_may_have_missed_something() {
        let (_, missed) = Continuity::begin(Start::After(id(3)), Some(&standing(6, 9)));
        assert_eq!(missed, Some(Missed { after: id(3), before: Some(id(6)), events: None }));
        let (_, missed) = Continuity::begin(Start::After(id(3)), Some(&standing(1, 9)));
        assert_eq!(missed, None);
        let (_, missed) = Continuity::begin(Start::Oldest, Some(&standing(6, 9)));
        assert_eq!(missed, None, "who wants what there is gets it");
    }

    #[test]
    fn a_start_in_the_middle_learns_its_place_when_it_has_caught_up() {
        let mut reader = begun(Start::After(id(3)), &standing(1, 9));
        reader.follows(&ids(4..=9), false);
        assert!(reader.doubts(true, &[]));
        assert_eq!(reader.verify(&[], false, Some(&standing(1, 9))), None);
        assert!(!reader.doubts(true, &[]));
        let missed = reader.verify(&ids(12..=12), false, Some(&standing(12, 12)));
        assert_eq!(missed.and_then(|missed| missed.events), Some(2));
    }

    #[test]
    fn a_stream_that_vanished_is_a_hole_only_for_who_was_behind() {
        let mut reader = begun(Start::Oldest, &standing(1, 9));
        assert_eq!(reader.verify(&ids(1..=5), true, Some(&standing(1, 9))), None);
        let gone = Missed { after: id(5), before: None, events: None };
        assert_eq!(reader.verify(&[], false, None), Some(gone));
        assert_eq!(reader.verify(&[], false, None), None, "told once");
        let mut next = standing(1, 2);
        (next.first, next.last) = (Some(id(20)), id(21));
        assert_eq!(reader.verify(&ids(20..=21), false, Some(&next)), None, "the next life is read whole");
    }

    #[test]
    fn a_life_that_was_followed_by_another_unheard_is_a_hole_for_who_was_behind() {
        let mut reader = begun(Start::Oldest, &standing(1, 9));
        assert_eq!(reader.verify(&ids(1..=5), true, Some(&standing(1, 9))), None);
        let mut next = standing(1, 2);
        (next.first, next.last) = (Some(id(20)), id(21));
        let missed = reader.verify(&ids(20..=21), false, Some(&next)).unwrap();
        assert_eq!((missed.before, missed.events), (Some(id(20)), None));
    }
}
