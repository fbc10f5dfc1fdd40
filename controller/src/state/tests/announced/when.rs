//! When each Service is looked at, and when what is found is written.

use super::*;
use crate::state::announced::{CONDITION_INTERVAL, CONDITIONS_PER_SECOND_MAX};

#[test]
fn a_restart_writes_nothing_whatever_the_condition_says_and_in_whatever_order_the_lists_come() {
    let cast = || Cast {
        services: ["a", "b", "c", "d"].map(service).into(),
        slices: vec![slice("a", &["n1"]), slice("b", &["n2"]), slice("d", &["n3"])],
        speakers: vec![speaker("n1", &["10.0.0.0"]), speaker("n2", &[]), speaker("n3", &["10.0.0.3"])],
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
    let position = world.writes().iter().position(|write| write.target == Target::Service(key("new")));
    assert!(position.is_some_and(|position| position <= 10), "{position:?}");
    world.log.clear();
    let mut written = 0;
    while world.now.since(start) < Duration::from_secs(1) {
        for write in world.writes() {
            written += usize::from(matches!(write.target, Target::Service(_)));
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
fn a_condition_that_somebody_takes_away_is_restored_ever_more_slowly() {
    let mut world = owned();
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
    assert_eq!(reason(&mut world, Event::Advertisement(Change::Delete(bare_key("l2-0")))), "NoAdvertisement");
    assert_eq!(reason(&mut world, Event::Advertisement(Change::Apply(ad(1, &select("n2"))))), "Pending");
    let labelled = Node { excluded: true, ..ready("n2") };
    assert_eq!(reason(&mut world, Event::Node(Change::Apply(labelled))), "NoCandidateNode");
    assert_eq!(reason(&mut world, Event::Node(Change::Apply(ready("n2")))), "Pending");
    assert_eq!(reason(&mut world, Event::Node(Change::Delete(bare_key("n2")))), "NoCandidateNode");
    assert_eq!(reason(&mut world, Event::Speaker(Change::Apply(speaker("n1", &["10.0.0.0"])))), "Announced");
    let lost = Node { lost: true, ..ready("n1") };
    assert_eq!(reason(&mut world, Event::Node(Change::Apply(lost))), "NoCandidateNode", "what it said is old");
}
