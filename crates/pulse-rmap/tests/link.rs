//! What a replica does when its link to the backend fails, on the embedded backend and paused time.

use std::{sync::Arc, time::Duration};

use pulse_core::{
    Backend, Client, Limits, Memory, Transaction,
    testing::{Chances, Fault, Faulty, FeedChances, Operation},
};
use pulse_rmap::{Changes, Error, Map, Update};

/// Longer than anything that a replica does by itself takes.
const LONG: Duration = Duration::from_secs(60);

/// One store with a client that always works, and one whose link the test breaks.
struct Setting {
    link: Faulty,
    /// Has a link of its own, which works.
    writer: Client,
    source: Map<u32>,
    /// Reads through the link.
    client: Client,
}

impl Setting {
    async fn new() -> Self {
        let store: Arc<dyn Backend> = Arc::new(Memory::with_limits(Limits::default()));
        let writer = Client::from_backend(Arc::clone(&store));
        let source = join(&writer).await.unwrap();
        let link = Faulty::new(store, 1);
        let client = Client::from_backend(Arc::new(link.clone()));
        Self { link, writer, source, client }
    }

    async fn set(&self, key: &str, value: u32) {
        let version = self.source.set(key, &value).await.unwrap().version;
        soon(self.source.wait_for(version)).await.unwrap();
    }

    async fn destroy(&self) {
        let destroying = Transaction::new(self.source.id().scope()).destroy_map("m");
        self.writer.commit(destroying).await.unwrap();
    }
}

async fn join(client: &Client) -> Result<Map<u32>, Error> {
    Map::builder("m").join(client).await
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("it takes too long")
}

async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

fn entries(map: &Map<u32>) -> Vec<(String, u32)> {
    let mut entries: Vec<_> = map.snapshot().iter().map(|(key, value)| (key.to_string(), *value)).collect();
    entries.sort();
    entries
}

/// What there is to take: key, value before, value after, in the order of the keys.
fn told(changes: &mut Changes<u32>) -> Vec<(String, Option<u32>, Option<u32>)> {
    let mut told = Vec::new();
    while let Some(update) = changes.try_next() {
        let change = match update {
            Update::Change(change) => change,
            Update::Cleared(_) => continue,
            other => panic!("a subscriber that keeps up never lags: {other:?}"),
        };
        let [previous, value] = [change.previous, change.value].map(|value| value.as_deref().copied());
        told.push((change.key.to_string(), previous, value));
    }
    told.sort();
    told
}

#[tokio::test(start_paused = true)]
async fn after_a_cut_the_differences_are_told_and_later_changes_follow() {
    let setting = Setting::new().await;
    for (key, value) in [("changed", 1), ("deleted", 2), ("same", 3)] {
        setting.set(key, value).await;
    }
    let map = join(&setting.client).await.unwrap();
    let mut changes = map.subscribe();

    setting.link.partition();
    until(|| !map.is_synced()).await;
    for value in 10..20 {
        setting.set("changed", value).await;
    }
    setting.set("new", 5).await;
    setting.source.delete("deleted").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(map.get("changed").as_deref(), Some(&1), "reads go on with what is there");
    assert!(map.staleness().is_some_and(|stale| stale >= Duration::from_millis(1500)));

    setting.link.heal();
    tokio::time::timeout(Duration::from_secs(2), map.wait_synced()).await.expect("within two seconds").unwrap();
    assert_eq!(map.staleness(), None);
    assert_eq!(entries(&map), entries(&setting.source));
    let expected = [("changed", Some(1), Some(19)), ("deleted", Some(2), None), ("new", None, Some(5))];
    assert_eq!(told(&mut changes), expected.map(|(key, before, after)| (key.to_owned(), before, after)));

    let version = setting.source.set("new", &6).await.unwrap().version;
    soon(map.wait_for(version)).await.unwrap();
    assert_eq!(told(&mut changes), [("new".to_owned(), Some(5), Some(6))]);
}

#[tokio::test(start_paused = true)]
async fn a_map_that_began_anew_during_a_cut_shows_as_the_difference_only() {
    let setting = Setting::new().await;
    setting.set("same", 1).await;
    let old = setting.source.set("gone", &2).await.unwrap().version;
    let map = join(&setting.client).await.unwrap();
    let mut changes = map.subscribe();

    setting.link.partition();
    until(|| !map.is_synced()).await;
    setting.destroy().await;
    // As many commits as before, so that the revision alone would look right.
    setting.set("same", 1).await;
    setting.set("new", 3).await;
    setting.link.heal();
    soon(map.wait_synced()).await.unwrap();
    assert_eq!(map.version().unwrap().revision, old.revision);
    assert_eq!(entries(&map), entries(&setting.source));
    assert_eq!(told(&mut changes), [("gone".to_owned(), Some(2), None), ("new".to_owned(), None, Some(3))]);
    let gone = soon(map.wait_for(old)).await;
    assert!(matches!(gone, Err(Error::VersionGone { .. })), "{gone:?}");
}

#[tokio::test(start_paused = true)]
async fn commits_that_are_lost_without_a_sign_are_found_in_time() {
    let setting = Setting::new().await;
    let map = join(&setting.client).await.unwrap();
    let mut changes = map.subscribe();
    setting.link.set_feed_chances(FeedChances::none().with_loss(1.0));
    setting.set("silent", 1).await;
    until(|| map.contains_key("silent")).await;
    assert_eq!(told(&mut changes), [("silent".to_owned(), None, Some(1))]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_lost_shows_with_the_next_one_at_once() {
    let setting = Setting::new().await;
    let map = join(&setting.client).await.unwrap();
    setting.link.set_feed_chances(FeedChances::none().with_loss(1.0));
    setting.set("lost", 1).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    setting.link.set_feed_chances(FeedChances::none());
    let version = setting.source.set("next", &2).await.unwrap().version;
    tokio::time::timeout(Duration::from_secs(1), map.wait_for(version)).await.expect("within a second").unwrap();
    assert_eq!(entries(&map), entries(&setting.source));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_cannot_read_tries_for_ever() {
    let setting = Setting::new().await;
    let map = join(&setting.client).await.unwrap();
    setting.link.set_chances(Chances::none().with_failures_before(0.5));
    setting.link.partition();
    until(|| !map.is_synced()).await;
    setting.set("k", 1).await;
    setting.link.heal();
    until(|| map.is_synced()).await;
    assert_eq!(entries(&map), entries(&setting.source));
}

#[tokio::test(start_paused = true)]
async fn a_replica_says_for_how_long_it_has_been_cut_off() {
    let setting = Setting::new().await;
    let map = join(&setting.client).await.unwrap();
    assert!(map.is_synced() && map.staleness().is_none());
    setting.link.partition();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let stale = map.staleness().unwrap();
    assert!(stale > Duration::from_secs(3590) && stale <= Duration::from_secs(3600), "{stale:?}");
    let version = setting.source.set("k", &1).await.unwrap().version;
    assert!(tokio::time::timeout(LONG, map.wait_for(version)).await.is_err(), "it cannot have it");
    setting.link.heal();
    soon(map.wait_for(version)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn joining_fails_with_the_backends_error() {
    let setting = Setting::new().await;
    setting.set("k", 1).await;
    for operation in [Operation::MapFeed, Operation::MapVersion, Operation::MapPage] {
        setting.link.script(operation, 1, Fault::FailBefore);
        let error = join(&setting.client).await.unwrap_err();
        assert!(matches!(&error, Error::Map { map, .. } if map == "m/m"), "{error:?}");
        assert!(error.is_retryable() && error.backend_error().is_some());
    }
    assert_eq!(entries(&join(&setting.client).await.unwrap()), entries(&setting.source));
}

#[tokio::test(start_paused = true)]
async fn joining_fails_rather_than_show_what_it_could_not_read_consistently() {
    let setting = Setting::new().await;
    setting.link.set_chances(Chances::none().with_delay(Duration::from_millis(5)..=Duration::from_millis(10)));
    setting.link.set_feed_chances(FeedChances::none().with_loss(1.0));
    let writing = async {
        for value in 0.. {
            setting.set("k", value).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let error = tokio::select! {
        joined = join(&setting.client) => joined.unwrap_err(),
        () = writing => unreachable!("it writes for ever"),
    };
    assert!(matches!(error, Error::Unsettled { .. }) && error.is_retryable(), "{error:?}");
    setting.link.set_feed_chances(FeedChances::none());
    assert_eq!(entries(&join(&setting.client).await.unwrap()), entries(&setting.source));
}

#[tokio::test(start_paused = true)]
async fn a_write_with_a_lost_answer_says_that_it_may_have_happened() {
    let setting = Setting::new().await;
    let map = join(&setting.client).await.unwrap();
    setting.link.script(Operation::Commit, 1, Fault::FailAfter);
    let error = map.set("k", &1).await.unwrap_err();
    assert!(matches!(&error, Error::Key { key, .. } if key == "k"), "{error:?}");
    assert!(error.is_outcome_unknown());
    until(|| map.get("k").as_deref() == Some(&1)).await;
}

fn alive_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn a_thousand_joins_leave_no_task_behind() {
    let client = pulse_rmap::connect("memory:").await.unwrap();
    let before = alive_tasks();
    for round in 0..1000 {
        let map = join(&client).await.unwrap();
        if round % 2 == 0 {
            map.close().await;
        }
    }
    until(|| alive_tasks() == before).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_clone_ends_the_subscriptions() {
    let client = pulse_rmap::connect("memory:").await.unwrap();
    let map = join(&client).await.unwrap();
    let (clone, mut changes, mut changed) = (map.clone(), map.subscribe(), map.changed());
    drop(map);
    clone.set("k", &1).await.unwrap();
    assert!(matches!(soon(changes.next()).await, Some(Update::Change(_))));
    drop(clone);
    assert!(soon(changes.next()).await.is_none());
    soon(changed.wait()).await.unwrap();
    assert!(soon(changed.wait()).await.is_err_and(|error| error.is_closed()));
}

#[test]
fn what_is_shared_between_threads_can_be() {
    fn shared<T: Send + Sync + Unpin + 'static>() {}
    shared::<Map<u32>>();
    shared::<pulse_rmap::Snapshot<u32>>();
    shared::<pulse_rmap::Value<u32>>();
    shared::<Changes<u32>>();
    shared::<pulse_rmap::Changed>();
    shared::<pulse_rmap::Set<u32>>();
    shared::<Error>();
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_version_that_is_gone_ends_although_the_backend_once_does_not_say_so() {
    let setting = Setting::new().await;
    let version = setting.source.set("k", &1).await.unwrap().version;
    setting.destroy().await;
    let map = join(&setting.client).await.unwrap();
    setting.link.script(Operation::MapVersion, 1, Fault::FailBefore);
    let gone = soon(map.wait_for(version)).await;
    assert!(matches!(gone, Err(Error::VersionGone { .. })), "{gone:?}");
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_version_ends_although_the_whole_life_of_its_map_was_lost_without_a_sign() {
    let setting = Setting::new().await;
    let map = join(&setting.client).await.unwrap();
    setting.link.set_feed_chances(FeedChances::none().with_loss(1.0));
    let version = setting.source.set("k", &1).await.unwrap().version;
    let (gone, ()) = soon(async {
        tokio::join!(map.wait_for(version), async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            setting.destroy().await;
        })
    })
    .await;
    assert!(matches!(gone, Err(Error::VersionGone { .. })), "{gone:?}");
}

#[tokio::test(start_paused = true)]
async fn a_life_of_the_map_that_was_over_before_it_was_read_does_not_flash_by() {
    for _ in 0..30 {
        let setting = Setting::new().await;
        setting.link.script(Operation::MapVersion, 1, Fault::Delay(Duration::from_millis(10)));
        let earlier_life = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            setting.set("k", 1).await;
            setting.destroy().await;
        };
        let (map, ()) = tokio::join!(join(&setting.client), earlier_life);
        let map = map.unwrap();
        let mut changes = map.subscribe();
        let version = setting.source.set("k", &2).await.unwrap().version;
        soon(map.wait_for(version)).await.unwrap();
        assert_eq!(told(&mut changes), [("k".to_owned(), None, Some(2))]);
    }
}
