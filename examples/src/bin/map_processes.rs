//! One map in two processes: one writes a hundred keys, the other prints them as they arrive and ends when it has all.
//!
//! ```text
//! PULSE_URL=redis://127.0.0.1:6379 cargo run -p examples --bin map_processes    # starts the second process by itself
//! cargo run -p examples --bin map_processes                                     # both in one process, in memory
//! ```

use std::process::Command;

use pulse_rmap::{Client, Map, Update};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const KEYS: usize = 100;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let url = std::env::var("PULSE_URL").unwrap_or_else(|_| "memory:town".into());
    let role = std::env::args().nth(1).unwrap_or_default();
    let client = pulse_rmap::connect(&url).await?;
    match role.as_str() {
        "write" => write(&client).await?,
        // Memory is shared by the clients of one process only.
        _ if url.starts_with("memory:") => {
            tokio::try_join!(follow(&client), write(&client))?;
        }
        _ => {
            let mut writer = Command::new(std::env::current_exe()?).arg("write").spawn()?;
            follow(&client).await?;
            writer.wait()?;
        }
    }
    client.close().await;
    Ok(())
}

async fn write(client: &Client) -> Result<(), Failure> {
    let squares: Map<usize> = Map::builder("squares").join(client).await?;
    for number in 0..KEYS {
        squares.set(number.to_string(), &(number * number)).await?;
    }
    println!("[{}] has written {KEYS} keys", std::process::id());
    squares.close().await;
    Ok(())
}

async fn follow(client: &Client) -> Result<(), Failure> {
    let squares: Map<usize> = Map::builder("squares").join(client).await?;
    // The snapshot has what was there before, the changes what comes after: nothing is missed and nothing comes twice.
    let (snapshot, mut changes) = squares.snapshot_and_subscribe();
    println!("[{}] begins with {} keys", std::process::id(), snapshot.len());
    while squares.len() < KEYS {
        if let Some(Update::Change(change)) = changes.next().await
            && let Some(square) = change.value
        {
            println!("[{}] the square of {} is {square}", std::process::id(), change.key);
        }
    }
    println!("[{}] has all {KEYS}", std::process::id());
    squares.destroy().await?;
    squares.close().await;
    Ok(())
}
