//! Random sequences of operations: every backend does what a naive model does.
//!
//! [`world`] is the model: plain data, one thread, no cleverness. [`steps`] draws what to do; [`drive`] does it to a
//! backend and to the model and compares everything that can be seen after each step: results, errors, versions,
//! contents, feeds, streams, groups. Proptest shrinks a failure to a short list of steps and prints it.
//!
//! Deadlines pass only on memory, where time is paused and the model knows it exactly; on servers, whatever expires
//! does so after the test.

mod compare;
mod drive;
mod groups;
mod steps;
mod translate;
mod world;

use proptest::test_runner::{Config, TestRunner};
use tests::Subject;
use tokio::runtime::{Builder, Runtime};

use self::steps::Time;

fn check(runtime: &Runtime, subject: &Subject, time: Time, cases: u32) {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    // A failure prints its few steps, which is all that is needed to see it again.
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let client = runtime.block_on(subject.client());
    let steps = steps::sequence(time);
    let run = TestRunner::new(config)
        .run(&steps, |steps| runtime.block_on(drive::run(client.backend().as_ref(), subject.scope(), &steps)));
    if let Err(failure) = run {
        panic!("{subject} differs from the model: {failure}");
    }
}

mod memory {
    use super::*;

    #[test]
    fn does_what_the_model_does() {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
        check(&runtime, &Subject::memory(), Time::Passes, 1500);
    }
}

#[cfg(feature = "standalone")]
mod standalone {
    use super::*;

    #[test]
    fn does_what_the_model_does() {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        check(&runtime, &Subject::standalone(), Time::Stands, 60);
    }
}

#[cfg(feature = "cluster")]
mod cluster {
    use super::*;

    #[test]
    fn does_what_the_model_does() {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        check(&runtime, &Subject::cluster(), Time::Stands, 40);
    }
}
