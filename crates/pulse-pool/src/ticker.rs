//! Tickers: something that happens once per interval in the whole pool.
//!
//! A ticker is a record that says when its next tick is due. When that time comes, every node that has the ticker tries
//! to replace the record by the next one; the backend lets one of them, and that one has the tick. So it does not
//! matter which nodes are alive, nor how many.

mod turns;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use pulse_core::entropy;
use pulse_rmap::Changed;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Cadence, Error, Node,
    pool::Pool,
    record::TickerRecord,
    tables::Tickers,
    write::{BackOff, replace},
};

/// How long to wait before a record is tried again that the replica still shows after somebody else has replaced it.
const STALE: Duration = Duration::from_secs(2);

/// A tick. In the whole pool only this one has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tick {
    /// Counts the ticks of the ticker, from 1.
    pub number: u64,
    /// When it was due, by the server's clock.
    pub due: SystemTime,
    /// How many ticks between that and now are left out because nobody was there for them; see
    /// [`MissedTicks`](crate::MissedTicks).
    pub missed: u64,
}

impl Node {
    /// Joins the ticker of that name, or makes it if there is none. Each of its ticks reaches exactly one of all the
    /// nodes that have joined it.
    ///
    /// Joining it with another cadence replaces the cadence for everybody. It outlives its nodes: one that joins later
    /// finds the ticks that were missed, and [`MissedTicks`](crate::MissedTicks) says what becomes of them. A node that
    /// dies between having a tick and acting on it takes that tick with it.
    ///
    /// ```
    /// # use pulse_pool::Node;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// # let client = pulse_pool::connect("memory:").await?;
    /// let node = Node::join(&client, "reports").await?;
    /// let mut ticker = node.ticker("hourly", Duration::from_millis(10)).await?; // the same on every node
    /// while let Some(tick) = ticker.next().await {
    ///     println!("tick {} is ours", tick.number);
    ///     # if tick.number == 2 { break }
    /// }
    /// ticker.stop().await?; // on every node
    /// # client.close().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] if the name is empty, or no time will ever come by the cadence; [`Error::Closed`],
    /// [`Error::Replica`], [`Error::Backend`], [`Error::TimedOut`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the ticker is there as asked for, or as it was.
    pub async fn ticker(&self, name: impl Into<String>, cadence: impl Into<Cadence>) -> Result<Ticker, Error> {
        let (name, cadence) = (Arc::<str>::from(name.into()), cadence.into());
        let (pool, deadline) = (self.shared_pool(), self.deadline());
        let invalid = |reason: String| Error::InvalidOption { pool: pool.name.to_string(), reason };
        if name.is_empty() {
            return Err(invalid("a ticker must have a name".into()));
        }
        if cadence.first(pool.clock.now()).is_none() {
            return Err(invalid(format!("ticker {name:?} would never tick: {cadence:?}")));
        }
        let joined = async {
            let tickers = pool.tables.tickers().await.map_err(|source| pool.replica(source))?.clone();
            let changed = tickers.changed();
            let ticker = Ticker {
                pool: pool.clone(),
                closed: self.end(),
                tickers,
                changed,
                name,
                cadence,
                tried: None,
                claim: None,
            };
            ticker.make().await?;
            Ok(ticker)
        };
        tokio::time::timeout_at(deadline, joined).await.map_err(|_| pool.timed_out("make a ticker"))?
    }
}

/// A node's part in a ticker; see [`Node::ticker`]. Dropping it ends that part, and no more.
pub struct Ticker {
    pool: Arc<Pool>,
    /// Cancelled when the node is closed.
    closed: CancellationToken,
    tickers: Tickers,
    changed: Changed,
    name: Arc<str>,
    cadence: Cadence,
    /// The record that we tried to replace last, and when.
    tried: Option<(Bytes, Instant)>,
    /// Under way, also if nobody waits for it any more.
    claim: Option<JoinHandle<Claim>>,
}

/// What came of an attempt to have a tick.
enum Claim {
    Ours(Tick),
    /// Somebody else has it, or the ticker was changed.
    Missed,
    /// The backend does not let us, for a reason that time does not heal.
    Failed(pulse_core::Error),
}

impl Ticker {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// Waits for the next tick that falls to this node; `None` once the ticker is [stopped](Self::stop), or the node
    /// closed.
    ///
    /// While the backend is away there are no ticks; what is due then is missed until it is back.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no tick is lost: one that falls to this node meanwhile is what the next call returns.
    pub async fn next(&mut self) -> Option<Tick> {
        let closed = self.closed.clone();
        tokio::select! {
            biased;
            () = closed.cancelled() => None,
            tick = self.next_while_open() => tick,
        }
    }

    /// Stops the ticker on every node: their [`next`](Self::next) returns `None`. [`Node::ticker`] makes it anew.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`], [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the ticker is stopped or not.
    pub async fn stop(self) -> Result<(), Error> {
        stop(&self.pool, &self.closed, &self.name).await
    }

    /// Makes the ticker if there is none, or none of that cadence, and waits until the replica shows it.
    async fn make(&self) -> Result<(), Error> {
        let (pool, failed) = (&self.pool, self.pool.backend("make a ticker"));
        loop {
            if self.closed.is_cancelled() {
                return Err(pool.closed());
            }
            let old = pool.tables.read_ticker(&self.name).await.map_err(&failed)?;
            let record = old.as_ref().and_then(decode).filter(|record| !record.stopped);
            let now = pool.clock.now();
            // Somebody who could not tell the time by it may have found that there is no next tick.
            let has_ended = |record: &TickerRecord| record.due.is_none() && self.cadence.first(now).is_some();
            if record.as_ref().is_none_or(|record| record.cadence != self.cadence || has_ended(record)) {
                let new = encode(
                    &self.name,
                    &TickerRecord {
                        id: entropy::number(),
                        cadence: self.cadence.clone(),
                        number: record.as_ref().map_or(1, |record| record.number),
                        due: self.cadence.first(now),
                        planned: record.as_ref().map_or(0, |record| record.planned),
                        stopped: false,
                    },
                )?;
                let change = pool.tables.put_ticker(&self.name, old.as_ref(), new.clone(), pool.node);
                if !replace(pool.tables.client(), &change, &new, None).await.map_err(&failed)? {
                    tokio::task::yield_now().await;
                    continue;
                }
            }
            let version = pool.tables.tickers_version().await.map_err(&failed)?;
            // An error means that the node is closed, or that the tickers were removed meanwhile: both are seen
            // elsewhere.
            let _ = self.tickers.wait_for(version).await;
            return Ok(());
        }
    }

    async fn next_while_open(&mut self) -> Option<Tick> {
        loop {
            if let Some(claim) = &mut self.claim {
                let claimed = claim.await;
                self.claim = None;
                match claimed.ok()? {
                    Claim::Ours(tick) => return Some(tick),
                    Claim::Missed => {}
                    Claim::Failed(error) => {
                        tracing::error!(pool = %self.pool.name, ticker = %self.name, %error, "a ticker cannot tick now");
                    }
                }
            }
            let Some(raw) = self.tickers.get_raw(&self.name) else {
                // Somebody removed it who is no ticker.
                tracing::warn!(pool = %self.pool.name, ticker = %self.name, "a ticker's record has vanished");
                if let Err(error) = self.make().await {
                    tracing::error!(pool = %self.pool.name, ticker = %self.name, %error, "cannot make a ticker again");
                    BackOff::new(STALE, STALE).pause().await;
                }
                continue;
            };
            let record = decode(&raw);
            if record.as_ref().is_some_and(|record| record.stopped) {
                return None;
            }
            let tried = self.tried.as_ref().filter(|(tried, _)| *tried == raw).map(|(_, at)| *at + STALE);
            let due = record.as_ref().filter(|record| record.cadence.is_known()).and_then(|record| record.due);
            match (record, tried.or_else(|| due.map(|due| self.pool.clock.moment(due)))) {
                (Some(record), Some(moment)) if moment <= Instant::now() => match due {
                    // The clock may have been set back by what it was read again.
                    Some(due) if due > self.pool.clock.now() => self.wait(Some(Instant::now() + MOMENT)).await?,
                    _ => {
                        self.tried = Some((raw.clone(), Instant::now()));
                        self.claim = Some(tokio::spawn(claim(self.pool.clone(), self.name.clone(), record, raw)));
                    }
                },
                // Damaged, of a newer kind, or without a future: until somebody replaces it.
                (_, moment) => self.wait(moment).await?,
            }
        }
    }

    /// Waits for a change of any ticker, or for a moment.
    async fn wait(&mut self, moment: Option<Instant>) -> Option<()> {
        let moment = moment.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            biased;
            changed = self.changed.wait() => changed.ok(),
            () = sleep_until(moment) => Some(()),
        }
    }
}

/// The unit of the server's clock.
const MOMENT: Duration = Duration::from_millis(1);

/// Leaves word that a ticker is stopped.
pub(crate) async fn stop(pool: &Pool, closed: &CancellationToken, name: &str) -> Result<(), Error> {
    let (failed, deadline) = (pool.backend("stop a ticker"), Instant::now() + pool.options.timeout);
    loop {
        if closed.is_cancelled() {
            return Err(pool.closed());
        }
        let old = pool.tables.read_ticker(name).await.map_err(&failed)?;
        let Some(record) = old.as_ref().and_then(decode).filter(|record| !record.stopped) else { return Ok(()) };
        let new = encode(name, &TickerRecord { id: entropy::number(), stopped: true, ..record })?;
        let change = pool.tables.stop_ticker(name, old.as_ref(), new.clone());
        if replace(pool.tables.client(), &change, &new, Some(deadline)).await.map_err(&failed)? {
            return Ok(());
        }
    }
}

fn encode(name: &str, record: &TickerRecord) -> Result<Bytes, Error> {
    let encoded = pulse_core::message_pack::encode(record);
    encoded.map_err(|source| Error::Encode { key: name.to_owned(), source })
}

fn decode(raw: &Bytes) -> Option<TickerRecord> {
    pulse_core::message_pack::decode(raw).ok()
}

/// Tries to have the tick that is due.
async fn claim(pool: Arc<Pool>, name: Arc<str>, record: TickerRecord, raw: Bytes) -> Claim {
    let Some(due) = record.due else { return Claim::Missed };
    let (next, missed) = record.cadence.after(due, pool.clock.now());
    let number = record.number;
    let new = TickerRecord { id: entropy::number(), number: number.saturating_add(1), due: next, ..record };
    let new = match encode(&name, &new) {
        Ok(new) => new,
        Err(error) => {
            tracing::error!(pool = %pool.name, ticker = %name, %error, "a ticker cannot be written down");
            return Claim::Missed;
        }
    };
    let change = pool.tables.put_ticker(&name, Some(&raw), new.clone(), pool.node);
    match replace(pool.tables.client(), &change, &new, None).await {
        Ok(true) => Claim::Ours(Tick { number, due: UNIX_EPOCH + Duration::from_millis(due), missed }),
        Ok(false) => Claim::Missed,
        Err(error) => Claim::Failed(error),
    }
}

impl fmt::Debug for Ticker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticker")
            .field("pool", &self.pool.name)
            .field("name", &self.name)
            .field("cadence", &self.cadence)
            .finish_non_exhaustive()
    }
}
