//! Connecting to what is not there, not ours, or too old.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    time::{Duration, Instant},
};

use pulse_core::{ClientBuilder, Error, NewEvent, Transaction, fred};
use tests::Server;

use super::{connect, map, scope, stream, until};

async fn refusal(builder: ClientBuilder) -> Error {
    match builder.connect().await {
        Ok(_) => panic!("this should not have connected"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn nobody_at_the_address_is_said_at_once() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let begun = Instant::now();
    let error = refusal(ClientBuilder::new(format!("redis://me:secret@127.0.0.1:{port}"))).await;
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    let mut shown = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        shown = format!("{shown} {error} {error:?}");
        cause = error.source();
    }
    assert!(shown.contains(&port.to_string()), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
}

#[tokio::test]
async fn a_connect_that_is_given_up_leaves_no_connection_behind() {
    // It takes connections and never says a word.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let minute = Duration::from_secs(60);
    let connect = ClientBuilder::new(url).connect_timeout(minute).command_timeout(minute).connect();
    let mut connection = tokio::select! {
        connected = connect => panic!("it cannot connect: {connected:?}"),
        accepted = listener.accept() => accepted.unwrap().0,
    };
    let mut nothing = tokio::io::sink();
    let until_its_end = tokio::io::copy(&mut connection, &mut nothing);
    let ended = tokio::time::timeout(Duration::from_secs(5), until_its_end).await;
    assert!(ended.is_ok(), "the connection goes on although nobody waits for it");
}

#[tokio::test]
async fn a_wrong_or_missing_password_is_an_error_of_its_own() {
    let server = Server::start_with(&["--requirepass", "right"]);
    for builder in [
        ClientBuilder::new(server.url()),
        ClientBuilder::new(server.url()).credentials("", "wrong"),
        ClientBuilder::new(server.url().replace("//", "//:wrong@")),
    ] {
        let error = refusal(builder).await;
        assert!(matches!(error, Error::Auth { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("wrong@"), "{error:?}");
    }
    let client = ClientBuilder::new(server.url()).credentials("", "right").connect().await.unwrap();
    client.commit(Transaction::new(&scope()).put("m", "k", "v")).await.unwrap();
    client.close().await;
}

/// Answers like a server of that version, to everything that a client asks while connecting.
fn serve_as(listener: TcpListener, version: &'static str) {
    std::thread::spawn(move || {
        while let Ok((connection, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(connection.try_clone().unwrap());
                let mut writer = connection;
                let mut line = String::new();
                loop {
                    line.clear();
                    if reader.read_line(&mut line).unwrap_or(0) == 0 {
                        return;
                    }
                    // The first command of a connection is sent as a plain line.
                    let count = line.strip_prefix('*').map(|count| count.trim().parse::<usize>().unwrap());
                    let mut words: Vec<_> = line.split_whitespace().map(str::to_uppercase).collect();
                    if count.is_some() {
                        words.clear();
                    }
                    for _ in 0..count.unwrap_or(0) {
                        line.clear();
                        reader.read_line(&mut line).unwrap();
                        let mut word = vec![0; line.trim_start_matches('$').trim().parse::<usize>().unwrap() + 2];
                        reader.read_exact(&mut word).unwrap();
                        words.push(String::from_utf8_lossy(&word).trim().to_uppercase());
                    }
                    let answer = match words[0].as_str() {
                        "HELLO" => "%1\r\n$5\r\nproto\r\n:3\r\n".to_owned(),
                        "INFO" => {
                            let info = format!("# Server\r\nredis_version:{version}\r\n");
                            format!("${}\r\n{info}\r\n", info.len())
                        }
                        "CLIENT" if words.get(1).is_some_and(|word| word == "ID") => ":1\r\n".to_owned(),
                        _ => "+OK\r\n".to_owned(),
                    };
                    if writer.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_with_what_is_needed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    serve_as(listener, "6.2.14");
    let error = refusal(ClientBuilder::new(url)).await;
    assert!(matches!(&error, Error::UnsupportedServer { found, .. } if found == "Redis 6.2.14"), "{error:?}");
}

#[tokio::test]
async fn the_configuration_of_a_fred_client_leads_to_the_same_server() {
    use fred::types::{Builder, config::Config};
    let server = Server::start_with(&["--requirepass", "right"]);
    let url = format!("{}/3", server.url().replace("//", "//:right@"));
    let theirs = Builder::from_config(Config::from_url(&url).unwrap()).build().unwrap();
    let client = ClientBuilder::from_fred(&theirs).key_prefix("shop:").connect().await.unwrap();
    let mut feed = client.backend().map_feed(&map("m")).await.unwrap();
    client.commit(Transaction::new(&scope()).put("m", "k", "v").append("s", NewEvent::new("e", "p"))).await.unwrap();
    assert!(feed.next().await.is_some());
    assert!(server.cli(&["-a", "right", "-n", "3", "KEYS", "*"]).contains("shop:{orders}:m:m"));
    let read = client.backend().stream_read(&stream("s"), pulse_core::EventId::ZERO, 9, Duration::ZERO).await;
    assert_eq!(read.unwrap().entries.len(), 1);
    client.close().await;
}

#[tokio::test]
async fn the_connections_bear_the_name_that_was_given_also_after_a_reconnection() {
    let server = Server::start();
    let client = ClientBuilder::new(server.url()).connection_name("till-7").connect().await.unwrap();
    let named = async || server.cli(&["CLIENT", "LIST"]).matches("name=till-7").count() == 2;
    until("both connections have the name", named).await;
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    until("both connections have the name again", named).await;
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_feeds_and_readers_need_no_more_connections_than_none() {
    let server = Server::start();
    let client = connect(&server).await;
    let connections = || server.cli(&["CLIENT", "LIST"]).lines().filter(|line| line.contains("cmd=")).count();
    let before = connections();
    let mut feeds = Vec::new();
    let mut readers = Vec::new();
    for number in 0..500 {
        feeds.push(client.backend().map_feed(&map(&number.to_string())).await.unwrap());
        let (client, stream) = (client.clone(), stream(&number.to_string()));
        readers.push(tokio::spawn(async move {
            client.backend().stream_read(&stream, pulse_core::EventId::ZERO, 1, Duration::from_secs(60)).await
        }));
    }
    let listened = async || server.cli(&["PUBSUB", "SHARDCHANNELS"]).lines().count() >= 1000;
    until("all feeds and doorbells are subscribed", listened).await;
    assert_eq!(connections(), before);
    for number in 0..500 {
        let name = number.to_string();
        client.commit(Transaction::new(&scope()).append(name, NewEvent::new("e", "p"))).await.unwrap();
    }
    for reader in readers {
        assert_eq!(reader.await.unwrap().unwrap().entries.len(), 1);
    }
    drop(feeds);
    let unsubscribed = async || server.cli(&["PUBSUB", "SHARDCHANNELS"]).trim().is_empty();
    until("nothing is subscribed that nobody listens to", unsubscribed).await;
    client.close().await;
}
