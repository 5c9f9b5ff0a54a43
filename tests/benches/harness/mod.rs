//! What the benchmarks share: how load is made and timed, the yardsticks, what the server and the process tell about
//! themselves, and the table at the end.
//!
//! Machines differ and are noisy, so a figure is a multiple of a yardstick that was measured on the same server in the
//! same round; what is stated is the median of the rounds, with the lowest and highest beside it.

mod bare;
mod load;
mod options;
mod process;
mod rest;
mod rounds;
mod server;
mod table;
mod yardsticks;

/// Runs those of the scenarios that are asked for, and empties the server after each.
macro_rules! scenarios {
    ($bench:ident, $table:ident; $($name:literal => $scenario:path),+ $(,)?) => {
        $(if $bench.options.wants($name) {
            $table.extend($scenario($bench).await);
            $bench.server.flush();
        })+
    };
}

pub(crate) use scenarios;

pub(crate) use self::{
    bare::Bare,
    load::{in_turn, median_latency, per_second},
    options::Options,
    process::{CpuTime, resident_bytes},
    rest::Rest,
    rounds::{Paired, median},
    server::Server,
    table::{Goal, Row, Table, micros, millions, thousands},
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
