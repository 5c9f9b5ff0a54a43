//! URLs of one kind that lead to servers of another, and servers that are not ready yet.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use pulse_core::{ClientBuilder, Error, Transaction};
use tests::Server;

use super::{scope, until};

/// Is refused at once, with advice.
async fn is_refused(url: String, advice: &str) {
    let begun = Instant::now();
    let error = ClientBuilder::new(&url).connect().await.expect_err("this must not connect");
    assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?} to say {error}", begun.elapsed());
    assert!(matches!(error, Error::InvalidUrl { .. }), "{url}: {error:?}");
    assert!(error.to_string().contains(advice), "{url}: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_of_the_wrong_kind_is_refused_at_once_with_the_right_one() {
    let plain = Server::start();
    let node = Server::start_with(&["--cluster-enabled", "yes"]);
    let sentinel = Server::start_sentinel(&plain);
    is_refused(node.url(), "redis-cluster://").await;
    is_refused(sentinel.url(), "redis-sentinel://").await;
    is_refused(plain.url().replace("redis:", "redis-cluster:"), "redis://").await;
    is_refused(plain.url().replace("redis:", "redis-sentinel:") + "?sentinelServiceName=main", "redis://").await;
    is_refused(node.url().replace("redis:", "redis-sentinel:") + "?sentinelServiceName=main", "redis-cluster://").await;
    let url = sentinel.url().replace("redis:", "redis-sentinel:") + "?sentinelServiceName=other";
    let error = ClientBuilder::new(url).connect().await.expect_err("there is no such service");
    let source = std::error::Error::source(&error).and_then(std::error::Error::source).unwrap();
    assert!(source.to_string().contains("\"other\""), "{error}: {source}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_a_cluster_that_does_not_say_so_is_known_by_its_first_redirection() {
    let node = Server::start_with(&["--cluster-enabled", "yes", "--rename-command", "INFO", ""]);
    // It has half of the slots, and says that a stranger has the rest.
    node.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]);
    node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    until("the node serves", async || node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")).await;
    let other = Server::start_with(&["--cluster-enabled", "yes"]);
    other.cli(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]);
    node.cli(&["CLUSTER", "MEET", "127.0.0.1", &other.port().to_string()]);
    until("they know each other", async || node.cli(&["CLUSTER", "SLOTS"]).contains(&other.port().to_string())).await;
    let refusal = async || {
        let client = match ClientBuilder::new(node.url()).connect().await {
            Ok(client) => client,
            Err(error) => return Some(error),
        };
        let scopes = (0..50).map(|number| pulse_core::Scope::new(format!("scope-{number}")).unwrap());
        let mut refused = None;
        for scope in scopes {
            refused = refused.or(client.commit(Transaction::new(&scope).put("m", "k", "v")).await.err());
        }
        client.close().await;
        refused
    };
    let begun = Instant::now();
    let error = refusal().await.expect("some scope is of the other node");
    assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?} to say {error}", begun.elapsed());
    assert!(matches!(error, Error::InvalidUrl { .. }), "{error:?}");
    assert!(error.to_string().contains("redis-cluster://"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_loading_its_data_is_waited_for() {
    // Each key takes five milliseconds, and the server looks up from it after each.
    let mut server = Server::start_with(&[
        "--key-load-delay",
        "5000",
        "--loading-process-events-interval-bytes",
        "1024",
        "--rdbcompression",
        "no",
    ]);
    server.cli(&["DEBUG", "POPULATE", "600", "key", "1100"]);
    server.cli(&["SAVE"]);
    server.kill();
    let (port, url) = (server.port(), server.url());
    let restart = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    });
    let says = move || -> Option<String> {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).ok()?;
        connection.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        connection.write_all(b"PING\r\n").ok()?;
        let mut answer = [0; 8];
        connection.read_exact(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    };
    until("the server is loading", async || says().is_some_and(|answer| answer == "-LOADING")).await;
    let hasty = ClientBuilder::new(&url).command_timeout(Duration::from_millis(300)).connect().await;
    let error = hasty.expect_err("it is loading for longer");
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    let source = std::error::Error::source(&error).unwrap();
    assert!(source.to_string().contains("LOADING"), "{source}");
    let client = ClientBuilder::new(url).connect().await.unwrap();
    client.commit(Transaction::new(&scope()).put("m", "k", "v")).await.unwrap();
    client.close().await;
    drop(restart.await.unwrap());
}
