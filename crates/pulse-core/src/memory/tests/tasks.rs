//! Many tasks on many threads at once: nothing is lost, nothing is done twice, and every feed tells one story.

use std::collections::BTreeSet;

use tokio::task::JoinSet;

use super::*;
use crate::{Change, Incarnation};

const TASKS: u64 = 8;
const EACH: u64 = 200;

async fn all(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_commits_count_exactly_and_feeds_see_each_once_in_order() {
    let memory = Memory::default();
    let mut feeds = vec![memory.map_feed(&map()).await.unwrap(), memory.map_feed(&map()).await.unwrap()];
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let memory = memory.another_client();
        tasks.spawn(async move {
            for i in 0..EACH {
                let count = begin().add("m", "sum", 1).put("m", format!("{task}"), i.to_string());
                memory.commit(count).await.unwrap();
            }
        });
    }
    all(tasks).await;
    let total = TASKS * EACH;
    let sum = Some(Bytes::from(total.to_string()));
    assert_eq!(memory.map_get(&map(), &["sum"]).await.unwrap(), [sum]);
    let life: Incarnation = memory.map_version(&map()).await.unwrap().unwrap().incarnation;
    for feed in &mut feeds {
        for revision in 0..total {
            let commit = next_commit(feed).await;
            assert_eq!((commit.incarnation, commit.before.0, commit.after.0), (life, revision, revision + 1));
            let Some(Change::Put { value, .. }) = commit.changes.first() else { panic!("{commit:?}") };
            assert_eq!(*value, (revision + 1).to_string(), "the counter is that of its revision");
        }
        assert_eq!(feed.try_next(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_concurrent_claims_on_a_key_exactly_one_wins() {
    let memory = Memory::default();
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let memory = memory.another_client();
        tasks.spawn(async move {
            for i in 0..EACH {
                let key = format!("{i}");
                let claim = begin().expect_absent("m", key.as_str()).put("m", key, task.to_string()).add("n", "won", 1);
                match memory.commit(claim).await {
                    Ok(_) => {}
                    Err(error) => assert!(error.is_conflict(), "{error}"),
                }
            }
        });
    }
    all(tasks).await;
    let won = memory.map_get(&scope().map("n").unwrap(), &["won"]).await.unwrap();
    assert_eq!(won, [Some(Bytes::from(EACH.to_string()))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_consumers_take_every_event_once_while_it_is_appended() {
    let memory = Memory::default();
    memory.group_create(&stream(), &group(), GroupStart::Oldest).await.unwrap();
    let total = TASKS * EACH;
    let (taken, mut takings) = tokio::sync::mpsc::unbounded_channel();
    let done = CancellationToken::new();
    let mut takers = JoinSet::new();
    for task in 0..TASKS {
        let (memory, taken, done) = (memory.another_client(), taken.clone(), done.clone());
        takers.spawn(async move {
            let name = consumer(&format!("c{task}"));
            loop {
                let (stream, group) = (stream(), group());
                let read = tokio::select! {
                    () = done.cancelled() => return,
                    read = memory.group_read(&stream, &group, &name, 3, LONG, Acks::Explicit) => read.unwrap(),
                    // Dropping the call now and then must not lose anything.
                    () = tokio::time::sleep(Duration::from_millis(1)) => continue,
                };
                let ids: Vec<EventId> = read.iter().map(|delivery| delivery.entry.id).collect();
                assert_eq!(
                    memory.commit(begin().ack("e", &group, ids.clone())).await.unwrap().count(0),
                    Some(ids.len() as u64)
                );
                ids.into_iter().for_each(|id| taken.send(id).unwrap());
            }
        });
    }
    let mut adders = JoinSet::new();
    for _ in 0..TASKS {
        let memory = memory.another_client();
        adders.spawn(async move {
            for _ in 0..EACH {
                id_of_new_event(&memory).await;
            }
        });
    }
    all(adders).await;
    let mut seen = BTreeSet::new();
    while (seen.len() as u64) < total {
        assert!(seen.insert(takings.recv().await.unwrap()), "taken twice");
    }
    done.cancel();
    all(takers).await;
    let info = memory.group_info(&stream(), &group()).await.unwrap().unwrap();
    assert_eq!((info.pending, info.lag), (0, Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_close_in_the_midst_ends_every_feed_and_wait() {
    for _ in 0..50 {
        let memory = Arc::new(Memory::default());
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            let memory = memory.clone();
            tasks.spawn(async move {
                while let Ok(mut feed) = memory.map_feed(&map()).await {
                    while feed.next().await.is_some() {}
                }
            });
        }
        for _ in 0..TASKS {
            let memory = memory.clone();
            tasks.spawn(async move {
                let ended = memory.stream_read(&stream(), EventId::ZERO, 1, LONG).await;
                assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
            });
        }
        tokio::task::yield_now().await;
        memory.close().await;
        all(tasks).await;
    }
}

#[test]
fn clients_and_what_they_hand_out_may_move_between_threads() {
    fn movable<T: Send + Sync + 'static>() {}
    movable::<Memory>();
    movable::<MapFeed>();
    movable::<crate::Client>();
    movable::<crate::Session>();
    movable::<crate::SweepGuard>();
    movable::<Transaction>();
    movable::<Error>();
}
