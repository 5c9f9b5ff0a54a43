//! What is deleted leaves nothing behind in the server, whichever way it goes.

use std::time::Duration;

use pulse_core::{Binding, Transaction};
use tests::Server;

use super::{connect, scope};

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
