//! An event stream: a reader sees every event, the instances of a sink share them.
//!
//! ```text
//! cargo run -p examples --bin stream
//! ```

use pulse_streaming::{EventStream, NewEvent, Start};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = pulse_streaming::connect("memory:").await?; // or "redis://localhost:6379"
    let orders = EventStream::new(&client, "orders")?;
    orders.add("placed", "order 7").await?;
    orders.add_event(NewEvent::new("paid", "order 7").with_topic("money")).await?;

    let mut audit = orders.reader().start(Start::Oldest).join().await?;
    for _ in 0..2 {
        let event = audit.next().await.ok_or("the reader is closed")??;
        println!("audit:   {} {:?}", event.name(), event.payload());
    }

    let mut billing = orders.sink("billing").start(Start::Oldest).topic("money").join().await?;
    let delivery = billing.next().await.ok_or("the sink is closed")??;
    println!("billing: {} {:?}", delivery.name(), delivery.payload());
    // The work is done: nobody of the sink "billing" gets this event again.
    delivery.ack().await?;

    audit.close().await;
    billing.close().await;
    client.close().await;
    Ok(())
}
