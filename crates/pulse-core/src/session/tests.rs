//! What `tests/tests/sessions.rs` cannot see from outside: the clockwork, and the tasks of the client.

use std::sync::Arc;

use tokio::time::sleep;

use super::*;
use crate::{
    Backend, Memory,
    testing::{Faulty, Operation},
};

const TTL: Duration = Duration::from_secs(9);

/// A client over a link that can be harmed, and another one of the same store.
struct Setting {
    link: Faulty,
    client: Client,
    store: Memory,
    scope: Scope,
}

fn setting() -> Setting {
    let store = Memory::default();
    let link = Faulty::new(Arc::new(store.another_client()), 1);
    let client = Client::from_backend(Arc::new(link.clone()));
    Setting { link, client, store, scope: Scope::new("sessions").unwrap() }
}

impl Setting {
    async fn open(&self) -> Session {
        Session::open(&self.client, &self.scope, TTL).await.unwrap()
    }

    async fn lease_is_alive(&self, session: &Session) -> bool {
        self.store.commit(Transaction::new(&self.scope).expect_lease_alive(session.lease())).await.is_ok()
    }
}

fn alive_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn closing_the_client_loses_its_sessions_at_once_and_leaves_no_task() {
    let setting = setting();
    let session = setting.open().await;
    let began = Instant::now();
    setting.client.close().await;
    assert_eq!(setting.client.background().running(), 0);
    assert_eq!(alive_tasks(), 0);
    assert_eq!(session.ended().await, SessionState::Lost);
    assert_eq!(session.state(), SessionState::Lost);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(matches!(session.close().await, Err(Error::Closed)));
    assert!(matches!(Session::open(&setting.client, &setting.scope, TTL).await, Err(Error::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_session_over_a_closed_backend_is_lost_at_its_next_renewal() {
    let setting = setting();
    let session = setting.open().await;
    let began = Instant::now();
    setting.client.backend().close().await;
    assert_eq!(session.ended().await, SessionState::Lost);
    assert!(began.elapsed() <= TTL / 3 + RESOLUTION, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_session_renews_no_more_and_its_task_ends() {
    let setting = setting();
    let session = setting.open().await;
    let asked = setting.link.calls(Operation::Commit);
    drop(session);
    sleep(TTL * 3).await;
    assert_eq!(setting.link.calls(Operation::Commit), asked);
    assert_eq!(setting.client.background().running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_not_answered_is_asked_for_again() {
    let setting = setting();
    let session = setting.open().await;
    setting.link.pause();
    // The first renewal hangs and is given up; its second attempt comes through.
    sleep(session_pace().pause + session_pace().attempt + RESOLUTION).await;
    setting.link.resume();
    sleep(TTL).await;
    assert_eq!(session.state(), SessionState::Alive);
    assert!(setting.lease_is_alive(&session).await);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_granted_late_is_renewed_in_time() {
    let setting = setting();
    setting.link.pause();
    let grant = async {
        sleep(session_pace().vouched_for - Duration::from_millis(100)).await;
        setting.link.resume();
    };
    let (session, ()) = tokio::join!(setting.open(), grant);
    assert_eq!(session.state(), SessionState::Alive);
    sleep(TTL * 2).await;
    assert_eq!(session.state(), SessionState::Alive);
    assert!(setting.lease_is_alive(&session).await);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_waited_for_stays_lost_when_its_backend_answers_again() {
    let setting = setting();
    let session = setting.open().await;
    setting.link.pause();
    assert_eq!(session.ended().await, SessionState::Lost);
    assert!(setting.lease_is_alive(&session).await, "the owner knows before the backend does");
    setting.link.resume();
    let asked = setting.link.calls(Operation::Commit);
    sleep(TTL).await;
    assert_eq!(session.state(), SessionState::Lost);
    assert_eq!(setting.link.calls(Operation::Commit), asked, "it asks no more");
    assert!(!setting.lease_is_alive(&session).await);
}

/// The backend cuts its clock and the lifetime to whole milliseconds; the session must not trust the rest.
#[tokio::test(start_paused = true)]
async fn the_lease_is_alive_wherever_the_session_says_so_even_within_a_millisecond() {
    let step = Duration::from_micros(100);
    let setting = setting();
    for offset in 0..10 {
        tokio::time::advance(step * offset).await;
        let ttl = Duration::from_micros(9_900);
        let session = Session::open_with_margin(&setting.client, &setting.scope, ttl, Duration::ZERO).await.unwrap();
        setting.link.pause();
        while session.state() == SessionState::Alive {
            assert!(setting.lease_is_alive(&session).await, "offset {offset}");
            tokio::time::advance(step).await;
        }
        setting.link.resume();
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_without_its_keeper_is_lost() {
    let setting = setting();
    let session = setting.open().await;
    session.keeper.as_ref().unwrap().abort();
    assert_eq!(session.ended().await, SessionState::Lost);
    assert_eq!(session.state(), SessionState::Lost);
}

#[tokio::test(start_paused = true)]
async fn lifetimes_that_make_no_sense_are_refused() {
    let setting = setting();
    for ttl in [Duration::ZERO, Duration::MAX] {
        let refused = Session::open(&setting.client, &setting.scope, ttl).await;
        assert!(matches!(refused, Err(Error::InvalidRequest { .. })), "{refused:?}");
    }
    assert_eq!(alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_too_late_does_not_bring_a_session_back() {
    let until = Instant::now() + TTL;
    let later = until + TTL;
    let mut vouched = Vouched { until, state: SessionState::Alive };
    assert!(!vouched.extend(later, until), "whoever looked at that moment saw it lost");
    assert_eq!(vouched.at(until), SessionState::Lost);
    assert!(vouched.extend(later, until - Duration::from_nanos(1)));
    assert_eq!(vouched.at(until), SessionState::Alive);
    vouched.state = SessionState::Lost;
    assert!(!vouched.extend(later, until));
}

#[test]
fn a_failed_renewal_leaves_time_for_another_one() {
    let pace = session_pace();
    assert!(pace.pause + pace.attempt + pace.retry.mul_f64(1.5) < pace.vouched_for, "{pace:?}");
    let tight = Pace::new(TTL, TTL / 2);
    assert!(tight.pause + tight.retry.mul_f64(1.5) < tight.vouched_for, "{tight:?}");
}

/// The pace of a session that is opened without a margin of its own.
fn session_pace() -> Pace {
    Pace::new(TTL, TTL / 5)
}
