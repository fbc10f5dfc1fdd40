//! The condition `Announced`: its content, and when it is written.

mod bgp;
mod conflicts;
mod failed_writes;
mod interfaces;
mod reasons;
mod stopped_speakers;
mod timing;
mod warnings;

use ferrolb_proto::api::{ConditionStatus, InterfaceIssue, InterfaceIssueReason, LateHellos};
use ferrolb_proto::facts::{
    Endpoint, EndpointCondition, EndpointSlice, L2Advertisement, Speaker, SpeakerInterface,
    TrafficPolicy,
};
use serde_json::json;

use super::*;
use crate::state::announced::CONDITION_DELAY;
use crate::state::{NodeVerdict, Verdict};
pub(super) use stopped_speakers::{pod, report_running};

const ADDRESS: &str = "10.0.0.1";

/// Objects of a cluster: by default three nodes whose speakers receive each other's hellos, and one
/// Service with an endpoint on each node.
#[derive(Clone)]
struct Topology {
    services: Vec<Service>,
    slices: Vec<EndpointSlice>,
    nodes: Vec<Node>,
    advertisements: Vec<serde_json::Value>,
    speakers: Vec<Speaker>,
    group: &'static str,
}

impl Default for Topology {
    fn default() -> Self {
        let nodes = ["n1", "n2", "n3"];
        Self {
            services: vec![service("a")],
            slices: vec![endpoint_slice("a", &nodes)],
            nodes: nodes.map(ready_node).into(),
            advertisements: vec![json!({})],
            speakers: nodes.map(|node| speaker(node, &[])).into(),
            group: api::GROUP,
        }
    }
}

impl Topology {
    /// Returns the cluster with an active leader that has nothing left to write.
    fn settled_cluster(self) -> Cluster {
        let mut cluster = self.new_cluster();
        cluster.settle();
        cluster
    }

    /// Returns the cluster with an active leader, before any write.
    fn new_cluster(self) -> Cluster {
        let mut cluster = Cluster::without_leader(
            self.services.clone(),
            vec![pool("lan", &["10.0.0.0/24", "fd00::/64"])],
        );
        let names = Names { group: self.group.to_owned(), ..default_names() };
        cluster.state = State::new(Config { names, ..config() });
        cluster.nodes = self.nodes.iter().cloned().map(|node| (node.name.clone(), node)).collect();
        self.report_lists(&mut cluster, Order::ByName);
        cluster
    }

    /// Reports the lease and every list to the state of a cluster.
    fn report_lists(&self, cluster: &mut Cluster, order: Order) {
        cluster.become_leader_with(order);
        let advertisements =
            self.advertisements.iter().enumerate().map(|(i, spec)| Change::Apply(ad(i, spec)));
        report_list(cluster, advertisements, Event::of::<L2Advertisement>);
        report_list(
            cluster,
            self.slices.iter().cloned().map(Change::Apply),
            Event::of::<EndpointSlice>,
        );
        if self.group == api::GROUP {
            report_list(
                cluster,
                self.speakers.iter().cloned().map(Change::Apply),
                Event::of::<Speaker>,
            );
        }
    }
}

fn report_list<F>(
    cluster: &mut Cluster,
    changes: impl Iterator<Item = Change<F>>,
    wrap: fn(Change<F>) -> Event,
) {
    let changes = [Change::ResyncStarted].into_iter().chain(changes).chain([Change::ResyncDone]);
    changes.for_each(|change| cluster.handle(wrap(change)));
}

fn ad(i: usize, spec: &serde_json::Value) -> L2Advertisement {
    let object = json!({"metadata": {"name": format!("l2-{i}")}, "spec": spec});
    serde_json::from_value::<api::L2AdvertisementObject>(object).unwrap().into()
}

pub(super) fn ready_node(name: &str) -> Node {
    let labels = [("name".to_owned(), name.to_owned())].into();
    Node { name: name.into(), labels, ready: true, ..Node::default() }
}

pub(super) fn endpoint_slice(service: &str, nodes: &[&str]) -> EndpointSlice {
    let endpoint = |node: &&str| Endpoint {
        node: Some((*node).into()),
        family: Family::V4,
        ready: true,
        serving: true,
        terminating: false,
    };
    EndpointSlice {
        key: key(&format!("{service}-1")),
        service: Some(key(service)),
        endpoints: nodes.iter().map(endpoint).collect(),
        ..EndpointSlice::default()
    }
}

/// Returns the slice with all its endpoints in this family, and with the family in its name.
fn with_family(family: Family, mut slice: EndpointSlice) -> EndpointSlice {
    slice.endpoints.iter_mut().for_each(|endpoint| endpoint.family = family);
    slice.key = Key::new(slice.key.namespace(), &format!("{}-{family}", slice.key.name()));
    slice
}

/// Returns a speaker on one interface that receives the hellos of the other two nodes and owns
/// these addresses.
pub(super) fn speaker(node: &str, addresses: &[&str]) -> Speaker {
    let hello_senders =
        ["n1", "n2", "n3"].into_iter().filter(|other| *other != node).map(Into::into).collect();
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let interface = SpeakerInterface {
        name: "eth0".into(),
        up: true,
        hello_senders,
        addresses,
        ..SpeakerInterface::default()
    };
    Speaker { node: node.into(), interfaces: [interface].into(), ..Speaker::default() }
}

/// Returns the speaker without the hellos of a node.
fn without_hellos_of(node: &str, mut speaker: Speaker) -> Speaker {
    let link = &mut speaker.interfaces[0];
    link.hello_senders = link.hello_senders.iter().filter(|it| ***it != *node).cloned().collect();
    speaker
}

fn report_speaker(cluster: &mut Cluster, speaker: Speaker) {
    cluster.handle(Event::of::<Speaker>(Change::Apply(speaker)));
}

fn announced_condition(cluster: &Cluster, name: &str) -> Option<ServiceCondition> {
    cluster.services[&key(name)].condition(ServiceConditionType::Announced).cloned()
}

/// Returns reason and message of the condition `Announced`; empty without a condition.
pub(super) fn reason_and_message(cluster: &Cluster, name: &str) -> (String, String) {
    announced_condition(cluster, name)
        .map(|is| (is.reason.to_string(), is.message.to_string()))
        .unwrap_or_default()
}

/// Returns the relation of each node to the first address of a Service.
fn verdicts(cluster: &Cluster, name: &str) -> Vec<NodeVerdict> {
    let explanation = cluster.state.explain(&key(name)).expect("a Service");
    explanation.explained.into_iter().next().expect("an address").nodes
}

fn interface_issue(reason: InterfaceIssueReason, node: Option<&str>) -> InterfaceIssue {
    InterfaceIssue {
        address: ADDRESS.parse().unwrap(),
        reason,
        mac: "02:00:00:00:00:99".to_owned(),
        node: node.map(Into::into),
    }
}

fn node_selector(node: &str) -> serde_json::Value {
    json!({"nodeSelectors": [{"matchLabels": {"name": node}}]})
}

/// Returns a cluster with one Service, whose address 10.0.0.0 is owned by n1.
fn owned_by_n1() -> Cluster {
    Topology {
        speakers: vec![speaker("n1", &["10.0.0.0"]), speaker("n2", &[]), speaker("n3", &[])],
        ..Topology::default()
    }
    .settled_cluster()
}

#[test]
fn a_speaker_with_megabytes_in_its_status_causes_a_short_condition() {
    let long = "x".repeat(1_000_000);
    let first = "10.0.0.0";
    let interface = |n| {
        json!({"name": format!("{n}{long}"), "mac": "", "up": true, "addresses": [first],
            "heard": ["n2", "n3"]})
    };
    let interfaces: Vec<_> = (0..30).map(interface).collect();
    let conflict = json!({"name": "eth0", "mac": "", "up": true, "heard": ["n2", "n3"], "issues": [
        {"address": first, "reason": "AddressConflict", "mac": long, "node": long}]});
    for (interfaces, expect) in [(interfaces, "Announced"), (vec![conflict], "AddressConflict")] {
        let object = json!({"metadata": {"name": "n1"}, "status": {"interfaces": interfaces}});
        let object: api::SpeakerStatusObject = serde_json::from_value(object).unwrap();
        let mut cluster = owned_by_n1();
        report_speaker(&mut cluster, object.into());
        cluster.settle();
        let (reason, message) = reason_and_message(&cluster, "a");
        assert_eq!(reason, expect, "{} bytes", message.len());
        assert!(message.len() <= api::MESSAGE_LENGTH_MAX, "{} bytes", message.len());
    }
}

#[test]
fn an_address_is_written_before_its_announced_condition() {
    let mut cluster = Topology::default().new_cluster();
    let writes = cluster.writes();
    let Status::Service(_, status) = &writes[0].status else { panic!("{writes:?}") };
    assert_eq!((joined(&status.addresses), &status.announced), ("10.0.0.0".to_owned(), &None));
    cluster.settle();
    assert_eq!(reason_and_message(&cluster, "a").0, "Pending");
    let kinds: Vec<_> =
        cluster.services[&key("a")].conditions.iter().map(|condition| condition.kind).collect();
    assert_eq!(
        kinds,
        [ServiceConditionType::AddressAssigned, ServiceConditionType::Announced],
        "a Service has both conditions"
    );
}

#[test]
fn announced_is_written_at_once_and_not_announced_after_a_delay() {
    let mut cluster = owned_by_n1();
    assert_eq!(
        reason_and_message(&cluster, "a"),
        ("Announced".into(), "10.0.0.0 from n1 (eth0)".into())
    );
    let remove_endpoints = |cluster: &mut Cluster| {
        cluster.handle(Event::of::<EndpointSlice>(Change::Apply(endpoint_slice("a", &[]))))
    };
    // A pod is replaced: for a short time, no node announces the address.
    remove_endpoints(&mut cluster);
    report_speaker(&mut cluster, speaker("n1", &[]));
    cluster.now = cluster.now + CONDITION_DELAY / 2;
    cluster.handle(Event::Tick);
    assert_eq!(cluster.writes(), []);
    cluster.handle(Event::of::<EndpointSlice>(Change::Apply(endpoint_slice("a", &["n2"]))));
    report_speaker(&mut cluster, speaker("n2", &["10.0.0.0"]));
    assert_eq!(cluster.writes().len(), 1, "the condition with the new owner is written at once");
    cluster.settle();
    assert_eq!(reason_and_message(&cluster, "a").1, "10.0.0.0 from n2 (eth0)");
    let start = cluster.now;
    remove_endpoints(&mut cluster);
    report_speaker(&mut cluster, speaker("n2", &[]));
    cluster.settle();
    assert_eq!(reason_and_message(&cluster, "a").0, "NoEndpoints");
    assert!(cluster.now.since(start) >= CONDITION_DELAY, "{:?}", cluster.now.since(start));
}

#[test]
fn events_report_announcements_and_failures_but_no_moves() {
    let mut cluster = owned_by_n1();
    report_speaker(&mut cluster, speaker("n1", &[]));
    report_speaker(&mut cluster, speaker("n2", &["10.0.0.0"]));
    cluster.settle();
    report_speaker(&mut cluster, speaker("n2", &[]));
    cluster.settle();
    report_speaker(&mut cluster, speaker("n3", &["10.0.0.0"]));
    cluster.settle();
    let events: Vec<_> = cluster
        .notices
        .iter()
        .map(|notice| (&*notice.reason, notice.warning, notice.action))
        .collect();
    let announce = crate::desired::EventAction::Announce;
    let expect = [
        ("Assigned", false, crate::desired::EventAction::AssignAddress),
        ("Announced", false, announce),
        ("Pending", true, announce),
        ("Announced", false, announce),
    ];
    assert_eq!(events, expect);
}

#[test]
fn a_handover_is_written_when_it_ends_or_lasts() {
    let mut cluster = owned_by_n1();
    report_speaker(&mut cluster, speaker("n2", &["10.0.0.0"]));
    assert_eq!(cluster.writes(), []);
    report_speaker(&mut cluster, speaker("n1", &[]));
    cluster.settle();
    assert_eq!(reason_and_message(&cluster, "a").1, "10.0.0.0 from n2 (eth0)");
    report_speaker(&mut cluster, speaker("n1", &["10.0.0.0"]));
    cluster.settle();
    assert_eq!(reason_and_message(&cluster, "a").1, "10.0.0.0 from n1 (eth0) and n2 (eth0)");
}

#[test]
fn the_condition_is_removed_with_its_address() {
    let mut cluster = owned_by_n1();
    cluster.apply_pool(pool("lan", &["10.0.0.9"]));
    let writes = cluster.writes();
    let moved = writes.iter().find_map(|write| match &write.status {
        Status::Service(_, status) => Some(status),
        Status::CustomResource(..) | Status::AddressMemory(_) => None,
    });
    assert_eq!(
        moved.map(|status| (joined(&status.addresses), &status.announced)),
        Some(("10.0.0.9".to_owned(), &None))
    );
    cluster.settle();
    assert_eq!(reason_and_message(&cluster, "a").0, "Pending");
    cluster.delete_pool("lan");
    cluster.settle();
    assert_eq!(
        announced_condition(&cluster, "a"),
        None,
        "a Service without an address has no condition Announced"
    );
}

#[test]
fn endpoints_of_services_that_share_the_address_count() {
    let sharing = |name: &str, port| {
        let mut service = service(name);
        service.demand.request.sharing_key = Some("k".into());
        service.demand.ports =
            [ferrolb_proto::facts::ServicePort { protocol: "TCP".into(), port }].into();
        service
    };
    let two_services = |slices| Topology {
        services: vec![sharing("a", 80), sharing("b", 81)],
        slices,
        ..Topology::default()
    };
    let mut cluster = two_services(vec![endpoint_slice("b", &["n1"])]).settled_cluster();
    assert_eq!(cluster.statuses(), ["a=10.0.0.0", "b=10.0.0.0"]);
    assert_eq!(
        (reason_and_message(&cluster, "a").0, reason_and_message(&cluster, "b").0),
        ("Pending".into(), "Pending".into()),
        "Service b has an endpoint, so a node is eligible for the address"
    );
    cluster.handle(Event::of::<EndpointSlice>(Change::Delete(key("b-1"))));
    cluster.settle();
    assert_eq!(
        (reason_and_message(&cluster, "a").0, reason_and_message(&cluster, "b").0),
        ("NoEndpoints".into(), "NoEndpoints".into())
    );
}

fn cluster_scoped_key(name: &str) -> Key {
    Key::new("", name)
}

#[test]
fn an_owner_has_phrases_for_the_end_of_its_eligibility_and_for_a_slower_failover() {
    let mut owner = speaker("n2", &["10.0.0.0"]);
    owner.interfaces[0].late_hellos =
        Some(LateHellos { milliseconds: 640, detection_milliseconds: 990 });
    let cluster = Topology {
        services: vec![Service { policy: TrafficPolicy::Local, ..service("a") }],
        slices: vec![endpoint_slice("a", &["n1"])],
        speakers: vec![speaker("n1", &[]), owner, speaker("n3", &[])],
        ..Topology::default()
    };
    let verdicts = verdicts(&cluster.settled_cluster(), "a");
    let flaws = |node: usize| match &verdicts[node].layer2 {
        Some(Verdict::Announces { flaws, .. } | Verdict::Candidate { flaws, .. }) => &**flaws,
        _ => &["neither"],
    };
    assert_eq!(flaws(0), [""; 0]);
    assert_eq!(flaws(1), ["no longer eligible, hands over", "busy, slower failover"]);
}
