//! Topics: publishing and subscribing by exact topics, by patterns, and by a predicate of one's own.
//!
//! ```text
//! cargo run -p examples --bin stream_topics
//! ```

use pulse_streaming::{EventStream, NewEvent, Reader, Start};

async fn show(name: &str, mut reader: Reader, count: usize) -> Result<(), Box<dyn std::error::Error>> {
    for _ in 0..count {
        let event = reader.next().await.ok_or("the reader is closed")??;
        println!("{name:<22} {:<12} {:?}", event.topic().unwrap_or("no topic"), event.payload());
    }
    reader.close().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("PULSE_URL").unwrap_or_else(|_| "memory:".into());
    let client = pulse_streaming::connect(&url).await?;
    let weather = EventStream::new(&client, "weather")?;

    let station = weather.reader().start(Start::Newest).topic("eu.vienna").join().await?;
    let europe = weather.reader().start(Start::Newest).topics_matching(r"^eu\.").join().await?;
    let is_hot = |event: &pulse_streaming::Event| event.decode::<f64>().is_ok_and(|degrees| degrees > 30.0);
    let heat = weather.reader().start(Start::Newest).filter(is_hot).join().await?;

    for (topic, degrees) in [("eu.vienna", 31.5), ("us.boston", 22.0), ("eu.oslo", 18.5), ("us.phoenix", 41.0)] {
        weather.add_event(NewEvent::encoded("reading", &degrees)?.with_topic(topic)).await?;
    }

    show("the station in Vienna:", station, 1).await?;
    show("all of Europe:", europe, 2).await?;
    show("above 30 degrees:", heat, 2).await?;

    weather.destroy().await?;
    client.close().await;
    Ok(())
}
