//! When a ticker ticks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::new_job::millis;

/// The most missed ticks that are counted one by one.
const MOST_MISSED: u64 = 10_000;

/// When a [`Ticker`](crate::Ticker) ticks: at a fixed interval, or by a cron pattern (feature `cron`), and what becomes
/// of ticks that nobody was there for. A [`Duration`] is a cadence that skips missed ticks.
///
/// ```
/// use std::time::Duration;
/// use pulse_pool::{Cadence, MissedTicks};
///
/// let every_minute = Cadence::every(Duration::from_secs(60));
/// let make_up = every_minute.clone().missed(MissedTicks::Burst);
/// assert_ne!(every_minute, make_up);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cadence {
    #[serde(rename = "r")]
    rhythm: Rhythm,
    #[serde(rename = "m", default)]
    missed: MissedTicks,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Rhythm {
    /// In milliseconds.
    #[serde(rename = "e")]
    Every(u64),
    /// A pattern, and the name of a time zone.
    #[serde(rename = "c")]
    Cron(String, String),
}

/// What becomes of ticks that were due while no node was there to have them, or no backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MissedTicks {
    /// One tick comes at once for all of them, and says [how many](crate::Tick::missed); the next comes when it would
    /// have come anyway.
    #[default]
    #[serde(rename = "s")]
    Skip,
    /// They come one right after the other until all are made up for.
    #[serde(rename = "b")]
    Burst,
    /// One tick comes at once for all of them, and the next a whole interval after it. The same as [`Skip`](Self::Skip)
    /// for a cron pattern.
    #[serde(rename = "d")]
    Delay,
}

impl From<Duration> for Cadence {
    fn from(interval: Duration) -> Self {
        Self::every(interval)
    }
}

impl Cadence {
    /// One tick per interval, from one interval after the ticker was made. To the millisecond; the shortest is one.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self { rhythm: Rhythm::Every(millis(interval).max(1)), missed: MissedTicks::default() }
    }

    /// Sets what becomes of missed ticks.
    #[must_use]
    pub fn missed(self, missed: MissedTicks) -> Self {
        Self { missed, ..self }
    }

    /// The time after a tick, and how many were missed in between. `due`: when the tick was due; `now`: when somebody
    /// has it, which is not earlier. All by the server's clock, in milliseconds. `None` if there is none.
    pub(crate) fn after(&self, due: u64, now: u64) -> (Option<u64>, u64) {
        // A stranger's record may say 0.
        let interval = |every: &u64| (*every).max(1);
        match (&self.rhythm, self.missed) {
            (Rhythm::Every(every), MissedTicks::Skip) => {
                let missed = now.saturating_sub(due) / interval(every);
                (Some(due.saturating_add(interval(every).saturating_mul(missed.saturating_add(1)))), missed)
            }
            (Rhythm::Every(every), MissedTicks::Burst) => (Some(due.saturating_add(interval(every))), 0),
            (Rhythm::Every(every), MissedTicks::Delay) => {
                (Some(now.saturating_add(interval(every))), now.saturating_sub(due) / interval(every))
            }
            (Rhythm::Cron(pattern, zone), MissedTicks::Burst) => (next_by_cron(pattern, zone, due), 0),
            (Rhythm::Cron(pattern, zone), MissedTicks::Skip | MissedTicks::Delay) => {
                let mut missed = 0;
                for time in times_by_cron(pattern, zone, due) {
                    if time > now {
                        return (Some(time), missed);
                    }
                    missed += 1;
                    if missed >= MOST_MISSED {
                        return (next_by_cron(pattern, zone, now), missed);
                    }
                }
                (None, missed)
            }
        }
    }

    /// The first time after `now`.
    pub(crate) fn first(&self, now: u64) -> Option<u64> {
        match &self.rhythm {
            Rhythm::Every(every) => Some(now.saturating_add(*every)),
            Rhythm::Cron(pattern, zone) => next_by_cron(pattern, zone, now),
        }
    }

    /// Whether this process can tell the time by it: it may lack the time zone, or be of a build without patterns.
    pub(crate) fn is_known(&self) -> bool {
        match &self.rhythm {
            Rhythm::Every(_) => true,
            Rhythm::Cron(pattern, zone) => is_cron(pattern, zone),
        }
    }
}

#[cfg(feature = "cron")]
mod cron {
    use std::str::FromStr;

    use croner::Cron;
    use jiff::{Timestamp, tz::TimeZone};

    use super::{Cadence, MissedTicks, Rhythm};

    /// Why a cron pattern or its time zone cannot be used.
    #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
    #[error("{reason}")]
    pub struct InvalidCron {
        reason: String,
    }

    impl Cadence {
        /// By a cron pattern of five fields (minute, hour, day of the month, month, day of the week), six (with seconds
        /// before them) or seven (with years after them), in UTC. `@hourly` and its like are patterns too.
        ///
        /// ```
        /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
        /// use pulse_pool::Cadence;
        ///
        /// let nightly = Cadence::cron("30 2 * * *")?;
        /// let on_weekdays = Cadence::cron_in("0 9 * * MON-FRI", "Europe/Berlin")?;
        /// # assert_ne!(nightly, on_weekdays);
        /// assert!(Cadence::cron("every day").is_err());
        /// # Ok(()) }
        /// ```
        ///
        /// # Errors
        ///
        /// [`InvalidCron`] says what is wrong with the pattern.
        pub fn cron(pattern: impl Into<String>) -> Result<Self, InvalidCron> {
            Self::cron_in(pattern, "UTC")
        }

        /// By a cron pattern in a time zone, as the IANA time zone database calls it. Of a pattern with one time of day
        /// (`30 2 * * *`), a time that a change of the clocks leaves out comes right after it, and one that occurs
        /// twice comes once. One with several (`0 2,14 * * *`, `*/30 * * * *`) goes by the clock as it is shown: what
        /// is left out does not come, and what occurs twice comes twice.
        ///
        /// # Errors
        ///
        /// [`InvalidCron`] says what is wrong with the pattern, or that the time zone is not known here.
        pub fn cron_in(pattern: impl Into<String>, time_zone: impl Into<String>) -> Result<Self, InvalidCron> {
            let (pattern, zone) = (pattern.into(), time_zone.into());
            let invalid = |reason: String| InvalidCron { reason };
            Cron::from_str(&pattern).map_err(|error| invalid(format!("no cron pattern: {pattern:?}: {error}")))?;
            zone_of(&zone).map_err(|error| invalid(format!("no time zone: {zone:?}: {error}")))?;
            Ok(Self { rhythm: Rhythm::Cron(pattern, zone), missed: MissedTicks::default() })
        }
    }

    /// UTC is known also where there is no database of time zones.
    fn zone_of(name: &str) -> Result<TimeZone, jiff::Error> {
        if name == "UTC" { Ok(TimeZone::UTC) } else { TimeZone::get(name) }
    }

    /// Whether the time can be told by the pattern.
    pub(super) fn is_known(pattern: &str, zone: &str) -> bool {
        Cron::from_str(pattern).is_ok() && zone_of(zone).is_ok()
    }

    /// The times of the pattern after that one.
    pub(super) fn times(pattern: &str, zone: &str, after: u64) -> impl Iterator<Item = u64> {
        // The pattern is read once, however many times are asked for.
        let known = Cron::from_str(pattern).ok().zip(zone_of(zone).ok());
        known.into_iter().flat_map(move |(cron, zone)| {
            let mut at = after;
            std::iter::from_fn(move || {
                let before = Timestamp::from_millisecond(i64::try_from(at).ok()?).ok()?.to_zoned(zone.clone());
                let next = cron.find_next_occurrence(&before, false).ok()?;
                at = u64::try_from(next.timestamp().as_millisecond()).ok()?;
                Some(at)
            })
        })
    }
}

/// The first time of the pattern after that one.
fn next_by_cron(pattern: &str, zone: &str, after: u64) -> Option<u64> {
    times_by_cron(pattern, zone, after).next()
}

#[cfg(feature = "cron")]
pub use self::cron::InvalidCron;

#[cfg(feature = "cron")]
use self::cron::{is_known as is_cron, times as times_by_cron};

#[cfg(not(feature = "cron"))]
fn is_cron(_pattern: &str, _zone: &str) -> bool {
    false
}

/// Nodes of this build cannot tell.
#[cfg(not(feature = "cron"))]
fn times_by_cron(_pattern: &str, _zone: &str, _after: u64) -> impl Iterator<Item = u64> {
    std::iter::empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_ten() -> Cadence {
        Cadence::every(Duration::from_millis(10))
    }

    #[test]
    fn skipping_keeps_to_the_grid_and_says_how_many_were_missed() {
        for (now, next, missed) in [(100, 110, 0), (109, 110, 0), (110, 120, 1), (147, 150, 4)] {
            assert_eq!(every_ten().after(100, now), (Some(next), missed), "at {now}");
        }
    }

    #[test]
    fn bursting_leaves_none_out() {
        assert_eq!(every_ten().missed(MissedTicks::Burst).after(100, 147), (Some(110), 0));
    }

    #[test]
    fn delaying_begins_anew() {
        assert_eq!(every_ten().missed(MissedTicks::Delay).after(100, 147), (Some(157), 4));
    }

    #[test]
    fn the_end_of_time_is_no_panic() {
        assert_eq!(Cadence::every(Duration::MAX).after(u64::MAX, u64::MAX).0, Some(u64::MAX));
        assert_eq!(Cadence::every(Duration::ZERO).first(7), Some(8));
    }

    #[test]
    fn an_interval_of_nothing_that_a_stranger_has_written_is_no_panic() {
        for missed in [MissedTicks::Skip, MissedTicks::Burst, MissedTicks::Delay] {
            let cadence = Cadence { rhythm: Rhythm::Every(0), missed };
            assert!(cadence.after(100, 147).0 > Some(100), "{missed:?}");
        }
    }

    #[cfg(feature = "cron")]
    mod cron {
        use super::*;

        #[test]
        fn what_this_process_cannot_tell_the_time_by_is_left_to_others() {
            let cadence = |pattern: &str, zone: &str| Cadence {
                rhythm: Rhythm::Cron(pattern.into(), zone.into()),
                missed: MissedTicks::default(),
            };
            assert!(cadence("0 * * * *", "UTC").is_known());
            assert!(!cadence("0 * * * *", "Nowhere/Land").is_known());
            assert!(!cadence("of a later kind", "UTC").is_known());
        }

        /// 2026-03-28 12:00 UTC, the day before the clocks of Europe change.
        const NOON: u64 = 1_774_699_200_000;
        const HOUR: u64 = 3_600_000;

        #[test]
        fn a_pattern_is_in_utc_unless_said_otherwise() {
            let nightly = |cadence: Cadence| cadence.first(NOON).unwrap();
            assert_eq!(nightly(Cadence::cron("30 2 * * *").unwrap()), NOON + 14 * HOUR + HOUR / 2);
            let berlin = Cadence::cron_in("0 12 * * *", "Europe/Berlin").unwrap();
            // It is 13:00 there now, and after the change of the clocks two hours ahead of UTC.
            assert_eq!(nightly(berlin), NOON + 22 * HOUR);
        }

        #[test]
        fn missed_times_of_a_pattern_are_counted() {
            let hourly = Cadence::cron("0 * * * *").unwrap();
            assert_eq!(hourly.after(NOON, NOON + 5 * HOUR / 2), (Some(NOON + 3 * HOUR), 2));
            let all = hourly.clone().missed(MissedTicks::Burst);
            assert_eq!(all.after(NOON, NOON + 5 * HOUR / 2), (Some(NOON + HOUR), 0));
            let now = NOON + 2 * MOST_MISSED * HOUR;
            assert_eq!(
                hourly.after(NOON, now),
                (Some(now + HOUR), MOST_MISSED),
                "not all are counted, and none comes twice"
            );
        }

        #[test]
        fn a_pattern_whose_last_time_was_missed_has_no_other() {
            let last = Cadence::cron("0 0 14 28 3 * 2026").unwrap();
            assert_eq!(last.after(NOON, NOON + 5 * HOUR), (None, 1));
        }

        #[test]
        fn a_pattern_without_a_future_has_none() {
            assert_eq!(Cadence::cron("0 0 0 1 1 * 2020").unwrap().first(NOON), None);
        }

        #[test]
        fn bad_patterns_and_zones_are_errors_that_name_them() {
            for (pattern, zone) in [("", "UTC"), ("61 * * * *", "UTC"), ("* * * * *", "Europe/Atlantis")] {
                let error = Cadence::cron_in(pattern, zone).unwrap_err().to_string();
                assert!(error.contains(if zone == "UTC" { pattern } else { zone }), "{error}");
            }
        }
    }
}
