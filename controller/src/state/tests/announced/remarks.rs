//! Warnings in the `Announced` condition: their words and order, and when they are written.

mod cases;

use ferrolb_proto::api::{KubeProxyState, KubeProxyStatus};
use ferrolb_proto::facts::{FailingHealthCheck, ServiceObject};

use super::*;
use crate::state::announced::CONDITION_INTERVAL;

/// Speaker of n1 to n3 with these addresses and the failed health check of each Service. A reason
/// with an endpoint in brackets is of IPv6.
fn failing(node: &str, addresses: &[&str], failing: &[(&str, &str)]) -> Speaker {
    let family = |why: &str| if why.starts_with('[') { Family::V6 } else { Family::V4 };
    let failing = failing.iter().map(|(name, why)| FailingHealthCheck {
        service: key(name),
        family: family(why),
        why: (*why).into(),
    });
    Speaker { failing: failing.collect(), ..speaker(node, addresses) }
}

fn broken(node: &str, addresses: &[&str], why: &str) -> Speaker {
    let path = KubeProxyStatus { state: KubeProxyState::Unhealthy, message: why.to_owned() };
    Speaker { kube_proxy: Some(Box::new(path)), ..speaker(node, addresses) }
}

/// Service with an invalid annotation.
fn slip(name: &str) -> Service {
    let object = json!({"metadata": {"annotations": {"ferrolb.io/endpoint-condition": "Ready"}}});
    let read = Service::read(serde_json::from_value::<ServiceObject>(object).unwrap(), api::GROUP);
    Service { endpoint_condition_problem: read.endpoint_condition_problem, ..service(name) }
}

const SLIP: &str = "annotation ferrolb.io/endpoint-condition: \"Ready\" is not valid: write ready \
                    or serving, or remove it; until then only the readiness of endpoints counts";
const LABELLED: &str = "every Node has the label \
                        node.kubernetes.io/exclude-from-external-load-balancers, so it is ignored";

/// Service announced from n1, with these speakers.
fn cast(speakers: Vec<Speaker>) -> Cast {
    Cast { speakers, ..Cast::default() }
}

fn excluded() -> Vec<Node> {
    ["n1", "n2", "n3"].map(|name| Node { excluded: true, ..ready(name) }).into()
}

/// Returns the message without its first part, which names the announcing nodes.
fn remarks(world: &World) -> String {
    let (reason, message) = told(world, "a");
    assert_eq!(reason, "Announced", "{message}");
    message.split_once("; ").map(|(_, rest)| rest.to_owned()).unwrap_or_default()
}

#[test]
fn every_remark_is_said_in_its_words() {
    for (what, cast, expect) in cases::all() {
        assert_eq!(remarks(&cast.world()), expect, "{what}");
    }
}

#[test]
fn of_many_nodes_that_fail_three_are_named() {
    let names: Vec<_> = (1..=6).map(|n| format!("n{n}")).collect();
    let nodes: Vec<&str> = names.iter().map(String::as_str).collect();
    let of = |node: &&str| {
        let mut speaker = failing(
            node,
            if *node == "n1" { &["10.0.0.0"] } else { &[] },
            &[("a", &"x".repeat(160))],
        );
        speaker.interfaces[0].hello_senders =
            nodes.iter().filter(|other| *other != node).map(|name| (*name).into()).collect();
        if *node == "n1" { Speaker { failing: Box::default(), ..speaker } } else { speaker }
    };
    let cast = Cast {
        nodes: nodes.iter().map(|name| ready(name)).collect(),
        slices: vec![slice("a", &nodes)],
        speakers: nodes.iter().map(of).collect(),
        ..Cast::default()
    };
    let said = remarks(&cast.world());
    assert!(
        said.starts_with("all endpoints on n2, n3, n4 and 2 more fail their health check (xxx"),
        "{said}"
    );
    assert!(said.ends_with("xxx and 2 more): check these pods") && said.len() < 600, "{said}");
}

#[test]
fn that_the_label_is_ignored_is_said_only_while_every_node_carries_it() {
    let excluded = |name| Node { excluded: true, ..ready(name) };
    let speakers = vec![speaker("n1", &[]), speaker("n2", &[]), speaker("n3", &["10.0.0.0"])];
    let mut world =
        Cast { nodes: vec![excluded("n1"), excluded("n2"), ready("n3")], ..cast(speakers) }.world();
    let mut say = |change| {
        world.handle(Event::Node(change));
        world.settle();
        remarks(&world)
    };
    assert_eq!(say(Change::Apply(ready("n3"))), "", "one can be sent traffic");
    assert_eq!(say(Change::Apply(excluded("n3"))), LABELLED);
    assert_eq!(say(Change::Apply(ready("n4"))), "", "an only node without it is new");
    assert_eq!(say(Change::Delete(Key::new("", "n4"))), LABELLED, "and gone");
    let mut alone = speaker("n1", &["10.0.0.0"]);
    alone.interfaces[0].hello_senders = Box::default();
    let alone = Cast { nodes: vec![excluded("n1")], ..cast(vec![alone]) };
    assert_eq!(remarks(&alone.world()), LABELLED, "as on a fresh cluster of one node");
}

#[test]
fn a_slip_is_said_whatever_the_reason_and_all_else_only_of_what_is_announced() {
    let cast = Cast {
        nodes: excluded(),
        services: vec![slip("a")],
        slices: vec![],
        speakers: vec![
            broken("n1", &[], "x"),
            failing("n2", &[], &[("a", "x")]),
            speaker("n3", &[]),
        ],
        ..Cast::default()
    };
    let (reason, message) = told(&cast.world(), "a");
    let rest = message.split_once(": check its pods and spec.selector; ").map(|(_, rest)| rest);
    assert_eq!((&*reason, rest), ("NoEndpoints", Some(SLIP)));
}

/// Returns the Services whose statuses are due.
fn due(world: &World) -> Vec<Target> {
    let writes = world.writes().into_iter().map(|write| write.target());
    writes.filter(|target| matches!(target, Target::Service(_))).collect()
}

#[test]
fn a_check_that_begins_to_fail_is_written_to_its_service_alone_and_no_event() {
    let slices = vec![slice("a", &["n1", "n2"]), slice("b", &["n1", "n2"])];
    let speakers =
        || vec![speaker("n1", &["10.0.0.0", "10.0.0.1"]), speaker("n2", &[]), speaker("n3", &[])];
    let services = vec![service("a"), service("b")];
    let mut world = Cast { services, slices, ..cast(speakers()) }.world();
    let events = world.notices.len();
    world.now = world.now + CONDITION_INTERVAL;
    says(&mut world, failing("n1", &["10.0.0.0", "10.0.0.1"], &[("b", "10.1.2.3:80: timeout")]));
    assert_eq!(due(&world), [Target::Service(key("b"))]);
    world.settle();
    let fails =
        "all endpoints on n1 fail their health check (10.1.2.3:80: timeout): check these pods";
    assert_eq!(told(&world, "b").1, format!("10.0.0.1 from n1 (eth0); {fails}"));
    // The address moves to the node whose health check passes.
    says(&mut world, failing("n1", &["10.0.0.0"], &[("b", "10.1.2.3:80: timeout")]));
    says(&mut world, speaker("n2", &["10.0.0.1"]));
    world.settle();
    assert_eq!(told(&world, "b").1, format!("10.0.0.1 from n2 (eth0); {fails}"));
    says(&mut world, speaker("n1", &["10.0.0.0"]));
    world.settle();
    assert_eq!(told(&world, "b").1, "10.0.0.1 from n2 (eth0)");
    assert_eq!(world.notices.len(), events, "{:?}", world.notices);
}

#[test]
fn a_check_that_flaps_is_written_once_a_second_at_most_and_makes_no_event() {
    let mut world = owned();
    let (events, written, start) = (world.notices.len(), world.log.len(), world.now);
    for round in 0..200_u64 {
        let fails = [("a", "10.1.2.3:80: timeout")];
        says(&mut world, failing("n2", &[], if round % 2 == 0 { &fails } else { &[] }));
        for write in world.writes() {
            world.write(&write);
        }
        world.now =
            world.now.max(start + Duration::from_millis(50) * u32::try_from(round).unwrap());
        world.handle(Event::Tick);
    }
    let seconds = usize::try_from(world.now.since(start).as_secs()).unwrap();
    let writes = world.log.len() - written;
    assert!((5..=seconds + 1).contains(&writes), "{writes} writes in {seconds} s");
    assert_eq!(CONDITION_INTERVAL, Duration::from_secs(1));
    world.settle();
    assert_eq!((remarks(&world), world.notices.len()), (String::new(), events));
}

#[test]
fn an_address_that_moves_because_a_check_fails_is_written_once() {
    let speakers = vec![speaker("n1", &["10.0.0.0"]), speaker("n2", &[]), speaker("n3", &[])];
    let services = vec![Service { policy: TrafficPolicy::Local, ..service("a") }];
    let mut world = Cast { services, ..cast(speakers) }.world();
    let (before, events) = (world.log.len(), world.notices.len());
    world.now = world.now + CONDITION_INTERVAL;
    says(&mut world, failing("n1", &["10.0.0.0"], &[("a", "x")]));
    assert_eq!(due(&world), []);
    says(&mut world, failing("n1", &[], &[("a", "x")]));
    says(&mut world, speaker("n2", &["10.0.0.0"]));
    world.settle();
    assert_eq!(
        told(&world, "a").1,
        "10.0.0.0 from n2 (eth0); all endpoints on n1 fail their health check (x): check these pods"
    );
    assert_eq!((world.log.len() - before, world.notices.len()), (1, events));
}

#[test]
fn that_an_unsound_node_announces_is_told_when_no_better_one_has_come_for_a_while() {
    let mut world = owned();
    let start = world.now;
    says(&mut world, Speaker { draining: true, ..speaker("n1", &["10.0.0.0"]) });
    assert_eq!(due(&world), []);
    // A drain hands the address over: only the new owner is written.
    says(&mut world, Speaker { draining: true, ..speaker("n1", &[]) });
    says(&mut world, speaker("n2", &["10.0.0.0"]));
    let before = world.log.len();
    world.settle();
    assert_eq!(
        (told(&world, "a").1, world.log.len() - before),
        ("10.0.0.0 from n2 (eth0)".into(), 1)
    );
    says(&mut world, broken("n2", &["10.0.0.0"], "x"));
    world.settle();
    assert!(remarks(&world).starts_with("n2 announces it although"), "{}", remarks(&world));
    assert!(world.now.since(start) >= CONDITION_DELAY);
    says(&mut world, speaker("n2", &["10.0.0.0"]));
    world.settle();
    assert_eq!(remarks(&world), "");
}

#[test]
fn a_slip_that_is_put_right_is_noticed_and_a_restart_writes_nothing() {
    let speakers = || {
        vec![
            broken("n1", &["10.0.0.0"], "x"),
            failing("n2", &[], &[("a", "y")]),
            speaker("n3", &[]),
        ]
    };
    let mut world = Cast { services: vec![slip("a")], ..cast(speakers()) }.world();
    assert!(remarks(&world).contains(SLIP));
    for seed in 0..20 {
        world.state = State::new(config());
        world.log.clear();
        Cast { services: vec![slip("a")], ..cast(speakers()) }
            .tell(&mut world, Order::Shuffled(Chance(seed + 1)));
        world.settle();
        assert_eq!(world.log, [""; 0], "seed {seed}");
    }
    world.change("a", |service| service.endpoint_condition_problem = None);
    world.settle();
    assert!(!remarks(&world).contains("annotation"), "{}", remarks(&world));
}

#[test]
fn what_the_annotation_asks_for_is_noticed_when_it_changes() {
    let mut going = slice("a", &["n1"]);
    (going.endpoints[0].ready, going.endpoints[0].terminating) = (false, true);
    let mut world = Cast { slices: vec![going], ..Cast::default() }.world();
    assert_eq!(told(&world, "a").0, "Pending");
    world.change("a", |service| service.endpoint_condition = EndpointCondition::Ready);
    world.settle();
    assert_eq!(told(&world, "a").0, "NoEndpoints");
}

/// Returns the number of Services by reason, as in the metrics.
fn counts(world: &World) -> Vec<String> {
    let all = world.state.figures().announced.into_iter().filter(|(_, count)| *count != 0);
    all.map(|(reason, count)| format!("{reason} {count}")).collect()
}

/// Checks that the counters match a recount of the conditions.
fn agrees(world: &World) {
    let reasons = world
        .services
        .values()
        .filter_map(|service| service.condition(ServiceConditionType::Announced));
    let mut recount = BTreeMap::<&str, i64>::new();
    reasons.for_each(|condition| *recount.entry(&condition.reason).or_default() += 1);
    let mut recount: Vec<_> =
        recount.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let mut is = counts(world);
    recount.sort();
    is.sort();
    assert_eq!(is, recount);
}

#[test]
fn services_are_counted_by_the_reason_of_their_condition_as_it_changes() {
    let cast = || Cast {
        services: ["a", "b", "c", "d"].map(service).into(),
        slices: vec![slice("a", &["n1"]), slice("b", &["n2"]), slice("d", &["n3"])],
        ..cast(vec![speaker("n1", &["10.0.0.0"]), speaker("n2", &[]), speaker("n3", &["10.0.0.3"])])
    };
    let mut world = cast().world();
    assert_eq!(counts(&world), ["NoEndpoints 1", "Pending 1", "Announced 2"]);
    says(&mut world, speaker("n3", &[]));
    world.settle();
    assert_eq!(counts(&world), ["NoEndpoints 1", "Pending 2", "Announced 1"]);
    agrees(&world);
    world.delete("c");
    world.change("d", |service| service.load_balancer = false);
    world.settle();
    assert_eq!(counts(&world), ["Pending 1", "Announced 1"]);
    agrees(&world);
    world.delete_pool("lan");
    world.settle();
    assert_eq!(counts(&world), [""; 0], "without an address there is no condition");
    agrees(&world);
    // A controller that takes over counts the written conditions.
    let mut world = cast().world();
    world.state = State::new(config());
    cast().tell(&mut world, Order::ByName);
    assert_eq!(counts(&world), ["NoEndpoints 1", "Pending 1", "Announced 2"]);
    world.handle(Event::Lease(Leadership::Lost));
    assert_eq!(counts(&world), [""; 0], "who does not lead counts nothing");
}

#[test]
fn a_reason_that_was_decided_and_never_written_counts_no_longer_than_the_address_is_there() {
    let mut world = owned();
    says(&mut world, speaker("n1", &[]));
    for wait in [CONDITION_INTERVAL, CONDITION_DELAY] {
        world.now = world.now + wait;
        world.handle(Event::Tick);
    }
    assert_eq!(
        (counts(&world), told(&world, "a").0),
        (vec!["Pending 1".to_owned()], "Announced".to_owned())
    );
    world.delete_pool("lan");
    let writes = world.writes();
    writes.iter().for_each(|write| world.write(write));
    assert_eq!((counts(&world), told(&world, "a").0), (vec![], String::new()));
}
