//! Fixtures that the tests share: which backends to run on, how to reach them, and how to wait.
//!
//! A test that must hold on every backend is a plain `async fn name(subject: Subject)`, listed once per module in
//! [`on_every_backend!`]; it then exists as `memory::name` and, with the features of those names, as
//! `standalone::name` and `cluster::name`. On memory the clock is paused and jumps ahead whenever everybody waits; on
//! servers it is the real one. So tests wait for conditions ([`eventually`], [`soon`]) and never count on how long
//! something takes.
//!
//! A test that does harm to a server (stops, kills, flushes or reconfigures it) starts one of its own, `Server`, and
//! stands in a `mod standalone` with `#[cfg(feature = "standalone")]`, so that its name tells what it ran on.

#[cfg(any(feature = "standalone", feature = "cluster"))]
mod cluster;
#[cfg(any(feature = "standalone", feature = "cluster"))]
mod fleet;
mod jobs;
#[cfg(any(feature = "standalone", feature = "cluster"))]
mod process;
mod proxy;
pub mod scene;
#[cfg(any(feature = "standalone", feature = "cluster"))]
mod sentinels;
#[cfg(any(feature = "standalone", feature = "cluster"))]
mod server;
mod silent_host;
mod subject;
#[cfg(any(feature = "standalone", feature = "cluster"))]
mod wait;

pub use pulse_core::conformance::{PATIENCE, eventually, soon};

#[cfg(any(feature = "standalone", feature = "cluster"))]
pub use self::{cluster::Cluster, fleet::Fleet, process::Process, sentinels::Sentinels, server::Server};
pub use self::{
    jobs::Jobs,
    proxy::Proxy,
    silent_host::SilentHost,
    subject::{BackendKind, Subject},
};

/// Makes one test per enabled backend of each function `async fn(Subject)`, in the modules `memory`, `standalone` and
/// `cluster` beside it.
///
/// ```
/// use tests::{Subject, on_every_backend};
///
/// on_every_backend!(a_new_scope_has_no_maps);
///
/// async fn a_new_scope_has_no_maps(subject: Subject) {
///     let client = subject.client().await;
///     let map = subject.scope().map("any").unwrap();
///     assert_eq!(client.backend().map_version(&map).await.unwrap(), None);
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! on_every_backend {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            $(
                #[::tokio::test(start_paused = true)]
                async fn $name() {
                    super::$name($crate::Subject::memory()).await;
                }
            )+
        }

        #[cfg(feature = "standalone")]
        mod standalone {
            $(
                #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    $crate::in_time(super::$name($crate::Subject::standalone())).await;
                }
            )+
        }

        #[cfg(feature = "cluster")]
        mod cluster {
            $(
                #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    $crate::in_time(super::$name($crate::Subject::cluster())).await;
                }
            )+
        }
    };
}

/// Fails a test that hangs.
///
/// # Panics
///
/// After two minutes.
pub async fn in_time<T>(test: impl Future<Output = T>) -> T {
    let limit = std::time::Duration::from_secs(120);
    match tokio::time::timeout(limit, test).await {
        Ok(value) => value,
        Err(_) => panic!("the test hangs: it did not end within {limit:?}"),
    }
}

/// The examples of the README, so that they are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
