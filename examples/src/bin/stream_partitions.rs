//! A partitioned stream: the events of a key are worked on in order, while the work is spread over instances that come
//! and go.
//!
//! ```text
//! cargo run -p examples --bin stream_partitions
//! ```

use pulse_streaming::{PartitionedStream, Start};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("PULSE_URL").unwrap_or_else(|_| "memory:".into());
    let client = pulse_streaming::connect(&url).await?;
    let orders = PartitionedStream::new(&client, "orders", 8)?;

    let mut first = orders.sink("billing").start(Start::Oldest).join().await?;
    let mut second = orders.sink("billing").start(Start::Oldest).join().await?;
    while first.owned().len() + second.owned().len() < 8 || second.owned().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    println!("the first instance owns {:?}, the second {:?}", first.owned(), second.owned());

    for step in ["placed", "paid", "shipped"] {
        for number in 1..=4 {
            orders.add(format!("order {number}"), step, format!("order {number}")).await?;
        }
    }
    for _ in 0..12 {
        let (instance, delivery) = tokio::select! {
            delivery = first.next() => (1, delivery),
            delivery = second.next() => (2, delivery),
        };
        let delivery = delivery.ok_or("the sink is closed")??;
        println!("instance {instance}: {:?} {}", delivery.payload(), delivery.name());
        delivery.ack().await?;
    }

    println!("the first instance leaves");
    first.close().await;
    orders.add("order 1", "returned", "order 1").await?;
    let delivery = second.next().await.ok_or("the sink is closed")??;
    println!("instance 2: {:?} {}", delivery.payload(), delivery.name());
    delivery.ack().await?;

    second.close().await;
    orders.destroy().await?;
    client.close().await;
    Ok(())
}
