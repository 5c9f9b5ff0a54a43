//! Spans around what a node does for a job, and trace context from the span that dispatches to those that run, as an
//! exporter sees them; and the error that names a lost job.
#![cfg(feature = "opentelemetry")]

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use opentelemetry::trace::{SpanId, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use pulse_core::{Scope, Transaction};
use pulse_pool::{Client, HandlerError, Job, JobHandler, JobKey, NewJob, Node, Plan, RetryPolicy};
use tokio::sync::mpsc;
use tracing::{
    Instrument, Level,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
};

/// The spans that a program makes. The clock is paused, and runs ahead while everybody waits.
fn exported(program: impl Future<Output = ()>) -> Vec<SpanData> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(program);
    });
    provider.force_flush().unwrap();
    exporter.get_finished_spans().unwrap()
}

fn named<'a>(spans: &'a [SpanData], name: &'a str) -> impl Iterator<Item = &'a SpanData> {
    spans.iter().filter(move |span| span.name == name)
}

fn links(span: &SpanData) -> Vec<SpanId> {
    span.links.iter().map(|link| link.span_context.span_id()).collect()
}

/// What a span says under a name; empty if nothing.
fn field(span: &SpanData, name: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == name);
    found.map(|attribute| attribute.value.to_string()).unwrap_or_default()
}

async fn client() -> Client {
    pulse_pool::connect("memory:").await.unwrap()
}

/// Takes jobs and notifications, and has spans of its own.
struct Player;

#[pulse_pool::async_trait]
impl JobHandler for Player {
    async fn start(&self, _: Job) -> Result<(), HandlerError> {
        tracing::info_span!("tune").in_scope(|| {});
        Ok(())
    }

    async fn stop(&self, _: &JobKey) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn notify(&self, _: &JobKey, _: Bytes) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[test]
fn what_a_handler_does_for_a_job_links_to_the_span_that_dispatched_it() {
    let mut said = Vec::new();
    let spans = exported(async {
        let client = client().await;
        let node = Node::join(&client, "orchestra").await.unwrap();
        let worker = node.add_worker(Player).await.unwrap();
        let job = node.dispatch("violin", "").instrument(tracing::info_span!("producer")).await.unwrap();
        node.notify("violin", "louder").await.unwrap();
        node.stop("violin").await.unwrap();
        said = vec![
            ("pool", "orchestra".to_owned()),
            ("node", node.id().to_string()),
            ("worker", worker.to_string()),
            ("key", "violin".to_owned()),
            ("epoch", job.epoch.unwrap().to_string()),
            ("attempt", "1".to_owned()),
        ];
        node.close().await.unwrap();
    });
    let producer = named(&spans, "producer").next().unwrap();
    for name in ["start", "notify", "stop"] {
        let [span] = named(&spans, name).collect::<Vec<_>>()[..] else { panic!("{name}: {spans:?}") };
        assert_eq!(links(span), [producer.span_context.span_id()], "{name}");
        assert_eq!(span.links.links[0].span_context.trace_id(), producer.span_context.trace_id());
        for (field_name, value) in &said {
            assert_eq!(field(span, field_name), *value, "{field_name} of {name}");
        }
    }
    let start = named(&spans, "start").next().unwrap();
    assert_eq!(named(&spans, "tune").next().unwrap().parent_span_id, start.span_context.span_id());
    let removed = named(&spans, "remove").next().unwrap();
    assert_eq!((field(removed, "key"), field(removed, "node")), ("violin".to_owned(), said[1].1.clone()));
}

#[test]
fn every_attempt_links_to_the_span_that_dispatched_the_job_also_after_a_replay() {
    let spans = exported(async {
        let client = client().await;
        let node = Node::join(&client, "letters").await.unwrap();
        let work = async |_: Job| -> Result<(), HandlerError> { Err("no ink".into()) };
        let (made, mut attempts) = mpsc::unbounded_channel();
        let work = move |job: Job| {
            made.send(job.trace_context().unwrap().span_id()).unwrap();
            work(job)
        };
        node.worker_fn(work).retry(RetryPolicy::new().attempts(2)).await.unwrap();
        let wait = node.dispatch_and_wait::<()>(("letter", "paper"));
        wait.instrument(tracing::info_span!("producer")).await.unwrap_err();
        node.replay("letter").await.unwrap();
        let mut contexts = Vec::new();
        for _ in 0..4 {
            contexts.extend(attempts.recv().await);
        }
        contexts.dedup();
        assert_eq!(contexts.len(), 1);
        node.close().await.unwrap();
    });
    let producer = named(&spans, "producer").next().unwrap();
    let attempts: Vec<&SpanData> = named(&spans, "attempt").collect();
    assert_eq!(attempts.iter().map(|span| field(span, "attempt")).collect::<Vec<_>>(), ["1", "2", "1", "2"]);
    for attempt in attempts {
        assert_eq!(links(attempt), [producer.span_context.span_id()]);
        assert_eq!(attempt.parent_span_id, SpanId::INVALID, "it outlives the start that began it");
        assert_eq!((field(attempt, "pool"), field(attempt, "key")), ("letters".to_owned(), "letter".to_owned()));
        assert!(!field(attempt, "node").is_empty() && !field(attempt, "worker").is_empty());
    }
}

#[test]
fn a_job_that_changes_hands_has_spans_that_say_so() {
    let spans = exported(async {
        let client = client().await;
        let a = Node::join(&client, "orchestra").await.unwrap();
        a.enqueue("violin", "").await.unwrap();
        a.add_worker(Player).await.unwrap();
        while a.job("violin").await.unwrap().is_none_or(|job| job.epoch.is_none()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        a.close().await.unwrap();
    });
    let pulled = named(&spans, "pull").next().unwrap();
    let handed_over = named(&spans, "hand_over").next().unwrap();
    assert_eq!((field(pulled, "epoch"), field(pulled, "attempt")), (String::new(), "1".to_owned()));
    assert_ne!(field(handed_over, "epoch"), "");
    assert_eq!(field(pulled, "worker"), field(handed_over, "worker"));
    for span in [pulled, handed_over] {
        assert_eq!((field(span, "pool"), field(span, "key")), ("orchestra".to_owned(), "violin".to_owned()));
    }
}

#[test]
fn the_headers_are_the_context_of_the_span_unless_the_job_has_some_or_no_room_for_it() {
    exported(async {
        let client = client().await;
        let node = Node::join(&client, "orchestra").await.unwrap();
        let (started, mut starts) = mpsc::unbounded_channel();
        let work = move |job: Job| {
            let header = |name| job.header(name).map(str::to_owned);
            started.send((header("traceparent"), header("tracestate"), job.headers().len())).unwrap();
            async { Ok(()) }
        };
        node.worker_fn(work).await.unwrap();
        let own = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let most = client.backend().limits().value_bytes;
        let jobs = [
            NewJob::new("plain", "").header("for", "Clara"),
            NewJob::new("with its own", "").header("traceparent", own).header("tracestate", "a=b"),
            NewJob::new("with half of its own", "").header("tracestate", "a=b"),
            NewJob::new("full", vec![0; most - 20]),
        ];
        let mut parents = Vec::new();
        for job in jobs {
            node.enqueue_job(job).instrument(tracing::info_span!("producer")).await.unwrap();
            parents.extend(starts.recv().await);
        }
        node.enqueue_job(NewJob::new("outside of any span", "")).await.unwrap();
        parents.extend(starts.recv().await);
        let [
            (Some(first), None, 2),
            (Some(second), Some(_), 2),
            (Some(third), None, 1),
            (None, None, 0),
            (None, None, 0),
        ] = &parents[..]
        else {
            panic!("{parents:?}")
        };
        assert!(first.len() == 55 && third.len() == 55, "{first} {third}");
        assert_eq!(second, own);
        node.close().await.unwrap();
    });
}

#[test]
fn batches_and_crowds_carry_the_context_of_their_span() {
    let spans = exported(async {
        let client = client().await;
        let node = Node::join(&client, "orchestra").await.unwrap();
        node.add_worker(Player).await.unwrap();
        let all = async {
            let batch = node.dispatch_batch((0..5).map(|number| (format!("batch {number}"), ""))).await;
            assert!(batch.iter().all(Result::is_ok));
            let crowd = (0..5).map(|number| node.dispatch(format!("crowd {number}"), ""));
            assert!(futures::future::join_all(crowd).await.iter().all(Result::is_ok));
        };
        all.instrument(tracing::info_span!("producer")).await;
        node.close().await.unwrap();
    });
    let producer = named(&spans, "producer").next().unwrap();
    assert_eq!(named(&spans, "start").count(), 10);
    for start in named(&spans, "start") {
        assert_eq!(links(start), [producer.span_context.span_id()], "{}", field(start, "key"));
    }
}

/// The fields of what the pool logs, down to a level.
#[derive(Clone)]
struct Logged(Level, Arc<Mutex<Vec<BTreeMap<String, String>>>>);

impl Logged {
    /// Runs a program whose log is kept.
    fn by<F: Future<Output = ()>>(level: Level, program: impl FnOnce(Self) -> F) {
        let logged = Self(level, Arc::default());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(logged.clone()), || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
            runtime.block_on(program(logged));
        });
    }

    fn all(&self) -> Vec<BTreeMap<String, String>> {
        self.1.lock().unwrap().clone()
    }
}

impl<S: tracing::Subscriber> Layer<S> for Logged {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() <= self.0 && metadata.target().starts_with("pulse_pool") {
            let mut fields = Fields::default();
            event.record(&mut fields);
            self.1.lock().unwrap().push(fields.0);
        }
    }
}

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // A second field of the same name shows.
        let said = self.0.entry(field.name().to_owned()).or_default();
        said.push_str(&format!("{value:?}"));
    }
}

#[test]
fn a_lost_job_is_an_error_that_names_it() {
    Logged::by(Level::ERROR, async |errors| {
        let client = client().await;
        let node = Node::join(&client, "orchestra").await.unwrap();
        let worker = node.add_worker(Player).await.unwrap();
        node.dispatch("violin", "").await.unwrap();
        node.dispatch("viola", "").await.unwrap();
        node.stop("viola").await.unwrap();
        let scope = Scope::new("orchestra").unwrap();
        client.commit(Transaction::new(&scope).delete("pool:jobs", "violin")).await.unwrap();
        while node.lost_jobs() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let errors = errors.all();
        let [error] = &errors[..] else { panic!("{errors:?}") };
        let expected = [
            ("pool", "orchestra".to_owned()),
            ("node", node.id().to_string()),
            ("worker", worker.to_string()),
            ("key", "violin".to_owned()),
        ];
        for (name, value) in expected {
            assert_eq!(error[name], value);
        }
        assert!(error["message"].contains("lost"), "{error:?}");
        node.close().await.unwrap();
    });
}

/// Starts no job twice, and fails to stop any.
#[derive(Default)]
struct Diva(AtomicBool);

#[pulse_pool::async_trait]
impl JobHandler for &'static Diva {
    async fn start(&self, job: Job) -> Result<(), HandlerError> {
        let is_encore = self.0.swap(true, Ordering::Relaxed);
        if is_encore { Err(format!("once is enough of {}", job.key()).into()) } else { Ok(()) }
    }

    async fn stop(&self, key: &JobKey) -> Result<(), HandlerError> {
        Err(format!("I go on with {key}").into())
    }
}

#[test]
fn what_a_handler_or_a_producer_says_is_the_reason_beside_the_message() {
    Logged::by(Level::DEBUG, async |logged| {
        let said = async |message: &str, reason: &str| {
            let is_said = |line: &BTreeMap<String, String>| {
                let reason_said = line.get("reason").is_some_and(|said| said.contains(reason));
                reason_said && line["message"].contains(message) && line["pool"].contains("opera")
            };
            while !logged.all().iter().any(is_said) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let all = async {
            let client = client().await;
            let node = Node::join(&client, "opera").await.unwrap();
            let diva: &'static Diva = Box::leak(Box::default());
            let worker = node.add_worker(diva).await.unwrap();
            node.dispatch("aria", "").await.unwrap();
            node.dispatch("duet", "").await.unwrap_err();
            said("refused", "once is enough of duet").await;
            node.remove_worker(worker).await.unwrap();
            said("failed to stop", "I go on with aria").await;
            node.add_worker(diva).await.unwrap();
            said("trying again", "once is enough of aria").await;
            let plan = |_| async { Err::<Plan, HandlerError>("no programme".into()) };
            node.schedule("season", Duration::from_millis(100), plan).await.unwrap();
            said("a producer failed", "no programme").await;
            node.close().await.unwrap();
        };
        let in_time = tokio::time::timeout(Duration::from_secs(60), all).await;
        assert!(in_time.is_ok(), "{:?}", logged.all());
    });
}
