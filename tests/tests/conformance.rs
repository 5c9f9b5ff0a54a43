//! Every backend keeps every promise of the contract.

use pulse_core::conformance::Subject;

/// A store of the tests as the suite wants it.
fn subject(store: tests::Subject) -> Subject {
    Subject::new(move |limits| {
        let opening = store.builder().limits(limits).connect();
        async move { Ok(opening.await?.backend().clone()) }
    })
}

fn memory_store() -> Subject {
    subject(tests::Subject::memory())
}

pulse_core::conformance_tests! {
    #[tokio::test(start_paused = true)]
    mod memory = memory_store;
}

/// The same with threads that race and with the real clock.
mod real_time {
    use super::memory_store;

    pulse_core::conformance_tests! {
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        mod memory = memory_store;
    }
}

/// The wrapper that injects faults keeps all promises too, with slow calls and slow feeds.
mod behind_a_slow_link {
    use std::{sync::Arc, time::Duration};

    use pulse_core::{
        Backend,
        conformance::Subject,
        testing::{Chances, Faulty, FeedChances},
    };

    fn slow_store() -> Subject {
        let store = tests::Subject::memory();
        Subject::new(move |limits| {
            let opening = store.builder().limits(limits).connect();
            async move {
                let link = Faulty::new(opening.await?.backend().clone(), rand::random());
                let delay = Duration::from_millis(0)..=Duration::from_millis(3);
                link.set_chances(Chances::none().with_delay(delay.clone()));
                link.set_feed_chances(FeedChances::none().with_delay(delay));
                Ok(Arc::new(link) as Arc<dyn Backend>)
            }
        })
    }

    pulse_core::conformance_tests! {
        #[tokio::test(start_paused = true)]
        mod memory = slow_store;
    }
}

#[cfg(feature = "standalone")]
fn standalone_store() -> Subject {
    subject(tests::Subject::standalone())
}

#[cfg(feature = "standalone")]
pulse_core::conformance_tests! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    mod standalone = standalone_store;
}

#[cfg(feature = "cluster")]
fn cluster_store() -> Subject {
    subject(tests::Subject::cluster())
}

#[cfg(feature = "cluster")]
pulse_core::conformance_tests! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    mod cluster = cluster_store;
}
