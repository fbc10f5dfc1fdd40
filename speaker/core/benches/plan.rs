//! Measures the plan after one endpoint change among 10,000 Services, with 3, 100 and 1,000 nodes.
//!
//! The benchmark sends events to the speaker's own state, without a cluster. Each change moves the
//! only endpoint of a Service with `externalTrafficPolicy: Local` to another node. In one cluster
//! the node is cordoned and advertises all addresses by BGP. Like the speaker, the benchmark keeps
//! the latest plan. The clock runs while the state handles the event and the plan is computed. The
//! changes of the clusters alternate, so that other load on the machine slows all clusters alike.
//! `--check` fails if a median is more than three times its target, or if it grows with the number
//! of nodes.
//!
//! `cargo bench --profile lab -p ferrolb-speaker-core --bench plan` takes five seconds. The results
//! are in docs/internals/benchmarks.md.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::{Duration, Instant as WallClock};

use clap::Parser;
use ferrolb_core::store::Change;
use ferrolb_proto::Instant;
use ferrolb_proto::api::{BgpAdvertisementObject, BgpPeerObject, IpMode, L2AdvertisementObject};
use ferrolb_proto::facts::{
    AssignedAddress, BfdProfile, BgpAdvertisement, BgpPeer, Community, Endpoint, EndpointSlice,
    Key, Keyed, L2Advertisement, Node, PasswordSecret, Pool, Service, TrafficPolicy,
};
use ferrolb_proto::range::Family;
use ferrolb_proto::wire::hello::{HelloKey, HelloKeyRing, KEY_LENGTH};
use ferrolb_speaker_core::event::{Event, Link};
use ferrolb_speaker_core::health::prober::CheckDefaults;
use ferrolb_speaker_core::plan::{Desired, Memo, plan};
use ferrolb_speaker_core::state::{State, StateConfig};
use serde_json::json;

/// The number of Services, each with one address and one endpoint.
const SERVICES: u32 = 10_000;
/// The number of endpoint changes in each cluster.
const CHANGES: u32 = 500;
/// The clusters: the number of nodes, and whether the node is cordoned and advertises by BGP.
const CLUSTERS: [(usize, bool); 4] = [(3, true), (3, false), (100, false), (1_000, false)];
/// The target for the median time from the event to the end of the plan, in microseconds.
const TARGET_US: f64 = 1_000.0;
/// The target for the ratio of the median with 1,000 nodes to that with 3.
const RATIO_MAX: f64 = 2.0;
/// The factor by which a value must exceed its target before `--check` fails, because other
/// programs may slow the machine down.
const CHECK_FACTOR: f64 = 3.0;

/// Measures the time of a plan after one endpoint change.
#[derive(Parser)]
struct Args {
    /// Fail if a value is more than three times its target.
    #[arg(long)]
    check: bool,
    /// Cargo passes this flag to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A cluster, and the times of its changes in microseconds.
struct Cluster {
    name: String,
    state: State,
    memo: Memo,
    /// The latest plan.
    desired: Desired,
    times: Vec<f64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut clusters = CLUSTERS.map(|(nodes, cordoned)| Cluster::new(nodes, cordoned));
    for number in 0..CHANGES {
        for cluster in &mut clusters {
            cluster.change_endpoint(number);
        }
    }
    let medians = clusters.map(Cluster::report);
    let [_, smallest, _, largest] = medians;
    let ratio = largest / smallest;
    println!("the largest cluster takes {ratio:.2} times as long as the smallest");
    let failed = medians.iter().any(|median| *median > TARGET_US * CHECK_FACTOR)
        || ratio > RATIO_MAX * CHECK_FACTOR;
    if args.check && failed {
        eprintln!("error: a value is more than {CHECK_FACTOR} times its target");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

impl Cluster {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    fn new(nodes: usize, cordoned: bool) -> Self {
        let mut state = State::new(config(cordoned));
        let numbers = 0..SERVICES;
        let nodes_of_cluster = (0..nodes).map(|number| node(number, cordoned && number == 0));
        list(&mut state, nodes_of_cluster, Event::of::<Node>);
        list(&mut state, numbers.clone().map(service), Event::of::<Service>);
        list(&mut state, numbers.map(|number| slice(number, "node0")), Event::of::<EndpointSlice>);
        let range = "10.0.0.0/8".parse().expect("a range");
        let pool = Pool { name: "pool".into(), ranges: [range].into(), ..Pool::default() };
        list(&mut state, [pool], Event::of::<Pool>);
        let object = json!({"metadata": {"name": "all"}, "spec": {}});
        let object: L2AdvertisementObject = serde_json::from_value(object).expect("an object");
        let ad = L2Advertisement::from(object);
        list(&mut state, [ad], Event::of::<L2Advertisement>);
        if cordoned {
            add_bgp(&mut state);
        }
        let keys = HelloKeyRing::new(vec![HelloKey::new([1; KEY_LENGTH])]);
        for change in [Change::Apply(keys), Change::ResyncDone] {
            state.handle(Event::of::<HelloKeyRing>(change), Instant::ZERO);
        }
        let prefixes = vec![(IpAddr::from([10, 0, 0, 1]), 8)];
        let (ethernet, up, broadcast) = (true, true, true);
        let link = Link {
            index: 2,
            name: "eth0".into(),
            ethernet,
            up,
            broadcast,
            prefixes,
            ..Link::default()
        };
        state.handle(Event::Links(vec![link]), Instant::ZERO);
        let mut memo = Memo::default();
        let start = WallClock::now();
        let desired = plan(&state, &mut memo, Instant::ZERO);
        let elapsed = start.elapsed();
        let units = desired.links.values().map(|link| link.config.units.len()).sum::<usize>();
        assert_eq!(units, SERVICES as usize, "every address has a unit");
        let announced = desired.status.bgp.as_ref().map_or(0, |bgp| bgp.announced);
        assert_eq!(announced > 0, cordoned, "the cordoned node advertises routes");
        let name = format!("{nodes} nodes{}", if cordoned { ", cordoned, BGP" } else { "" });
        println!("{name}: the first plan takes {:.0} ms", elapsed.as_secs_f64() * 1e3);
        Self { name, state, memo, desired, times: Vec::new() }
    }

    /// Moves the endpoint of one Service to another node.
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    fn change_endpoint(&mut self, number: u32) {
        let service = number.wrapping_mul(7_919) % SERVICES;
        let event = Event::of::<EndpointSlice>(Change::Apply(slice(service, "node1")));
        let start = WallClock::now();
        self.memo.add(self.state.handle(event, Instant::ZERO));
        let desired = plan(&self.state, &mut self.memo, Instant::ZERO);
        self.times.push(start.elapsed().as_secs_f64() * 1e6);
        self.desired = desired;
    }

    /// Prints the times. Returns the median, in microseconds.
    fn report(mut self) -> f64 {
        self.times.sort_by(f64::total_cmp);
        let quantile = |share: f64| self.times[(self.times.len() as f64 * share) as usize];
        let (median, p99) = (quantile(0.5), quantile(0.99));
        println!(
            "{}: one endpoint change takes {median:.0} us, 99th percentile {p99:.0} us \
             (target {TARGET_US:.0} us)",
            self.name
        );
        median
    }
}

fn list<F: Keyed>(
    state: &mut State,
    facts: impl IntoIterator<Item = F>,
    event: fn(Change<F>) -> Event,
) {
    state.handle(event(Change::ResyncStarted), Instant::ZERO);
    for fact in facts {
        state.handle(event(Change::Apply(fact)), Instant::ZERO);
    }
    state.handle(event(Change::ResyncDone), Instant::ZERO);
}

fn config(gobgp: bool) -> StateConfig {
    StateConfig {
        node: "node0".into(),
        classes: Vec::new(),
        default_implementation: true,
        pool_grace: Duration::from_secs(60),
        ignore_exclude_label: false,
        exclude_interfaces: Vec::new(),
        kube_proxy_address: None,
        gobgp,
        health_check_defaults: CheckDefaults { interval: Duration::from_secs(1), fall: 2, rise: 3 },
        checked_ranges: Some(Vec::new()),
    }
}

fn node(number: usize, cordoned: bool) -> Node {
    let internal_addresses = vec![IpAddr::from([192, 0, 2, 1])];
    let name = format!("node{number}").into();
    Node { name, ready: true, cordoned, internal_addresses, ..Node::default() }
}

/// Adds a BGPPeer and a BGPAdvertisement for all nodes and addresses.
fn add_bgp(state: &mut State) {
    let spec = json!({"myASN": 64512, "peerASN": 64512, "peerAddress": "192.0.2.254"});
    let object = |spec| json!({"metadata": {"name": "router"}, "spec": spec});
    let peer: BgpPeerObject = serde_json::from_value(object(spec)).expect("an object");
    let ad: BgpAdvertisementObject = serde_json::from_value(object(json!({}))).expect("an object");
    list(state, [BgpPeer::from(peer)], Event::of::<BgpPeer>);
    list(state, [BgpAdvertisement::from(ad)], Event::of::<BgpAdvertisement>);
    list(state, [], Event::of::<Community>);
    list(state, [], Event::of::<BfdProfile>);
    list(state, [], Event::of::<PasswordSecret>);
}

fn service(number: u32) -> Service {
    let address = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0100 + number));
    Service {
        key: Key::new("default", &format!("service{number}")),
        load_balancer: true,
        policy: if number.is_multiple_of(2) {
            TrafficPolicy::Local
        } else {
            TrafficPolicy::Cluster
        },
        assigned: vec![AssignedAddress { address, mode: Some(IpMode::Vip) }],
        ..Service::default()
    }
}

/// Returns the EndpointSlice of a Service, with an endpoint on `node`.
fn slice(number: u32, node: &str) -> EndpointSlice {
    let name = format!("service{number}");
    let (family, ready, serving, terminating) = (Family::V4, true, true, false);
    EndpointSlice {
        key: Key::new("default", &format!("{name}-1")),
        service: Some(Key::new("default", &name)),
        endpoints: vec![Endpoint { node: Some(node.into()), family, ready, serving, terminating }],
        ..EndpointSlice::default()
    }
}
