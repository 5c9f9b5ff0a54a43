//! Tools for tests: a backend wrapper that injects faults.
