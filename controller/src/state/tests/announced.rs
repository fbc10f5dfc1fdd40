//! `Announced` condition: its content, and when it is written.

mod bgp;
mod reasons;
mod remarks;
mod when;

use ferrolb_proto::api::{ConditionStatus, InterfaceIssue, InterfaceIssueReason};
use ferrolb_proto::facts::{
    Endpoint, EndpointCondition, EndpointSlice, Speaker, SpeakerInterface, TrafficPolicy,
};
use serde_json::json;

use super::*;
use crate::state::announced::CONDITION_DELAY;

const ADDRESS: &str = "10.0.0.1";

/// Cluster of three nodes whose speakers receive each other's frames, and one Service with an
/// endpoint on each node.
struct Cast {
    services: Vec<Service>,
    slices: Vec<EndpointSlice>,
    nodes: Vec<Node>,
    ads: Vec<serde_json::Value>,
    speakers: Vec<Speaker>,
    group: &'static str,
}

impl Default for Cast {
    fn default() -> Self {
        let nodes = ["n1", "n2", "n3"];
        Self {
            services: vec![service("a")],
            slices: vec![slice("a", &nodes)],
            nodes: nodes.map(ready).into(),
            ads: vec![json!({})],
            speakers: nodes.map(|node| speaker(node, &[])).into(),
            group: api::GROUP,
        }
    }
}

impl Cast {
    /// Returns a cluster with an active leader that has nothing left to write.
    fn world(self) -> World {
        let mut world = self.begun();
        world.settle();
        world
    }

    /// Returns a cluster with an active leader, before any write.
    fn begun(self) -> World {
        let mut world =
            World::unled(self.services.clone(), vec![pool("lan", &["10.0.0.0/24", "fd00::/64"])]);
        world.state = State::new(Config { group: self.group.to_owned(), ..config() });
        world.nodes = self.nodes.iter().cloned().map(|node| (node.name.clone(), node)).collect();
        self.tell(&mut world, Order::ByName);
        world
    }

    /// Passes the lease and every list to the state of a world.
    fn tell(&self, world: &mut World, order: Order) {
        world.lead_in(order);
        let ads = self.ads.iter().enumerate().map(|(i, spec)| Change::Apply(ad(i, spec)));
        feed(world, ads, Event::Advertisement);
        feed(world, self.slices.iter().cloned().map(Change::Apply), Event::Slice);
        if self.group == api::GROUP {
            feed(world, self.speakers.iter().cloned().map(Change::Apply), Event::Speaker);
        }
    }
}

fn feed<F>(
    world: &mut World,
    changes: impl Iterator<Item = Change<F>>,
    wrap: fn(Change<F>) -> Event,
) {
    let changes = [Change::ResyncStarted].into_iter().chain(changes).chain([Change::ResyncDone]);
    changes.for_each(|change| world.handle(wrap(change)));
}

fn ad(i: usize, spec: &serde_json::Value) -> L2Advertisement {
    let object = json!({"metadata": {"name": format!("l2-{i}")}, "spec": spec});
    serde_json::from_value::<api::L2AdvertisementObject>(object).unwrap().into()
}

fn ready(name: &str) -> Node {
    let labels = [("name".to_owned(), name.to_owned())].into();
    Node { name: name.into(), labels, ready: true, ..Node::default() }
}

fn slice(service: &str, nodes: &[&str]) -> EndpointSlice {
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

/// Returns the slice with its endpoints in another family.
fn of(family: Family, mut slice: EndpointSlice) -> EndpointSlice {
    slice.endpoints.iter_mut().for_each(|endpoint| endpoint.family = family);
    slice.key.name = format!("{}-{family}", slice.key.name).into();
    slice
}

/// Speaker on one interface that receives the frames of the other two, with these addresses.
fn speaker(node: &str, addresses: &[&str]) -> Speaker {
    let heard =
        ["n1", "n2", "n3"].into_iter().filter(|other| *other != node).map(Into::into).collect();
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let link = SpeakerInterface {
        name: "eth0".into(),
        up: true,
        hello_senders: heard,
        addresses,
        ..SpeakerInterface::default()
    };
    Speaker { node: node.into(), interfaces: [link].into(), ..Speaker::default() }
}

fn says(world: &mut World, speaker: Speaker) {
    world.handle(Event::Speaker(Change::Apply(speaker)));
}

fn announced(world: &World, name: &str) -> Option<ServiceCondition> {
    world.services[&key(name)].condition(ServiceConditionType::Announced).cloned()
}

/// Returns reason and message of the condition.
fn told(world: &World, name: &str) -> (String, String) {
    announced(world, name)
        .map(|is| (is.reason.to_string(), is.message.to_string()))
        .unwrap_or_default()
}

fn trouble(reason: InterfaceIssueReason, node: Option<&str>) -> InterfaceIssue {
    InterfaceIssue {
        address: ADDRESS.parse().unwrap(),
        reason,
        mac: "02:00:00:00:00:99".to_owned(),
        node: node.map(Into::into),
    }
}

fn select(node: &str) -> serde_json::Value {
    json!({"nodeSelectors": [{"matchLabels": {"name": node}}]})
}

/// One Service that has its address and whose owner is n1.
fn owned() -> World {
    Cast {
        speakers: vec![speaker("n1", &["10.0.0.0"]), speaker("n2", &[]), speaker("n3", &[])],
        ..Cast::default()
    }
    .world()
}

#[test]
fn an_address_is_written_without_waiting_for_who_announces_it() {
    let mut world = Cast::default().begun();
    let writes = world.writes();
    let Status::Service(_, status) = &writes[0].status else { panic!("{writes:?}") };
    assert_eq!((text(&status.addresses), &status.announced), ("10.0.0.0".to_owned(), &None));
    world.settle();
    assert_eq!(told(&world, "a").0, "Pending");
    let kinds: Vec<_> =
        world.services[&key("a")].conditions.iter().map(|condition| condition.kind).collect();
    assert_eq!(
        kinds,
        [ServiceConditionType::AddressAssigned, ServiceConditionType::Announced],
        "one does not take the other away"
    );
}

#[test]
fn who_is_announced_is_told_at_once_and_who_is_not_when_that_has_lasted() {
    let mut world = owned();
    assert_eq!(told(&world, "a"), ("Announced".into(), "10.0.0.0 from n1 (eth0)".into()));
    let gone = |world: &mut World| world.handle(Event::Slice(Change::Apply(slice("a", &[]))));
    // A pod is replaced: between the two, no node announces the address, but only for a short time.
    gone(&mut world);
    says(&mut world, speaker("n1", &[]));
    world.now = world.now + CONDITION_DELAY / 2;
    world.handle(Event::Tick);
    assert_eq!(world.writes(), []);
    world.handle(Event::Slice(Change::Apply(slice("a", &["n2"]))));
    says(&mut world, speaker("n2", &["10.0.0.0"]));
    assert_eq!(world.writes().len(), 1, "the new owner is news at once");
    world.settle();
    assert_eq!(told(&world, "a").1, "10.0.0.0 from n2 (eth0)");
    let start = world.now;
    gone(&mut world);
    says(&mut world, speaker("n2", &[]));
    world.settle();
    assert_eq!(told(&world, "a").0, "NoEndpoints");
    assert!(world.now.since(start) >= CONDITION_DELAY, "{:?}", world.now.since(start));
}

#[test]
fn events_tell_the_first_owner_and_failures_and_no_move() {
    let mut world = owned();
    says(&mut world, speaker("n1", &[]));
    says(&mut world, speaker("n2", &["10.0.0.0"]));
    world.settle();
    says(&mut world, speaker("n2", &[]));
    world.settle();
    says(&mut world, speaker("n3", &["10.0.0.0"]));
    world.settle();
    let told: Vec<_> = world
        .notices
        .iter()
        .map(|notice| (&*notice.reason, notice.warning, notice.action))
        .collect();
    let announce = crate::desired::Action::Announce;
    let expect = [
        ("Assigned", false, crate::desired::Action::AssignAddress),
        ("Announced", false, announce),
        ("Pending", true, announce),
        ("Announced", false, announce),
    ];
    assert_eq!(told, expect);
}

#[test]
fn a_hand_over_changes_nothing_until_it_is_over_and_one_that_lasts_names_both() {
    let mut world = owned();
    says(&mut world, speaker("n2", &["10.0.0.0"]));
    assert_eq!(world.writes(), []);
    says(&mut world, speaker("n1", &[]));
    world.settle();
    assert_eq!(told(&world, "a").1, "10.0.0.0 from n2 (eth0)");
    says(&mut world, speaker("n1", &["10.0.0.0"]));
    world.settle();
    assert_eq!(told(&world, "a").1, "10.0.0.0 from n1 (eth0) and n2 (eth0)");
}

#[test]
fn the_condition_goes_with_the_address_and_is_about_the_one_that_is_there() {
    let mut world = owned();
    world.apply_pool(pool("lan", &["10.0.0.9"]));
    let writes = world.writes();
    let moved = writes.iter().find_map(|write| match &write.status {
        Status::Service(_, status) => Some(status),
        Status::CustomResource(..) => None,
    });
    assert_eq!(
        moved.map(|status| (text(&status.addresses), &status.announced)),
        Some(("10.0.0.9".to_owned(), &None))
    );
    world.settle();
    assert_eq!(told(&world, "a").0, "Pending");
    world.delete_pool("lan");
    world.settle();
    assert_eq!(announced(&world, "a"), None, "no address, nothing to announce");
}

#[test]
fn what_a_service_shares_its_address_with_counts_too() {
    let sharing = |name: &str, port| {
        let mut service = service(name);
        service.demand.request.sharing_key = Some("k".into());
        service.demand.ports =
            [ferrolb_proto::facts::ServicePort { protocol: "TCP".into(), port }].into();
        service
    };
    let both = |slices| Cast {
        services: vec![sharing("a", 80), sharing("b", 81)],
        slices,
        ..Cast::default()
    };
    let mut world = both(vec![slice("b", &["n1"])]).world();
    assert_eq!(world.shown(), ["a=10.0.0.0", "b=10.0.0.0"]);
    assert_eq!(
        (told(&world, "a").0, told(&world, "b").0),
        ("Pending".into(), "Pending".into()),
        "b is served"
    );
    world.handle(Event::Slice(Change::Delete(key("b-1"))));
    world.settle();
    assert_eq!(
        (told(&world, "a").0, told(&world, "b").0),
        ("NoEndpoints".into(), "NoEndpoints".into())
    );
}

fn bare_key(name: &str) -> Key {
    Key::new("", name)
}
