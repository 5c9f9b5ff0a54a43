//! What requests may ask for: lifetimes, sessions, ages, limits, waits.

use std::time::Duration;

use pulse_core::{
    Acks, Binding, Client, Consumer, Deadline, Error, EventId, Group, GroupStart, LeaseId, MAX_IDLE, MAX_LIFETIME,
    MapId, NewEvent, Once, PendingQuery, Scope, Session, StreamId, Transaction, Trim,
};
use tests::{Subject, on_every_backend, soon};

use crate::{MILLISECOND, NANOSECOND};

on_every_backend!(
    a_lifetime_is_from_a_millisecond_to_a_hundred_years,
    a_session_lives_for_four_milliseconds_at_least,
    expectations_of_nothing_never_hold_and_of_the_most_always,
    trims_take_any_length_age_and_id,
    reads_take_any_limit_and_wait,
    groups_take_any_limit_wait_and_idle_time,
    a_wait_without_end_ends_with_what_it_waits_for,
);

const COUNTS: [usize; 3] = [0, 1, usize::MAX];
/// More than is handed out at once.
const HANDED_OUT: [usize; 3] = [0, 1, i32::MAX as usize];
const TIMES: [Duration; 3] = [Duration::ZERO, NANOSECOND, Duration::MAX];

async fn add(client: &Client, stream: &StreamId, count: usize) {
    let transaction = (0..count).fold(Transaction::new(stream.scope()), |transaction, _| {
        transaction.append(stream.name().clone(), NewEvent::new("n", "p"))
    });
    client.commit(transaction).await.expect("the events are appended");
}

async fn a_lifetime_is_from_a_millisecond_to_a_hundred_years(subject: Subject) {
    let client = subject.client().await;
    let lasting = Transaction::new(&subject.scope()).put("m", "lasting", "v").append("s", NewEvent::new("n", "p"));
    let scope = lasting.scope().clone();
    client.commit(lasting.grant_lease(LeaseId(1), MAX_LIFETIME)).await.unwrap();
    let begin = || Transaction::new(&scope);
    for (ttl, is_taken) in [
        (Duration::ZERO, false),
        (NANOSECOND, false),
        (MILLISECOND, true),
        (MAX_LIFETIME, true),
        (MAX_LIFETIME + NANOSECOND, false),
        (Duration::MAX, false),
    ] {
        for transaction in [
            begin().put_bound("m", "k", "v", Binding::Ttl(ttl)),
            begin().put("other", "k", "v").expire_map("other", Deadline::IfUnset(ttl)),
            begin().put("third", "k", "v").expire_map("third", Deadline::Renew(ttl)),
            begin().append("other", NewEvent::new("n", "p")).expire_stream("other", Deadline::IfUnset(ttl)),
            begin().append("third", NewEvent::new("n", "p")).expire_stream("third", Deadline::Renew(ttl)),
            begin().append_once("s", NewEvent::new("n", "p"), Once::new("id", ttl)),
            begin().grant_lease(LeaseId::random(), ttl),
            // Once more, so that it lives on.
            begin().renew_lease(LeaseId(1), ttl).renew_lease(LeaseId(1), MAX_LIFETIME),
        ] {
            let shown = format!("{transaction:?}");
            let met = client.commit(transaction).await;
            let as_expected = if is_taken { met.is_ok() } else { matches!(met, Err(Error::InvalidRequest { .. })) };
            assert!(as_expected, "{shown} met {met:?}");
        }
    }
    client.close().await;
}

async fn a_session_lives_for_four_milliseconds_at_least(subject: Subject) {
    let (client, scope) = (subject.client().await, subject.scope());
    let (none, most, second) = (Duration::ZERO, Duration::MAX, Duration::from_secs(1));
    for (ttl, margin, is_taken) in [
        (none, none, false),
        (NANOSECOND, none, false),
        (MILLISECOND, none, false),
        (4 * MILLISECOND, none, true),
        (second, second / 2, true),
        (second, most, false),
        (MAX_LIFETIME, none, true),
        (MAX_LIFETIME, MAX_LIFETIME / 2, true),
        (most, none, false),
        (most, most, false),
    ] {
        let opened = Session::open_with_margin(&client, &scope, ttl, margin).await;
        let as_expected = if is_taken { opened.is_ok() } else { matches!(opened, Err(Error::InvalidRequest { .. })) };
        assert!(as_expected, "a session of {ttl:?} with a margin of {margin:?} met {opened:?}");
    }
    for ttl in [none, NANOSECOND, most] {
        assert!(matches!(Session::open(&client, &scope, ttl).await, Err(Error::InvalidRequest { .. })), "{ttl:?}");
    }
    Session::open(&client, &scope, MAX_LIFETIME).await.unwrap().close().await.unwrap();
    client.close().await;
}

async fn expectations_of_nothing_never_hold_and_of_the_most_always(subject: Subject) {
    let client = subject.client().await;
    let begin = Transaction::new(&subject.scope()).put("m", "k", "v").append("s", NewEvent::new("n", "p"));
    let scope = begin.scope().clone();
    client.commit(begin).await.unwrap();
    for (most, holds) in [(0, false), (1, false), (2, true), (u64::MAX, true)] {
        let begin = || Transaction::new(&scope);
        for transaction in [begin().expect_fewer_than("m", most), begin().expect_shorter_than("s", most)] {
            let met = client.commit(transaction).await;
            let as_expected = if holds { met.is_ok() } else { matches!(met, Err(Error::ExpectationFailed { .. })) };
            assert!(as_expected, "fewer than {most} met {met:?}");
        }
    }
    client.close().await;
}

async fn trims_take_any_length_age_and_id(subject: Subject) {
    let client = subject.client().await;
    let lengths =
        [0, 1, u64::MAX].map(|length| (3_u64.saturating_sub(length), Trim::MaxLength { length, approximate: false }));
    let ids = [(0, EventId::ZERO), (3, EventId::MAX)].map(|(gone, id)| (gone, Trim::Before { id, approximate: false }));
    let age = (0, Trim::OlderThan { age: Duration::MAX, approximate: false });
    for (gone, trim) in lengths.into_iter().chain(ids).chain([age]) {
        let stream = subject.scope().stream("s").unwrap();
        add(&client, &stream, 3).await;
        let trimmed = client.commit(Transaction::new(stream.scope()).trim_stream("s", trim)).await;
        assert_eq!(trimmed.unwrap_or_else(|error| panic!("{trim:?} met {error:?}")).count(0), Some(gone), "{trim:?}");
    }
    // A trim behind an append is part of the same step.
    for length in [0, 1, u64::MAX] {
        for approximate in [false, true] {
            let stream = subject.scope().stream("s").unwrap();
            add(&client, &stream, 3).await;
            let append = Transaction::new(stream.scope()).append("s", NewEvent::new("n", "p"));
            client.commit(append.trim_stream("s", Trim::MaxLength { length, approximate })).await.unwrap();
        }
    }
    // How many these drop depends on the clock, or on how a server stores them.
    let ages = [Duration::ZERO, NANOSECOND].map(|age| Trim::OlderThan { age, approximate: false });
    let rough = [0, 1, u64::MAX].map(|length| Trim::MaxLength { length, approximate: true });
    for trim in ages.into_iter().chain(rough).chain([Trim::OlderThan { age: Duration::MAX, approximate: true }]) {
        let stream = subject.scope().stream("s").unwrap();
        add(&client, &stream, 3).await;
        client.commit(Transaction::new(stream.scope()).trim_stream("s", trim)).await.unwrap();
    }
    client.close().await;
}

async fn reads_take_any_limit_and_wait(subject: Subject) {
    let client = subject.client().await;
    let scope = subject.scope();
    let (map, stream): (MapId, StreamId) = (scope.map("m").unwrap(), scope.stream("s").unwrap());
    client.commit(Transaction::new(&scope).put("m", "k", "v").put("m", "l", "v")).await.unwrap();
    add(&client, &stream, 2).await;
    for limit in COUNTS {
        let page = client.backend().map_page(&map, None, limit).await.unwrap();
        assert!(!page.entries.is_empty() && page.entries.len() <= 2, "up to {limit}: {page:?}");
        for wait in TIMES {
            let read = client.backend().stream_read(&stream, EventId::ZERO, limit, wait).await.unwrap();
            assert_eq!(read.entries.len(), limit.clamp(1, 2), "up to {limit} within {wait:?}");
        }
    }
    for wait in [Duration::ZERO, NANOSECOND] {
        let read = client.backend().stream_read(&stream, EventId::MAX, usize::MAX, wait).await.unwrap();
        assert!(read.entries.is_empty(), "within {wait:?}");
    }
    client.close().await;
}

async fn groups_take_any_limit_wait_and_idle_time(subject: Subject) {
    let client = subject.client().await;
    let (backend, scope) = (client.backend(), subject.scope());
    let (consumer, stream) = (Consumer::new("c").unwrap(), scope.stream("s").unwrap());
    add(&client, &stream, 2).await;
    for start in [EventId::ZERO, EventId::MAX] {
        let group = Group::new(format!("after {start}")).unwrap();
        assert!(backend.group_create(&stream, &group, GroupStart::After(start)).await.unwrap());
        let query = PendingQuery::new(usize::MAX).after(start).idle_for(Duration::MAX);
        assert!(backend.group_pending(&stream, &group, query).await.unwrap().is_empty());
    }
    for (number, limit) in HANDED_OUT.into_iter().enumerate() {
        for acks in [Acks::None, Acks::Explicit] {
            let group = Group::new(format!("{acks:?} {number}")).unwrap();
            backend.group_create(&stream, &group, GroupStart::Oldest).await.unwrap();
            let handed_out = backend.group_read(&stream, &group, &consumer, limit, Duration::MAX, acks).await.unwrap();
            assert_eq!(handed_out.len(), limit.clamp(1, 2), "up to {limit}");
            if acks == Acks::None {
                continue;
            }
            let ids: Vec<EventId> = handed_out.iter().map(|delivery| delivery.entry.id).collect();
            for idle in TIMES {
                assert_eq!(backend.group_set_idle(&stream, &group, &consumer, &ids, idle).await.unwrap(), ids);
            }
            let pending = |idle| backend.group_pending(&stream, &group, PendingQuery::new(limit).idle_for(idle));
            let claim = |idle| backend.group_claim(&stream, &group, &consumer, idle, limit);
            assert!(pending(Duration::MAX).await.unwrap().is_empty(), "nothing is idle for ever");
            assert_eq!(pending(MAX_IDLE).await.unwrap().len(), ids.len());
            assert_eq!(claim(Duration::MAX).await.unwrap().deliveries, []);
            assert_eq!(claim(MAX_IDLE).await.unwrap().deliveries.len(), ids.len());
            assert_eq!(claim(Duration::ZERO).await.unwrap().deliveries.len(), ids.len());
        }
    }
    client.close().await;
}

async fn a_wait_without_end_ends_with_what_it_waits_for(subject: Subject) {
    let client = subject.client().await;
    let scope: Scope = subject.scope();
    let (group, consumer, stream) = (Group::new("g").unwrap(), Consumer::new("c").unwrap(), scope.stream("s").unwrap());
    client.backend().group_create(&stream, &group, GroupStart::Oldest).await.unwrap();
    let read = client.backend().stream_read(&stream, EventId::ZERO, 1, Duration::MAX);
    let handed_out = client.backend().group_read(&stream, &group, &consumer, 1, Duration::MAX, Acks::Explicit);
    let adding = async {
        tokio::task::yield_now().await;
        add(&client, &stream, 1).await;
    };
    let (read, handed_out, ()) = soon("all three", async { tokio::join!(read, handed_out, adding) }).await;
    assert_eq!((read.unwrap().entries.len(), handed_out.unwrap().len()), (1, 1));
    client.close().await;
}
