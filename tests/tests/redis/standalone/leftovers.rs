//! What is deleted leaves nothing behind in the server, whichever way it goes.

use std::time::Duration;

use pulse_core::{
    Acks, Binding, Consumer, Deadline, Group, GroupStart, LeaseId, NewEvent, Once, Session, Transaction, Trim,
};
use tests::Server;

use super::{connect, map, scope, stream, until};

#[tokio::test]
async fn what_was_put_for_a_time_and_is_deleted_leaves_no_binding_and_no_deadline() {
    let server = Server::start();
    let client = connect(&server).await;
    let begin = || Transaction::new(&scope());
    let binding = Binding::Ttl(Duration::from_secs(3600));
    let keys = ["a", "b", "c", "d"];
    let put = keys.iter().fold(begin(), |all, key| all.put_bound("m", *key, "1", binding.clone()));
    client.commit(put).await.unwrap();
    let bindings = "pulse:{orders}:b:m";
    let kept =
        || (server.cli(&["HKEYS", bindings]).split_whitespace().count(), server.cli(&["ZCARD", "pulse:{orders}:d"]));
    assert_eq!(kept().0, 4);
    // Beside puts and without, where others stay and where none does.
    client.commit(begin().put("m", "e", "1").delete("m", "a").delete("m", "none")).await.unwrap();
    assert_eq!((kept().0, kept().1.trim()), (3, "3"));
    client.commit(begin().delete("m", "b").without_previous()).await.unwrap();
    assert_eq!((kept().0, kept().1.trim()), (2, "2"));
    client.commit(begin().put("m", "f", "1").delete("m", "c").delete("m", "d")).await.unwrap();
    assert_eq!((kept().0, kept().1.trim()), (0, "0"));
    let header = server.cli(&["HGET", "pulse:{orders}:m:m", ""]);
    assert!(!header.trim().ends_with('b'), "it tells of bindings that are gone: {header}");
    client.close().await;
}

/// The keys in the server, and whether each expires by itself.
fn keys(server: &Server) -> Vec<(String, bool)> {
    let keys = server.cli(&["KEYS", "*"]);
    let lives_on = |key: &str| server.cli(&["PTTL", key]).trim() != "-1";
    let mut keys: Vec<_> = keys.lines().map(str::trim).filter(|key| !key.is_empty()).collect();
    keys.sort_unstable();
    keys.into_iter().map(|key| (key.to_owned(), lives_on(key))).collect()
}

fn assert_all_expire(server: &Server) {
    let lasting: Vec<String> = keys(server).into_iter().filter(|(_, ends)| !ends).map(|(key, _)| key).collect();
    assert!(lasting.is_empty(), "kept for ever: {lasting:?}");
}

const MINUTE: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn what_has_run_out_and_was_swept_leaves_no_key_behind() {
    let server = Server::start();
    let client = connect(&server).await;
    let lease = LeaseId::random();
    let fill = Transaction::new(&scope())
        .grant_lease(lease, MOMENT)
        .put("m", "plain", "1")
        .put_bound("m", "timed", "1", MOMENT)
        .put_bound("m", "leased", "1", lease)
        .expire_map("m", Deadline::IfUnset(MOMENT))
        .put("empty", "k", "1")
        .delete("empty", "k")
        .expire_map("empty", Deadline::Renew(MOMENT));
    client.commit(fill).await.unwrap();
    until("all is swept", async || client.backend().sweep(&scope()).await.unwrap().next_deadline.is_none()).await;
    assert_eq!(keys(&server), []);
    client.close().await;
}

#[tokio::test]
async fn what_nobody_is_left_to_sweep_expires_by_itself() {
    let server = Server::start();
    let client = connect(&server).await;
    let begin = || Transaction::new(&scope());
    // A session that nobody closed, with and without entries, in maps that expire, at once or later.
    let session = Session::open(&client, &scope(), MINUTE).await.unwrap();
    let lease = LeaseId::random();
    client.commit(begin().grant_lease(lease, MOMENT)).await.unwrap();
    assert_all_expire(&server);
    let fill = begin().put_bound("m", "timed", "1", MOMENT).put_bound("m", "owned", "1", &session);
    client.commit(fill.expire_map("m", Deadline::IfUnset(MINUTE))).await.unwrap();
    assert_all_expire(&server);
    // Whatever speaks of the map stays for as long as the map, however often that is prolonged.
    let prolonged = begin().put("m", "k", "1").expire_map("m", Deadline::Renew(MINUTE * 60));
    client.commit(prolonged).await.unwrap();
    assert_all_expire(&server);
    let ends = |kind: &str| -> i64 {
        server.cli(&["PEXPIRETIME", &format!("pulse:{{orders}}:{kind}")]).trim().parse().unwrap()
    };
    for kind in ["d", "l"] {
        assert!(ends(kind) >= ends("m:m"), "{kind} goes before the map: {} < {}", ends(kind), ends("m:m"));
    }
    let entries =
        keys(&server).into_iter().find(|(key, _)| key.contains(":e:")).expect("an entry is bound to the session");
    let ends_of_entries: i64 = server.cli(&["PEXPIRETIME", &entries.0]).trim().parse().unwrap();
    assert!(ends_of_entries >= ends("m:m"));
    client.close().await;
}

#[tokio::test]
async fn what_speaks_of_a_map_that_stays_is_kept() {
    let server = Server::start();
    let client = connect(&server).await;
    let begin = || Transaction::new(&scope());
    let lasting = || {
        let keys = keys(&server).into_iter().filter(|(_, ends)| !ends);
        keys.map(|(key, _)| key.trim_start_matches("pulse:{orders}:").to_owned()).collect::<Vec<_>>()
    };
    let lease = LeaseId(7);
    let grant = begin().grant_lease(lease, MINUTE).put("mortal", "k", "1").put_bound("mortal", "leased", "1", lease);
    client.commit(grant.expire_map("mortal", Deadline::IfUnset(MINUTE))).await.unwrap();
    assert!(lasting().is_empty(), "{:?}", lasting());
    // By a put for a time into a map that stays: the general script, and the one for plain puts.
    client.commit(begin().put_bound("m", "timed", "1", MOMENT)).await.unwrap();
    assert_eq!(lasting(), ["b:m", "d", "m:m"]);
    client.commit(begin().put_bound("m", "leased", "1", lease)).await.unwrap();
    let leased = format!("e:{lease}");
    assert_eq!(lasting(), ["b:m", "d", &leased, "l", "m:m"]);
    client.commit(begin().drop_lease(lease)).await.unwrap();
    until("the entry is swept", async || {
        client.backend().sweep(&scope()).await.unwrap();
        client.backend().map_get(&map("m"), &["timed"]).await.unwrap() == [None]
    })
    .await;
    // A map that is not to expire any more takes what speaks of it with it.
    let bound = begin().grant_lease(lease, MINUTE).put_bound("mortal", "timed", "1", MINUTE);
    client.commit(bound.put_bound("mortal", "leased", "1", lease)).await.unwrap();
    client.commit(begin().expire_map("mortal", Deadline::Never)).await.unwrap();
    for key in ["d", "l", &leased, "m:mortal", "b:mortal"] {
        assert!(lasting().iter().any(|lasting| lasting == key), "{key} expires: {:?}", keys(&server));
    }
    client.close().await;
}

#[tokio::test]
async fn a_stream_that_expires_takes_all_that_belongs_to_it_along() {
    let server = Server::start();
    let client = connect(&server).await;
    let (backend, group) = (client.backend(), Group::new("g").unwrap());
    let begin = || Transaction::new(&scope());
    backend.group_create(&stream("s"), &group, GroupStart::Oldest).await.unwrap();
    let event = || NewEvent::new("n", "p");
    let add = (0..9).fold(begin(), |add, _| add.append("s", event()));
    client.commit(add.append_once("s", event(), Once::new("id", MINUTE * 60))).await.unwrap();
    let consumer = Consumer::new("c").unwrap();
    backend.group_read(&stream("s"), &group, &consumer, 1, Duration::ZERO, Acks::Explicit).await.unwrap();
    backend.group_missed(&stream("s"), &group).await.unwrap();
    let trim = begin().trim_stream("s", Trim::MaxLength { length: 3, approximate: false });
    client.commit(trim).await.unwrap();
    client.commit(begin().append("s", event()).expire_stream("s", Deadline::Renew(MINUTE))).await.unwrap();
    assert_all_expire(&server);
    client.commit(begin().append("s", event()).expire_stream("s", Deadline::Renew(MOMENT))).await.unwrap();
    until("nothing is left", async || keys(&server).is_empty()).await;

    // The same in the other order: what comes while the stream's end stands.
    backend.group_create(&stream("s"), &group, GroupStart::Oldest).await.unwrap();
    client.commit(begin().append("s", event()).expire_stream("s", Deadline::IfUnset(MINUTE))).await.unwrap();
    backend.group_missed(&stream("s"), &group).await.unwrap();
    let once = begin().append("s", event()).append_once("s", event(), Once::new("id", MINUTE * 60));
    client.commit(once.trim_stream("s", Trim::MaxLength { length: 1, approximate: false })).await.unwrap();
    assert_all_expire(&server);
    client.commit(begin().destroy_stream("s")).await.unwrap();
    assert_eq!(keys(&server), []);
    client.close().await;
}
