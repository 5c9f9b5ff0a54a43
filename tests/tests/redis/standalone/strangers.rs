//! Strangers who write into our keys and channels.

use std::time::Duration;

use pulse_core::{
    Acks, Binding, Client, Consumer, Error, EventId, FeedItem, GapCause, Group, GroupStart, LeaseId, Missed, NewEvent,
    PendingQuery, Transaction, Trim,
};
use tests::Server;

use super::{connect, map, scope, stream, until};

async fn refusal(client: &Client, transaction: Transaction) -> Error {
    match client.commit(transaction).await {
        Ok(_) => panic!("this should not have been committed"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_key_of_the_wrong_type_is_named() {
    let server = Server::start();
    let client = connect(&server).await;
    let lease = LeaseId(7);
    let begin = || Transaction::new(&scope());
    for (kind, transaction) in [
        ("m:m", begin().put("m", "k", "v")),
        ("m:m", begin().put("other", "k", "v").delete("m", "k")),
        ("s:s", begin().append("s", NewEvent::new("e", "p"))),
        ("s:s", begin().put("m", "k", "v").append("s", NewEvent::new("e", "p"))),
        ("l", begin().grant_lease(lease, Duration::from_secs(60))),
        ("d", begin().put_bound("m", "k", "v", Binding::Ttl(Duration::from_secs(60)))),
        ("b:m", begin().put_bound("m", "k", "v", Binding::Ttl(Duration::from_secs(60)))),
        (
            "e:0000000000000007",
            begin().grant_lease(lease, Duration::from_secs(60)).put_bound("m", "k", "v", Binding::Lease(lease)),
        ),
    ] {
        server.cli(&["FLUSHALL"]);
        let key = format!("pulse:{{orders}}:{kind}");
        server.cli(&["SET", &key, "stranger"]);
        let error = refusal(&client, transaction).await;
        assert!(matches!(&error, Error::WrongType { key: named } if *named == key), "{key}: {error:?}");
        assert_eq!(server.cli(&["DBSIZE"]).trim(), "1", "{key}: something was written");
    }
    server.cli(&["FLUSHALL"]);
    server.cli(&["SET", "pulse:{orders}:m:m", "stranger"]);
    server.cli(&["SET", "pulse:{orders}:s:s", "stranger"]);
    let backend = client.backend();
    let group = Group::new("g").unwrap();
    let errors = [
        backend.map_version(&map("m")).await.unwrap_err(),
        backend.map_get(&map("m"), &["k"]).await.unwrap_err(),
        backend.map_page(&map("m"), None, 9).await.unwrap_err(),
        backend.stream_read(&stream("s"), EventId::ZERO, 9, Duration::ZERO).await.unwrap_err(),
        backend.stream_info(&stream("s")).await.unwrap_err(),
        backend.group_create(&stream("s"), &group, GroupStart::Oldest).await.unwrap_err(),
        backend.group_info(&stream("s"), &group).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(&error, Error::WrongType { key } if key.starts_with("pulse:{orders}:")), "{error:?}");
    }
    client.close().await;
}

#[tokio::test]
async fn a_hash_that_is_no_map_is_called_corrupt_and_left_alone() {
    let server = Server::start();
    let client = connect(&server).await;
    let key = "pulse:{orders}:m:m";
    let odd = ["", "short", "zzzzzzzzzzzzzzzz7", "0123456789abcdef", "0123456789abcdef1x"];
    // What counts as a number elsewhere.
    let numbers = [
        "0123456789abcdef7 ",
        "0123456789abcdef+7",
        "0123456789abcdef7.0",
        "0123456789abcdef0x10",
        "0123456789abcdefnan",
    ];
    let shifted = ["0x123456789abcde7", " 123456789abcdef7"];
    for header in [None].into_iter().chain(odd.into_iter().chain(numbers).chain(shifted).map(Some)) {
        server.cli(&["DEL", key]);
        server.cli(&["HSET", key, "k", "v"]);
        if let Some(header) = header {
            server.cli(&["HSET", key, "", header]);
        }
        for transaction in [
            Transaction::new(&scope()).put("m", "k", "w"),
            Transaction::new(&scope()).expect_present("m", "k").add("m", "n", 1),
            Transaction::new(&scope()).expect_present("m", "k").put("m", "k", "w"),
            Transaction::new(&scope()).delete("m", "k").put("n", "k", "w"),
        ] {
            let error = refusal(&client, transaction).await;
            assert!(matches!(&error, Error::Corrupt { key: named, .. } if named == key), "{header:?}: {error:?}");
        }
        assert_eq!(server.cli(&["HGET", key, "k"]).trim(), "v");
    }
    client.close().await;
}

#[tokio::test]
async fn garbage_in_one_map_does_not_keep_the_others_from_being_swept() {
    let server = Server::start();
    let client = connect(&server).await;
    let soon = Binding::Ttl(Duration::from_millis(1));
    client
        .commit(Transaction::new(&scope()).put_bound("a", "k", "v", soon.clone()).put_bound("b", "k", "v", soon))
        .await
        .unwrap();
    server.cli(&["SET", "pulse:{orders}:m:a", "stranger"]);
    server.cli(&["ZADD", "pulse:{orders}:d", "1", "garbage", "1", "E9:x", "1", "M"]);
    server.cli(&["ZADD", "pulse:{orders}:l", "1", "garbage"]);
    server.cli(&["EVAL", r"redis.call('ZADD', KEYS[1], 1, '\255')", "1", "pulse:{orders}:l"]);
    server.cli(&["SADD", "pulse:{orders}:e:garbage", "x", "1:a", "99:abc"]);
    until("the sound map is swept", async || {
        client.backend().sweep(&scope()).await.unwrap();
        client.backend().map_get(&map("b"), &["k"]).await.unwrap() == [None]
    })
    .await;
    let swept = client.backend().sweep(&scope()).await.unwrap();
    assert_eq!(swept.next_deadline, None, "what cannot be swept is forgotten");
    client.close().await;
}

#[tokio::test]
async fn garbage_in_a_channel_is_a_gap_and_the_feed_goes_on() {
    let server = Server::start();
    let client = connect(&server).await;
    let mut feed = client.backend().map_feed(&map("m")).await.unwrap();
    for garbage in ["", "garbage", "\u{ffff}", "0123456789abcdef1"] {
        server.cli(&["SPUBLISH", "pulse:{orders}:f:m", garbage]);
        let item = feed.next().await.unwrap();
        assert!(matches!(item, FeedItem::Gap(GapCause::Malformed { .. })), "{item:?}");
    }
    client.commit(Transaction::new(&scope()).put("m", "k", "v")).await.unwrap();
    assert!(matches!(feed.next().await, Some(FeedItem::Commit(_))));
    client.close().await;
}

#[tokio::test]
async fn foreign_entries_of_a_stream_are_handed_out_as_what_they_are() {
    let server = Server::start();
    let client = connect(&server).await;
    let key = "pulse:{orders}:s:s";
    server.cli(&["XADD", key, "*", "foreign", "entry"]);
    server.cli(&["XADD", key, "*", "n", "name", "p", "payload", "h", "no headers"]);
    client.commit(Transaction::new(&scope()).append("s", NewEvent::new("ours", "p"))).await.unwrap();
    let backend = client.backend();
    let entries = backend.stream_read(&stream("s"), EventId::ZERO, 9, Duration::ZERO).await.unwrap().entries;
    assert_eq!(entries.iter().map(|entry| entry.event.is_ok()).collect::<Vec<_>>(), [false, false, true]);
    let (group, consumer) = (Group::new("g").unwrap(), Consumer::new("c").unwrap());
    backend.group_create(&stream("s"), &group, GroupStart::Oldest).await.unwrap();
    let read = backend.group_read(&stream("s"), &group, &consumer, 9, Duration::ZERO, Acks::Explicit).await.unwrap();
    assert_eq!(read.iter().map(|delivery| delivery.entry.event.is_ok()).collect::<Vec<_>>(), [false, false, true]);
    let claimed = backend.group_claim(&stream("s"), &group, &consumer, Duration::ZERO, 9).await.unwrap();
    assert_eq!(claimed.deliveries.len(), 3);
    client.close().await;
}

#[tokio::test]
async fn garbage_in_a_doorbell_only_wakes() {
    let server = Server::start();
    let client = connect(&server).await;
    let reader = tokio::spawn({
        let client = client.clone();
        async move { client.backend().stream_read(&stream("s"), EventId::ZERO, 9, Duration::from_secs(60)).await }
    });
    let hung = async || server.cli(&["PUBSUB", "SHARDCHANNELS"]).contains("w:s");
    until("the doorbell hangs", hung).await;
    server.cli(&["SPUBLISH", "pulse:{orders}:w:s", "garbage"]);
    client.commit(Transaction::new(&scope()).append("s", NewEvent::new("e", "p"))).await.unwrap();
    assert_eq!(reader.await.unwrap().unwrap().entries.len(), 1);
    client.close().await;
}

#[tokio::test]
async fn consumers_whose_names_are_no_text_hide_nobody_else() {
    let server = Server::start();
    let client = connect(&server).await;
    let group = Group::new("g").unwrap();
    let backend = client.backend();
    backend.group_create(&stream("s"), &group, GroupStart::Oldest).await.unwrap();
    let consumer = Consumer::new("c").unwrap();
    let append = Transaction::new(&scope()).append("s", NewEvent::new("n", "p"));
    let mut held = Vec::from_iter(client.commit(append.clone()).await.unwrap().event_id(0));
    backend.group_read(&stream("s"), &group, &consumer, 1, Duration::ZERO, Acks::Explicit).await.unwrap();
    for name in [r"'\255'", "''", "string.rep('x', 5000)"] {
        held.extend(client.commit(append.clone()).await.unwrap().event_id(0));
        let read = format!("redis.call('XREADGROUP', 'GROUP', 'g', {name}, 'STREAMS', KEYS[1], '>')");
        server.cli(&["EVAL", &read, "1", "pulse:{orders}:s:s"]);
    }
    let info = backend.group_info(&stream("s"), &group).await.unwrap().unwrap();
    assert_eq!(info.pending, 4);
    assert_eq!(info.consumers.iter().map(|consumer| consumer.name.as_str()).collect::<Vec<_>>(), ["c"]);
    let pending = backend.group_pending(&stream("s"), &group, PendingQuery::new(9)).await.unwrap();
    assert_eq!(pending.iter().map(|pending| pending.id).collect::<Vec<_>>(), held);
    let claimed = backend.group_claim(&stream("s"), &group, &consumer, Duration::ZERO, 9).await.unwrap();
    assert_eq!(claimed.deliveries.len(), 4);
    client.close().await;
}

#[tokio::test]
async fn what_a_stranger_trims_shows_in_what_a_group_missed() {
    let server = Server::start();
    let client = connect(&server).await;
    let (backend, key) = (client.backend(), "pulse:{orders}:s:s");
    let [group, consumer] = ["g", "c"];
    let (group, consumer) = (Group::new(group).unwrap(), Consumer::new(consumer).unwrap());
    let add = async |count: usize| {
        let add = (0..count).fold(Transaction::new(&scope()), |add, _| add.append("s", NewEvent::new("n", "p")));
        let committed = client.commit(add).await.unwrap();
        (0..count).filter_map(|place| committed.event_id(place)).collect::<Vec<_>>()
    };
    let missed = async || backend.group_missed(&stream("s"), &group).await.unwrap();
    let read = async |limit: usize| {
        let read = backend.group_read(&stream("s"), &group, &consumer, limit, Duration::ZERO, Acks::Explicit).await;
        read.unwrap().len()
    };
    // What was gone before the group began was never there for it.
    add(5).await;
    server.cli(&["XTRIM", key, "MAXLEN", "0"]);
    backend.group_create(&stream("s"), &group, GroupStart::Oldest).await.unwrap();
    assert_eq!(missed().await, None);

    // Before it reads on: with the place of the gap.
    let ids = add(100).await;
    assert_eq!((missed().await, read(1).await, missed().await), (None, 1, None));
    server.cli(&["XTRIM", key, "MAXLEN", "5"]);
    assert_eq!(missed().await, Some(Missed::new(ids[0], ids[95], Some(94))));
    assert_eq!(missed().await, None, "told once");
    // After it: where the server counts what was handed out.
    server.cli(&["XTRIM", key, "MAXLEN", "3"]);
    assert_eq!(read(10).await, 3);
    let counts_handed_out = server.cli(&["INFO", "server"]).contains("redis_version:7.0");
    let late = missed().await;
    assert!(!counts_handed_out || late == Some(Missed::new(EventId::ZERO, ids[99], Some(2))), "{late:?}");
    assert_eq!(missed().await, None);
    // Together with a trim of ours; an emptied stream.
    let ids = add(10).await;
    server.cli(&["XTRIM", key, "MAXLEN", "8"]);
    let ours = Trim::MaxLength { length: 5, approximate: false };
    client.commit(Transaction::new(&scope()).trim_stream("s", ours)).await.unwrap();
    server.cli(&["XTRIM", key, "MAXLEN", "0"]);
    let all = missed().await.expect("all is gone");
    assert_eq!((all.events, all.before), (Some(10), ids[9].next().unwrap()));
    // Nothing is made up: what was handed out and acknowledged, groups that wait for nothing, single deletions.
    add(4).await;
    assert_eq!(read(10).await, 4);
    server.cli(&["XTRIM", key, "MAXLEN", "0"]);
    assert_eq!(missed().await, None);
    let ids = add(4).await;
    client.commit(Transaction::new(&scope()).delete_events("s", ids[..2].to_vec())).await.unwrap();
    assert_eq!(missed().await, None);
    client.close().await;
}
