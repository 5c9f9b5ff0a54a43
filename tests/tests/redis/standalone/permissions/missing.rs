//! What is said when one command of those in the guide is missing.

use std::time::Duration;

use pulse_core::{
    Acks, Client, ClientBuilder, Consumer, Error, EventId, FeedItem, Group, GroupStart, LeaseId, NewEvent, Once,
    PendingQuery, Transaction, Trim,
};
use tests::{Server, soon};

use super::{builder, change, commands, connect, make, missing};
use crate::standalone::{map, scope, stream};

const MINUTE: Duration = Duration::from_secs(60);

/// Everything that the maps of a scope are used for, as far as one client alone can show it.
async fn use_maps(client: &Client) -> Result<(), Error> {
    let (scope, backend) = (scope(), client.backend());
    let transaction = || Transaction::new(&scope);
    let mut feed = backend.map_feed(&map("m")).await?;
    client.commit(transaction().put("m", "k", "v").put("m", "l", "v")).await?;
    client.commit(transaction().put("m", "k", "w")).await?;
    client.commit(transaction().grant_lease(LeaseId(7), MINUTE).put_bound("m", "t", "v", MINUTE)).await?;
    client.commit(transaction().put_bound("m", "b", "v", LeaseId(7)).add("m", "n", 1)).await?;
    client.commit(transaction().delete("m", "k").drop_lease(LeaseId(7))).await?;
    client.commit(transaction().clear("m")).await?;
    backend.map_version(&map("m")).await?;
    backend.map_page(&map("m"), None, 10).await?;
    backend.map_get(&map("m"), &["l"]).await?;
    backend.sweep(&scope).await?;
    backend.server_time(&scope).await?;
    while !matches!(soon("a commit", feed.next()).await, Some(FeedItem::Commit(_))) {}
    Ok(())
}

/// The same for streams.
async fn use_streams(client: &Client) -> Result<(), Error> {
    let (scope, backend) = (scope(), client.backend());
    let transaction = || Transaction::new(&scope);
    let (stream, group) = (stream("s"), Group::new("g").unwrap());
    let (one, two) = (Consumer::new("one").unwrap(), Consumer::new("two").unwrap());
    let event = || NewEvent::new("n", "p");
    client.commit(transaction().append("s", event())).await?;
    client.commit(transaction().append_once("s", event(), Once::new("1", MINUTE)).append("s", event())).await?;
    backend.group_create(&stream, &group, GroupStart::Oldest).await?;
    let read = backend.group_read(&stream, &group, &one, 2, MINUTE, Acks::Explicit).await?;
    let ids: Vec<EventId> = read.iter().map(|delivery| delivery.entry.id).collect();
    client.commit(transaction().ack("s", &group, ids[..1].to_vec())).await?;
    backend.group_pending(&stream, &group, PendingQuery::new(9)).await?;
    backend.group_set_idle(&stream, &group, &one, &ids, Duration::ZERO).await?;
    backend.group_claim(&stream, &group, &two, Duration::ZERO, 9).await?;
    backend.group_info(&stream, &group).await?;
    backend.stream_detail(&stream).await?;
    client.commit(transaction().trim_stream("s", Trim::MaxLength { length: 1, approximate: false })).await?;
    backend.group_missed(&stream, &group).await?;
    backend.stream_read(&stream, EventId::ZERO, 9, Duration::ZERO).await?;
    backend.stream_read(&stream, EventId::MAX, 9, Duration::from_millis(1)).await?;
    backend.group_remove_consumer(&stream, &group, &one).await?;
    backend.group_destroy(&stream, &group).await?;
    client.commit(transaction().destroy_stream("s")).await?;
    Ok(())
}

/// Commands whose absence is noticed by no caller: the connection's own.
const SILENT: [&str; 2] = ["sunsubscribe", "info"];

/// Takes each command of a user away in turn: all of it works with all of them, and without one the error names it.
async fn each_is_named(user: &str, use_all: impl AsyncFn(&Client) -> Result<(), Error>) {
    let server = Server::start();
    make(&server, user, &[]);
    let client = connect(&server, user).await;
    use_all(&client).await.unwrap();
    client.close().await;
    for command in commands(user) {
        server.cli(&["FLUSHALL"]);
        server.cli(&["SCRIPT", "FLUSH"]);
        change(&server, user, &[&format!("-{command}")]);
        let done = match builder(&server, user).connect().await {
            Ok(client) => {
                let done = use_all(&client).await;
                client.close().await;
                done
            }
            Err(error) => Err(error),
        };
        let name = command.to_uppercase().replace('|', " ");
        if SILENT.contains(&command.as_str()) {
            done.unwrap_or_else(|error| panic!("without {name}: {error}"));
        } else {
            let error = done.err().unwrap_or_else(|| panic!("{name} is not needed"));
            let said = missing::<()>(Err(error));
            assert!(said.contains(&name) && said.contains(&format!("+{command}")), "without {name}: {said}");
        }
        change(&server, user, &[&format!("+{command}")]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_missing_command_of_maps_is_named() {
    each_is_named("maps", use_maps).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_missing_command_of_streams_is_named() {
    each_is_named("streams", use_streams).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_missing_command_of_producers_is_named() {
    let append = async |client: &Client| {
        client.commit(Transaction::new(&scope()).append("s", NewEvent::new("n", "p"))).await.map(|_| ())
    };
    each_is_named("producer", append).await;
}

#[tokio::test]
async fn a_user_who_may_run_no_scripts_is_told_at_connecting() {
    let server = Server::start();
    for command in ["eval", "evalsha"] {
        server.cli(&["SCRIPT", "FLUSH"]);
        make(&server, "maps", &[&format!("-{command}")]);
        let said = missing(builder(&server, "maps").connect().await);
        assert!(said.contains(&format!("grant +{command}")), "{said}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_no_missing_permission() {
    let server = Server::start();
    make(&server, "maps", &[]);
    let error = builder(&server, "maps").credentials("maps", "wrong").connect().await.unwrap_err();
    assert!(matches!(error, Error::Auth { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_without_info_is_used_all_the_same() {
    let server = Server::start_with(&["--rename-command", "INFO", ""]);
    let client = ClientBuilder::new(server.url()).connect().await.unwrap();
    use_maps(&client).await.unwrap();
    client.close().await;
}
