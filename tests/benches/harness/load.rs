//! Load, and how long it takes.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::median;

/// Runs an operation over and over in that many tasks and returns how many ended per second. The operation is given its
/// task's number and how many that task made before.
///
/// A tenth of the window passes before the counting begins, so that connections and caches are warm and all tasks run.
pub(crate) async fn per_second<F, R>(tasks: usize, window: Duration, operation: F) -> f64
where
    F: Fn(usize, usize) -> R + Clone + Send + 'static,
    R: Future<Output = ()> + Send,
{
    let begin = Instant::now() + window / 10;
    let end = begin + window;
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let operation = operation.clone();
        running.spawn(async move {
            let mut counted = 0_u64;
            for number in 0.. {
                operation(task, number).await;
                let now = Instant::now();
                if now >= end {
                    break;
                }
                counted += u64::from(now >= begin);
            }
            counted
        });
    }
    let counted: u64 = running.join_all().await.into_iter().sum();
    counted as f64 / window.as_secs_f64()
}

/// Measures two rates in turn, slice by slice, so that both see the same weather on the machine. Returns their means.
pub(crate) async fn in_turn(
    window: Duration,
    ours: impl AsyncFn(Duration) -> f64,
    yardstick: impl AsyncFn(Duration) -> f64,
) -> (f64, f64) {
    const SLICES: u32 = 4;
    let (mut sum, mut yardstick_sum) = (0.0, 0.0);
    for _ in 0..SLICES {
        yardstick_sum += yardstick(window / SLICES).await;
        sum += ours(window / SLICES).await;
    }
    (sum / f64::from(SLICES), yardstick_sum / f64::from(SLICES))
}

/// Runs an operation so many times, one after the other, and returns the median of how many seconds it took.
pub(crate) async fn median_latency<F, R>(samples: usize, operation: F) -> f64
where
    F: Fn(usize) -> R + Send + 'static,
    R: Future<Output = ()> + Send,
{
    // In a task of its own: the main task would pay for being woken from another thread.
    let measured = tokio::spawn(async move {
        for number in 0..samples / 10 {
            operation(number).await;
        }
        let mut taken = Vec::with_capacity(samples);
        for number in 0..samples {
            let start = Instant::now();
            operation(number).await;
            taken.push(start.elapsed().as_secs_f64());
        }
        median(taken)
    });
    measured.await.expect("the measured operation failed")
}
