//! Times of rechecks of each Service, and of the writes of their results.

use super::*;
use crate::state::announced::{CONDITION_INTERVAL, CONDITIONS_PER_SECOND_MAX};

#[test]
fn a_restart_writes_nothing_whatever_the_condition_says_and_in_whatever_order_the_lists_come() {
    let cast = || Cast {
        services: ["a", "b", "c", "d"].map(service).into(),
        slices: vec![slice("a", &["n1"]), slice("b", &["n2"]), slice("d", &["n3"])],
        speakers: vec![
            speaker("n1", &["10.0.0.0"]),
            speaker("n2", &[]),
            speaker("n3", &["10.0.0.3"]),
        ],
        ..Cast::default()
    };
    let mut world = cast().world();
    let reasons = |world: &World| ["a", "b", "c", "d"].map(|name| told(world, name).0);
    assert_eq!(reasons(&world), ["Announced", "Pending", "NoEndpoints", "Announced"]);
    for seed in 0..50 {
        let order = if seed == 0 { Order::Backwards } else { Order::Shuffled(Chance(seed)) };
        world.state = State::new(config());
        world.log.clear();
        cast().tell(&mut world, order);
        world.settle();
        assert_eq!(world.log, [""; 0], "seed {seed}");
    }
}

#[test]
fn a_failover_of_many_addresses_goes_at_its_pace_and_holds_up_no_address() {
    const MANY: usize = 250;
    let names: Vec<_> = (0..MANY).map(|n| format!("s{n:03}")).collect();
    let addresses: Vec<_> = (0..MANY).map(|n| format!("10.0.0.{n}")).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let mut world = Cast {
        services: names.iter().map(|name| service(name)).collect(),
        slices: names.iter().map(|name| slice(name, &["n1"])).collect(),
        speakers: vec![speaker("n1", &addresses), speaker("n2", &[]), speaker("n3", &[])],
        ..Cast::default()
    }
    .world();
    assert_eq!(told(&world, "s249").1, "10.0.0.249 from n1 (eth0)");
    world.now = world.now + CONDITION_INTERVAL;
    let start = world.now;
    says(&mut world, speaker("n2", &addresses));
    says(&mut world, speaker("n1", &[]));
    // A new Service is served before those that wait.
    world.apply(service("new"));
    let position =
        world.writes().iter().position(|write| write.target() == Target::Service(key("new")));
    assert!(position.is_some_and(|position| position <= 10), "{position:?}");
    world.log.clear();
    let mut written = 0;
    while world.now.since(start) < Duration::from_secs(1) {
        for write in world.writes() {
            written += usize::from(matches!(write.target(), Target::Service(_)));
            world.write(&write);
        }
        let deadline = world.state.deadline(world.now).unwrap();
        world.now = deadline.max(world.now);
        world.handle(Event::Tick);
    }
    assert!((90..=CONDITIONS_PER_SECOND_MAX as usize + 15).contains(&written), "{written}");
    world.settle();
    assert!(names.iter().all(|name| told(&world, name).1.ends_with("from n2 (eth0)")));
}

#[test]
fn what_concerns_all_reaches_all_however_many_they_are() {
    let names: Vec<_> = (0..250).map(|n| format!("s{n:03}")).collect();
    let mut world = Cast {
        services: names.iter().map(|name| service(name)).collect(),
        slices: names.iter().map(|name| slice(name, &["n1"])).collect(),
        ads: vec![],
        ..Cast::default()
    }
    .world();
    for (change, reason) in [
        (Change::Apply(ad(0, &json!({}))), "Pending"),
        (Change::Delete(bare_key("l2-0")), "NoAdvertisement"),
    ] {
        world.handle(Event::Advertisement(change));
        world.settle();
        assert!(names.iter().all(|name| told(&world, name).0 == reason), "{reason}");
    }
}

#[test]
fn a_condition_that_somebody_takes_away_is_restored_ever_more_slowly() {
    let mut world = owned();
    // A controller that has not written the condition itself restores it, too.
    world.state = State::new(config());
    let speakers = vec![speaker("n1", &["10.0.0.0"]), speaker("n2", &[]), speaker("n3", &[])];
    Cast { speakers, ..Cast::default() }.tell(&mut world, Order::ByName);
    world.settle();
    let mut waits = Vec::new();
    for _ in 0..4 {
        let start = world.now;
        world.change("a", |service| service.conditions = service.conditions[..1].into());
        world.settle();
        assert_eq!(told(&world, "a").0, "Announced");
        waits.push(world.now.since(start).as_millis());
    }
    assert!(waits.is_sorted() && waits[3] >= 1_600, "{waits:?}");
}

#[test]
fn what_changes_without_a_word_about_the_service_is_noticed() {
    let mut world = owned();
    let reason = |world: &mut World, event: Event| {
        world.handle(event);
        world.settle();
        told(world, "a").0
    };
    says(&mut world, speaker("n1", &[]));
    assert_eq!(
        reason(&mut world, Event::Advertisement(Change::Delete(bare_key("l2-0")))),
        "NoAdvertisement"
    );
    assert_eq!(
        reason(&mut world, Event::Advertisement(Change::Apply(ad(1, &select("n2"))))),
        "Pending"
    );
    let labelled = Node { excluded: true, ..ready("n2") };
    assert_eq!(reason(&mut world, Event::Node(Change::Apply(labelled))), "NoCandidateNode");
    assert_eq!(reason(&mut world, Event::Node(Change::Apply(ready("n2")))), "Pending");
    assert_eq!(reason(&mut world, Event::Node(Change::Delete(bare_key("n2")))), "NoCandidateNode");
    assert_eq!(
        reason(&mut world, Event::Speaker(Change::Apply(speaker("n1", &["10.0.0.0"])))),
        "Announced"
    );
    let lost = Node { ready_unknown: true, ..ready("n1") };
    assert_eq!(
        reason(&mut world, Event::Node(Change::Apply(lost))),
        "NoCandidateNode",
        "what it said is old"
    );
}

#[test]
fn what_changes_of_the_service_is_noticed() {
    type Case = (&'static str, serde_json::Value, fn(&mut Service), &'static str);
    let cases: [Case; 3] = [
        ("policy", json!({}), |service| service.policy = TrafficPolicy::Local, "(eligible: n2)"),
        (
            "labels",
            json!({"serviceSelectors": [{"matchLabels": {"a": "b"}}]}),
            |service| service.demand.labels = [("a".into(), "b".into())].into(),
            "(eligible: n1, n2, n3)",
        ),
        (
            "mode",
            json!({}),
            |service| service.demand.request.announce_in_proxy_mode = true,
            "(eligible: n1, n2, n3)",
        ),
    ];
    for (what, ad, change, expect) in cases {
        let mut cast = Cast { slices: vec![slice("a", &["n2"])], ads: vec![ad], ..Cast::default() };
        if what == "mode" {
            cast.services[0].demand.request.ip_mode = Some(IpMode::Proxy);
        }
        let mut world = cast.world();
        assert!(!told(&world, "a").1.contains(expect), "{what}");
        world.change("a", change);
        world.settle();
        assert!(told(&world, "a").1.contains(expect), "{what}: {:?}", told(&world, "a"));
    }
}

#[test]
fn who_comes_to_share_an_address_is_noticed() {
    let sharing = |name: &str, port| {
        let mut service = service(name);
        service.demand.request.sharing_key = Some("k".into());
        service.demand.request.addresses = vec![ADDRESS.parse().unwrap()];
        service.demand.ports =
            [ferrolb_proto::facts::ServicePort { protocol: "TCP".into(), port }].into();
        service
    };
    let slices = vec![slice("b", &["n1"])];
    let mut world = Cast { services: vec![sharing("a", 80)], slices, ..Cast::default() }.world();
    assert_eq!(told(&world, "a").0, "NoEndpoints");
    world.apply(sharing("b", 81));
    world.settle();
    assert_eq!((told(&world, "a").0, told(&world, "b").0), ("Pending".into(), "Pending".into()));
}

#[test]
fn nothing_is_judged_before_slices_and_speakers_are_known() {
    let slices = |world: &mut World| {
        feed(world, [Change::Apply(slice("a", &["n2"]))].into_iter(), Event::Slice)
    };
    let speakers = |world: &mut World| {
        let all = [speaker("n1", &[]), speaker("n2", &["10.0.0.0"])];
        feed(world, all.into_iter().map(Change::Apply), Event::Speaker);
    };
    for slices_first in [true, false] {
        let tell = |world: &mut World, first: bool| {
            if first == slices_first { slices(world) } else { speakers(world) }
        };
        let mut world = World::unled(
            vec![assigned("a", &["10.0.0.0"], "lan")],
            vec![pool("lan", &["10.0.0.0/24"])],
        );
        world.nodes = ["n1", "n2"].map(|name| (name.into(), ready(name))).into();
        world.lead();
        feed(&mut world, [Change::Apply(ad(0, &json!({})))].into_iter(), Event::Advertisement);
        tell(&mut world, true);
        world.settle();
        assert_eq!(told(&world, "a").0, "");
        tell(&mut world, false);
        world.settle();
        assert_eq!(told(&world, "a"), ("Announced".into(), "10.0.0.0 from n2 (eth0)".into()));
    }
}

#[test]
fn a_service_that_goes_away_is_told_nothing_any_more() {
    let mut world = owned();
    world.change("a", |service| service.deleting = true);
    says(&mut world, speaker("n1", &[]));
    world.settle();
    assert_eq!(told(&world, "a").0, "Announced");
}

#[test]
fn who_does_not_lead_has_nothing_to_look_at() {
    let mut world = World::unled(
        vec![assigned("a", &["10.0.0.0"], "lan")],
        vec![pool("lan", &["10.0.0.0/24"])],
    );
    world.list_all(Order::ByName);
    feed(&mut world, [Change::Apply(slice("a", &["n1"]))].into_iter(), Event::Slice);
    feed(&mut world, [Change::Apply(speaker("n1", &[]))].into_iter(), Event::Speaker);
    assert_eq!(world.state.deadline(world.now), None);
}

/// Moves the address from owner n1 to n2.
fn moved(world: &mut World) {
    says(world, speaker("n2", &["10.0.0.0"]));
    says(world, speaker("n1", &[]));
}

fn tick_after(world: &mut World, time: Duration) {
    world.now = world.now + time;
    world.handle(Event::Tick);
}

#[test]
fn a_write_that_waits_is_not_overtaken_and_put_right_after_it() {
    let mut world = owned();
    tick_after(&mut world, CONDITION_INTERVAL);
    moved(&mut world);
    let attempt = |world: &World| world.writes().first().map(|write| write.attempt);
    let first = attempt(&world).expect("a write");
    // The API server is slow, and the owner changes again.
    says(&mut world, speaker("n3", &["10.0.0.0"]));
    says(&mut world, speaker("n2", &[]));
    tick_after(&mut world, CONDITION_INTERVAL);
    assert_eq!(attempt(&world), Some(first), "the attempt that is under way counts");
    world.settle();
    assert_eq!(told(&world, "a").1, "10.0.0.0 from n3 (eth0)");
}

#[test]
fn an_owner_that_changes_all_the_time_is_written_once_a_second() {
    let mut world = owned();
    tick_after(&mut world, CONDITION_INTERVAL);
    moved(&mut world);
    let write = world.writes().remove(0);
    world.write(&write);
    says(&mut world, speaker("n1", &["10.0.0.0"]));
    says(&mut world, speaker("n2", &[]));
    assert_eq!(world.writes(), []);
    tick_after(&mut world, CONDITION_INTERVAL);
    assert_eq!(world.writes().len(), 1);
}

#[test]
fn what_speakers_say_beside_their_addresses_is_noticed() {
    let mut world = Cast::default().world();
    assert_eq!(told(&world, "a").0, "Pending");
    for node in ["n1", "n2", "n3"] {
        let mut deaf = speaker(node, &[]);
        deaf.interfaces[0].isolated = true;
        says(&mut world, deaf);
    }
    world.settle();
    assert_eq!(told(&world, "a").0, "SpeakersIsolated");
    for node in ["n1", "n2", "n3"] {
        world.handle(Event::Speaker(Change::Delete(bare_key(node))));
    }
    world.settle();
    assert_eq!(told(&world, "a").0, "NoSpeaker");
}
