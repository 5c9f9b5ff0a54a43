//! What `tests/tests/sessions.rs` cannot see from outside: the tasks, and how often they sweep.

use tokio::time::sleep;

use super::*;
use crate::{
    Client, LeaseId, MapId, Memory,
    testing::{Faulty, Operation},
};

const SOON: Duration = Duration::from_millis(700);

struct Setting {
    link: Faulty,
    client: Client,
    store: Memory,
    scope: Scope,
    map: MapId,
}

fn setting() -> Setting {
    let store = Memory::default();
    let link = Faulty::new(Arc::new(store.another_client()), 1);
    let scope = Scope::new("swept").unwrap();
    let client = Client::from_backend(Arc::new(link.clone()));
    Setting { link, client, store, map: scope.map("m").unwrap(), scope }
}

impl Setting {
    fn begin(&self) -> Transaction {
        Transaction::new(&self.scope)
    }

    fn put(&self, ttl: Duration) -> Transaction {
        self.begin().put_bound("m", "k", "v", Binding::Ttl(ttl))
    }

    /// How long it takes until the map changes.
    async fn until_change(&self) -> Duration {
        let mut feed = self.store.map_feed(&self.map).await.unwrap();
        let began = Instant::now();
        feed.next().await.unwrap();
        began.elapsed()
    }

    fn sweeps(&self) -> u64 {
        self.link.calls(Operation::Sweep)
    }
}

/// A deadline is met within the jitter and the resolution of clock and timer.
fn meets(elapsed: Duration, deadline: Duration) -> bool {
    (deadline..=deadline + JITTER + Duration::from_millis(2)).contains(&elapsed)
}

#[tokio::test(start_paused = true)]
async fn deadlines_that_this_client_sets_are_met() {
    let setting = setting();
    let _guard = setting.client.keep_swept(&setting.scope);
    sleep(JITTER).await;
    setting.client.commit(setting.put(SOON)).await.unwrap();
    let elapsed = setting.until_change().await;
    assert!(meets(elapsed, SOON), "{elapsed:?}");

    let fill = setting.begin().put("m", "k", "v").expire_map("m", Deadline::Renew(SOON));
    setting.client.commit(fill).await.unwrap();
    let elapsed = setting.until_change().await;
    assert!(meets(elapsed, SOON), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_renewed_for_a_shorter_time_is_swept_in_time() {
    let setting = setting();
    let _guard = setting.client.keep_swept(&setting.scope);
    let lease = LeaseId::random();
    let grant = setting.begin().grant_lease(lease, IDLE * 100).put_bound("m", "k", "v", Binding::Lease(lease));
    setting.client.commit(grant).await.unwrap();
    sleep(IDLE / 2).await;
    setting.client.commit(setting.begin().renew_lease(lease, SOON)).await.unwrap();
    let elapsed = setting.until_change().await;
    assert!(meets(elapsed, SOON), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn deadlines_that_others_set_are_learnt_after_the_idle_time_at_the_latest() {
    let setting = setting();
    let _guard = setting.client.keep_swept(&setting.scope);
    sleep(JITTER).await;
    setting.store.commit(setting.put(SOON)).await.unwrap();
    let elapsed = setting.until_change().await;
    assert!(elapsed >= SOON && elapsed <= IDLE + JITTER, "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_swept_without_pauses() {
    let setting = setting();
    for part in 0..5 {
        let fill = (0..2000)
            .fold(setting.begin(), |fill, i| fill.put_bound("m", format!("{part}-{i}"), "v", Binding::Ttl(SOON)));
        setting.store.commit(fill).await.unwrap();
    }
    sleep(SOON).await;
    let began = Instant::now();
    let _guard = setting.client.keep_swept(&setting.scope);
    while setting.store.map_page(&setting.map, None, 1).await.unwrap().entries.len() == 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(setting.sweeps() >= 5, "and yet in bounded steps");
}

#[tokio::test(start_paused = true)]
async fn failed_sweeps_are_tried_again() {
    let setting = setting();
    let _guard = setting.client.keep_swept(&setting.scope);
    setting.client.commit(setting.put(SOON)).await.unwrap();
    setting.link.set_patience(Duration::from_millis(10));
    setting.link.partition();
    sleep(IDLE * 2).await;
    let failed = setting.sweeps();
    assert!((5..30).contains(&failed), "{failed} attempts in {:?}", IDLE * 2);
    setting.link.heal();
    let elapsed = setting.until_change().await;
    assert!(elapsed <= RETRY * 2, "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn the_guards_of_a_scope_share_one_task_which_ends_with_the_last_of_them() {
    let setting = setting();
    let running = || setting.client.background().running();
    let guards = [(); 3].map(|()| setting.client.keep_swept(&setting.scope));
    let clone = guards[0].clone();
    let elsewhere = setting.client.keep_swept(&Scope::new("elsewhere").unwrap());
    assert_eq!(running(), 2);
    drop((guards, elsewhere));
    sleep(JITTER).await;
    assert_eq!(running(), 1);
    drop(clone);
    sleep(JITTER).await;
    assert_eq!(running(), 0);
    let _again = setting.client.keep_swept(&setting.scope);
    setting.client.commit(setting.put(SOON)).await.unwrap();
    assert!(meets(setting.until_change().await, SOON));
}

#[tokio::test(start_paused = true)]
async fn no_sweeper_outlives_its_client_or_its_backend() {
    let setting = setting();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let _guard = setting.client.keep_swept(&setting.scope);
    setting.client.backend().close().await;
    sleep(IDLE * 2).await;
    assert_eq!(tasks(), 0, "the backend is closed");

    let client = Client::from_backend(Arc::new(setting.store.another_client()));
    let _guard = client.keep_swept(&setting.scope);
    client.close().await;
    assert_eq!(tasks(), 0, "the client is closed");
    let _late = client.keep_swept(&setting.scope);
    sleep(JITTER).await;
    assert_eq!(tasks(), 0, "a guard that comes too late begins nothing");

    let client = Client::from_backend(Arc::new(setting.store.another_client()));
    let _guard = client.keep_swept(&setting.scope);
    drop(client);
    sleep(JITTER).await;
    assert_eq!(tasks(), 0, "the last handle is gone");
}

#[tokio::test(start_paused = true)]
async fn sessions_do_not_make_the_sweeper_busy() {
    let setting = setting();
    let _guard = setting.client.keep_swept(&setting.scope);
    let ttl = IDLE * 2;
    let mut sessions = Vec::new();
    for _ in 0..20 {
        sessions.push(crate::Session::open(&setting.client, &setting.scope, ttl).await.unwrap());
        sleep(ttl / 100).await;
    }
    let before = setting.sweeps();
    sleep(IDLE * 100).await;
    let sweeps = setting.sweeps() - before;
    assert!(sweeps <= 101, "{sweeps} sweeps in a hundred idle times, with 20 sessions that renew");
}

#[test]
fn the_soonest_deadline_of_a_transaction_counts() {
    let begin = || Transaction::new(&Scope::new("s").unwrap());
    let of = |seconds| Duration::from_secs(seconds);
    let never = begin().put("m", "k", "v").expire_map("m", Deadline::Never).drop_lease(LeaseId(1));
    assert_eq!(soonest_deadline(&never), None);
    // A stream vanishes by itself.
    assert_eq!(soonest_deadline(&begin().expire_stream("s", Deadline::Renew(of(1)))), None);
    let all = begin()
        .put_bound("m", "k", "v", Binding::Ttl(of(5)))
        .expire_map("m", Deadline::IfUnset(of(4)))
        .grant_lease(LeaseId(1), of(3));
    assert_eq!(soonest_deadline(&all), Some(of(3)));
    assert_eq!(soonest_deadline(&all.renew_lease(LeaseId(1), of(2))), Some(of(2)));
}
