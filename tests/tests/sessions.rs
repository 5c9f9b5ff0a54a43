//! Sessions keep their lease while they can, know in time when they cannot, and sweepers clean up behind them.

use std::{sync::Arc, time::Duration};

use pulse_core::{
    Binding, Client, Error, MapId, Memory, Scope, Session, SessionState, Transaction,
    testing::{Fault, Faulty, Operation},
};
use tokio::time::{Instant, sleep};

const TTL: Duration = Duration::from_secs(9);

/// Two clients of one embedded store; the link of the first can be harmed.
struct Setting {
    link: Faulty,
    client: Client,
    other: Client,
    scope: Scope,
    map: MapId,
}

fn setting() -> Setting {
    let store = Memory::default();
    let link = Faulty::new(Arc::new(store.another_client()), 1);
    let scope = Scope::new("sessions").unwrap();
    Setting {
        client: Client::from_backend(Arc::new(link.clone())),
        other: Client::from_backend(Arc::new(store)),
        map: scope.map("up").unwrap(),
        link,
        scope,
    }
}

impl Setting {
    async fn bind(&self, session: &Session) {
        let entry = Transaction::new(&self.scope).put_bound("up", "me", "", session);
        self.client.commit(entry).await.unwrap();
    }

    async fn is_listed(&self) -> bool {
        self.other.backend().map_get(&self.map, &["me"]).await.unwrap() != [None]
    }

    /// Whether the backend still takes the lease for alive.
    async fn lease_is_alive(&self, session: &Session) -> bool {
        let ask = Transaction::new(&self.scope).expect_session(session);
        self.other.commit(ask).await.is_ok()
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_outlives_its_lifetime_many_times_over() {
    let setting = setting();
    let _swept = setting.other.keep_swept(&setting.scope);
    let session = Session::open(&setting.client, &setting.scope, TTL).await.unwrap();
    setting.bind(&session).await;
    for _ in 0..100 {
        sleep(TTL).await;
        assert_eq!(session.state(), SessionState::Alive);
        assert!(setting.is_listed().await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_cut_off_is_lost_before_its_lease_is() {
    let setting = setting();
    let margin = TTL / 3;
    let session = Session::open_with_margin(&setting.client, &setting.scope, TTL, margin).await.unwrap();
    setting.link.partition();
    assert_eq!(session.ended().await, SessionState::Lost);
    let lost = Instant::now();
    assert!(setting.lease_is_alive(&session).await, "the lease ended before its owner knew");
    while setting.lease_is_alive(&session).await {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(lost.elapsed() >= margin, "only {:?} were left to stop in", lost.elapsed());
    setting.link.heal();
    sleep(TTL).await;
    assert_eq!(session.state(), SessionState::Lost, "a lost session came back to life");
}

#[tokio::test(start_paused = true)]
async fn a_session_survives_failures_that_are_shorter_than_its_lifetime() {
    let setting = setting();
    let session = Session::open(&setting.client, &setting.scope, TTL).await.unwrap();
    for fault in [Fault::FailBefore, Fault::FailAfter] {
        setting.link.script(Operation::Commit, 1, fault);
        sleep(TTL).await;
        assert_eq!(session.state(), SessionState::Alive);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_lease_was_dropped_elsewhere_learns_of_it_at_its_next_renewal() {
    let setting = setting();
    let session = Session::open(&setting.client, &setting.scope, TTL).await.unwrap();
    setting.other.commit(Transaction::new(&setting.scope).drop_lease(session.lease())).await.unwrap();
    let dropped = Instant::now();
    assert_eq!(session.ended().await, SessionState::Lost);
    assert!(dropped.elapsed() <= TTL / 3);
}

#[tokio::test(start_paused = true)]
async fn closing_a_session_deletes_what_is_bound_to_it_at_once() {
    let setting = setting();
    let session = Session::open(&setting.client, &setting.scope, TTL).await.unwrap();
    setting.bind(&session).await;
    assert!(setting.is_listed().await);
    session.close().await.unwrap();
    assert!(!setting.is_listed().await);
}

#[tokio::test(start_paused = true)]
async fn what_a_dropped_session_leaves_is_swept_by_another_client_at_its_deadline() {
    let setting = setting();
    let _swept = setting.other.keep_swept(&setting.scope);
    let session = Session::open(&setting.client, &setting.scope, TTL).await.unwrap();
    setting.bind(&session).await;
    drop(session);
    let dropped = Instant::now();
    while setting.is_listed().await {
        sleep(Duration::from_millis(10)).await;
        assert!(dropped.elapsed() < TTL + Duration::from_secs(1), "it was never swept");
    }
    assert!(dropped.elapsed() >= TTL - Duration::from_millis(20), "it was swept too early");
}

#[tokio::test(start_paused = true)]
async fn an_entry_with_a_lifetime_vanishes_on_time_although_the_sweeper_slept_for_longer() {
    let setting = setting();
    let _swept = setting.client.keep_swept(&setting.scope);
    // The sweeper finds nothing to wait for and goes to sleep.
    sleep(Duration::from_millis(100)).await;
    let lifetime = Duration::from_millis(700);
    let entry = Transaction::new(&setting.scope).put_bound("up", "me", "", Binding::Ttl(lifetime));
    setting.client.commit(entry).await.unwrap();
    let put = Instant::now();
    while setting.is_listed().await {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(put.elapsed() < lifetime + Duration::from_millis(200), "it vanished after {:?}", put.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nobody_sweeps_after_the_last_guard_or_the_client_is_gone() {
    let setting = setting();
    let guard = setting.client.keep_swept(&setting.scope);
    let second = setting.client.keep_swept(&setting.scope);
    sleep(Duration::from_secs(60)).await;
    let calls = setting.link.calls(Operation::Sweep);
    assert!((6..=20).contains(&calls), "{calls} sweeps in a minute with nothing to do");
    drop((guard, second));
    sleep(Duration::from_secs(1)).await;
    let calls = setting.link.calls(Operation::Sweep);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(setting.link.calls(Operation::Sweep), calls);

    let _guard = setting.client.keep_swept(&setting.scope);
    setting.client.close().await;
    let calls = setting.link.calls(Operation::Sweep);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(setting.link.calls(Operation::Sweep), calls);
}

#[tokio::test(start_paused = true)]
async fn a_margin_that_leaves_no_time_is_refused() {
    let setting = setting();
    let refused = Session::open_with_margin(&setting.client, &setting.scope, TTL, TTL).await;
    assert!(matches!(refused, Err(Error::InvalidRequest { .. })));
}

#[tokio::test]
async fn no_task_is_left_behind() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let setting = setting();
    let guard = setting.client.keep_swept(&setting.scope);
    let session = Session::open(&setting.client, &setting.scope, TTL).await.unwrap();
    assert!(tasks() > before);
    session.close().await.unwrap();
    setting.client.close().await;
    drop(guard);
    setting.other.close().await;
    tests::eventually("all tasks end", async || if tasks() == before { Ok(()) } else { Err(tasks()) }).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_backend_is_gone_for_good_is_lost() {
    let setting = setting();
    let session = Session::open(&setting.client, &setting.scope, TTL).await.unwrap();
    setting.link.kill();
    assert_eq!(session.ended().await, SessionState::Lost);
}
