//! What could stop a transaction or a sweep half-way: nothing is done, or everything, or the error says that nobody
//! knows.

use std::time::Duration;

use pulse_core::{Binding, ClientBuilder, Error, LeaseId, NewEvent, Transaction};
use tests::Server;

use super::{connect, map, scope, until};

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn an_empty_stream_without_ids_left_fails_the_whole_transaction() {
    let server = Server::start();
    let client = connect(&server).await;
    let key = "pulse:{orders}:s:s";
    server.cli(&["XADD", key, "18446744073709551615-18446744073709551615", "n", "e"]);
    server.cli(&["XTRIM", key, "MAXLEN", "0"]);
    let event = || NewEvent::new("e", "p");
    let error = client.commit(Transaction::new(&scope()).put("m", "k", "v").append("s", event())).await.unwrap_err();
    assert!(matches!(error, Error::StreamExhausted { .. }), "{error:?}");
    assert_eq!(client.backend().map_version(&map("m")).await.unwrap(), None, "the put was not done");
    // The same for events that travel together.
    let append = || client.commit(Transaction::new(&scope()).append("s", event()));
    for result in futures::future::join_all((0..20).map(|_| append())).await {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::StreamExhausted { .. }), "{error:?}");
    }
    client.close().await;
}

#[tokio::test]
async fn broken_leases_and_bindings_do_not_keep_the_others_from_being_swept() {
    let server = Server::start();
    let client = connect(&server).await;
    let leases: Vec<LeaseId> = (1..=3).map(LeaseId).collect();
    for (lease, name) in leases.iter().zip(["a", "b", "c"]) {
        let bound = Binding::Lease(*lease);
        let grant = Transaction::new(&scope()).grant_lease(*lease, LONG);
        client.commit(grant.put_bound(name, "k", "v", bound)).await.unwrap();
    }
    server.cli(&["SET", "pulse:{orders}:e:0000000000000001", "stranger"]);
    server.cli(&["SET", "pulse:{orders}:b:b", "stranger"]);
    for lease in ["0000000000000001", "0000000000000002", "0000000000000003"] {
        server.cli(&["ZADD", "pulse:{orders}:l", "1", lease]);
    }
    let swept = client.backend().sweep(&scope()).await.unwrap();
    assert_eq!(swept.leases.len(), 3, "{swept:?}");
    assert_eq!(client.backend().map_get(&map("c"), &["k"]).await.unwrap(), [None]);
    assert_eq!(server.cli(&["GET", "pulse:{orders}:e:0000000000000001"]).trim(), "stranger");
    client.close().await;
}

#[tokio::test]
async fn a_commit_that_may_be_published_no_longer_ends_as_unknown() {
    let server = Server::start();
    let admin = connect(&server).await;
    admin.commit(Transaction::new(&scope()).put("m", "k", "v")).await.unwrap();
    server.cli(&["ACL", "SETUSER", "mute", "on", ">secret", "~*", "+@all", "&*"]);
    let client = ClientBuilder::new(server.url()).credentials("mute", "secret").connect().await.unwrap();
    server.cli(&["ACL", "SETUSER", "mute", "resetchannels"]);
    let begin = || Transaction::new(&scope());
    for transaction in
        [begin().put("m", "k", "1"), begin().put("m", "k", "2").put("m", "l", "2"), begin().add("m", "n", 1)]
    {
        let error = client.commit(transaction).await.unwrap_err();
        assert!(error.is_outcome_unknown(), "{error:?}");
        assert!(error.to_string().contains("orders"), "{error}");
    }
    // A feed finds out by the revision of the next commit.
    let version = admin.backend().map_version(&map("m")).await.unwrap().unwrap();
    assert_eq!(version.revision.0, 4);
    client.close().await;
    admin.close().await;
}

#[tokio::test]
async fn simultaneous_puts_into_a_broken_map_each_get_the_error() {
    let server = Server::start();
    let client = connect(&server).await;
    let key = "pulse:{orders}:m:m";
    server.cli(&["SET", key, "stranger"]);
    let put = |i: u32| client.commit(Transaction::new(&scope()).put("m", format!("{i}"), "v"));
    for result in futures::future::join_all((0..30).map(put)).await {
        let error = result.unwrap_err();
        assert!(matches!(&error, Error::WrongType { key: named } if named == key), "{error:?}");
    }
    server.cli(&["DEL", key]);
    until("the map is in order again", async || {
        futures::future::join_all((0..30).map(put)).await.into_iter().all(|result| result.is_ok())
    })
    .await;
    client.close().await;
}
