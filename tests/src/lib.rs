//! Fixtures that the tests share: which backends to run on, and how to reach them.
