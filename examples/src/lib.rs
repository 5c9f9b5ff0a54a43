//! What the programs `pool_worker`, `pool_producer` and `pool_scheduler` have in common.

pub mod lamps;
