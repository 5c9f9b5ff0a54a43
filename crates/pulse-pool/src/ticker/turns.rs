//! The order in which the plans of a schedule are carried out: that of their ticks.
//!
//! The record of the ticker says which plan was the latest. Whoever has a later one writes that down first; those that
//! come after it with an earlier one find out, and so do those that are still at it.

use pulse_core::entropy;
use tokio::time::Instant;

use super::{Ticker, decode, encode};
use crate::{Error, record::TickerRecord, write::replace};

impl Ticker {
    /// Writes down that the plan of a tick is carried out now; `false` if that of a later one was, or the ticker is
    /// stopped.
    pub(crate) async fn overtake(&self, number: u64) -> Result<bool, Error> {
        let (pool, failed) = (&self.pool, self.pool.backend("carry out a plan"));
        let deadline = Instant::now() + pool.options.timeout;
        loop {
            if self.closed.is_cancelled() {
                return Err(pool.closed());
            }
            if Instant::now() >= deadline {
                return Err(pool.timed_out("carry out a plan"));
            }
            let old = pool.tables.read_ticker(&self.name).await.map_err(&failed)?;
            // One that has vanished is made again, and knows of no plans.
            let Some(record) = old.as_ref().and_then(decode) else { return Ok(true) };
            if record.stopped || record.planned > number {
                return Ok(false);
            }
            let new = encode(&self.name, &TickerRecord { id: entropy::number(), planned: number, ..record })?;
            let change = pool.tables.put_ticker(&self.name, old.as_ref(), new.clone(), pool.node);
            if replace(pool.tables.client(), &change, &new, Some(deadline)).await.map_err(&failed)? {
                return Ok(true);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Waits until the plan of a later tick is carried out.
    pub(crate) async fn is_overtaken(&self, number: u64) {
        let mut changed = self.tickers.changed();
        loop {
            let record = self.tickers.get_raw(&self.name).as_ref().and_then(decode);
            if record.is_some_and(|record| record.planned > number) {
                return;
            }
            if changed.wait().await.is_err() {
                // The node ends, which is seen elsewhere.
                std::future::pending::<()>().await;
            }
        }
    }
}
