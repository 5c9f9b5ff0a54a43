//! What becomes of an entry's binding when the entry is written again.

use std::time::Duration;

use pulse_rmap::{Map, connect};

const LIFE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn whatever_replaces_a_value_replaces_its_binding() {
    let client = connect("memory:").await.unwrap();
    let map: Map<u16> = Map::builder("m").join(&client).await.unwrap();
    for key in ["untouched", "set", "compared", "updated"] {
        let set = map.set_bound(key, &1, LIFE).await.unwrap();
        map.wait_for(set.version).await.unwrap();
    }
    map.set("set", &2).await.unwrap();
    map.compare_and_set("compared", &1, &2).await.unwrap();
    map.update("updated", |old| old.map(|old| old + 1)).await.unwrap();
    tokio::time::sleep(LIFE * 2).await;
    let left = ["untouched", "set", "compared", "updated"].map(|key| map.contains_key(key));
    assert_eq!(left, [false, true, true, true]);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_changed_in_place_keeps_its_binding() {
    let client = connect("memory:").await.unwrap();
    let counters = Map::counters("counters").join(&client).await.unwrap();
    let lists = Map::lists("lists").join(&client).await.unwrap();
    counters.set_bound("k", &1.into(), LIFE).await.unwrap();
    lists.set_bound("k", &["a"].into_iter().collect(), LIFE).await.unwrap();
    let counted = counters.increment("k", 1).await.unwrap();
    let listed = lists.append("k", ["b"]).await.unwrap();
    counters.wait_for(counted.version).await.unwrap();
    lists.wait_for(listed.version).await.unwrap();
    assert!(counters.contains_key("k") && lists.contains_key("k"));
    tokio::time::sleep(LIFE * 2).await;
    assert!(!counters.contains_key("k") && !lists.contains_key("k"));
}
