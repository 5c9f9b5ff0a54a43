//! Options of a connection.

use std::time::Duration;

use pulse_core::{Client, ClientBuilder, Error, Limits, MAX_NAME_LEN, Reconnect, Transaction};
use tests::{Subject, on_every_backend};

use crate::{Expected, MILLISECOND, NANOSECOND};

on_every_backend!(
    an_option_of_a_connection_works_or_is_refused_when_connecting,
    limits_of_nothing_refuse_everything_and_the_largest_nothing,
);

async fn use_it(subject: &Subject, client: &Client) -> Result<(), Error> {
    let scope = subject.scope();
    client.commit(Transaction::new(&scope).put("m", "k", "v")).await?;
    assert_eq!(client.backend().map_get(&scope.map("m")?, &["k"]).await?, [Some("v".into())]);
    Ok(())
}

async fn an_option_of_a_connection_works_or_is_refused_when_connecting(subject: Subject) {
    use Expected::{MayBeLate, Refused, Works};

    let (none, most, longest) = (Duration::ZERO, Duration::MAX, "n".repeat(MAX_NAME_LEN));
    let too_long = format!("{longest}n");
    let build = || subject.builder();
    let reconnect = |min, max| build().reconnect(Reconnect::new(min, max));
    let table: Vec<(ClientBuilder, Expected)> = vec![
        (build().connect_timeout(none), Refused),
        (build().connect_timeout(NANOSECOND), Refused),
        (build().connect_timeout(MILLISECOND), MayBeLate),
        (build().connect_timeout(most), Works),
        (build().command_timeout(none), Refused),
        (build().command_timeout(NANOSECOND), Refused),
        (build().command_timeout(MILLISECOND), MayBeLate),
        (build().command_timeout(most), Works),
        (build().connect_timeout(most).command_timeout(most), Works),
        (reconnect(none, none), Works),
        (reconnect(none, most), Works),
        (reconnect(most, most), Works),
        (reconnect(most, none), Refused),
        (build().key_prefix(""), Works),
        (build().key_prefix(&longest), Works),
        (build().key_prefix(&too_long), Refused),
        (build().connection_name(""), Works),
        (build().connection_name("n"), Works),
        (build().connection_name(&longest), Works),
        (build().connection_name(&too_long), Refused),
        (build().connection_name("two words"), Refused),
    ];
    for (builder, expected) in table {
        let shown = format!("{builder:?}");
        let used = async {
            let client = builder.connect().await?;
            let used = use_it(&subject, &client).await;
            client.close().await;
            used
        };
        match (used.await, expected) {
            (Ok(()), Works | MayBeLate) | (Err(Error::InvalidOption { .. }), Refused) => {}
            (Err(error), MayBeLate) if error.is_retryable() => {}
            (other, _) => panic!("{shown} met {other:?}"),
        }
    }
}

async fn limits_of_nothing_refuse_everything_and_the_largest_nothing(subject: Subject) {
    let of = |size: usize| {
        let limits = Limits::default().with_key_bytes(size).with_value_bytes(size).with_event_bytes(size);
        limits.with_operations(size).with_transaction_bytes(size)
    };
    for (size, is_taken) in [(0, false), (1, false), (2, true), (usize::MAX, true)] {
        let client = subject.builder().limits(of(size)).connect().await.unwrap();
        let used = use_it(&subject, &client).await;
        client.close().await;
        let as_expected = if is_taken { used.is_ok() } else { matches!(used, Err(Error::LimitExceeded { .. })) };
        assert!(as_expected, "limits of {size} met {used:?}");
    }
}
