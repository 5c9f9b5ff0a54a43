//! Errors of handlers that the pool knows.

use std::{error::Error, time::Duration};

use crate::contain::chain;

/// An error of a handler that puts the job back, to be started again.
///
/// From [`JobHandler::start`](crate::JobHandler::start) it says that the job cannot run here now; from
/// [`JobHandler::stop`](crate::JobHandler::stop), that it must not end. From a function of
/// [`worker_fn`](crate::Node::worker_fn) it says that the job is to be tried again without counting the attempt. The job
/// stays with the worker that it belongs to.
///
/// It is recognised wherever it stands in the chain of an error: as the `source` of an error of yours, below the context
/// of `anyhow`, or behind a `#[error(transparent)]`.
///
/// ```
/// # use std::time::Duration;
/// use pulse_pool::{HandlerError, Requeue};
///
/// fn connected() -> Result<(), HandlerError> {
///     Err(Requeue::after(Duration::from_secs(5)).into())
/// }
/// # assert!(connected().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the job is put back")]
pub struct Requeue {
    #[source]
    wish: Wish,
}

/// What stands below a [`Requeue`] in the chain of errors. An error that is wrapped by one that takes over its words, as
/// `anyhow` does on the way to a `Box<dyn Error>`, is found no more, but its source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("to be started again after {0:?}")]
struct Wish(Duration);

impl Requeue {
    /// To be started again after a tenth of a second, so that nothing spins.
    #[must_use]
    pub fn soon() -> Self {
        Self::after(Duration::from_millis(100))
    }

    /// To be started again after this time, or after ten milliseconds, whichever is longer: so that nothing spins.
    #[must_use]
    pub fn after(pause: Duration) -> Self {
        Self { wish: Wish(pause.max(SHORTEST)) }
    }

    /// After what time an error, or any of those that it tells of, wants the job back.
    pub(crate) fn wished_by(error: &(dyn Error + 'static)) -> Option<Duration> {
        chain(error).find_map(|error| error.downcast_ref::<Wish>()).map(|wish| wish.0)
    }
}

/// How soon a job is started again at the earliest that is put back.
pub(crate) const SHORTEST: Duration = Duration::from_millis(10);

/// The error of a handler that takes no notifications.
#[derive(Debug, thiserror::Error)]
#[error("the handler takes no notifications")]
pub(crate) struct NotTaken;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HandlerError;

    /// With words of its own.
    #[derive(Debug, thiserror::Error)]
    #[error("reading the score")]
    struct Context(#[source] HandlerError);

    /// Stands in another error's place, as what `anyhow` makes of an error for a `Box<dyn Error>`.
    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    struct Transparent(#[from] Requeue);

    #[test]
    fn a_wish_is_found_however_it_is_wrapped() {
        let (requeue, after) = (Requeue::after(Duration::from_secs(5)), Some(Duration::from_secs(5)));
        let wrapped: [HandlerError; 4] = [
            requeue.into(),
            Transparent(requeue).into(),
            Context(requeue.into()).into(),
            Context(Context(Transparent(requeue).into()).into()).into(),
        ];
        for error in wrapped {
            assert_eq!(Requeue::wished_by(&*error), after, "{error:?}");
        }
        assert_eq!(Requeue::wished_by(&*HandlerError::from("no ink")), None);
    }

    #[test]
    fn an_error_that_is_its_own_source_has_an_end() {
        #[derive(Debug)]
        struct Circle;

        impl std::fmt::Display for Circle {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("round")
            }
        }

        impl Error for Circle {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(self)
            }
        }

        assert_eq!(Requeue::wished_by(&Circle), None);
    }
}
