//! `docs/reference/metrics.md`: the metrics of both components. The test fills their registries
//! with one value per series, and reads them from a real admin endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use ferrolb_controller_core::desired::{MetricValues, PoolMetricValues};
use ferrolb_proto::Instant;
use ferrolb_runtime::admin::{self, ListenAddresses};
use ferrolb_runtime::api_health::ApiHealth;
use ferrolb_runtime::watchdog::Watchdog;
use ferrolb_speaker::metrics::probes::ProbeMetrics;
use ferrolb_speaker::metrics::{
    self as speaker, BfdCounts, ProxyHealthMetrics, SecondPathMetrics, SessionCounts, bgp_metrics,
};
use ferrolb_speaker_core::health::kube_proxy::RoundOutcome;
use ferrolb_speaker_core::plan::SessionMetric;
use prometheus_client::registry::Registry;

use crate::generated::{self, code, head, one_line, paragraph, table};
use crate::{COMMAND, root};

const FILE: &str = "docs/reference/metrics.md";
const SOURCE: &str = "the metrics of both components";
const INTRODUCTION: &str = "\
This page lists the metrics of the controller and the speaker. Both serve them in the OpenMetrics \
format at `/metrics` of the [admin endpoint](admin-endpoint.md). \
[Monitoring](../operate/monitoring.md) explains the metrics and recommends alerts.";
const UNKNOWN: &str = "\
A metric of the type unknown is a counter with MetalLB's name. An OpenMetrics counter has a name \
that ends in `_total`.";
/// Value of a label whose values are not a fixed list.
const SAMPLE: &str = "SAMPLE";
/// Folders of the crates that register metrics.
const SOURCES: [&str; 3] = ["runtime/src", "controller/src", "speaker/src"];

/// A metric as `/metrics` shows it.
#[derive(Default)]
struct Metric {
    name: String,
    kind: String,
    help: String,
    /// Values of each label.
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// Returns the text that a component with this registry serves at `/metrics`.
fn scrape(registry: Registry) -> String {
    let any_port = (Ipv4Addr::LOCALHOST, 0).into();
    let addresses = ListenAddresses { admin: any_port, probes: any_port };
    let watchdog = Arc::new(Watchdog::new(Instant::ZERO));
    let (server, _requests) = admin::serve(addresses, registry, watchdog, None, None);
    let address = server.admin.as_ref().expect("the admin endpoint does not start").address;
    let mut stream = TcpStream::connect(address).expect("no connection to the admin endpoint");
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("the request cannot be sent");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("no response of the admin endpoint");
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    response
}

/// Returns the metrics in a response, by name.
fn parse(response: &str) -> BTreeMap<String, Metric> {
    let mut found = BTreeMap::new();
    let mut current = String::new();
    for line in response.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|it| it.split_once(' ')) {
            name.clone_into(&mut current);
            let (name, help) = (name.to_owned(), help.to_owned());
            found.insert(current.clone(), Metric { name, help, ..Metric::default() });
        }
        let Some(metric) = found.get_mut(&current) else { continue };
        if let Some((_, kind)) = line.strip_prefix("# TYPE ").and_then(|it| it.split_once(' ')) {
            kind.clone_into(&mut metric.kind);
        }
        let labels = line.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        let pairs = labels.map_or("", |(labels, _)| labels).split(',');
        for (label, value) in pairs.filter_map(|pair| pair.split_once('=')) {
            let values = metric.labels.entry(label.to_owned()).or_default();
            values.insert(value.trim_matches('"').to_owned());
        }
    }
    found
}

/// Returns the metrics of the controller.
fn controller() -> BTreeMap<String, Metric> {
    let mut registry = admin::registry();
    let _health = ApiHealth::new(&mut registry);
    let metrics = ferrolb_controller::metrics::Metrics::new(&mut registry);
    let pool = PoolMetricValues { name: SAMPLE.into(), ..PoolMetricValues::default() };
    metrics.update(MetricValues {
        pools: vec![pool],
        services: vec![(SAMPLE, 1)],
        announced: vec![(SAMPLE, 1)],
        ..MetricValues::default()
    });
    parse(&scrape(registry))
}

/// Returns the metrics of the speaker, with or without BGP.
fn speaker(with_bgp: bool) -> BTreeMap<String, Metric> {
    let mut registry = admin::registry();
    let _health = ApiHealth::new(&mut registry);
    let own = registry.sub_registry_with_prefix("speaker");
    let metrics = speaker::Metrics::new(own);
    let _link = metrics.link(SAMPLE);
    metrics.set_addresses(&BTreeMap::new());
    let proxy = ProxyHealthMetrics::new(own);
    for outcome in [
        RoundOutcome::Good,
        RoundOutcome::Bad,
        RoundOutcome::Starting,
        RoundOutcome::Refused,
        RoundOutcome::Timeout,
    ] {
        proxy.count(outcome);
    }
    let _probes = ProbeMetrics::new(own);
    let _second_path = SecondPathMetrics::new(own);
    let _bgp = with_bgp.then(|| {
        let (bgp, gobgp) = bgp_metrics(&mut registry);
        let session = SessionMetric { router: SAMPLE.into(), established: true, prefixes: 0 };
        bgp.sessions.send_replace([(SAMPLE.into(), session)].into());
        let counts = SessionCounts { bfd: Some(BfdCounts::default()), ..SessionCounts::default() };
        gobgp.counts.send_replace([(SAMPLE.into(), counts)].into());
        (bgp, gobgp)
    });
    parse(&scrape(registry))
}

/// Returns the labels of a metric, each with its values if they are a fixed list.
fn labels(metric: &Metric) -> String {
    let label = |(label, values): (&String, &BTreeSet<String>)| {
        let values: Vec<_> = values.iter().filter(|value| *value != SAMPLE).collect();
        let list: Vec<_> = values.into_iter().map(|value| code(value)).collect();
        let label = code(label);
        if list.is_empty() { label } else { format!("{label}: {}", list.join(", ")) }
    };
    // Each bucket of a histogram has the label `le`.
    let own = metric.labels.iter().filter(|(label, _)| *label != "le");
    own.map(label).collect::<Vec<_>>().join("; ")
}

/// Returns a section with a table of metrics.
fn section<'a>(heading: &str, metrics: impl Iterator<Item = &'a Metric>) -> String {
    let row = |metric: &Metric| {
        let suffix = if metric.kind == "counter" { "_total" } else { "" };
        let name = code(&format!("{}{suffix}", metric.name));
        let help = format!("{}.", one_line(&metric.help).trim_end_matches('.'));
        vec![name, metric.kind.clone(), labels(metric), help]
    };
    let rows: Vec<_> = metrics.map(row).collect();
    format!("\n## {heading}\n{}", table(&["Metric", "Type", "Labels", "Description"], &rows))
}

/// Returns the page.
fn generate() -> String {
    let (controller, speaker, bgp) = (controller(), speaker(false), speaker(true));
    let is_common = |metric: &&Metric| {
        controller.contains_key(&metric.name) && speaker.contains_key(&metric.name)
    };
    let mut page = head("Metrics", SOURCE, COMMAND, INTRODUCTION);
    page.push_str(&section("Metrics of both components", speaker.values().filter(is_common)));
    let own = controller.values().filter(|metric| !is_common(metric));
    page.push_str(&section("Metrics of the controller", own));
    let own = speaker.values().filter(|metric| !is_common(metric));
    page.push_str(&section("Metrics of the speaker", own));
    let own = bgp.values().filter(|metric| !speaker.contains_key(&metric.name));
    page.push_str(&section("Metrics of a speaker with BGP", own));
    page.push_str(&paragraph(UNKNOWN));
    page
}

/// Returns the Rust files below a folder.
fn rust_files(folder: PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("cannot read a folder of the repository");
    let paths = entries.map(|entry| entry.expect("cannot read a folder").path());
    let files = paths.flat_map(|path| if path.is_dir() { rust_files(path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|ending| ending == "rs")).collect()
}

/// Returns the names with which a file registers metrics, without prefixes. The registry may be the
/// first argument of the call.
fn registered_names(source: &str) -> Vec<&str> {
    let calls = ["registered(", "with_metric(", "in_seconds(", "register(", "register_with_unit("];
    let arguments = calls.iter().flat_map(|call| source.split(call).skip(1));
    let is_name = |argument: &str| argument.chars().all(|c| c.is_alphanumeric() || c == '_');
    let after_registry = |rest| match str::split_once(rest, ',') {
        Some((first, others)) if is_name(first.trim()) => others,
        _ => rest,
    };
    let literals = arguments.filter_map(|it| after_registry(it).trim_start().strip_prefix('"'));
    literals.filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn the_page_of_the_metrics_is_current() {
    generated::check(&root(), FILE, &generate(), COMMAND);
}

#[test]
fn every_registered_metric_is_on_the_page() {
    let page = generate();
    let mut count = 0;
    for path in SOURCES.iter().flat_map(|folder| rust_files(root().join(folder))) {
        let source = fs::read_to_string(&path).expect("cannot read a file of the repository");
        for name in registered_names(&source) {
            count += 1;
            assert!(
                [format!("_{name}`"), format!("_{name}_total`"), format!("_{name}_seconds`")]
                    .iter()
                    .any(|end| page.contains(end)),
                "{}: the metric {name} is not in the registries of this test",
                path.display()
            );
        }
    }
    assert!(count > 40, "only {count} calls of register were found");
}
