//! What the benchmarks share: how load is made and timed, the yardsticks, what the server and the process tell about
//! themselves, and the table at the end.
//!
//! Machines differ and are noisy, so a figure is a multiple of a yardstick that was measured on the same server in the
//! same round; what is stated is the median of the rounds, with the lowest and highest beside it.

mod bare;
mod load;
mod options;
mod process;
mod rounds;
mod server;
mod table;
mod yardsticks;

pub(crate) use self::{
    bare::Bare,
    load::{in_turn, median_latency, per_second},
    options::Options,
    process::CpuTime,
    rounds::{Paired, median},
    server::Server,
    table::{Goal, Row, Table, micros, thousands},
    yardsticks::{Yardstick, Yardsticks},
};

/// What every scenario is given.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) options: Options,
    pub(crate) server: Server,
    pub(crate) yardsticks: Yardsticks,
}

/// The payload of every event and the value of every key: 100 bytes.
pub(crate) const PAYLOAD: &[u8; 100] = &[b'x'; 100];
