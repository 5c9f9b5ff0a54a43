//! Several readers, several sinks, several instances of one sink, and several streams in one reader.
//!
//! ```text
//! cargo run -p examples --bin stream_sharing
//! ```

use pulse_streaming::{EventStream, Start};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("PULSE_URL").unwrap_or_else(|_| "memory:".into());
    let client = pulse_streaming::connect(&url).await?;
    let (orders, returns) = (EventStream::new(&client, "orders")?, EventStream::new(&client, "returns")?);

    // Two readers: each sees every event. The second one reads two streams.
    let mut audit = orders.reader().join().await?;
    let mut board = orders.reader().join().await?;
    board.add_stream(&returns, Start::Newest).await?;

    // Two sinks with a cursor of their own each. Billing has two instances, as if in two processes: they share its
    // events.
    let billing = orders.sink("billing").buffer(1);
    let (mut first, mut second) = (billing.clone().join().await?, billing.join().await?);
    let mut shipping = orders.sink("shipping").join().await?;

    for number in 1..=6 {
        orders.add("placed", format!("order {number}")).await?;
    }
    returns.add("returned", "order 2").await?;

    for _ in 0..6 {
        let event = audit.next().await.ok_or("the reader is closed")??;
        println!("audit:      {} {:?}", event.name(), event.payload());
    }
    for _ in 0..7 {
        let event = board.next().await.ok_or("the reader is closed")??;
        println!("board:      {} {:?}, of {}", event.name(), event.payload(), event.stream().name());
    }
    for _ in 0..6 {
        let (instance, delivery) = tokio::select! {
            delivery = first.next() => (1, delivery),
            delivery = second.next() => (2, delivery),
        };
        let delivery = delivery.ok_or("the sink is closed")??;
        println!("billing, {instance}: {:?}", delivery.payload());
        delivery.ack().await?;
    }
    for _ in 0..6 {
        let delivery = shipping.next().await.ok_or("the sink is closed")??;
        println!("shipping:   {:?}", delivery.payload());
        delivery.ack().await?;
    }

    for sink in [first, second, shipping] {
        sink.close().await;
    }
    for stream in [orders, returns] {
        stream.destroy().await?;
    }
    client.close().await;
    Ok(())
}
