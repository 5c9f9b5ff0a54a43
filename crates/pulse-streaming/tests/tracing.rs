//! Trace context from the span that adds to the span that handles, as an exporter sees it.
#![cfg(feature = "opentelemetry")]

use std::{convert::Infallible, time::Duration};

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use pulse_streaming::{EventStream, NewEvent, Start};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

/// The spans that a program makes.
fn exported(program: impl Future<Output = ()>) -> Vec<SpanData> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(program);
    });
    provider.force_flush().unwrap();
    exporter.get_finished_spans().unwrap()
}

fn named<'a>(spans: &'a [SpanData], name: &'a str) -> impl Iterator<Item = &'a SpanData> {
    spans.iter().filter(move |span| span.name == name)
}

async fn stream() -> EventStream {
    let client = pulse_streaming::connect("memory:").await.unwrap();
    EventStream::new(&client, "orders").unwrap()
}

#[test]
fn the_span_that_handles_links_to_the_span_that_added() {
    let spans = exported(async {
        let stream = stream().await;
        stream.add("n", "p").instrument(tracing::info_span!("producer")).await.unwrap();
        let done = CancellationToken::new();
        let end = done.clone();
        let sink = stream.sink("s").start(Start::Oldest).join().await.unwrap();
        let handler = move |_| {
            done.cancel();
            async { Ok::<_, Infallible>(()) }
        };
        sink.run(1, handler).until(end.cancelled_owned()).await;
    });
    let producer = named(&spans, "producer").next().unwrap();
    let handled = named(&spans, "handle").next().unwrap();
    let links: Vec<_> = handled.links.iter().map(|link| link.span_context.span_id()).collect();
    assert_eq!(links, [producer.span_context.span_id()]);
    assert_eq!(handled.links.links[0].span_context.trace_id(), producer.span_context.trace_id());
}

#[test]
fn a_batch_links_to_all_that_is_in_it_and_what_makes_no_sense_is_left_out() {
    let spans = exported(async {
        let stream = stream().await;
        stream
            .add_batch([NewEvent::new("n", "1"), NewEvent::new("n", "2")])
            .instrument(tracing::info_span!("a"))
            .await
            .unwrap();
        stream.add_event(NewEvent::new("n", "3").with_header("traceparent", "nonsense")).await.unwrap();
        stream.add("n", "4").await.unwrap();
        let done = CancellationToken::new();
        let end = done.clone();
        let sink = stream.sink("s").start(Start::Oldest).join().await.unwrap();
        let handler = move |_| {
            done.cancel();
            async { Ok::<_, Infallible>(()) }
        };
        sink.run_batches(4, Duration::from_secs(60), handler).until(end.cancelled_owned()).await;
    });
    let producer = named(&spans, "a").next().unwrap();
    let handled = named(&spans, "handle").next().unwrap();
    let links: Vec<_> = handled.links.iter().map(|link| link.span_context.span_id()).collect();
    assert_eq!(links, [producer.span_context.span_id(); 2]);
}

#[test]
fn the_header_is_the_context_of_the_span_unless_the_event_has_one_or_no_room_for_it() {
    exported(async {
        let stream = stream().await;
        let own = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let add = async {
            stream.add("n", "1").await.unwrap();
            stream.add_event(NewEvent::new("n", "2").with_header("traceparent", own)).await.unwrap();
            let most = stream.client().backend().limits().event_bytes;
            stream.add("n", vec![0; most - 20]).await.unwrap();
        };
        add.instrument(tracing::info_span!("producer")).await;
        stream.add("n", "4").await.unwrap();
        let mut reader = stream.reader().start(Start::Oldest).join().await.unwrap();
        let mut parents = Vec::new();
        for _ in 0..4 {
            let event = reader.next().await.unwrap().unwrap();
            let parent = event.headers().get("traceparent").map(|parent| String::from_utf8(parent.to_vec()).unwrap());
            assert_eq!(event.trace_context().is_some(), parent.is_some());
            parents.push(parent);
        }
        let [Some(first), Some(second), None, None] = &parents[..] else { panic!("{parents:?}") };
        assert!(first.len() == 55 && first.starts_with("00-"), "{first}");
        assert_eq!(second, own);
    });
}
