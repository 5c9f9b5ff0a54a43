//! The three packages together.

fn main() {}
