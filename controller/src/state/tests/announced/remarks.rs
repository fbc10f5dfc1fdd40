//! What is said beside who announces a Service: in which words and order, when it is written, and when not.

use ferrolb_proto::api::{DataPathState, DataPathStatus};
use ferrolb_proto::facts::{Failing, ServiceObject};

use super::*;
use crate::state::announced::CONDITION_INTERVAL;

/// A speaker of n1 to n3, by what it holds and why each of its Services fails: of IPv6 where that is an endpoint in brackets.
fn failing(node: &str, addresses: &[&str], failing: &[(&str, &str)]) -> Speaker {
    let family = |why: &str| if why.starts_with('[') { Family::V6 } else { Family::V4 };
    let failing =
        failing.iter().map(|(name, why)| Failing { service: key(name), family: family(why), why: (*why).into() });
    Speaker { failing: failing.collect(), ..speaker(node, addresses) }
}

fn broken(node: &str, addresses: &[&str], why: &str) -> Speaker {
    let path = DataPathStatus { state: DataPathState::Unhealthy, message: why.to_owned() };
    Speaker { data_path: Some(Box::new(path)), ..speaker(node, addresses) }
}

/// A Service with a slip in the annotation.
fn slip(name: &str) -> Service {
    let object = json!({"metadata": {"annotations": {"ferrolb.io/usable": "Ready"}}});
    let read = Service::read(serde_json::from_value::<ServiceObject>(object).unwrap(), api::GROUP);
    Service { usable_problem: read.usable_problem, ..service(name) }
}

const SLIP: &str = "annotation ferrolb.io/usable: \"Ready\" means nothing: write ready or serving, or remove it; \
                    endpoints are judged by readiness alone";
const LABELLED: &str = "every node is labelled exclude-from-external-load-balancers, so the label is ignored";

/// Announced from n1, but for what is changed.
fn cast(speakers: Vec<Speaker>) -> Cast {
    Cast { speakers, ..Cast::default() }
}

fn excluded() -> Vec<Node> {
    ["n1", "n2", "n3"].map(|name| Node { excluded: true, ..ready(name) }).into()
}

/// What is said after the first part, which says where it is announced.
fn remarks(world: &World) -> String {
    let (reason, message) = told(world, "a");
    assert_eq!(reason, "Announced", "{message}");
    message.split_once("; ").map(|(_, rest)| rest.to_owned()).unwrap_or_default()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_remark_is_said_in_its_words() {
    let has = ["10.0.0.0"];
    let sound = |node| speaker(node, &[]);
    let fails = |node| failing(node, &[], &[("a", "10.1.2.3:8080: connection refused")]);
    let n1 = || speaker("n1", &has);
    let mut nodeless = slice("a", &["n2", "n3"]);
    nodeless.endpoints[1].node = None;
    let local = || vec![Service { policy: Policy::Local, ..service("a") }];
    let mut gone = vec![n1(), fails("n2"), sound("n3")];
    gone[0].links[0].heard = ["n3".into()].into();
    gone[2].links[0].heard = ["n1".into()].into();
    let two = |speakers| Cast { services: vec![dual("a")], ..cast(speakers) };
    let both = ["10.0.0.0", "fd00::1"];
    let sharing = |name: &str, port| {
        let mut service = Service { policy: Policy::Local, ..service(name) };
        service.demand.request.sharing_key = Some("k".into());
        service.demand.ports = [ferrolb_proto::facts::Port { protocol: "TCP".into(), port }].into();
        service
    };
    let refused = "(10.1.2.3:8080: connection refused)";
    let alone = "readiness alone decides where it is announced";
    let cases: Vec<(&str, Cast, String)> = vec![
        ("nothing", cast(vec![n1(), sound("n2"), sound("n3")]), String::new()),
        (
            "one node fails",
            cast(vec![n1(), fails("n2"), sound("n3")]),
            format!("of its endpoints on n2 none passes its health check {refused}"),
        ),
        (
            "two fail",
            Cast { services: local(), ..cast(vec![n1(), fails("n2"), failing("n3", &[], &[("a", "x"), ("b", "y")])]) },
            "of its endpoints on n2, n3 none passes its health check (10.1.2.3:8080: connection refused, x)".to_owned(),
        ),
        (
            "all that have endpoints fail",
            Cast { slices: vec![slice("a", &["n2"])], ..cast(vec![n1(), fails("n2"), sound("n3")]) },
            format!("no endpoint passes its health check {refused}"),
        ),
        (
            "nobody checks an endpoint on no node",
            Cast { slices: vec![nodeless.clone()], ..cast(vec![n1(), fails("n2"), sound("n3")]) },
            format!("of its endpoints on n2 none passes its health check {refused}"),
        ),
        (
            "and with Local nobody is sent there",
            Cast {
                slices: vec![nodeless],
                services: local(),
                ..cast(vec![
                    sound("n1"),
                    failing("n2", &has, &[("a", "10.1.2.3:8080: connection refused")]),
                    sound("n3"),
                ])
            },
            format!("no endpoint passes its health check {refused}: {alone}"),
        ),
        (
            "what fails is gone",
            Cast { slices: vec![slice("a", &["n1"])], ..cast(vec![n1(), fails("n2"), sound("n3")]) },
            String::new(),
        ),
        ("who says so is gone", cast(gone), String::new()),
        ("another Service", cast(vec![n1(), failing("n2", &[], &[("b", "x")]), sound("n3")]), String::new()),
        ("a slip", Cast { services: vec![slip("a")], ..cast(vec![n1(), sound("n2"), sound("n3")]) }, SLIP.to_owned()),
        (
            "the data path",
            cast(vec![broken("n1", &has, "kube-proxy says 503"), sound("n2"), sound("n3")]),
            "n1 announces it although its data path does not work (kube-proxy says 503), and no better one takes it"
                .to_owned(),
        ),
        (
            "the data path, without words",
            cast(vec![broken("n1", &has, ""), broken("n2", &[], "x"), sound("n3")]),
            "n1 announces it although its data path does not work, and no better one takes it".to_owned(),
        ),
        (
            "a node that fails",
            Cast { services: local(), ..cast(vec![failing("n1", &has, &[("a", "x")]), sound("n2"), sound("n3")]) },
            "of its endpoints on n1 none passes its health check (x); \
             n1 announces it although endpoints on it fail their health check, and no better one takes it"
                .to_owned(),
        ),
        (
            "a node where what it shares with fails",
            Cast {
                services: vec![sharing("a", 80), sharing("b", 81)],
                slices: vec![slice("a", &["n1", "n2"]), slice("b", &["n1", "n2"])],
                ..cast(vec![failing("n1", &has, &[("b", "x")]), sound("n2"), sound("n3")])
            },
            "n1 announces it although endpoints on it fail their health check, and no better one takes it".to_owned(),
        ),
        (
            "draining",
            cast(vec![Speaker { draining: true, ..n1() }, sound("n2"), sound("n3")]),
            "n1 announces it although it is draining, and no better one takes it".to_owned(),
        ),
        ("labels", Cast { nodes: excluded(), ..cast(vec![n1(), sound("n2"), sound("n3")]) }, LABELLED.to_owned()),
        (
            "a family without endpoints",
            two(vec![speaker("n1", &both), sound("n2"), sound("n3")]),
            "no IPv6 endpoint is usable: nothing is behind fd00::1".to_owned(),
        ),
        (
            "one family of two",
            Cast {
                services: vec![Service { policy: Policy::Local, ..dual("a") }],
                slices: vec![slice("a", &["n1", "n2"]), of(Family::V6, slice("a", &["n1", "n2"]))],
                ..cast(vec![failing("n1", &both, &[("a", "[fd00::1]:80: x")]), sound("n2"), sound("n3")])
            },
            "of its IPv6 endpoints on n1 none passes its health check ([fd00::1]:80: x); \
             n1 announces it although endpoints on it fail their health check, and no better one takes it"
                .to_owned(),
        ),
        (
            "all of one family, and some of the other",
            Cast {
                services: vec![Service { policy: Policy::Local, ..dual("a") }],
                slices: vec![slice("a", &["n1", "n2"]), of(Family::V6, slice("a", &["n1"]))],
                ..cast(vec![failing("n1", &both, &[("a", "x"), ("a", "[fd00::1]:80: y")]), sound("n2"), sound("n3")])
            },
            format!(
                "of its IPv4 endpoints on n1 none passes its health check (x); \
                 no IPv6 endpoint passes its health check ([fd00::1]:80: y): {alone}; \
                 n1 announces it although endpoints on it fail their health check, and no better one takes it"
            ),
        ),
        (
            "a family of which it has no address",
            Cast {
                slices: vec![slice("a", &["n1", "n2"]), of(Family::V6, slice("a", &["n1", "n2"]))],
                ..cast(vec![failing("n1", &has, &[("a", "[fd00::1]:80: x")]), sound("n2"), sound("n3")])
            },
            String::new(),
        ),
        (
            "all at once, in their order",
            Cast {
                nodes: excluded(),
                services: vec![Service { families: vec![Family::V4, Family::V6], ..slip("a") }],
                ..cast(vec![broken("n1", &both, "x"), fails("n2"), sound("n3")])
            },
            format!(
                "of its IPv4 endpoints on n2 none passes its health check {refused}; \
                 no IPv6 endpoint is usable: nothing is behind fd00::1; {SLIP}; \
                 n1 announces it although its data path does not work (x), and no better one takes it; {LABELLED}"
            ),
        ),
    ];
    for (what, cast, expect) in cases {
        assert_eq!(remarks(&cast.world()), expect, "{what}");
    }
}

#[test]
fn of_many_nodes_that_fail_three_are_named() {
    let names: Vec<_> = (1..=6).map(|n| format!("n{n}")).collect();
    let nodes: Vec<&str> = names.iter().map(String::as_str).collect();
    let of = |node: &&str| {
        let mut speaker = failing(node, if *node == "n1" { &["10.0.0.0"] } else { &[] }, &[("a", &"x".repeat(160))]);
        speaker.links[0].heard = nodes.iter().filter(|other| *other != node).map(|name| (*name).into()).collect();
        if *node == "n1" { Speaker { failing: Box::default(), ..speaker } } else { speaker }
    };
    let cast = Cast {
        nodes: nodes.iter().map(|name| ready(name)).collect(),
        slices: vec![slice("a", &nodes)],
        speakers: nodes.iter().map(of).collect(),
        ..Cast::default()
    };
    let said = remarks(&cast.world());
    assert!(said.starts_with("of its endpoints on n2, n3, n4 and 2 more none passes its health check (xxx"), "{said}");
    assert!(said.ends_with("xxx and 2 more)") && said.len() < 600, "{said}");
}

#[test]
fn that_the_label_is_ignored_is_said_only_while_every_node_carries_it() {
    let excluded = |name| Node { excluded: true, ..ready(name) };
    let speakers = vec![speaker("n1", &[]), speaker("n2", &[]), speaker("n3", &["10.0.0.0"])];
    let mut world = Cast { nodes: vec![excluded("n1"), excluded("n2"), ready("n3")], ..cast(speakers) }.world();
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
    alone.links[0].heard = Box::default();
    let alone = Cast { nodes: vec![excluded("n1")], ..cast(vec![alone]) };
    assert_eq!(remarks(&alone.world()), LABELLED, "as on a fresh cluster of one node");
}

#[test]
fn a_slip_is_said_whatever_the_reason_and_all_else_only_of_what_is_announced() {
    let cast = Cast {
        nodes: excluded(),
        services: vec![slip("a")],
        slices: vec![],
        speakers: vec![broken("n1", &[], "x"), failing("n2", &[], &[("a", "x")]), speaker("n3", &[])],
        ..Cast::default()
    };
    let (reason, message) = told(&cast.world(), "a");
    let rest = message.split_once("; look at its pods and its selector; ").map(|(_, rest)| rest);
    assert_eq!((&*reason, rest), ("NoEndpoints", Some(SLIP)));
}

/// The Services whose statuses are due.
fn due(world: &World) -> Vec<Target> {
    let writes = world.writes().into_iter().map(|write| write.target);
    writes.filter(|target| matches!(target, Target::Service(_))).collect()
}

#[test]
fn a_check_that_begins_to_fail_is_written_to_its_service_alone_and_no_event() {
    let slices = vec![slice("a", &["n1", "n2"]), slice("b", &["n1", "n2"])];
    let speakers = || vec![speaker("n1", &["10.0.0.0", "10.0.0.1"]), speaker("n2", &[]), speaker("n3", &[])];
    let services = vec![service("a"), service("b")];
    let mut world = Cast { services, slices, ..cast(speakers()) }.world();
    let events = world.notices.len();
    world.now = world.now + CONDITION_INTERVAL;
    says(&mut world, failing("n1", &["10.0.0.0", "10.0.0.1"], &[("b", "10.1.2.3:80: timeout")]));
    assert_eq!(due(&world), [Target::Service(key("b"))]);
    world.settle();
    let fails = "of its endpoints on n1 none passes its health check (10.1.2.3:80: timeout)";
    assert_eq!(told(&world, "b").1, format!("10.0.0.1 from n1 (eth0); {fails}"));
    // The address goes where the check passes.
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
        world.now = world.now.max(start + Duration::from_millis(50) * u32::try_from(round).unwrap());
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
    let services = vec![Service { policy: Policy::Local, ..service("a") }];
    let mut world = Cast { services, ..cast(speakers) }.world();
    let (before, events) = (world.log.len(), world.notices.len());
    world.now = world.now + CONDITION_INTERVAL;
    says(&mut world, failing("n1", &["10.0.0.0"], &[("a", "x")]));
    assert_eq!(due(&world), []);
    says(&mut world, failing("n1", &[], &[("a", "x")]));
    says(&mut world, speaker("n2", &["10.0.0.0"]));
    world.settle();
    assert_eq!(told(&world, "a").1, "10.0.0.0 from n2 (eth0); of its endpoints on n1 none passes its health check (x)");
    assert_eq!((world.log.len() - before, world.notices.len()), (1, events));
}

#[test]
fn that_an_unsound_node_announces_is_told_when_no_better_one_has_come_for_a_while() {
    let mut world = owned();
    let start = world.now;
    says(&mut world, Speaker { draining: true, ..speaker("n1", &["10.0.0.0"]) });
    assert_eq!(due(&world), []);
    // A drain hands over: all that is written is the new owner.
    says(&mut world, Speaker { draining: true, ..speaker("n1", &[]) });
    says(&mut world, speaker("n2", &["10.0.0.0"]));
    let before = world.log.len();
    world.settle();
    assert_eq!((told(&world, "a").1, world.log.len() - before), ("10.0.0.0 from n2 (eth0)".into(), 1));
    says(&mut world, broken("n2", &["10.0.0.0"], "x"));
    world.settle();
    assert!(remarks(&world).starts_with("n2 announces it although"), "{}", remarks(&world));
    assert!(world.now.since(start) >= PATIENCE);
    says(&mut world, speaker("n2", &["10.0.0.0"]));
    world.settle();
    assert_eq!(remarks(&world), "");
}

#[test]
fn a_slip_that_is_put_right_is_noticed_and_a_restart_writes_nothing() {
    let speakers = || vec![broken("n1", &["10.0.0.0"], "x"), failing("n2", &[], &[("a", "y")]), speaker("n3", &[])];
    let mut world = Cast { services: vec![slip("a")], ..cast(speakers()) }.world();
    assert!(remarks(&world).contains(SLIP));
    for seed in 0..20 {
        world.state = State::new(config());
        world.log.clear();
        Cast { services: vec![slip("a")], ..cast(speakers()) }.tell(&mut world, Order::Shuffled(Chance(seed + 1)));
        world.settle();
        assert_eq!(world.log, [""; 0], "seed {seed}");
    }
    world.change("a", |service| service.usable_problem = None);
    world.settle();
    assert!(!remarks(&world).contains("annotation"), "{}", remarks(&world));
}

#[test]
fn what_the_annotation_asks_for_is_noticed_when_it_changes() {
    let mut going = slice("a", &["n1"]);
    (going.endpoints[0].ready, going.endpoints[0].terminating) = (false, true);
    let mut world = Cast { slices: vec![going], ..Cast::default() }.world();
    assert_eq!(told(&world, "a").0, "Pending");
    world.change("a", |service| service.usable = Usable::Ready);
    world.settle();
    assert_eq!(told(&world, "a").0, "NoEndpoints");
}

/// Services by reason, as the metrics have them.
fn counts(world: &World) -> Vec<String> {
    let all = world.state.figures().announced.into_iter().filter(|(_, count)| *count != 0);
    all.map(|(reason, count)| format!("{reason} {count}")).collect()
}

/// What is counted is what a recount of the conditions gives.
fn agrees(world: &World) {
    let reasons = world.services.values().filter_map(|service| service.condition(ConditionKind::Announced));
    let mut recount = BTreeMap::<&str, i64>::new();
    reasons.for_each(|condition| *recount.entry(&condition.reason).or_default() += 1);
    let mut recount: Vec<_> = recount.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
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
    // Who takes over counts what is written.
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
    for wait in [CONDITION_INTERVAL, PATIENCE] {
        world.now = world.now + wait;
        world.handle(Event::Tick);
    }
    assert_eq!((counts(&world), told(&world, "a").0), (vec!["Pending 1".to_owned()], "Announced".to_owned()));
    world.delete_pool("lan");
    let writes = world.writes();
    writes.iter().for_each(|write| world.write(write));
    assert_eq!((counts(&world), told(&world, "a").0), (vec![], String::new()));
}
