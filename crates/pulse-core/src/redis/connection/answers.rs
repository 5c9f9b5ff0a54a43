//! Asking several servers the same thing side by side.

use std::time::Duration;

use fred::error::Error as FredError;
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

/// How long after the first answer others are waited for, unless there are enough before.
const STRAGGLERS: Duration = Duration::from_millis(250);

/// The answers of those that answer, in the order of their arrival, and the first failure.
///
/// Waits until more than half have answered, all have answered or failed, or some time has passed since the first answer:
/// a server that hangs delays nothing for long while another answers.
pub(super) async fn most_answers<T, F>(mut asked: FuturesUnordered<F>) -> (Vec<T>, Option<FredError>)
where
    F: Future<Output = Result<T, FredError>>,
{
    let total = asked.len();
    let (mut answers, mut problem) = (Vec::new(), None);
    let mut deadline = None;
    while answers.len() * 2 <= total {
        let stragglers = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let answer = tokio::select! {
            answer = asked.next() => answer,
            () = stragglers => None,
        };
        match answer {
            Some(Ok(answer)) => {
                answers.push(answer);
                deadline.get_or_insert_with(|| Instant::now() + STRAGGLERS);
            }
            Some(Err(error)) => _ = problem.get_or_insert(error),
            None => break,
        }
    }
    (answers, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers after so many milliseconds, or never.
    async fn server(answer: Result<u32, &'static str>, after: Option<u64>) -> Result<u32, FredError> {
        match after {
            Some(after) => tokio::time::sleep(Duration::from_millis(after)).await,
            None => std::future::pending().await,
        }
        answer.map_err(super::super::settings::failed)
    }

    async fn ask(servers: &[(Result<u32, &'static str>, Option<u64>)]) -> (Vec<u32>, Option<String>, Duration) {
        let begun = Instant::now();
        let asked = servers.iter().map(|(answer, after)| server(*answer, *after)).collect();
        let (answers, problem) = most_answers(asked).await;
        (answers, problem.map(|problem| problem.details().to_owned()), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_half_are_enough() {
        let (answers, problem, time) = ask(&[(Ok(1), Some(9)), (Ok(2), Some(5)), (Ok(3), None)]).await;
        assert_eq!((answers, problem), (vec![2, 1], None));
        assert!(time < Duration::from_millis(20), "{time:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_answers_is_enough_soon_after() {
        let (answers, _, time) = ask(&[(Ok(1), None), (Ok(2), None), (Ok(3), Some(100))]).await;
        assert_eq!(answers, [3]);
        assert!(time >= Duration::from_millis(350) && time < Duration::from_millis(400), "{time:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_the_first_failure_is_told_at_once() {
        let (answers, problem, time) = ask(&[(Err("late"), Some(9)), (Err("soon"), Some(5))]).await;
        assert_eq!((answers, problem.as_deref()), (vec![], Some("soon")));
        assert!(time < Duration::from_millis(20), "{time:?}");
        assert_eq!(ask(&[]).await.0, []);
    }
}
