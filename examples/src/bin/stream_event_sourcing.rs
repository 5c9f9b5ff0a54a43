//! Event sourcing: each change of a map is an event too, in the same transaction, and the map can be made again from
//! its events.
//!
//! ```text
//! cargo run -p examples --bin stream_event_sourcing
//! ```

use std::collections::BTreeMap;

use pulse_rmap::{Map, Scope};
use pulse_streaming::{Client, EventStream, NewEvent, Start, Transaction};

/// Adds to an account and to its history, both or neither.
async fn book(
    client: &Client,
    history: &EventStream,
    account: &str,
    cents: i64,
) -> Result<(), Box<dyn std::error::Error>> {
    let event = NewEvent::encoded("booked", &(account, cents))?;
    let transaction = Transaction::new(history.id().scope()).add("accounts", account, cents);
    client.commit(history.add_to(transaction, event)).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("PULSE_URL").unwrap_or_else(|_| "memory:".into());
    let client = pulse_streaming::connect(&url).await?;
    // What changes together stands in one scope.
    let scope = Scope::new("bank")?;
    let history = EventStream::in_scope(&client, &scope, "history")?;
    let accounts = Map::counters("accounts").scope(scope).join(&client).await?;

    for (account, cents) in [("alice", 500), ("bob", 200), ("alice", -120), ("bob", 120)] {
        book(&client, &history, account, cents).await?;
    }

    let mut replayed: BTreeMap<String, i64> = BTreeMap::new();
    let mut reader = history.reader().start(Start::Oldest).join().await?;
    for _ in 0..4 {
        let (account, cents): (String, i64) = reader.next().await.ok_or("the reader is closed")??.decode()?;
        *replayed.entry(account).or_default() += cents;
    }
    println!("from the events: {replayed:?}");

    for (account, cents) in &replayed {
        while accounts.get(account).map(|counter| counter.0) != Some(*cents) {
            tokio::task::yield_now().await;
        }
    }
    println!("the map says the same");

    reader.close().await;
    history.destroy().await?;
    accounts.destroy().await?;
    accounts.close().await;
    client.close().await;
    Ok(())
}
