//! The memory of a watch while the API server sends large objects. An allocator counts the bytes.
//! The scripted server creates each object when it sends the object, in pages of 500 objects.
//!
//! Any user who may create Services can make them large: 256 KiB of annotations are allowed, and
//! labels have no common limit. The peak is the largest number of bytes in use at one time,
//! including the facts that stay in memory. `cargo lab bench large` measures the components as
//! processes. Measured with more Services than in these tests:
//!
//! | objects | peak |
//! |---|---|
//! | 1,000 Services with 255 KiB of annotations, as whole pages of kube's list | 392.5 MB |
//! | the same, each object decoded on arrival | 1.8 MB |
//! | 1,000 Services with 1.5 MB of labels, ClusterIP | 7.7 MB |
//! | 200 Services with 1.5 MB of labels, LoadBalancer | 9.7 MB |
//! | 50 Services with 1.5 MB of external IPs, all of them stored | 115.7 MB |
//! | the same, 1,024 of them stored | 9.2 MB |
//! | 250 Services with 255 KiB in the annotation of the pool, all of it stored | 68.7 MB |
//! | the same, only the length of a name stored | 1.2 MB |
//! | 50 Services with 1.5 MB of ports, all of them stored | 56.5 MB |
//! | the same, none stored, because a Service with over 1,024 ports shares no address | 6.6 MB |
//!
//! A development build of the speaker, whose file pages are 26 MB, reaches 460.3 MB with the first
//! row and 30.9 MB with the second one. With 10,000 usual Services it reaches 32.8 MB with whole
//! pages, and 30.1 MB without.

use std::alloc::{GlobalAlloc, Layout, System};
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ferrolb_core::store::Change;
use ferrolb_proto::Instant;
use ferrolb_proto::facts::{Service, ServiceObject};
use ferrolb_runtime::watch::{EVENT_QUEUE_MAX, Watch};
use ferrolb_runtime::watchdog::Watchdog;
use futures::stream::{self, Stream, StreamExt};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use hyper::{Request, Response};
use kube::Client;
use kube::client::Body;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tower::service_fn;

/// The number of Services that change after the list.
const CHANGED_SERVICES: usize = 10;
/// The API server's limit for all annotations of an object, minus space for their keys
/// (`apimachinery`, `TotalAnnotationSizeLimitB`).
const ANNOTATIONS_BYTES: usize = 255 * 1024;
/// The size of the largest objects, in bytes. Labels, external IPs and ports have no limit except
/// etcd's for a whole object (`--max-request-bytes`).
const OBJECT_BYTES: usize = 1_500_000;
/// The limit for the memory that a watch of such objects takes, in bytes.
const PEAK_MAX: usize = 10_000_000;

static ALLOCATED_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, with a count of the allocated bytes.
struct CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[expect(unsafe_code, reason = "an allocator is unsafe by its trait")]
// SAFETY: every call is passed unchanged to the system's allocator.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let allocated = ALLOCATED_BYTES.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK_BYTES.fetch_max(allocated, Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of `GlobalAlloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of `GlobalAlloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Returns a Service in the API server's format, with additional fields of `metadata` and `spec`.
fn service(n: usize, Fields { service_type, metadata, spec }: &Fields) -> String {
    format!(
        r#"{{"metadata":{{"name":"s{n}","namespace":"d","uid":"u{n}","resourceVersion":"7"{metadata}}},"spec":{{"type":"{service_type}","clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1"]{spec}}},"status":{{"loadBalancer":{{}}}}}}"#
    )
}

/// The type of a Service, and the JSON texts of its large fields. Each text begins with a comma.
#[derive(Default)]
struct Fields {
    service_type: &'static str,
    metadata: String,
    spec: String,
}

impl Fields {
    fn metadata(service_type: &'static str, metadata: &str) -> Self {
        Self { service_type, metadata: format!(",{metadata}"), ..Self::default() }
    }

    fn spec(service_type: &'static str, spec: &str) -> Self {
        Self { service_type, spec: format!(",{spec}"), ..Self::default() }
    }
}

fn annotation_field(key: &str) -> String {
    format!(r#""annotations":{{"{key}":"{}"}}"#, "x".repeat(ANNOTATIONS_BYTES))
}

/// Returns a list in `spec`, made of these items, that is as large as an object may be.
fn list_field(name: &str, item: impl Fn(u32) -> String) -> String {
    let mut items = Vec::new();
    let mut bytes = 0;
    for n in 1.. {
        let item = item(n);
        bytes += item.len() + 1;
        if bytes > OBJECT_BYTES {
            break;
        }
        items.push(item);
    }
    format!(r#""{name}":[{}]"#, items.join(","))
}

fn labels_field() -> String {
    let mut labels = String::from(r#""labels":{"#);
    for n in 0.. {
        if labels.len() >= OBJECT_BYTES {
            break;
        }
        write!(labels, r#""l{n:x}":"","#).expect("writing to a String cannot fail");
    }
    labels.pop();
    labels + "}"
}

/// Returns the response to one request: a page of the list, or the changes and then no more data.
fn response_to(
    query: &str,
    services: usize,
    fields: &Arc<Fields>,
) -> impl Stream<Item = String> + use<> {
    let number = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name))?;
        value.parse::<usize>().ok()
    };
    let fields = Arc::clone(fields);
    if query.contains("watch=true") {
        let line =
            move |n| format!("{{\"type\":\"MODIFIED\",\"object\":{}}}\n", service(n, &fields));
        return stream::iter(0..CHANGED_SERVICES).map(line).chain(stream::pending()).boxed();
    }
    let from = number("continue=").unwrap_or(0);
    let to = (from + number("limit=").expect("the list request has a limit")).min(services);
    let next = if to < services { to.to_string() } else { String::new() };
    let head = format!(
        r#"{{"kind":"ServiceList","apiVersion":"v1","metadata":{{"resourceVersion":"7","continue":"{next}"}},"items":["#
    );
    let item = move |n| service(n, &fields) + if n + 1 < to { "," } else { "" };
    let tail = stream::iter(["]}\n".to_owned()]);
    stream::iter([head]).chain(stream::iter(from..to).map(item)).chain(tail).boxed()
}

fn server(services: usize, fields: Arc<Fields>) -> Client {
    let service = service_fn(move |request: Request<Body>| {
        let frames =
            response_to(request.uri().query().expect("the request has a query"), services, &fields);
        let frames = frames.map(|text| Ok::<_, Infallible>(Frame::data(Bytes::from(text))));
        std::future::ready(Ok::<_, Infallible>(Response::new(StreamBody::new(frames))))
    });
    Client::new(service, "default")
}

/// Returns the largest number of bytes that were allocated at one time while a watch read the list
/// and the changes after it. All facts stay in memory.
async fn peak_memory(services: usize, fields: Fields) -> usize {
    let client = server(services, Arc::new(fields));
    let (events, mut queue) = mpsc::channel(EVENT_QUEUE_MAX);
    let before = ALLOCATED_BYTES.load(Ordering::Relaxed);
    PEAK_BYTES.store(before, Ordering::Relaxed);
    let watch = Watch::new("Services", (client, "/api/v1/services"), |object: ServiceObject| {
        Service::read(object, "ferrolb.io")
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(watch.run(events, |change| change, Arc::new(Watchdog::new(Instant::ZERO))));
    let mut changes: Vec<Change<Service>> = Vec::new();
    while changes.len() < services + CHANGED_SERVICES {
        match queue.recv().await.expect("the watch does not end") {
            Change::ResyncStarted | Change::Connected(_) => {}
            Change::ResyncDone => assert_eq!(changes.len(), services),
            change @ (Change::Apply(_) | Change::Unreadable { .. } | Change::Delete(_)) => {
                changes.push(change)
            }
        }
    }
    PEAK_BYTES.load(Ordering::Relaxed) - before
}

#[tokio::test]
async fn a_list_of_large_objects_needs_the_memory_of_one_object() {
    let mut above_limit = Vec::new();
    let shared = r#""annotations":{"ferrolb.io/allow-shared-ip":"a"}"#;
    let ports =
        || list_field("ports", |n| format!(r#"{{"name":"p{n}","protocol":"TCP","port":{n}}}"#));
    let external_ips = || {
        list_field("externalIPs", |n| format!(r#""10.{}.{}.{}""#, n >> 16, n >> 8 & 0xff, n & 0xff))
    };
    for (services, case, fields) in [
        (250, "255 KiB of annotations", Fields::metadata("ClusterIP", &annotation_field("a"))),
        (
            250,
            "255 KiB as pool",
            Fields::metadata(
                "LoadBalancer",
                &annotation_field("ferrolb.io/ip-allocated-from-pool"),
            ),
        ),
        (20, "1.5 MB of labels", Fields::metadata("ClusterIP", &labels_field())),
        (20, "1.5 MB of labels, a LoadBalancer", Fields::metadata("LoadBalancer", &labels_field())),
        (50, "1.5 MB of external IPs", Fields::spec("ClusterIP", &external_ips())),
        (
            50,
            "1.5 MB of ports",
            Fields { metadata: format!(",{shared}"), ..Fields::spec("LoadBalancer", &ports()) },
        ),
    ] {
        let peak = peak_memory(services, fields).await;
        println!("{services} Services, each with {case}: {:.1} MB at most", peak as f64 / 1e6);
        if peak > PEAK_MAX {
            above_limit.push(case);
        }
    }
    assert!(above_limit.is_empty(), "these cases take more than {PEAK_MAX} bytes: {above_limit:?}");
}
