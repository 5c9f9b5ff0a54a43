//! Stores are shared by name or by handle, and closing is the matter of one handle.

use super::*;
use crate::connect;

fn named(name: &str) -> Memory {
    Memory::named(name, Limits::default())
}

#[tokio::test]
async fn clients_of_one_name_share_a_store_and_those_of_another_do_not() {
    let (one, two, other) = (named("shared"), named("shared"), named("not-shared"));
    one.commit(put("k")).await.unwrap();
    assert!(has(&two, "k").await);
    assert!(!has(&other, "k").await);
    assert_eq!((one.target(), other.target()), ("memory:shared", "memory:not-shared"));
}

#[tokio::test]
async fn stores_without_a_name_are_private() {
    let (one, two) = (Memory::default(), Memory::default());
    one.commit(put("k")).await.unwrap();
    assert!(!has(&two, "k").await);
    assert_eq!(one.target(), "memory:");
}

#[tokio::test]
async fn urls_reach_private_and_named_stores() {
    let (private, one, two) = (
        connect("memory:").await.unwrap(),
        connect("memory:by-url").await.unwrap(),
        connect("memory:by-url").await.unwrap(),
    );
    one.commit(put("k")).await.unwrap();
    assert_eq!(two.backend().map_get(&map(), &["k"]).await.unwrap(), [Some("v".into())]);
    assert_eq!(private.backend().map_get(&map(), &["k"]).await.unwrap(), [None]);
    assert_eq!((private.backend().target(), one.backend().target()), ("memory:", "memory:by-url"));
}

#[tokio::test]
async fn a_named_store_lives_as_long_as_one_of_its_clients() {
    let one = named("mortal");
    one.commit(put("k")).await.unwrap();
    let two = named("mortal");
    drop(one);
    assert!(has(&two, "k").await);
    let three = two.another_client();
    two.close().await;
    drop(two);
    assert!(has(&three, "k").await, "a closed client is no reason to forget");
    drop(three);
    assert!(!has(&named("mortal"), "k").await, "nobody was left to remember");
}

#[tokio::test]
async fn a_closed_client_still_keeps_the_store_for_its_successors() {
    let closed = named("closed");
    closed.commit(put("k")).await.unwrap();
    closed.close().await;
    assert!(has(&named("closed"), "k").await);
    assert!(has(&closed.another_client(), "k").await);
}

#[tokio::test]
async fn each_client_has_its_own_limits() {
    let roomy = Memory::default();
    let narrow = Memory::named("limits", Limits::default().with_value_bytes(0));
    let other = named("limits");
    assert!(matches!(narrow.commit(put("k")).await, Err(Error::LimitExceeded { .. })));
    assert!(narrow.another_client().commit(put("k")).await.is_err());
    other.commit(put("k")).await.unwrap();
    assert_eq!(*roomy.limits(), Limits::default());
}

#[tokio::test]
async fn closing_a_client_ends_its_feeds_after_what_they_hold_and_no_others() {
    let one = Memory::default();
    let two = one.another_client();
    let mut ours = one.map_feed(&map()).await.unwrap();
    let mut theirs = two.map_feed(&map()).await.unwrap();
    two.commit(put("a")).await.unwrap();
    one.close().await;
    two.commit(put("b")).await.unwrap();
    next_commit(&mut ours).await;
    assert_eq!(ours.next().await, None);
    next_commit(&mut theirs).await;
    assert_eq!(next_commit(&mut theirs).await.after.0, 2);
    assert!(matches!(one.map_feed(&map()).await, Err(Error::Closed)));
    assert!(matches!(one.commit(put("c")).await, Err(Error::Closed)));
}

#[tokio::test]
async fn dropping_a_client_ends_its_feeds() {
    let one = Memory::default();
    let mut feed = one.map_feed(&map()).await.unwrap();
    drop(one);
    assert_eq!(feed.next().await, None);
}

#[tokio::test]
async fn dropped_feeds_and_ended_waits_leave_nothing_behind() {
    let memory = Memory::default();
    for i in 0..100 {
        let name = format!("{i}");
        drop(memory.map_feed(&scope().map(&name).unwrap()).await.unwrap());
        let stream = scope().stream(&name).unwrap();
        let read = memory.stream_read(&stream, EventId::ZERO, 1, LONG);
        tokio::select! {
            biased;
            _ = read => {}
            () = std::future::ready(()) => {}
        }
    }
    let (feeds, bells) = memory.store.kept();
    assert!(feeds <= 1 && bells <= 1, "{feeds} feeds and {bells} bells");
}

#[tokio::test]
async fn scopes_that_hold_nothing_are_forgotten() {
    let memory = Memory::default();
    for i in 0..10 {
        let scope = Scope::new(format!("{i}")).unwrap();
        let (stream, lease) = (scope.stream("e").unwrap(), LeaseId::random());
        assert!(!memory.group_destroy(&stream, &group()).await.unwrap());
        let begin = || Transaction::new(&scope);
        memory.commit(begin().put("m", "k", "v").grant_lease(lease, LONG)).await.unwrap();
        memory.group_create(&stream, &group(), GroupStart::Oldest).await.unwrap();
        memory.commit(begin().destroy_map("m").destroy_stream("e").drop_lease(lease)).await.unwrap();
    }
    assert_eq!(memory.store.scopes(), 0);
}
