//! What a background task does about errors: log, say so once if only a human can help, and wait longer each time.

use std::time::Duration;

use pulse_core::StreamId;

use crate::{Notice, backoff::Backoff};

/// An outage, from the first failure to the next success.
#[derive(Debug)]
pub(crate) struct Trouble {
    backoff: Backoff,
    /// Whether anything failed since the last success.
    failing: bool,
    /// Whether the subscriber was told of this outage.
    told: bool,
}

impl Trouble {
    pub(crate) fn new(backoff: Backoff) -> Self {
        Self { backoff, failing: false, told: false }
    }

    /// Takes note of a failure: how long to pause before trying again, and what to tell the subscriber, if anything.
    pub(crate) fn met(&mut self, stream: &StreamId, error: pulse_core::Error) -> (Duration, Option<Notice>) {
        let pause = self.backoff.next(rand::random());
        self.failing = true;
        tracing::warn!(%stream, %error, ?pause, "reading failed, trying again");
        let heals = error.is_retryable() || matches!(error, pulse_core::Error::NoGroup { .. });
        if heals || self.told {
            return (pause, None);
        }
        self.told = true;
        (pause, Some(Notice::Failing { stream: stream.clone(), source: error }))
    }

    /// Takes note of a success.
    pub(crate) fn over(&mut self, stream: &StreamId) {
        if self.failing {
            tracing::info!(%stream, "reading works again");
            self.backoff.reset();
            (self.failing, self.told) = (false, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use pulse_core::Scope;

    use super::*;

    #[test]
    fn an_error_that_does_not_pass_is_told_once_until_reading_works_again() -> Result<(), pulse_core::Error> {
        let stream = Scope::new("s")?.stream("s")?;
        let wrong_type = || pulse_core::Error::WrongType { key: "k".into() };
        let mut trouble = Trouble::new(Backoff::default());
        assert!(matches!(trouble.met(&stream, wrong_type()), (_, Some(Notice::Failing { .. }))));
        assert!(trouble.met(&stream, wrong_type()).1.is_none());
        trouble.over(&stream);
        assert!(trouble.met(&stream, wrong_type()).1.is_some());
        Ok(())
    }

    #[test]
    fn an_error_that_passes_is_not_told() -> Result<(), pulse_core::Error> {
        let stream = Scope::new("s")?.stream("s")?;
        let mut trouble = Trouble::new(Backoff::default());
        assert!(trouble.met(&stream, pulse_core::Error::ReadOnly { subject: "k".into() }).1.is_none());
        Ok(())
    }
}
