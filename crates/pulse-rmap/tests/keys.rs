//! Keys in every form that a program may have them in.

use std::{borrow::Cow, sync::Arc};

use pulse_rmap::{KeyFilter, Map, connect};

#[tokio::test]
async fn a_key_is_taken_in_whatever_form_the_caller_has_it() {
    let client = connect("memory:").await.unwrap();
    let map: Map<u16> = Map::builder("ports").join(&client).await.unwrap();
    let (owned, shared): (String, Arc<str>) = ("http".into(), "http".into());
    let borrowed: &str = &owned;
    let stream = map.id().scope().stream(&owned).unwrap();

    map.set(&owned, &1).await.unwrap();
    map.set(&shared, &2).await.unwrap();
    map.set(borrowed, &3).await.unwrap();
    map.set(&borrowed, &4).await.unwrap();
    map.set(Cow::Borrowed(borrowed), &5).await.unwrap();
    map.set(owned.clone(), &6).await.unwrap();
    map.set(Arc::clone(&shared), &7).await.unwrap();
    map.compare_and_set(&owned, &7, &8).await.unwrap();
    map.update(&owned, |old| old.map(|old| old + 1)).await.unwrap();
    map.batch().expect(&owned, &9).set(&owned, &10).append_event(&stream, event()).commit().await.unwrap();
    map.set_and_wait(&owned, &11).await.unwrap();
    assert_eq!(map.get(&owned).as_deref(), Some(&11));

    assert_eq!(KeyFilter::key(&owned), KeyFilter::keys([shared]));
    assert!(KeyFilter::prefix(&owned).accepts("http/1"));
    assert_eq!(map.clear_if([(&owned, Some(&11))]).await.unwrap().keys, 1);
    map.close().await;
    client.close().await;
}

fn event() -> pulse_rmap::NewEvent {
    pulse_rmap::NewEvent::new("changed", "")
}
