//! A service registry: who is there is in the map, and who dies is out of it, without anybody cleaning up.
//!
//! ```text
//! cargo run -p examples --bin map_registry
//! ```

use std::time::Duration;

use pulse_rmap::{Client, Map, Scope, Session, Update};

/// How long a service may be silent before the others take it for dead.
const TTL: Duration = Duration::from_secs(2);

/// One instance, as it would run in a process of its own.
struct Service {
    registry: Map<String>,
    /// What the entry lives by: kept alive as long as this is held.
    session: Session,
}

impl Service {
    async fn start(client: &Client, name: &str, address: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let registry: Map<String> = Map::builder("registry").join(client).await?;
        let session = Session::open(client, registry.id().scope(), TTL).await?;
        registry.set_bound(name, &address.to_owned(), &session).await?;
        Ok(Self { registry, session })
    }

    async fn stop(self) -> Result<(), pulse_rmap::pulse_core::Error> {
        // Its entries go at once.
        self.session.close().await?;
        self.registry.close().await;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("PULSE_URL").unwrap_or_else(|_| "memory:".into());
    let client = pulse_rmap::connect(&url).await?;
    let scope = Scope::new("registry")?;
    let registry: Map<String> = Map::builder("registry").scope(scope).join(&client).await?;
    let mut changes = registry.subscribe();

    let polite = Service::start(&client, "api-1", "10.0.0.7:80").await?;
    let doomed = Service::start(&client, "api-2", "10.0.0.8:80").await?;
    let mut there = 0;
    while there < 2 {
        there += show(changes.next().await);
    }

    println!("api-1 says goodbye");
    polite.stop().await?;
    while there > 1 {
        there += show(changes.next().await);
    }

    println!("api-2 dies: nobody keeps its session alive any more");
    drop(doomed);
    while there > 0 {
        there += show(changes.next().await);
    }

    registry.close().await;
    client.close().await;
    Ok(())
}

/// Prints a change; returns what it does to the number of services.
fn show(update: Option<Update<String>>) -> i32 {
    let Some(Update::Change(change)) = update else { return 0 };
    match change.value {
        Some(address) => println!("  {} is at {address}", change.key),
        None => println!("  {} is gone", change.key),
    }
    i32::from(change.previous.is_none()) - i32::from(change.kind == pulse_rmap::ChangeKind::Deleted)
}
