//! The store that is checked.

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;

use crate::{Backend, Error, Limits};

type Open = dyn Fn(Limits) -> BoxFuture<'static, Result<Arc<dyn Backend>, Error>> + Send + Sync;

/// A store, and how to open clients of it.
#[derive(Clone)]
pub struct Subject {
    open: Arc<Open>,
}

impl Subject {
    /// A store that `open` opens clients of, each with the given limits.
    ///
    /// The clients are independent (closing one does not disturb the others) and see the same data, which lasts at
    /// least as long as one of them is open.
    pub fn new<F, Opened>(open: F) -> Self
    where
        F: Fn(Limits) -> Opened + Send + Sync + 'static,
        Opened: Future<Output = Result<Arc<dyn Backend>, Error>> + Send + 'static,
    {
        Self { open: Arc::new(move |limits| Box::pin(open(limits))) }
    }

    /// Opens one more client.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub async fn open(&self, limits: Limits) -> Arc<dyn Backend> {
        match (self.open)(limits).await {
            Ok(backend) => backend,
            Err(error) => panic!("cannot open a client of the subject: {error:?}"),
        }
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").finish_non_exhaustive()
    }
}
