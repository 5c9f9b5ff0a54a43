//! Every option takes or refuses the same values on every backend: nothing, the least, the most, and what lies beyond.
//! What is taken works; what is refused is refused before anything is done, by a typed error that says what would be
//! right. No value panics, and none hangs.

mod connections;
mod maps;
mod partitions;
mod pools;
mod requests;
mod sinks;
mod streams;
mod workers;

use std::time::Duration;

/// The shortest time there is, and shorter than a server can tell from none.
const NANOSECOND: Duration = Duration::from_nanos(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What becomes of a value of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Works,
    Refused,
    /// It is taken, and is so short that a server may be too late for it.
    MayBeLate,
}
