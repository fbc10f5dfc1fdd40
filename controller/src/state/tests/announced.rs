//! The condition `Announced`: what it says of whom, when it is written, and when not.

mod bgp;
mod remarks;
mod when;

use ferrolb_proto::api::{LinkTrouble, TroubleReason, Truth};
use ferrolb_proto::facts::{Endpoint, Policy, Slice, Speaker, SpeakerLink, Usable};
use serde_json::json;

use super::*;
use crate::state::announced::PATIENCE;

const ADDRESS: &str = "10.0.0.1";

/// A cluster of three nodes whose speakers hear each other, and one Service with an endpoint on each node.
struct Cast {
    services: Vec<Service>,
    slices: Vec<Slice>,
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
    /// In office, and all is written that there is to write.
    fn world(self) -> World {
        let mut world = self.begun();
        world.settle();
        world
    }

    /// Before anything is written.
    fn begun(self) -> World {
        let mut world = World::unled(self.services.clone(), vec![pool("lan", &["10.0.0.0/24", "fd00::/64"])]);
        world.state = State::new(Config { group: self.group.to_owned(), ..config() });
        world.nodes = self.nodes.iter().cloned().map(|node| (node.name.clone(), node)).collect();
        self.tell(&mut world, Order::ByName);
        world
    }

    /// Gives the state of a world the lease and every list.
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

fn feed<F>(world: &mut World, changes: impl Iterator<Item = Change<F>>, wrap: fn(Change<F>) -> Event) {
    let changes = [Change::ResyncStarted].into_iter().chain(changes).chain([Change::ResyncDone]);
    changes.for_each(|change| world.handle(wrap(change)));
}

fn ad(i: usize, spec: &serde_json::Value) -> Advertisement {
    let object = json!({"metadata": {"name": format!("l2-{i}")}, "spec": spec});
    serde_json::from_value::<api::L2>(object).unwrap().into()
}

fn ready(name: &str) -> Node {
    let labels = [("name".to_owned(), name.to_owned())].into();
    Node { name: name.into(), labels, ready: true, ..Node::default() }
}

fn slice(service: &str, nodes: &[&str]) -> Slice {
    let endpoint = |node: &&str| Endpoint {
        node: Some((*node).into()),
        family: Family::V4,
        ready: true,
        serving: true,
        terminating: false,
    };
    Slice {
        key: key(&format!("{service}-1")),
        service: Some(key(service)),
        endpoints: nodes.iter().map(endpoint).collect(),
        ..Slice::default()
    }
}

/// The same endpoints in another family.
fn of(family: Family, mut slice: Slice) -> Slice {
    slice.endpoints.iter_mut().for_each(|endpoint| endpoint.family = family);
    slice.key.name = format!("{}-{family}", slice.key.name).into();
    slice
}

/// A speaker on one link that hears the other two, with these addresses.
fn speaker(node: &str, addresses: &[&str]) -> Speaker {
    let heard = ["n1", "n2", "n3"].into_iter().filter(|other| *other != node).map(Into::into).collect();
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let link = SpeakerLink { name: "eth0".into(), up: true, heard, addresses, ..SpeakerLink::default() };
    Speaker { node: node.into(), links: [link].into(), ..Speaker::default() }
}

fn says(world: &mut World, speaker: Speaker) {
    world.handle(Event::Speaker(Change::Apply(speaker)));
}

fn announced(world: &World, name: &str) -> Option<ConditionFact> {
    world.services[&key(name)].condition(ConditionKind::Announced).cloned()
}

/// Reason and message.
fn told(world: &World, name: &str) -> (String, String) {
    announced(world, name).map(|is| (is.reason.to_string(), is.message.to_string())).unwrap_or_default()
}

fn trouble(reason: TroubleReason, node: Option<&str>) -> LinkTrouble {
    LinkTrouble {
        address: ADDRESS.parse().unwrap(),
        reason,
        mac: "02:00:00:00:00:99".to_owned(),
        node: node.map(Into::into),
    }
}

fn select(node: &str) -> serde_json::Value {
    json!({"nodeSelectors": [{"matchLabels": {"name": node}}]})
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_reason_is_said_with_what_a_person_needs_to_know() {
    let local = |nodes: &[&str]| Cast {
        services: vec![Service { policy: Policy::Local, ..service("a") }],
        slices: vec![slice("a", nodes)],
        ..Cast::default()
    };
    let speaking = |change: fn(&mut SpeakerLink)| {
        let mut cast = Cast::default();
        cast.speakers.iter_mut().for_each(|speaker| change(&mut speaker.links[0]));
        cast
    };
    let troubled = |has: &[&str], trouble: LinkTrouble| {
        let mut cast = Cast::default();
        cast.speakers[1] = speaker("n2", has);
        cast.speakers[1].links[0].troubles = [trouble].into();
        cast
    };
    let mut counted = local(&["n1"]);
    counted.nodes[0].excluded = true;
    counted.ads = vec![select("n1"), select("n3")];
    let mut away = Cast::default();
    away.nodes.iter_mut().for_each(|node| node.unreachable = true);
    let mut proxy = Cast::default();
    proxy.services[0].demand.request.mode = Some(IpMode::Proxy);
    let going = |mut slice: Slice| {
        slice.endpoints.iter_mut().for_each(|endpoint| (endpoint.ready, endpoint.terminating) = (false, true));
        slice
    };
    let asking = |usable| Cast {
        services: vec![Service { usable, ..service("a") }],
        slices: vec![going(slice("a", &["n1"]))],
        ..Cast::default()
    };
    let mut nodeless = local(&["n1"]);
    nodeless.slices[0].endpoints[0].node = None;
    let mut parted = local(&["n1"]);
    parted.services[0].families = vec![Family::V4, Family::V6];
    parted.slices.push(of(Family::V6, slice("a", &["n2"])));
    let alone = |node| {
        let mut speaker = speaker(node, &[ADDRESS]);
        speaker.links[0].heard = Box::default();
        speaker
    };
    let seven = ["n1", "n2", "n3", "n4", "n5", "n6", "n7"];
    let other_link = Cast { ads: vec![json!({"interfaces": ["eth7"]})], ..Cast::default() };
    let cases: Vec<(&str, Cast, Truth, &str, &[&str])> = vec![
        (
            "owner",
            Cast {
                speakers: vec![speaker("n1", &[]), speaker("n2", &[ADDRESS]), speaker("n3", &[])],
                ..Cast::default()
            },
            Truth::True,
            "Announced",
            &["10.0.0.1 from n2 (eth0)"],
        ),
        (
            "seven owners, each alone on its segment",
            Cast { nodes: seven.map(ready).into(), speakers: seven.map(alone).into(), ..Cast::default() },
            Truth::True,
            "Announced",
            &["from n1 (eth0) and n2 (eth0) and n3 (eth0) and n4 (eth0) and n5 (eth0) and 2 more"],
        ),
        (
            "no pod",
            Cast { slices: vec![slice("a", &[])], ..Cast::default() },
            Truth::False,
            "NoEndpoints",
            &["10.0.0.1 is not announced: no endpoint"],
        ),
        ("no slice", Cast { slices: vec![], ..Cast::default() }, Truth::False, "NoEndpoints", &["its pods"]),
        (
            "no advertisement",
            Cast { ads: vec![], ..Cast::default() },
            Truth::False,
            "NoAdvertisement",
            &["selects pool lan and this Service"],
        ),
        (
            "another pool's",
            Cast { ads: vec![json!({"ipAddressPools": ["wan"]})], ..Cast::default() },
            Truth::False,
            "NoAdvertisement",
            &["pool lan"],
        ),
        (
            "another Service's",
            Cast { ads: vec![json!({"serviceSelectors": [{"matchLabels": {"a": "b"}}]})], ..Cast::default() },
            Truth::False,
            "NoAdvertisement",
            &["pool lan"],
        ),
        (
            "counted",
            counted,
            Truth::False,
            "NoCandidateNode",
            &["of 3 nodes: 1 labelled exclude-from-external-load-balancers, \
            1 not selected by an advertisement, 1 without usable endpoint (externalTrafficPolicy Local)"],
        ),
        ("all away", away, Truth::False, "NoCandidateNode", &["of 3 nodes: 3 with its network unavailable"]),
        (
            "no such link",
            other_link,
            Truth::False,
            "NoCandidateNode",
            &["3 without a link that speaks and is selected"],
        ),
        ("muted", speaking(|link| link.muted = true), Truth::False, "NoCandidateNode", &["3 without a link"]),
        (
            "deaf",
            speaking(|link| link.deaf = true),
            Truth::False,
            "SpeakersDeaf",
            &["n1, n2, n3", "look at the network"],
        ),
        ("no speaker", Cast { speakers: vec![], ..Cast::default() }, Truth::False, "NoSpeaker", &["n1, n2, n3"]),
        ("nobody yet", local(&["n2"]), Truth::False, "Pending", &["n2 may announce it"]),
        (
            "a stranger",
            troubled(&[ADDRESS], trouble(TroubleReason::AddressConflict, None)),
            Truth::False,
            "AddressConflict",
            &["somebody else (02:00:00:00:00:99, seen by n2), and so does n2 (eth0)"],
        ),
        (
            "a kernel",
            troubled(&[], trouble(TroubleReason::KernelAnswers, Some("n3"))),
            Truth::False,
            "KernelAnswers",
            &["kernel of n3", "strictARP"],
        ),
        (
            "a proxy",
            troubled(&[ADDRESS], trouble(TroubleReason::AnsweredByProxy, None)),
            Truth::True,
            "Announced",
            &["from n2 (eth0), while 02:00:00:00:00:99 goes on answering"],
        ),
        (
            "a group",
            troubled(&[ADDRESS], trouble(TroubleReason::GroupNotJoined, None)),
            Truth::True,
            "Announced",
            &["from n2 (eth0), which may not hear", "the group of 02:00:00:00:00:99"],
        ),
        ("ipMode Proxy", proxy, Truth::False, "NoDataPath", &["Proxy,announce"]),
        (
            "IPv6",
            Cast {
                services: vec![Service { families: vec![Family::V6], ..service("a") }],
                slices: vec![of(Family::V6, slice("a", &["n1", "n2", "n3"]))],
                ..Cast::default()
            },
            Truth::False,
            "Pending",
            &["fd00::1 is not announced", "n1, n2, n3 may announce it"],
        ),
        (
            "IPv6, and endpoints of IPv4",
            Cast { services: vec![Service { families: vec![Family::V6], ..service("a") }], ..Cast::default() },
            Truth::False,
            "NoEndpoints",
            &["no IPv6 endpoint of the Service is ready, or serving while it terminates;"],
        ),
        (
            "asks for ready ones",
            asking(Usable::Ready),
            Truth::False,
            "NoEndpoints",
            &["no endpoint of the Service is ready, as ferrolb.io/usable asks;"],
        ),
        (
            "asks for serving ones",
            Cast { slices: vec![], ..asking(Usable::Serving) },
            Truth::False,
            "NoEndpoints",
            &["no endpoint of the Service is serving, as ferrolb.io/usable asks;"],
        ),
        (
            "endpoints on no node",
            nodeless,
            Truth::False,
            "NoCandidateNode",
            &[
                "of 3 nodes: 3 without usable endpoint (externalTrafficPolicy Local); its usable endpoints have no nodeName, so",
            ],
        ),
        (
            "families on different nodes",
            parted,
            Truth::False,
            "NoCandidateNode",
            &["of 3 nodes: 3 without usable endpoints of both families (externalTrafficPolicy Local)"],
        ),
        (
            "both families",
            Cast {
                services: vec![dual("a")],
                speakers: vec![speaker("n1", &["10.0.0.0"]), speaker("n2", &[]), speaker("n3", &[])],
                ..Cast::default()
            },
            Truth::False,
            "Pending",
            &["fd00::1 is not announced", "; 10.0.0.0 from n1 (eth0)"],
        ),
        (
            "another group",
            Cast { group: "metallb.io", ..Cast::default() },
            Truth::Unknown,
            "NotObserved",
            &["from n1, n2, n3"],
        ),
        (
            "another group, no pod",
            Cast { group: "metallb.io", slices: vec![], ..Cast::default() },
            Truth::False,
            "NoEndpoints",
            &["pods"],
        ),
    ];
    for (what, mut cast, status, reason, words) in cases {
        // The one IPv4 address is not the first of its pool, whose name is none for an address.
        if cast.services[0].families == [Family::V4] {
            cast.services[0].demand.request.addresses = vec![ADDRESS.parse().unwrap()];
        }
        let world = cast.world();
        let is = announced(&world, "a").unwrap_or_else(|| panic!("{what}: nothing is said"));
        assert_eq!((is.status, &*is.reason), (status, reason), "{what}: {}", is.message);
        words.iter().for_each(|word| assert!(is.message.contains(word), "{what}: {:?}", is.message));
    }
}

/// One Service that has its address and whose owner is n1.
fn owned() -> World {
    Cast { speakers: vec![speaker("n1", &["10.0.0.0"]), speaker("n2", &[]), speaker("n3", &[])], ..Cast::default() }
        .world()
}

#[test]
fn an_address_is_written_without_waiting_for_who_announces_it() {
    let mut world = Cast::default().begun();
    let writes = world.writes();
    let Status::Service(status) = &writes[0].status else { panic!("{writes:?}") };
    assert_eq!((text(&status.addresses), &status.announced), ("10.0.0.0".to_owned(), &None));
    world.settle();
    assert_eq!(told(&world, "a").0, "Pending");
    let kinds: Vec<_> = world.services[&key("a")].conditions.iter().map(|condition| condition.kind).collect();
    assert_eq!(kinds, [ConditionKind::AddressAssigned, ConditionKind::Announced], "one does not take the other away");
}

#[test]
fn who_is_announced_is_told_at_once_and_who_is_not_when_that_has_lasted() {
    let mut world = owned();
    assert_eq!(told(&world, "a"), ("Announced".into(), "10.0.0.0 from n1 (eth0)".into()));
    let gone = |world: &mut World| world.handle(Event::Slice(Change::Apply(slice("a", &[]))));
    // A pod is replaced: between the two nobody announces, for less than anybody cares about.
    gone(&mut world);
    says(&mut world, speaker("n1", &[]));
    world.now = world.now + PATIENCE / 2;
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
    assert!(world.now.since(start) >= PATIENCE, "{:?}", world.now.since(start));
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
    let told: Vec<_> = world.notices.iter().map(|notice| (&*notice.reason, notice.warning, notice.action)).collect();
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
        Status::Service(status) => Some(status),
        Status::Pool(_) | Status::Peer(_) | Status::Valid(_) => None,
    });
    assert_eq!(moved.map(|status| (text(&status.addresses), &status.announced)), Some(("10.0.0.9".to_owned(), &None)));
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
        service.demand.ports = [ferrolb_proto::facts::Port { protocol: "TCP".into(), port }].into();
        service
    };
    let both = |slices| Cast { services: vec![sharing("a", 80), sharing("b", 81)], slices, ..Cast::default() };
    let mut world = both(vec![slice("b", &["n1"])]).world();
    assert_eq!(world.shown(), ["a=10.0.0.0", "b=10.0.0.0"]);
    assert_eq!((told(&world, "a").0, told(&world, "b").0), ("Pending".into(), "Pending".into()), "b is served");
    world.handle(Event::Slice(Change::Delete(key("b-1"))));
    world.settle();
    assert_eq!((told(&world, "a").0, told(&world, "b").0), ("NoEndpoints".into(), "NoEndpoints".into()));
}

fn bare_key(name: &str) -> Key {
    Key::new("", name)
}
