//! Options of streams and readers.

use std::time::{Duration, SystemTime};

use pulse_core::Trim;
use pulse_streaming::{Client, Error, EventId, EventStream, NewEvent, ReaderBuilder, Retention, Start, StreamBuilder};
use tests::{Subject, on_every_backend, soon};

use crate::{Expected, MILLISECOND, NANOSECOND, YEAR};

on_every_backend!(
    an_option_of_a_stream_works_or_is_refused_when_opening,
    an_option_of_a_reader_works_or_is_refused_when_joining,
    a_reader_begins_anywhere,
    dead_letters_and_trims_take_any_number,
);

fn begin(subject: &Subject) -> StreamBuilder {
    EventStream::builder("events").scope(subject.scope())
}

async fn use_it(client: &Client, builder: StreamBuilder) -> Result<(), Error> {
    let stream = builder.open(client)?;
    let first = stream.add_once("id", NewEvent::new("n", "p")).await?;
    match stream.add("n", "p").await {
        // Less than two may be in it.
        Ok(_) | Err(Error::Full { .. }) => {}
        Err(error) => return Err(error),
    }
    assert!(first > EventId::ZERO);
    Ok(())
}

async fn an_option_of_a_stream_works_or_is_refused_when_opening(subject: Subject) {
    use Expected::{Refused, Works};

    let client = subject.client().await;
    let mut table = Vec::new();
    for (count, expected) in [(0, Refused), (1, Works), (u64::MAX, Works)] {
        table.push((begin(&subject).retention(Retention::Newest(count)), expected));
        table.push((begin(&subject).retention(Retention::AboutNewest(count)), expected));
        table.push((begin(&subject).capacity(count), expected));
    }
    for (time, expected) in [
        (Duration::ZERO, Refused),
        (NANOSECOND, Refused),
        (MILLISECOND, Works),
        (YEAR, Works),
        (YEAR + NANOSECOND, Refused),
        (Duration::MAX, Refused),
    ] {
        table.push((begin(&subject).retention(Retention::Within(time)), expected));
        table.push((begin(&subject).expires_after(time), expected));
        table.push((begin(&subject).expires_unless_added_to_for(time), expected));
        table.push((begin(&subject).once_within(time), expected));
    }
    for (builder, expected) in table {
        let shown = format!("{builder:?}");
        match (use_it(&client, builder).await, expected) {
            (Ok(()), Works) | (Err(Error::InvalidOption { .. }), Refused) => {}
            (other, _) => panic!("{shown} met {other:?}"),
        }
    }
    client.close().await;
}

async fn an_option_of_a_reader_works_or_is_refused_when_joining(subject: Subject) {
    use Expected::{Refused, Works};

    let client = subject.client().await;
    let stream = begin(&subject).open(&client).unwrap();
    for payload in ["1", "2", "3"] {
        stream.add("n", payload).await.unwrap();
    }
    let reader = || stream.reader().start(Start::Oldest);
    let table: Vec<(ReaderBuilder, Expected)> = vec![
        (reader().buffer(0), Refused),
        (reader().buffer(1), Works),
        (reader().buffer(usize::MAX), Works),
        (reader().block(Duration::ZERO), Refused),
        (reader().block(NANOSECOND), Refused),
        (reader().block(MILLISECOND), Works),
        (reader().block(YEAR), Works),
        (reader().block(Duration::MAX), Refused),
    ];
    for (builder, expected) in table {
        let shown = format!("{builder:?}");
        match (builder.join().await, expected) {
            (Ok(mut reader), Works) => {
                for payload in ["1", "2", "3"] {
                    let event = soon("an event", reader.next()).await.expect("open").expect("nothing was lost");
                    assert_eq!(event.payload(), payload, "{shown}");
                }
                reader.close().await;
            }
            (Err(Error::InvalidOption { .. }), Refused) => {}
            (other, _) => panic!("{shown} met {other:?}"),
        }
    }
    client.close().await;
}

async fn a_reader_begins_anywhere(subject: Subject) {
    let client = subject.client().await;
    let stream = begin(&subject).open(&client).unwrap();
    stream.add("n", "p").await.unwrap();
    let epoch = SystemTime::UNIX_EPOCH;
    let far = epoch + Duration::from_secs(u64::MAX >> 2);
    for (start, finds_it) in [
        (Start::At(epoch), true),
        (Start::At(epoch - Duration::from_secs(1)), true),
        (Start::At(far), false),
        (Start::After(EventId::ZERO), true),
        (Start::After(EventId::MAX), false),
    ] {
        let mut reader = stream.reader().start(start).join().await.unwrap();
        let mut sink = stream.sink(format!("from {start:?}")).start(start).join().await.unwrap();
        if finds_it {
            assert!(soon("an event", reader.next()).await.is_some_and(|event| event.is_ok()), "{start:?}");
            assert!(soon("a delivery", sink.next()).await.is_some_and(|delivery| delivery.is_ok()), "{start:?}");
        }
        reader.close().await;
        sink.close().await;
    }
    client.close().await;
}

async fn dead_letters_and_trims_take_any_number(subject: Subject) {
    let client = subject.client().await;
    let stream = begin(&subject).open(&client).unwrap();
    stream.add_batch(["1", "2"].map(|payload| NewEvent::new("n", payload))).await.unwrap();
    let mut sink = stream.sink("s").start(Start::Oldest).join().await.unwrap();
    for _ in 0..2 {
        let delivery = soon("a delivery", sink.next()).await.unwrap().unwrap();
        delivery.dead_letter("r".repeat(1 << 16)).await.unwrap();
    }
    let letters = stream.dead_letters("s").unwrap();
    for limit in [0, 1, usize::MAX] {
        assert_eq!(letters.list(EventId::ZERO, limit).await.unwrap().len(), limit.clamp(1, 2), "up to {limit}");
    }
    for length in [u64::MAX, 1, 0] {
        stream.trim(Trim::MaxLength { length, approximate: false }).await.unwrap();
        assert_eq!(stream.info().await.unwrap().map(|info| info.length), Some(length.min(2)));
    }
    sink.close().await;
    client.close().await;
}
