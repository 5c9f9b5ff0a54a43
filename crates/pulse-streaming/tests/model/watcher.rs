//! A reader beside the sink, and what it may not leave out: each event is delivered, or told of as missed.

use std::{collections::BTreeSet, ops::Bound::Excluded, time::Duration};

use pulse_streaming::{EventId, Notice, Reader};
use tokio::time::timeout;

pub(crate) struct Watcher {
    reader: Reader,
    /// What it is still to say something of.
    outstanding: BTreeSet<EventId>,
    /// Whether every gap has a number. One that began in the middle cannot always tell.
    exact: bool,
}

impl Watcher {
    pub(crate) fn new(reader: Reader, outstanding: BTreeSet<EventId>, exact: bool) -> Self {
        Self { reader, outstanding, exact }
    }

    pub(crate) fn added(&mut self, ids: &[EventId]) {
        self.outstanding.extend(ids);
    }

    /// Takes one event or notice, if one comes in time; `standing` are the events that were not dropped.
    pub(crate) async fn take(&mut self, patience: Duration, standing: &BTreeSet<EventId>) -> Result<bool, String> {
        let Ok(next) = timeout(patience, self.reader.next()).await else { return Ok(false) };
        match next.ok_or("the reader ended")? {
            Ok(event) => {
                let id = event.id();
                match self.outstanding.pop_first() {
                    Some(due) if due == id => {}
                    due => return Err(format!("the reader has {id}, and {due:?} was next")),
                }
            }
            Err(Notice::Missed { after, before, events, .. }) => self.missed(after, before, events, standing)?,
            Err(notice) => return Err(notice.to_string()),
        }
        Ok(true)
    }

    fn missed(
        &mut self,
        after: EventId,
        before: Option<EventId>,
        events: Option<u64>,
        standing: &BTreeSet<EventId>,
    ) -> Result<(), String> {
        let before = before.ok_or("the reader takes the stream for gone")?;
        let gone: Vec<EventId> = self.outstanding.range((Excluded(after), Excluded(before))).copied().collect();
        let told = format!("the reader missed {events:?} events after {after} and before {before}; it did {gone:?}");
        if events.map_or(self.exact, |events| events != gone.len() as u64 || events == 0) {
            return Err(told);
        }
        if gone.iter().any(|id| standing.contains(id)) {
            return Err(format!("{told}, of which some stand"));
        }
        for id in gone {
            self.outstanding.remove(&id);
        }
        Ok(())
    }

    /// Reads to the end, and looks whether anything was left out.
    pub(crate) async fn end(&mut self, standing: &BTreeSet<EventId>) -> Result<(), String> {
        while self.take(Duration::from_secs(60), standing).await? {}
        if self.outstanding.is_empty() { Ok(()) } else { Err(format!("the reader never had {:?}", self.outstanding)) }
    }
}
