use std::future::poll_fn;

use futures::FutureExt;

use super::*;

async fn take<T>(buffer: &Buffer<T>) -> Option<T> {
    poll_fn(|cx| buffer.poll_next(cx)).await
}

async fn see<T: Clone>(buffer: &Buffer<T>) -> Option<T> {
    poll_fn(|cx| buffer.poll_copy(cx)).await
}

#[tokio::test]
async fn each_of_several_sees_everything_and_the_slowest_holds_it() {
    let first = Buffer::new(4);
    let producer = first.producer();
    producer.push([0]);
    let second = first.seeing();
    producer.push(1..4);
    for item in 0..4 {
        assert_eq!(see(&first).await, Some(item));
    }
    assert_eq!(producer.room().now_or_never(), None, "the second has seen nothing");
    assert_eq!(see(&second).await, Some(1), "what came before it is not for it");
    producer.retain(|item| *item != 2);
    assert_eq!(see(&second).await, Some(3));
    assert_eq!(producer.room().await, 4);
    producer.push([4]);
    assert_eq!((see(&first).await, see(&second).await), (Some(4), Some(4)));
}

#[tokio::test]
async fn one_who_leaves_holds_nothing_up() {
    let first = Buffer::new(2);
    let producer = first.producer();
    let second = first.seeing();
    producer.push([1, 2]);
    assert_eq!((see(&first).await, see(&first).await), (Some(1), Some(2)));
    assert_eq!(producer.room().now_or_never(), None);
    drop(second);
    assert_eq!(producer.room().now_or_never(), Some(2));
    producer.push([3]);
    assert_eq!(see(&first).await, Some(3));
}

#[tokio::test]
async fn those_who_take_turns_share_and_all_are_woken() {
    let first = Arc::new(Buffer::new(4));
    let producer = first.producer();
    let second = first.sharing();
    let (one, two) = (
        tokio::spawn({
            let first = first.clone();
            async move { take(&first).await }
        }),
        tokio::spawn(async move { take(&second).await }),
    );
    tokio::task::yield_now().await;
    producer.push([1, 2]);
    let mut taken = [one.await.unwrap(), two.await.unwrap()];
    taken.sort_unstable();
    assert_eq!(taken, [Some(1), Some(2)]);
    assert_eq!(producer.room().now_or_never(), Some(4));
}

#[tokio::test]
async fn room_opens_when_the_buffer_is_down_to_half() {
    let buffer = Buffer::new(4);
    let producer = buffer.producer();
    assert_eq!(producer.room().await, 4);
    producer.push(0..4);
    for left in [3, 2] {
        assert_eq!(producer.room().now_or_never(), None, "with more than {left} items");
        take(&buffer).await;
    }
    assert_eq!(producer.room().await, 2);
}

#[tokio::test]
async fn a_waiting_producer_is_told_of_room() {
    let buffer = Buffer::new(1);
    let producer = buffer.producer();
    producer.push([1]);
    let waiting = tokio::spawn(async move { producer.room().await });
    tokio::task::yield_now().await;
    assert_eq!(take(&buffer).await, Some(1));
    assert_eq!(waiting.await.ok(), Some(1));
}

#[tokio::test]
async fn the_end_comes_after_the_last_item_when_the_last_producer_is_gone() {
    let buffer = Buffer::new(4);
    let (one, two) = (buffer.producer(), buffer.producer());
    one.push([1]);
    drop(one);
    drop(two);
    assert_eq!(take(&buffer).await, Some(1));
    assert_eq!(take(&buffer).await, None);
}

#[tokio::test]
async fn nothing_comes_out_of_a_closed_buffer_and_the_waiting_subscriber_learns_of_the_end() {
    let buffer = Arc::new(Buffer::<u32>::new(4));
    let producer = buffer.producer();
    let waiting = tokio::spawn({
        let buffer = buffer.clone();
        async move { take(&buffer).await }
    });
    tokio::task::yield_now().await;
    buffer.close();
    assert_eq!(waiting.await.ok(), Some(None));
    producer.push([1]);
    assert_eq!(take(&buffer).await, None);
    buffer.close();
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_takes_nothing_does_not_attend_to_a_buffer_that_holds_something() {
    let second = Duration::from_secs(1);
    let buffer = Buffer::new(4);
    let producer = buffer.producer();
    tokio::time::advance(10 * second).await;
    assert!(producer.is_attended(second), "there is nothing to take");
    producer.push([1, 2]);
    assert!(producer.is_attended(second), "it had no time to take it");
    tokio::time::advance(2 * second).await;
    assert!(!producer.is_attended(second));
    take(&buffer).await;
    assert!(producer.is_attended(second));
}
