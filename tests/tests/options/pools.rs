//! Options of nodes, jobs and tickers.

use std::time::{Duration, SystemTime};

use pulse_core::MAX_LIFETIME;
use pulse_pool::{Cadence, Error, Job, MissedTicks, NewJob, Node, NodeBuilder, Plan};
use tests::{Subject, on_every_backend, soon};

use crate::{Expected, MILLISECOND, NANOSECOND};

on_every_backend!(
    an_option_of_a_node_works_or_is_refused_when_joining,
    a_node_that_may_queue_nothing_refuses_every_job,
    a_job_takes_any_priority_and_start,
    a_ticker_takes_any_interval,
);

/// A pool of its own.
fn pool(subject: &Subject) -> NodeBuilder {
    Node::builder(subject.scope().as_str())
}

async fn use_it(subject: &Subject, builder: NodeBuilder) -> Result<(), Error> {
    let client = subject.client().await;
    let node = builder.join(&client).await?;
    let used = async {
        node.worker_fn(|job: Job| async move { Ok(job.payload().len()) }).await?;
        assert_eq!(node.dispatch_and_wait::<usize>(("sum", "123")).await?, 3);
        Ok(())
    };
    let used = used.await;
    let closed = soon("the end", node.close()).await;
    client.close().await;
    used.and(closed)
}

async fn an_option_of_a_node_works_or_is_refused_when_joining(subject: Subject) {
    use Expected::{MayBeLate, Refused, Works};

    let mut table: Vec<(NodeBuilder, Expected)> = vec![
        (pool(&subject).worker_ttl(Duration::ZERO), Refused),
        (pool(&subject).worker_ttl(MILLISECOND), Refused),
        (pool(&subject).worker_ttl(MAX_LIFETIME), Works),
        (pool(&subject).worker_ttl(Duration::MAX), Refused),
        (pool(&subject).timeout(Duration::ZERO), Refused),
        (pool(&subject).timeout(NANOSECOND), Refused),
        (pool(&subject).timeout(MILLISECOND), MayBeLate),
        (pool(&subject).timeout(MAX_LIFETIME), Works),
        (pool(&subject).timeout(Duration::MAX), Refused),
        (pool(&subject).shutdown_timeout(Duration::ZERO), Refused),
        (pool(&subject).shutdown_timeout(NANOSECOND), Refused),
        (pool(&subject).shutdown_timeout(MILLISECOND), MayBeLate),
        (pool(&subject).shutdown_timeout(MAX_LIFETIME), Works),
        (pool(&subject).shutdown_timeout(Duration::MAX), Refused),
        (pool(&subject).max_queued(1), Works),
        (pool(&subject).max_queued(u64::MAX), Works),
    ];
    table.push((pool(&subject).worker_ttl(MAX_LIFETIME).timeout(MAX_LIFETIME).max_queued(u64::MAX), Works));
    for (builder, expected) in table {
        let shown = format!("{builder:?}");
        match (use_it(&subject, builder).await, expected) {
            (Ok(()), Works | MayBeLate)
            | (Err(Error::InvalidOption { .. }), Refused)
            | (Err(Error::NotStarted { .. } | Error::TimedOut { .. }), MayBeLate) => {}
            (other, _) => panic!("{shown} met {other:?}"),
        }
    }
}

async fn a_node_that_may_queue_nothing_refuses_every_job(subject: Subject) {
    let used = use_it(&subject, pool(&subject).max_queued(0)).await;
    assert!(matches!(used, Err(Error::QueueFull { limit: 0, .. })), "{used:?}");
}

async fn a_job_takes_any_priority_and_start(subject: Subject) {
    let client = subject.client().await;
    let node = pool(&subject).join(&client).await.unwrap();
    node.worker_fn(|_| async { Ok(()) }).concurrency(1).await.unwrap();
    let job = || NewJob::new("job", "");
    let epoch = SystemTime::UNIX_EPOCH;
    for (job, runs) in [
        (job().priority(i32::MIN), true),
        (job().priority(0), true),
        (job().priority(i32::MAX), true),
        (job().run_in(Duration::ZERO), true),
        (job().run_in(NANOSECOND), true),
        (job().run_in(Duration::MAX), false),
        (job().run_at(epoch), true),
        (job().run_at(epoch - Duration::from_secs(1)), true),
        (job().run_at(epoch + Duration::from_secs(u64::MAX >> 2)), false),
    ] {
        let shown = format!("{job:?}");
        if runs {
            soon("the job", node.dispatch_and_wait::<()>(job))
                .await
                .unwrap_or_else(|error| panic!("{shown}: {error:?}"));
        } else {
            node.enqueue_job(job).await.unwrap_or_else(|error| panic!("{shown}: {error:?}"));
            soon("its end", node.stop("job")).await.unwrap_or_else(|error| panic!("{shown}: {error:?}"));
        }
    }
    node.close().await.unwrap();
    client.close().await;
}

async fn a_ticker_takes_any_interval(subject: Subject) {
    let client = subject.client().await;
    let node = pool(&subject).join(&client).await.unwrap();
    for missed in [MissedTicks::Skip, MissedTicks::Burst, MissedTicks::Delay] {
        for (interval, ticks) in [
            (Duration::ZERO, true),
            (NANOSECOND, true),
            (MILLISECOND, true),
            (MAX_LIFETIME, false),
            (Duration::MAX, false),
        ] {
            let cadence = Cadence::every(interval).missed(missed);
            let mut ticker = node.ticker("ticker", cadence.clone()).await.unwrap();
            if ticks {
                assert!(soon("a tick", ticker.next()).await.is_some(), "{cadence:?}");
            }
            ticker.stop().await.unwrap();
            let schedule = node.schedule("schedule", cadence, |_| async { Ok(Plan::new()) }).await.unwrap();
            schedule.stop().await.unwrap();
        }
    }
    node.close().await.unwrap();
    client.close().await;
}
