//! What happens when something is taken away underneath: the group, the stream, single events.

use pulse_core::{Group, Transaction};
use pulse_streaming::{Notice, Start};
use tests::{Subject, on_every_backend, soon};

use crate::{LONG, SHORT, add_all, destroy, next_delivery, next_notice, number, stream, work_off};

on_every_backend!(
    a_sink_goes_on_with_a_stream_that_was_destroyed_and_comes_back,
    a_sink_goes_on_where_it_was_if_only_its_cursor_was_destroyed,
    a_sink_does_not_bring_a_destroyed_stream_back,
    a_sink_says_which_events_were_deleted_before_they_were_acknowledged,
    a_sink_whose_stream_is_gone_can_be_closed,
);

async fn a_sink_goes_on_with_a_stream_that_was_destroyed_and_comes_back(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut sink = stream.sink("s").ack_grace(LONG).join().await.unwrap();
    add_all(&stream, [1]).await;
    assert_eq!(work_off(&mut sink, 1).await, [1]);
    for round in 2..5 {
        destroy(&stream).await;
        add_all(&stream, [10 * round, 10 * round + 1]).await;
        let notice = next_notice(&mut sink).await;
        assert!(matches!(notice, Notice::CursorLost { .. }), "{notice:?}");
        assert_eq!(work_off(&mut sink, 2).await, [10 * round, 10 * round + 1]);
    }
}

async fn a_sink_goes_on_where_it_was_if_only_its_cursor_was_destroyed(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut sink = stream.sink("s").start(Start::Oldest).ack_grace(LONG).join().await.unwrap();
    add_all(&stream, [1, 2]).await;
    assert_eq!(work_off(&mut sink, 2).await, [1, 2]);
    client.backend().group_destroy(stream.id(), &Group::new("s").unwrap()).await.unwrap();
    add_all(&stream, [3]).await;
    let notice = next_notice(&mut sink).await;
    assert!(matches!(notice, Notice::CursorLost { .. }), "{notice:?}");
    assert_eq!(work_off(&mut sink, 1).await, [3]);
}

async fn a_sink_does_not_bring_a_destroyed_stream_back(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut sink = stream.sink("s").ack_grace(SHORT).join().await.unwrap();
    add_all(&stream, [1]).await;
    assert_eq!(work_off(&mut sink, 1).await, [1]);
    stream.destroy().await.unwrap();
    // The sink finds out, and has several occasions to do the wrong thing.
    assert!(tokio::time::timeout(SHORT, sink.next()).await.is_err());
    assert_eq!(stream.info().await.unwrap(), None);
}

async fn a_sink_says_which_events_were_deleted_before_they_were_acknowledged(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut sink = stream.sink("s").ack_grace(SHORT).join().await.unwrap();
    add_all(&stream, [1, 2]).await;
    let lost = next_delivery(&mut sink).await.id();
    let kept = next_delivery(&mut sink).await;
    client
        .commit(Transaction::new(stream.id().scope()).delete_events(stream.id().name().clone(), vec![lost]))
        .await
        .unwrap();
    let notice = next_notice(&mut sink).await;
    assert!(matches!(&notice, Notice::Lost { ids, .. } if *ids == [lost]), "{notice:?}");
    let again = next_delivery(&mut sink).await;
    assert_eq!((number(&kept), number(&again)), (2, 2));
}

async fn a_sink_whose_stream_is_gone_can_be_closed(subject: Subject) {
    let client = subject.client().await;
    let stream = stream(&subject, &client);
    let mut sink = stream.sink("s").ack_grace(SHORT).join().await.unwrap();
    add_all(&stream, [1]).await;
    let held = next_delivery(&mut sink).await;
    stream.destroy().await.unwrap();
    soon("the closing of the sink", sink.close()).await;
    held.ack().await.unwrap();
    assert_eq!(stream.info().await.unwrap(), None);
}
