//! Running code of the user's so that no panic of it reaches the pool.
//!
//! A handler, a function and a producer are the user's, and so is what they leave behind: futures, values and errors,
//! which run code when they are polled, dropped, encoded or printed. Whatever of it panics becomes a [`Failure`] of that
//! one call. The rest of the crate calls the user's code through this module alone.

use std::{
    any::Any,
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use pulse_core::error_chain::describe;

use crate::{
    HandlerError, Job, JobHandler, JobKey,
    requeue::{NotTaken, Requeue},
};

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) message: String,
    /// The job is wanted back after this time.
    pub(crate) requeue: Option<Duration>,
    /// The handler takes no notifications.
    pub(crate) not_taken: bool,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { message, requeue: None, not_taken: false }
    }
}

impl Failure {
    /// What an error says, which is dropped with it.
    fn of(error: HandlerError) -> Self {
        let read = || {
            // Its own words first: where they panic, that is what is told.
            drop(error.to_string());
            Self { message: describe(&*error), requeue: Requeue::wished_by(&*error), not_taken: error.is::<NotTaken>() }
        };
        let failure = guarded(read).unwrap_or_else(|panic| format!("the error cannot be read: {panic}").into());
        discard(error);
        failure
    }
}

/// Calls the user's code; an error or a panic becomes a failure.
pub(crate) async fn contain<T>(call: impl Future<Output = Result<T, HandlerError>> + Send) -> Result<T, Failure> {
    match (Contained { call: Some(Box::pin(call)) }).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::of(error)),
        Err(panic) => Err(panic.into()),
    }
}

/// The result of a piece of the user's code, or what its panic said. Whatever state a panic leaves behind in what is the
/// user's is the user's to judge.
pub(crate) fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(message_of)
}

/// Drops what is the user's.
pub(crate) fn discard<T>(value: T) {
    if let Err(panic) = guarded(|| drop(value)) {
        tracing::error!(reason = panic, "what a handler left behind panicked when it was dropped");
    }
}

/// What a panic said, which is dropped with it.
fn message_of(panic: Box<dyn Any + Send>) -> String {
    let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
    let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
    // A panic whose value panics when it is dropped, with a value that does so again, is leaked rather than followed.
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
    format!("the handler panicked: {}", said.unwrap_or_else(|| "no message".into()))
}

/// A future of the user's. It is dropped as soon as it has panicked.
struct Contained<F> {
    /// `None` once it is through.
    call: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Contained<F> {
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(call) = &mut self.call else { return Poll::Pending };
        let ended = match guarded(|| call.as_mut().poll(context)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(panic) => Err(panic),
        };
        discard(self.call.take());
        Poll::Ready(ended)
    }
}

impl<F> Drop for Contained<F> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            discard(call);
        }
    }
}

/// A worker's handler. Its methods are those of [`JobHandler`], contained, and so is its drop.
#[derive(Clone)]
pub(crate) struct Handler {
    /// `None` only while it is dropped.
    handler: Option<Arc<dyn JobHandler>>,
}

impl Handler {
    pub(crate) fn new(handler: impl JobHandler) -> Self {
        Self { handler: Some(Arc::new(handler)) }
    }

    pub(crate) async fn start(&self, job: Job) -> Result<(), Failure> {
        match &self.handler {
            Some(handler) => contain(async { handler.start(job).await }).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn stop(&self, key: &JobKey) -> Result<(), Failure> {
        match &self.handler {
            Some(handler) => contain(async { handler.stop(key).await }).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn notify(&self, key: &JobKey, payload: Bytes) -> Result<(), Failure> {
        match &self.handler {
            Some(handler) => contain(async { handler.notify(key, payload).await }).await,
            None => Ok(()),
        }
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        discard(self.handler.take());
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").finish_non_exhaustive()
    }
}

/// The errors that an error tells of, itself first. An error that is its own source does not go on without end.
pub(crate) fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    const LONGEST: usize = 64;
    std::iter::successors(Some(error), |&error| Error::source(error)).take(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics when it is dropped, as often as it says.
    struct Bomb(u32);

    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 > 0 {
                std::panic::panic_any(Self(self.0 - 1));
            }
        }
    }

    #[derive(Debug)]
    struct Unreadable;

    impl fmt::Display for Unreadable {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("no words")
        }
    }

    impl Error for Unreadable {}

    #[tokio::test]
    async fn a_panic_of_a_call_is_a_failure_of_that_call() {
        let failed = contain::<()>(async { panic!("out of tune") }).await.unwrap_err();
        assert_eq!(failed.message, "the handler panicked: out of tune");
    }

    #[tokio::test]
    async fn an_error_that_cannot_be_read_is_a_failure_that_says_so() {
        let failed = contain::<()>(async { Err(Unreadable.into()) }).await.unwrap_err();
        assert!(failed.message.contains("no words"), "{failed:?}");
    }

    #[tokio::test]
    async fn what_panics_when_it_is_dropped_harms_nobody() {
        for bombs in 1..4 {
            discard(Bomb(bombs));
            let failed = contain::<()>(async move { std::panic::panic_any(Bomb(bombs)) }).await.unwrap_err();
            assert_eq!(failed.message, "the handler panicked: no message");
            let hangs = contain::<()>(async move {
                let _bomb = Bomb(bombs);
                std::future::pending().await
            });
            assert!(tokio::time::timeout(Duration::ZERO, hangs).await.is_err());
        }
    }
}
