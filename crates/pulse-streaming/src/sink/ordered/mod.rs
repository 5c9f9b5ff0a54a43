//! One partition in the hands of its owner: read, claimed and handed out in the order of its stream.
//!
//! [`task::OrderedTask`] brings events to a [`lane::Lane`], and the subscriber takes them from there through [`Lanes`].
//! The owner is the only one with a right to the partition, but not the only one who might touch it: a read or a
//! claim that an earlier owner sent before it lost the partition may arrive at the backend at any time. What such a
//! ghost takes is noticed before anything newer is handed out, and taken back.
//!
//! Who owns what is decided elsewhere ([`crate::partitioned`]).

mod books;
mod lane;
mod lanes;
mod task;

pub(super) use self::lane::Lane;
pub(crate) use self::{
    lanes::Lanes,
    task::{Ordered, Tenure},
};
