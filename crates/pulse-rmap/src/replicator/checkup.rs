//! Comparing versions with the backend from time to time, so that a loss that nobody announced cannot stay unnoticed.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use pulse_core::{Backend, Error, MapId, Version, entropy};

use crate::shared::Shared;

/// How long after one comparison the next one comes, plus or minus [`SPREAD`].
const INTERVAL: Duration = Duration::from_secs(10);
/// A fleet that started together must not ask together.
const SPREAD: f64 = 0.2;
/// How long a commit that the backend has may be on its way through the feed.
const GRACE: Duration = Duration::from_millis(500);
/// How soon to ask again after an error.
const RETRY: Duration = Duration::from_secs(1);

/// Asks the backend for its version, again and again.
pub(super) struct Checkup<V> {
    backend: Arc<dyn Backend>,
    map: MapId,
    shared: Arc<Shared<V>>,
    /// Sleeps, then asks. Runs beside the feed, because an answer may take as long as the backend is slow.
    question: BoxFuture<'static, Answer>,
    suspicion: Option<Suspicion>,
}

/// The backend was not where the replica was. By the next answer the feed must have led there, or at least further.
#[derive(Debug, Clone, Copy)]
struct Suspicion {
    target: Option<Version>,
    /// Where the replica was.
    at: Option<Version>,
}

/// What the backend said.
#[derive(Debug)]
struct Answer {
    /// The replica's version just before it was asked.
    before: Option<Version>,
    server: Result<Option<Version>, Error>,
}

/// What an answer means.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Nothing is missing.
    Well,
    /// Commits may be on their way; the next answer will tell.
    Wait,
    /// The feed will not lead to where the backend is.
    Diverged { server: Option<Version> },
    /// The backend did not say.
    Silent(Error),
}

impl<V: Send + Sync + 'static> Checkup<V> {
    pub(super) fn new(backend: &Arc<dyn Backend>, map: &MapId, shared: &Arc<Shared<V>>) -> Self {
        let (backend, map, shared) = (Arc::clone(backend), map.clone(), Arc::clone(shared));
        let question = ask(&backend, &map, &shared, jittered(INTERVAL));
        Self { backend, map, shared, question, suspicion: None }
    }

    /// Waits for the next answer and judges it. Dropping the future loses nothing.
    pub(super) async fn verdict(&mut self) -> Verdict {
        let Answer { before, server } = (&mut self.question).await;
        let at = self.shared.version();
        let suspicion = self.suspicion.take();
        if let Ok(server) = &server {
            self.shared.meter().behind(behind(at, *server));
        }
        let (verdict, pause) = match server {
            Err(error) => (Verdict::Silent(error), jittered(RETRY)),
            Ok(server) => match compare(suspicion, before, at, server) {
                Comparison::Equal => (Verdict::Well, jittered(INTERVAL)),
                Comparison::Ahead => {
                    let target = suspicion.map_or(server, |suspicion| suspicion.target);
                    let target = if led_to(at, target) { server } else { target };
                    self.suspicion = Some(Suspicion { target, at });
                    (Verdict::Wait, GRACE)
                }
                Comparison::Other => (Verdict::Diverged { server }, jittered(INTERVAL)),
            },
        };
        self.question = ask(&self.backend, &self.map, &self.shared, pause);
        verdict
    }
}

fn ask<V: Send + Sync + 'static>(
    backend: &Arc<dyn Backend>,
    map: &MapId,
    shared: &Arc<Shared<V>>,
    pause: Duration,
) -> BoxFuture<'static, Answer> {
    let (backend, map, shared) = (Arc::clone(backend), map.clone(), Arc::clone(shared));
    Box::pin(async move {
        tokio::time::sleep(pause).await;
        let before = shared.version();
        Answer { before, server: backend.map_version(&map).await }
    })
}

fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(1.0 + SPREAD * (2.0 * entropy::fraction() - 1.0))
}

#[derive(Debug, PartialEq, Eq)]
enum Comparison {
    /// The replica is where the backend was, or beyond.
    Equal,
    /// The backend is somewhere that the feed may yet lead to.
    Ahead,
    /// The feed cannot lead there, or has not in time.
    Other,
}

/// Compares what the backend had with where the replica was before the question and is now.
fn compare(
    suspicion: Option<Suspicion>,
    before: Option<Version>,
    at: Option<Version>,
    server: Option<Version>,
) -> Comparison {
    if let Some(suspicion) = suspicion.filter(|suspicion| !led_to(at, suspicion.target)) {
        let moves = matches!((suspicion.at, at), (Some(then), Some(now)) if now.revision > then.revision && now.includes(&then));
        let there =
            matches!((suspicion.target, at), (Some(target), Some(now)) if target.incarnation == now.incarnation);
        return if moves && there { Comparison::Ahead } else { Comparison::Other };
    }
    if let (Some(before), Some(server)) = (before, server) {
        // The backend has less than the replica had before asking: it lost commits, in a failover for instance.
        if before.incarnation == server.incarnation && server.revision < before.revision {
            return Comparison::Other;
        }
    }
    if led_to(at, server) { Comparison::Equal } else { Comparison::Ahead }
}

/// By how many revisions; a replica of another life lacks all of this one.
fn behind(at: Option<Version>, server: Option<Version>) -> u64 {
    match (at, server) {
        (_, None) => 0,
        (Some(at), Some(server)) if at.incarnation == server.incarnation => {
            server.revision.0.saturating_sub(at.revision.0)
        }
        (_, Some(server)) => server.revision.0,
    }
}

fn led_to(at: Option<Version>, target: Option<Version>) -> bool {
    match (at, target) {
        (None, None) => true,
        (Some(at), Some(target)) => at.includes(&target),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use pulse_core::{Incarnation, Revision};

    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "a version that may be missing is what is compared")]
    fn v(incarnation: u64, revision: u64) -> Option<Version> {
        Some(Version { incarnation: Incarnation(incarnation), revision: Revision(revision) })
    }

    #[expect(clippy::unnecessary_wraps, reason = "a suspicion that may be missing is what is given")]
    fn suspected(target: Option<Version>, at: Option<Version>) -> Option<Suspicion> {
        Some(Suspicion { target, at })
    }

    #[test]
    fn a_replica_that_moved_on_during_the_question_is_well() {
        assert_eq!(compare(None, v(1, 5), v(1, 7), v(1, 6)), Comparison::Equal);
        assert_eq!(compare(None, None, None, None), Comparison::Equal);
    }

    #[test]
    fn a_backend_that_has_less_than_the_replica_had_has_lost_commits() {
        assert_eq!(compare(None, v(1, 5), v(1, 7), v(1, 4)), Comparison::Other);
    }

    #[test]
    fn a_backend_that_is_ahead_is_given_one_chance() {
        assert_eq!(compare(None, v(1, 5), v(1, 5), v(1, 6)), Comparison::Ahead);
        assert_eq!(compare(suspected(v(1, 6), v(1, 5)), v(1, 5), v(1, 5), v(1, 6)), Comparison::Other);
        assert_eq!(compare(suspected(v(1, 6), v(1, 5)), v(1, 6), v(1, 6), v(1, 9)), Comparison::Ahead);
    }

    #[test]
    fn a_replica_is_behind_by_what_the_backend_has_more() {
        assert_eq!([behind(v(1, 5), v(1, 9)), behind(v(1, 9), v(1, 5)), behind(v(1, 5), None)], [4, 0, 0]);
        assert_eq!([behind(v(1, 5), v(2, 3)), behind(None, v(2, 3)), behind(None, None)], [3, 3, 0]);
    }

    #[test]
    fn a_feed_that_is_late_but_moves_is_waited_for() {
        assert_eq!(compare(suspected(v(1, 90), v(1, 5)), v(1, 7), v(1, 8), v(1, 95)), Comparison::Ahead);
        assert_eq!(compare(suspected(v(1, 90), v(1, 8)), v(1, 8), v(1, 8), v(1, 95)), Comparison::Other);
        assert_eq!(compare(suspected(v(2, 1), v(1, 5)), v(1, 7), v(1, 8), v(2, 1)), Comparison::Other);
    }

    #[test]
    fn a_map_that_vanished_or_began_anew_without_a_word_is_found_out() {
        for server in [None, v(2, 1)] {
            assert_eq!(compare(None, v(1, 5), v(1, 5), server), Comparison::Ahead);
            assert_eq!(compare(suspected(server, v(1, 5)), v(1, 5), v(1, 5), server), Comparison::Other);
        }
        assert_eq!(compare(None, None, None, v(1, 5)), Comparison::Ahead);
        assert_eq!(compare(suspected(v(1, 5), None), None, None, v(1, 5)), Comparison::Other);
    }
}
