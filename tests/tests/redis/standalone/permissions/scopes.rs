//! Users of one scope: they use it, and no other.

use std::time::{Duration, Instant};

use pulse_core::{Client, Error, EventId, FeedItem, NewEvent, Transaction};
use pulse_rmap::Map;
use tests::{Server, soon};

use super::{builder, change, connect, make, missing, other_scope};
use crate::standalone::{map, scope, stream, until};

/// Grants the commands of both maps and streams.
fn make_all_rounder(server: &Server) {
    make(server, "maps", &[]);
    let commands: Vec<String> = super::commands("streams").iter().map(|command| format!("+{command}")).collect();
    change(server, "maps", &commands.iter().map(String::as_str).collect::<Vec<_>>());
}

async fn put(client: &Client, key: &str) -> Result<pulse_core::Committed, Error> {
    client.commit(Transaction::new(&scope()).put("m", key, "v")).await
}

#[tokio::test]
async fn a_user_of_one_scope_uses_it_and_is_denied_every_other_one() {
    let server = Server::start();
    make_all_rounder(&server);
    let client = connect(&server, "maps").await;
    let mut feed = client.backend().map_feed(&map("m")).await.unwrap();
    put(&client, "k").await.unwrap();
    assert!(matches!(soon("the commit", feed.next()).await, Some(FeedItem::Commit(_))));
    client.commit(Transaction::new(&scope()).append("s", NewEvent::new("n", "p"))).await.unwrap();
    let read = client.backend().stream_read(&stream("s"), EventId::ZERO, 9, Duration::from_secs(5)).await;
    assert_eq!(read.unwrap().entries.len(), 1);

    let other = other_scope();
    let said = missing(client.commit(Transaction::new(&other).put("m", "k", "v")).await);
    assert!(said.contains("~shop:{customers}:*") && said.contains("&shop:{customers}:*"), "{said}");
    let said = missing(client.commit(Transaction::new(&other).append("s", NewEvent::new("n", "p"))).await);
    assert!(said.contains("~shop:{customers}:*"), "{said}");
    let said = missing(client.backend().map_feed(&other.map("m").unwrap()).await);
    assert!(said.contains("SSUBSCRIBE on channel shop:{customers}:f:*"), "{said}");
    missing(client.backend().map_page(&other.map("m").unwrap(), None, 10).await);
    missing(client.backend().stream_read(&other.stream("s").unwrap(), EventId::ZERO, 9, Duration::ZERO).await);
    missing(client.backend().sweep(&other).await);
    assert!(!server.cli(&["KEYS", "*"]).contains("customers"));
    client.close().await;
}

#[tokio::test]
async fn a_write_that_may_not_be_published_changes_nothing() {
    let server = Server::start();
    make_all_rounder(&server);
    let granted = connect(&server, "maps").await;
    put(&granted, "before").await.unwrap();
    let before = granted.backend().map_version(&map("m")).await.unwrap();
    granted.close().await;

    change(&server, "maps", &["-spublish"]);
    let client = connect(&server, "maps").await;
    let writes = [
        Transaction::new(&scope()).put("m", "k", "v"),
        Transaction::new(&scope()).put("m", "k", "v").put("m", "l", "v"),
        Transaction::new(&scope()).expect_absent("m", "k").put("m", "k", "v"),
        Transaction::new(&scope()).put("new", "k", "v").append("s", NewEvent::new("n", "p")),
        Transaction::new(&scope()).append("s", NewEvent::new("n", "p")),
        Transaction::new(&scope()).append("s", NewEvent::new("n", "p")).append("s", NewEvent::new("n", "p")),
    ];
    for write in writes {
        let error = client.commit(write).await.unwrap_err();
        assert!(!error.is_outcome_unknown() && !error.is_retryable(), "{error:?}");
        let said = missing::<()>(Err(error));
        assert!(said.contains("SPUBLISH on channel shop:{orders}:"), "{said}");
        assert!(said.contains("grant +spublish &shop:{orders}:*"), "{said}");
    }
    assert_eq!(client.backend().map_version(&map("m")).await.unwrap(), before);
    assert_eq!(server.cli(&["KEYS", "*"]), "shop:{orders}:m:m");
    client.close().await;
}

#[tokio::test]
async fn a_grant_works_at_once() {
    let server = Server::start();
    make(&server, "maps", &["-hset"]);
    let client = connect(&server, "maps").await;
    assert!(missing(put(&client, "k").await).contains("HSET on key shop:{orders}:m:*"));
    change(&server, "maps", &["+hset"]);
    put(&client, "k").await.unwrap();
    client.close().await;
}

#[tokio::test]
async fn joining_a_map_without_the_permission_to_listen_fails_soon_with_what_is_missing() {
    let server = Server::start();
    make(&server, "maps", &["-ssubscribe"]);
    let client = connect(&server, "maps").await;
    let begun = Instant::now();
    let joined = Map::<String>::builder("orders").join(&client).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
    let Err(pulse_rmap::Error::Map { source, .. }) = joined else { panic!("this should not have joined") };
    let said = missing::<()>(Err(*source));
    assert!(said.contains("SSUBSCRIBE on channel shop:{orders}:f:*"), "{said}");
    client.close().await;
}

#[tokio::test]
async fn a_subscription_that_the_server_denies_fails_soon_and_the_others_stand_again_once_it_is_granted() {
    let server = Server::start();
    make(&server, "maps", &[]);
    let client = builder(&server, "maps").command_timeout(Duration::from_secs(60)).connect().await.unwrap();
    let mut feed = client.backend().map_feed(&map("m")).await.unwrap();
    // The server cuts those off who listen to what they no longer may.
    change(&server, "maps", &["resetchannels"]);
    let denied = soon("the denial", client.backend().map_feed(&map("other"))).await.unwrap_err();
    let Error::Denied { source: Some(words), .. } = &denied else { panic!("it was denied otherwise: {denied:?}") };
    assert!(words.to_string().contains("channel"), "{words}");
    change(&server, "maps", &["&shop:{orders}:*"]);
    client.backend().map_feed(&map("other")).await.unwrap();
    put(&client, "k").await.unwrap();
    let heard = async {
        while !matches!(
            feed.next().await,
            Some(FeedItem::Commit(_) | FeedItem::Gap(pulse_core::GapCause::Resubscribed))
        ) {}
    };
    soon("the feed stands again", heard).await;
    client.close().await;
}

#[tokio::test]
async fn a_user_of_a_whole_prefix_uses_every_scope_of_it() {
    let server = Server::start();
    make(&server, "maps", &["~shop:*", "&shop:*"]);
    let client = connect(&server, "maps").await;
    for scope in [scope(), other_scope()] {
        client.commit(Transaction::new(&scope).put("m", "k", "v")).await.unwrap();
    }
    let evals = || server.cli(&["INFO", "commandstats"]).lines().filter(|line| line.contains("_eval:")).count();
    let before = evals();
    client.commit(Transaction::new(&other_scope()).put("m", "l", "v")).await.unwrap();
    assert_eq!(evals(), before);
    client.close().await;
}

#[tokio::test]
async fn wake_ups_that_are_denied_later_cost_readers_time_and_no_events() {
    let server = Server::start();
    make(&server, "producer", &[]);
    let client = connect(&server, "producer").await;
    let append = async || client.commit(Transaction::new(&scope()).append("s", NewEvent::new("n", "p"))).await;
    append().await.unwrap();
    change(&server, "producer", &["-spublish"]);
    append().await.unwrap();
    until("both are there", async || server.cli(&["XLEN", "shop:{orders}:s:s"]) == "2").await;
    client.close().await;
}
