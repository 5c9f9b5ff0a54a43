//! Who a client is: users without passwords, passwords of every kind, and those that are changed.

use std::{error::Error as _, time::Duration};

use pulse_core::{ClientBuilder, Error, FeedItem, Transaction};
use tests::{Server, soon};

use super::{map, scope, until};

fn words_of(error: &Error) -> String {
    let mut words = format!("{error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

/// Writes, and hears of it: both connections are authenticated.
async fn works(builder: ClientBuilder) {
    let client = builder.connect().await.unwrap();
    let mut feed = client.backend().map_feed(&map("m")).await.unwrap();
    client.commit(Transaction::new(&scope()).put("m", "k", "v")).await.unwrap();
    let heard = soon("the commit is heard of", feed.next()).await;
    assert!(matches!(heard, Some(FeedItem::Commit(_))), "{heard:?}");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_a_password_is_that_user_and_never_the_default_one() {
    let server = Server::start();
    server.cli(&["ACL", "SETUSER", "app", "on", "nopass", "~*", "&*", "+@all"]);
    let url = server.url().replace("//", "//app@");
    let client = ClientBuilder::new(&url).connect().await.unwrap();
    client.commit(Transaction::new(&scope()).put("m", "k", "v")).await.unwrap();
    let served = || server.cli(&["CLIENT", "LIST"]).matches("user=app").count();
    assert_eq!(served(), 2, "both connections belong to the user");
    client.close().await;

    // Whoever has a password has to say it, and whoever does not exist is nobody.
    server.cli(&["ACL", "SETUSER", "app", "on", "resetpass", ">secret"]);
    for url in [url, server.url().replace("//", "//stranger@"), server.url().replace("//", "//app:@")] {
        let error = ClientBuilder::new(&url).connect().await.expect_err("this must not connect");
        assert!(matches!(error, Error::Auth { .. }), "{url}: {error:?}");
        assert!(words_of(&error).contains("WRONGPASS"), "{url}: {}", words_of(&error));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_password_works() {
    let server = Server::start();
    for password in [
        " ",
        "a b",
        " a",
        "a\tb",
        "a\nb",
        "a\r\nb",
        "\"",
        "a\"b",
        "'",
        "a'b",
        "\\",
        "\\x41",
        "",
        "ü€",
        "%",
        "a:b@c/d?e#f",
    ] {
        server.cli(&["ACL", "SETUSER", "app", "reset", "on", &format!(">{password}"), "~*", "&*", "+@all"]);
        works(ClientBuilder::new(server.url()).credentials("app", password)).await;
        let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
        works(ClientBuilder::new(server.url().replace("//", &format!("//app:{encoded}@")))).await;
        if !password.is_empty() {
            server.cli(&["CONFIG", "SET", "requirepass", password]);
            works(ClientBuilder::new(server.url()).credentials("", password)).await;
            works(ClientBuilder::new(server.url().replace("//", &format!("//:{encoded}@")))).await;
            let unlock = ["--user", "default", "-a", password, "--no-auth-warning", "CONFIG", "SET", "requirepass", ""];
            server.cli(&unlock);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_was_changed_is_named_as_the_reason() {
    let server = Server::start_with(&["--requirepass", "old"]);
    let builder = ClientBuilder::new(server.url()).credentials("", "old");
    let client = builder.command_timeout(Duration::from_millis(700)).connect().await.unwrap();
    let write = async || client.commit(Transaction::new(&scope()).put("m", "k", "v")).await;
    write().await.unwrap();
    let admin = |password: &str, command: &[&str]| {
        server.cli(&[&["-a", password, "--no-auth-warning"], command].concat());
    };
    admin("old", &["CONFIG", "SET", "requirepass", "new"]);
    write().await.expect("connections that stand go on");
    admin("new", &["CLIENT", "KILL", "TYPE", "normal"]);
    admin("new", &["CLIENT", "KILL", "TYPE", "pubsub"]);
    let refused = async || match write().await {
        Err(error @ Error::Auth { .. }) => words_of(&error).contains("WRONGPASS"),
        other => panic!("expected a refusal of the password: {other:?}"),
    };
    // A command that was under way when the connection was cut may not know.
    until("the cut is noticed", async || !matches!(write().await, Ok(_) | Err(Error::Unavailable { .. }))).await;
    assert!(refused().await);
    let error = client.backend().map_feed(&map("m")).await.expect_err("nothing can be subscribed");
    assert!(matches!(error, Error::Auth { .. }), "{error:?}");
    admin("new", &["CONFIG", "SET", "requirepass", "old"]);
    until("the client works again", async || write().await.is_ok()).await;
    client.close().await;
}
