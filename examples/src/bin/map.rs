//! A replicated map: two replicas, one writes, the other follows every change.
//!
//! ```text
//! cargo run -p examples --bin map
//! ```

use pulse_rmap::{Map, Update};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Two clients, as two processes would have; "redis://localhost:6379" works the same way.
    let (here, there) = (pulse_rmap::connect("memory:town").await?, pulse_rmap::connect("memory:town").await?);
    let writer: Map<u16> = Map::builder("ports").join(&here).await?;
    let reader: Map<u16> = Map::builder("ports").join(&there).await?;

    let (_, mut changes) = reader.snapshot_and_subscribe();
    writer.set("http", &80).await?;
    writer.set("https", &443).await?;
    let last = writer.delete("http").await?;
    for _ in 0..3 {
        match changes.next().await {
            Some(Update::Change(change)) => println!("{}: {:?}", change.key, change.value.as_deref()),
            other => println!("{other:?}"),
        }
    }

    // Reading waits for nobody; to see what was just written elsewhere, wait for its version.
    reader.wait_for(last.version).await?;
    println!("the reader has https: {:?}, http: {:?}", reader.get("https").as_deref(), reader.get("http").as_deref());

    writer.close().await;
    reader.close().await;
    here.close().await;
    there.close().await;
    Ok(())
}
