//! Feature flags that every process reads without asking anybody, and that change while it runs.
//!
//! ```text
//! cargo run -p examples --bin map_flags
//! ```

use std::collections::BTreeMap;

use pulse_core::NewEvent;
use pulse_rmap::Map;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("PULSE_URL").unwrap_or_else(|_| "memory:".into());
    let client = pulse_rmap::connect(&url).await?;
    let flags: Map<bool> = Map::builder("flags").join(&client).await?;
    flags.batch().clear().set("new-checkout", &false).set("dark-mode", &true).commit().await?;

    // A part of the program that builds something out of the flags, and does so again whenever they have changed; many
    // changes in a row are one to it.
    let reloader = tokio::spawn({
        let flags = flags.clone();
        async move {
            let mut changed = flags.changed();
            while changed.wait().await.is_ok() {
                let snapshot = flags.snapshot();
                let all: BTreeMap<_, _> = snapshot.iter().collect();
                println!("reloaded: {all:?}");
            }
        }
    });

    // An operator switches a flag, provided that nobody else did: with a line in the log, or not at all.
    let line = NewEvent::new("switched", "new-checkout is on");
    let log = flags.id().scope().stream("log")?;
    let batch = flags.batch().expect("new-checkout", &false).set("new-checkout", &true).append_event(&log, line);
    let version = batch.commit().await?;

    // Reading is a lookup in local memory.
    flags.wait_for(version).await?;
    if flags.get("new-checkout").is_some_and(|on| *on) {
        println!("this request gets the new checkout");
    }

    // A second operator had the same idea, and is told what is there.
    match flags.compare_and_set("new-checkout", &false, &true).await {
        Err(error) if error.is_conflict() => println!("somebody was faster: {error}"),
        other => println!("switched: {:?}", other?.version),
    }

    flags.close().await;
    reloader.await?;
    client.close().await;
    Ok(())
}
