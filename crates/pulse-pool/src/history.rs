//! Noticing that what was confirmed may be lost, as by a failover to a replica that lacked the last writes.
//!
//! Then somebody may run a job by a record that is no more, while the record that stands now names somebody else.
//! Whoever runs such a job stops it as soon as the replica shows that its record is another one, or when the lease runs
//! out that cannot be renewed; and a node that hears of another server but is not shown what it holds gives its lease
//! up. So a node that notices **holds still** for as long as the longest lease that the pool has ever had: what runs
//! here and may run goes on, but nothing is started, taken over, moved, handed on or removed. And the epochs jump ahead
//! of all that may have been given out.
//!
//! It is noticed by the run of the server. Its name stands in the pool, and every node compares it when it joins and
//! whenever its replica of the jobs was read anew, before it begins anything by what was read. Whoever finds another
//! name than the server's writes down when that was. A backend that cannot name its run, and a loss within one run
//! (`FLUSHALL`, say), are noticed by the version of the jobs, which goes back, and by changes of this node that are
//! gone although they were confirmed.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use pulse_core::{Error, Version};
use tokio::time::Instant;

use crate::{
    Epoch,
    new_job::millis,
    pool::Pool,
    record::{JobRecord, ServerRecord},
    write::{BackOff, replace},
};

/// More changes than are ever lost at once: so far the epochs jump ahead.
const LOST_AT_MOST: u64 = 1 << 24;

/// How often in a row the server may seem to be another one, as where a proxy leads to several.
const MOST_FLIPS: u32 = 8;

/// What a node remembers of the jobs' history.
#[derive(Debug)]
pub(crate) struct History(Mutex<State>);

#[derive(Debug)]
struct State {
    /// What the replica showed last.
    version: Option<Version>,
    /// The reading of the jobs that the server's run was compared for.
    verified: u64,
    /// The server's run, as it was compared last.
    run: Option<String>,
    /// It was said that the server does not tell its run.
    said: bool,
    /// Counts what was found to be lost, and how much of that the pool knows of.
    found: u64,
    told: u64,
    /// The loss in the pool's record that this node has held still for.
    held_for: u64,
    /// How often in a row the server seemed to be another one.
    flips: u32,
    /// The reading that is certainly older than the server's run.
    outdated: u64,
    /// What epochs exceed the revisions by.
    floor: u64,
    /// Of all nodes' leases.
    longest_ttl: Duration,
    holds_until: Option<Instant>,
}

/// When something may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    Now,
    HoldsUntil(Instant),
    /// Once it is known whether the server is the one that it was.
    WhenVerified,
}

impl History {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self(Mutex::new(State {
            version: None,
            verified: 0,
            run: None,
            said: false,
            found: 0,
            told: 0,
            held_for: 0,
            flips: 0,
            outdated: 0,
            floor: 0,
            longest_ttl: ttl,
            holds_until: None,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in the version of the jobs that the replica shows. Returns whether it says that something was lost.
    pub(crate) fn see_version(&self, version: Option<Version>) -> bool {
        let mut state = self.lock();
        let lost = match (state.version, version) {
            (Some(before), Some(now)) => before.incarnation != now.incarnation || before.revision > now.revision,
            (Some(_), None) => true,
            (None, _) => false,
        };
        state.version = version;
        if lost {
            state.find_lost();
        }
        lost
    }

    /// A change of ours was confirmed, and is gone.
    pub(crate) fn note_lost_change(&self) {
        self.lock().find_lost();
    }

    /// Whether the server's run was compared since the jobs were read, and the pool knows of all that was found.
    pub(crate) fn is_verified(&self, reading: u64) -> bool {
        let state = self.lock();
        state.verified == reading && state.found == state.told && !state.hold_is_over()
    }

    /// Notes that all is known that can be.
    pub(crate) fn set_verified(&self, reading: u64) {
        let mut state = self.lock();
        let found = state.found;
        state.set_verified(reading, found);
    }

    /// Takes in the server's run between two readings. Returns whether it is another one than it was when the jobs were
    /// read, so that nothing may begin by that reading.
    pub(crate) fn see_run(&self, run: &str, reading: u64) -> bool {
        let mut state = self.lock();
        // A reading that was not compared yet may be of the server that it is now.
        state.find_outdated(run, reading)
    }

    /// Whether a reading is known to be older than the server's run.
    pub(crate) fn is_outdated(&self, reading: u64) -> bool {
        self.lock().outdated >= reading
    }

    /// When something may begin by what is read in that reading.
    pub(crate) fn may_begin(&self, reading: u64) -> Begin {
        let state = self.lock();
        match state.holds_until {
            _ if state.verified != reading || state.outdated >= reading || state.hold_is_over() => Begin::WhenVerified,
            Some(until) => Begin::HoldsUntil(until),
            None => Begin::Now,
        }
    }

    /// The epoch of a start of that job that begins now.
    pub(crate) fn next_epoch(&self, record: &JobRecord) -> Epoch {
        let state = self.lock();
        // Whoever takes the job from us commits a later revision, and starts it at that or a later one.
        let by_version = state.version.map_or(0, |version| version.revision.0).saturating_add(state.floor);
        let by_record = record.epoch().map_or(0, |epoch| epoch.0.saturating_add(1));
        Epoch(by_version.max(by_record))
    }

    /// What has to be written down, if anything: the record that is to stand for a server of that run, given the one
    /// that stands, at that time of the server's clock. Besides, how much of what this node has found is in it.
    fn to_write(
        &self,
        reading: u64,
        run: Option<&str>,
        stands: Option<&ServerRecord>,
        ttl: Duration,
        now: u64,
    ) -> (Option<ServerRecord>, u64) {
        let mut state = self.lock();
        let longest_ttl = stands.map_or(0, |stands| stands.longest_ttl).max(millis(ttl));
        let flips = run.is_some_and(|run| stands.is_some_and(|stands| stands.run != run));
        state.flips = if flips { state.flips.saturating_add(1) } else { state.flips };
        // A name that is never the same tells nothing.
        let run =
            run.filter(|_| state.flips < MOST_FLIPS).or(stands.map(|stands| stands.run.as_str())).unwrap_or_default();
        // What this node has noticed, another one may have written down a moment ago.
        let is_told = |stands: &ServerRecord| stands.since.saturating_add(longest_ttl) > now;
        let is_news = state.found != state.told && !stands.is_some_and(is_told);
        state.find_outdated(run, reading);
        let is_other = state.run.as_deref().is_some_and(|known| known != run) && !stands.is_some_and(is_told);
        let lost = is_news || is_other || stands.is_some_and(|stands| stands.run != run);
        if lost {
            // Whether that can be written down or not.
            let longest = state.longest_ttl;
            state.hold_for(longest);
        }
        let floor = match stands {
            Some(stands) if lost => stands.floor.saturating_add(LOST_AT_MOST).max(state.floor),
            Some(stands) => stands.floor.max(state.floor),
            None => state.floor,
        };
        let since = if lost { now } else { stands.map_or(0, |stands| stands.since) };
        let record = ServerRecord { run: run.to_owned(), since, floor, longest_ttl };
        ((Some(&record) != stands).then_some(record), state.found)
    }

    /// Takes in what stands in the pool, at that time of the server's clock.
    fn adopt(&self, stands: &ServerRecord, now: u64, reading: u64, told: u64) {
        let mut state = self.lock();
        if state.run.as_ref() != Some(&stands.run) {
            state.run = Some(stands.run.clone());
        } else if state.holds_until.is_none() {
            state.flips = 0;
        }
        state.learn(stands, now);
        state.set_verified(reading, told);
    }
}

impl State {
    /// Takes in what others have noticed.
    fn learn(&mut self, stands: &ServerRecord, now: u64) {
        self.floor = self.floor.max(stands.floor);
        self.longest_ttl = self.longest_ttl.max(Duration::from_millis(stands.longest_ttl));
        let passed = Duration::from_millis(now.saturating_sub(stands.since));
        let left = self.longest_ttl.saturating_sub(passed);
        // Once for each loss, however the server's clock is set meanwhile.
        if stands.since != self.held_for && !left.is_zero() {
            self.hold_for(left);
        }
        self.held_for = stands.since;
    }

    fn find_lost(&mut self) {
        // One loss may show in several ways.
        if self.holds_until.is_none_or(|until| until <= Instant::now()) {
            self.floor = self.floor.saturating_add(LOST_AT_MOST);
        }
        self.hold_for(self.longest_ttl);
        self.found += 1;
    }

    /// Notes that a reading is older than the server's run, if it was compared with another one.
    fn find_outdated(&mut self, run: &str, reading: u64) -> bool {
        let is_other = self.run.as_deref().is_some_and(|known| known != run) && self.flips < MOST_FLIPS;
        let is_outdated = is_other && self.verified == reading;
        if is_outdated {
            self.outdated = self.outdated.max(reading);
        }
        is_outdated
    }

    /// Whether the time is over for which the node held still. Others may have learnt more meanwhile, so that it has to
    /// look once more.
    fn hold_is_over(&self) -> bool {
        self.holds_until.is_some_and(|until| until <= Instant::now())
    }

    fn set_verified(&mut self, reading: u64, told: u64) {
        if self.hold_is_over() {
            tracing::info!("nothing is held up any more");
            self.holds_until = None;
        }
        (self.verified, self.told) = (reading, told);
    }

    fn hold_for(&mut self, time: Duration) {
        if self.holds_until.is_none() {
            tracing::warn!(?time, "confirmed changes of a pool may be lost: nothing begins on this node for a while");
        }
        let until = Instant::now() + time;
        self.holds_until = Some(self.holds_until.map_or(until, |before| before.max(until)));
    }
}

/// Takes in what others have noticed between two readings. Whoever notices a loss begins nothing for the time of the
/// longest lease from when that is written down; so everybody knows by then what epochs are raised by.
pub(crate) async fn learn(pool: &Pool) {
    // If it fails, the next look will tell, or the lease runs out.
    let raw = pool.tables.read_server().await.ok().flatten();
    if let Some(stands) = raw.and_then(|raw| pulse_core::message_pack::decode::<ServerRecord>(&raw).ok()) {
        pool.history.lock().learn(&stands, pool.clock.now());
    }
}

/// Compares the server's run with the one that the pool knows, for a reading of the jobs, and sees to it that the pool
/// knows the one that it is.
///
/// # Errors
///
/// Those that asking again does not heal.
pub(crate) async fn verify(pool: &Pool, reading: u64) -> Result<(), Error> {
    let mut back_off = BackOff::new(Duration::from_millis(20), Duration::from_secs(2));
    loop {
        match compare(pool, reading).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) if error.is_retryable() || error.is_outcome_unknown() => back_off.pause().await,
            Err(error) => return Err(error),
        }
    }
}

/// Returns `false` if somebody else was faster.
async fn compare(pool: &Pool, reading: u64) -> Result<bool, Error> {
    let (tables, history) = (&pool.tables, &pool.history);
    let client = tables.client();
    // A backend that cannot tell may still have lost something that shows otherwise.
    let run = client.backend().server_run(tables.scope()).await?;
    if run.is_none() && !std::mem::replace(&mut history.lock().said, true) {
        tracing::warn!(
            pool = %pool.name, node = %pool.node,
            "the server does not say which it is: let the user call INFO, or losses in a failover may stay unnoticed"
        );
    }
    // The clock of another server is another clock.
    pool.clock.adjust(client, tables.scope()).await?;
    let (raw, now) = (tables.read_server().await?, pool.clock.now());
    let stands = raw.as_ref().and_then(|raw| pulse_core::message_pack::decode::<ServerRecord>(raw).ok());
    let (record, told) = history.to_write(reading, run.as_deref(), stands.as_ref(), pool.options.worker_ttl, now);
    let Some(record) = record else {
        if let Some(stands) = stands {
            history.adopt(&stands, now, reading, told);
        }
        return Ok(true);
    };
    let new = encode(&record)?;
    if !replace(client, &tables.put_server(raw.as_ref(), new.clone()), &new, None).await? {
        return Ok(false);
    }
    if stands.is_some_and(|stands| stands.run != record.run) {
        tracing::warn!(
            pool = %pool.name, node = %pool.node,
            "the server was restarted or has failed over, and may have lost writes: nothing begins for the time of a lease"
        );
    }
    history.adopt(&record, now, reading, told);
    Ok(true)
}

fn encode(record: &ServerRecord) -> Result<Bytes, Error> {
    pulse_core::message_pack::encode(record).map_err(|source| Error::InvalidRequest {
        subject: "the record of the server's run".into(),
        reason: source.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use pulse_core::{Incarnation, Revision};

    use super::*;
    use crate::{id::DispatchId, record::Terms};

    const TTL: Duration = Duration::from_secs(10);
    const NOW: u64 = 1_000_000;

    fn at(incarnation: u64, revision: u64) -> Option<Version> {
        Some(Version { incarnation: Incarnation(incarnation), revision: Revision(revision) })
    }

    fn job() -> JobRecord {
        JobRecord::dispatched(DispatchId(7), Terms::default(), None, None)
    }

    /// A node that knows that server, and the record that it has written.
    fn verified(run: &str, stands: Option<&ServerRecord>) -> (History, ServerRecord) {
        let history = History::new(TTL);
        let record = history.to_write(2, Some(run), stands, TTL, NOW).0.or_else(|| stands.cloned()).unwrap();
        history.adopt(&record, NOW, 1, 0);
        (history, record)
    }

    #[tokio::test(start_paused = true)]
    async fn a_history_that_goes_on_holds_up_nothing() {
        let (history, record) = verified("a", None);
        for version in [None, at(1, 1), at(1, 2), at(1, 2), at(1, 9)] {
            assert!(!history.see_version(version));
        }
        assert_eq!(history.may_begin(1), Begin::Now);
        assert_eq!(history.next_epoch(&job()), Epoch(9));
        assert_eq!(history.to_write(2, Some("a"), Some(&record), TTL, NOW + 5), (None, 0), "there is nothing to write");
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_have_noticed_holds_up_and_raises_epochs_also_where_nothing_else_tells() {
        let (history, record) = verified("a", None);
        history.see_version(at(1, 9));
        let noticed = ServerRecord { floor: record.floor + LOST_AT_MOST, since: NOW + 5, ..record };
        history.lock().learn(&noticed, NOW + 5);
        assert_eq!(history.may_begin(1), Begin::HoldsUntil(Instant::now() + TTL));
        assert_eq!(history.next_epoch(&job()), Epoch(LOST_AT_MOST + 9));
        // The same again puts nothing off.
        let until = Instant::now() + TTL;
        tokio::time::advance(TTL / 2).await;
        history.lock().learn(&noticed, NOW + 5_005);
        assert_eq!(history.may_begin(1), Begin::HoldsUntil(until));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_begins_by_what_was_read_before_the_server_was_looked_at() {
        let (history, record) = verified("a", None);
        assert_eq!(history.may_begin(2), Begin::WhenVerified);
        history.adopt(&record, NOW, 2, 0);
        assert_eq!(history.may_begin(2), Begin::Now);
        // Somebody heard that it is another one since.
        assert!(!history.see_run("a", 2));
        assert!(history.see_run("b", 2));
        assert_eq!(
            (history.may_begin(2), history.is_outdated(2), history.is_outdated(3)),
            (Begin::WhenVerified, true, false)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn another_run_of_the_server_holds_everybody_for_the_longest_lease() {
        let (history, first) = verified("a", None);
        let second = history.to_write(2, Some("b"), Some(&first), TTL, NOW).0.unwrap();
        history.adopt(&second, NOW, 2, 0);
        assert_eq!(history.may_begin(2), Begin::HoldsUntil(Instant::now() + TTL));
        // Also those who come later, for what is left of it, and whose own leases are shorter.
        let late = History::new(TTL / 10);
        assert_eq!(late.to_write(2, Some("b"), Some(&second), TTL / 10, NOW + 4_000), (None, 0));
        late.adopt(&second, NOW + 4_000, 1, 0);
        assert_eq!(late.may_begin(1), Begin::HoldsUntil(Instant::now() + Duration::from_secs(6)));
        tokio::time::advance(TTL).await;
        // What others have learnt meanwhile comes first.
        assert_eq!((history.may_begin(2), history.is_verified(2)), (Begin::WhenVerified, false));
        // Also where the clock was set back.
        let now = NOW - 500_000;
        history.adopt(&second, now, 2, 0);
        late.adopt(&second, now, 1, 0);
        assert_eq!((history.may_begin(2), late.may_begin(1)), (Begin::Now, Begin::Now));
    }

    #[tokio::test(start_paused = true)]
    async fn a_loss_within_a_run_is_noticed_and_told_to_the_others() {
        for lost in [at(1, 8), at(2, 20), None] {
            let (history, record) = verified("a", None);
            history.see_version(at(1, 9));
            assert!(history.see_version(lost), "{lost:?}");
            assert_eq!(history.may_begin(1), Begin::HoldsUntil(Instant::now() + TTL));
            assert!(!history.see_version(lost), "once is enough");
            assert!(!history.is_verified(1));
            // Also where the backend cannot tell which server it is.
            let (told, all) = history.to_write(2, None, Some(&record), TTL, NOW);
            let told = told.unwrap();
            assert_eq!((told.since, told.run.as_str()), (NOW, "a"));
            history.note_lost_change();
            history.adopt(&told, NOW, 1, all);
            assert!(!history.is_verified(1), "what was found meanwhile is to be told as well");
            history.adopt(&told, NOW, 1, all + 1);
            assert!(history.is_verified(1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_forgotten_with_everything_else_is_another_one() {
        let (history, _) = verified("a", None);
        let record = history.to_write(2, Some("b"), None, TTL, NOW).0.unwrap();
        assert_eq!(record.since, NOW);
        history.adopt(&record, NOW, 2, 0);
        assert_eq!(history.may_begin(2), Begin::HoldsUntil(Instant::now() + TTL));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_is_never_the_same_stops_nobody_for_ever() {
        let (history, mut stands) = verified("a", None);
        for _ in 0..2 * MOST_FLIPS {
            // Somebody else sees another server behind the same address.
            stands.run = "b".into();
            let written = history.to_write(2, Some("a"), Some(&stands), TTL, NOW).0;
            stands = written.unwrap_or(stands);
            history.adopt(&stands, NOW, 1, 0);
            tokio::time::advance(TTL).await;
        }
        history.adopt(&stands, NOW, 1, 0);
        assert_eq!(history.may_begin(1), Begin::Now);
    }

    #[tokio::test(start_paused = true)]
    async fn epochs_grow_whatever_is_lost() {
        let (history, first) = verified("a", None);
        history.see_version(at(1, 50));
        let given_out = history.next_epoch(&job());
        let second = history.to_write(2, Some("b"), Some(&first), TTL, NOW).0.unwrap();
        // Somebody who was not there, and sees fewer changes.
        let (late, _) = verified("b", Some(&second));
        late.see_version(at(1, 48));
        assert!(late.next_epoch(&job()) > given_out);
        let moved = job().running(Epoch(1 << 40));
        assert_eq!(late.next_epoch(&moved), Epoch((1 << 40) + 1));
    }
}
