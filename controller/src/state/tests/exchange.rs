//! Exchange with the drivers: attempts, failures, conflicts with other writers, restarts.

use super::*;
use crate::state::RESOURCE_STATUS_INTERVAL;

fn first(world: &World) -> Write {
    world.writes().into_iter().next().expect("something is due")
}

fn answer(world: &mut World, write: &Write, outcome: Outcome) {
    world.handle(Event::Written { target: write.target(), attempt: write.attempt, outcome });
}

#[test]
fn a_restart_writes_nothing() {
    let services = vec![service("a"), dual("b"), service("c")];
    let mut world = World::new(services, vec![pool("lan", &["10.0.0.1-10.0.0.2", "fd00::1"])]);
    assert_eq!(world.shown(), ["a=10.0.0.1", "b=fd00::1,10.0.0.2", "c="]);
    world.log.clear();
    world.restart();
    assert_eq!(world.writes(), []);
    let next = world.state.deadline(world.now).expect("c waits");
    assert_eq!(
        next.since(world.now),
        crate::state::RETRY_INTERVAL,
        "nothing but another look at it is due"
    );
    world.settle();
    assert_eq!(world.log, Vec::<String>::new());
}

#[test]
fn an_address_is_promised_before_it_is_written() {
    let mut world = World::new(vec![], vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
    world.apply(service("b"));
    let write = first(&world);
    answer(&mut world, &write, Outcome::Failed);
    world.apply(service("a"));
    world.settle();
    assert_eq!(world.shown(), ["a=10.0.0.2", "b=10.0.0.1"]);
}

#[test]
fn a_write_that_fails_is_tried_again_later_and_others_do_not_wait_for_it() {
    let mut world = World::new(vec![], vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
    world.apply(service("a"));
    let failed = first(&world);
    answer(&mut world, &failed, Outcome::Failed);
    world.apply(service("b"));
    let targets = |world: &World| {
        world.writes().iter().map(|write| write.target().to_string()).collect::<Vec<_>>()
    };
    assert!(!targets(&world).contains(&failed.target().to_string()));
    assert!(targets(&world).contains(&"Service default/b".to_owned()));
    world.now = world.now + Duration::from_millis(200);
    let again = world.writes().into_iter().find(|write| write.target() == failed.target()).unwrap();
    assert_ne!(again.attempt, failed.attempt);
    assert_eq!(again.status, failed.status);
}

#[test]
fn a_status_that_is_refused_again_and_again_is_reported_once_and_counted_until_it_is_written() {
    let mut world = World::new(vec![], vec![pool("lan", &["10.0.0.1"])]);
    world.apply(service("a"));
    let refuse = |world: &mut World, outcome| {
        world.now = world.now + Duration::from_secs(10);
        let write = world
            .writes()
            .into_iter()
            .find(|write| write.target() == Target::Service(key("a")))
            .expect("a write");
        answer(world, &write, outcome);
        (write.reports_refusal, world.state.figures().services)
    };
    use Outcome::{Done, Failed, Refused};
    let cases = [
        (Refused, false),
        (Failed, false),
        (Refused, false),
        (Refused, true),
        (Refused, false),
        (Done, false),
    ];
    for (n, (outcome, reports)) in cases.into_iter().enumerate() {
        let (reported, counted) = refuse(&mut world, outcome);
        assert_eq!(reported, reports, "{n}");
        let there: Vec<_> = counted.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(there, [(if n == 3 || n == 4 { "NotWritten" } else { "Assigned" }, 1)], "{n}");
    }
}

#[test]
fn the_echo_of_a_write_causes_none_whether_it_comes_before_or_after_the_answer() {
    for echo_first in [true, false] {
        let mut world = World::new(vec![], vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
        world.apply(service("a"));
        let write = first(&world);
        let Status::Service(_, status) = &write.status else { panic!("{write:?}") };
        let mut written = service("a");
        store(&mut written, status);
        if echo_first {
            world.apply(written.clone());
            assert!(world.writes().iter().all(|due| due.target() != write.target()));
        }
        answer(&mut world, &write, Outcome::Done);
        assert!(
            world.writes().iter().all(|due| due.target() != write.target()),
            "the answer is enough"
        );
        if !echo_first {
            world.apply(written);
        }
        assert!(world.writes().iter().all(|due| due.target() != write.target()));
    }
}

#[test]
fn what_changes_while_it_is_being_written_is_written_again() {
    let mut world = World::new(vec![], vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
    world.apply(service("a"));
    let stale = first(&world);
    world.apply_pool(pool("lan", &["10.0.0.5-10.0.0.9"]));
    answer(&mut world, &stale, Outcome::Done);
    let due = world.writes().into_iter().find(|write| write.target() == stale.target()).unwrap();
    let Status::Service(_, status) = &due.status else { panic!("{due:?}") };
    assert_eq!(text(&status.addresses), "10.0.0.5");
}

#[test]
fn a_status_that_somebody_changes_is_restored_ever_more_slowly() {
    let mut world = World::new(vec![service("a")], vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
    let mut waits = Vec::new();
    for _ in 0..4 {
        world.change("a", |service| service.assigned = vec![]);
        let start = world.now;
        world.settle();
        assert_eq!(world.shown(), ["a=10.0.0.1"]);
        waits.push(world.now.since(start).as_millis());
    }
    assert!(waits.is_sorted() && waits[0] >= 200 && waits[3] >= 1_600, "{waits:?}");
    // A new decision is no conflict with another writer and does not wait.
    world.change("a", |service| service.load_balancer = false);
    assert!(world.writes().iter().any(|write| write.target() == Target::Service(key("a"))));
}

#[test]
fn a_pools_counts_are_written_at_once_and_then_at_their_own_pace() {
    let mut world = World::new(vec![], vec![pool("lan", &["10.0.0.1-10.0.0.99"])]);
    world.now = world.now + RESOURCE_STATUS_INTERVAL;
    let pools = |world: &World| {
        world
            .writes()
            .iter()
            .filter(|write| {
                matches!(
                    write.target(),
                    Target::CustomResource(CustomResourceKind::IPAddressPool, _)
                )
            })
            .count()
    };
    world.apply(service("a"));
    assert_eq!(pools(&world), 1);
    for write in world.writes() {
        world.write(&write);
    }
    world.apply(service("b"));
    assert_eq!(pools(&world), 0);
    world.now = world.now + RESOURCE_STATUS_INTERVAL;
    assert_eq!(pools(&world), 1);
}

#[test]
fn only_so_many_writes_are_planned_at_once_and_the_longest_due_come_first() {
    let mut world = World::new(vec![], vec![pool("lan", &["10.0.0.0/16"])]);
    for n in (0..200).rev() {
        world.apply(service(&format!("s{n:03}")));
    }
    let writes = world.writes();
    assert_eq!(writes.len(), crate::plan::PLANNED_WRITES_MAX);
    assert_eq!(writes[0].target(), Target::Service(key("s199")));
    world.settle();
    assert_eq!(world.services.values().filter(|service| service.assigned.len() == 1).count(), 200);
}

#[test]
fn a_replica_that_takes_over_follows_what_the_other_one_wrote() {
    let mut world = World::new(vec![service("a")], vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
    world.handle(Event::Lease(Leadership::Lost));
    // The other replica assigned an address to b and changed that of a.
    world.change("a", |service| service.assigned[0].address = "10.0.0.2".parse().unwrap());
    world.apply(assigned("b", &["10.0.0.1"], "lan"));
    world.apply(service("c"));
    assert_eq!(world.writes(), []);
    world.lead();
    world.settle();
    assert_eq!(world.shown(), ["a=10.0.0.2", "b=10.0.0.1", "c=10.0.0.3"]);
}

#[test]
fn a_lease_that_is_renewed_lasts_longer_and_is_the_same_term() {
    let mut world = World::new(vec![service("a")], vec![pool("lan", &["10.0.0.1"])]);
    let term = plan(&world.state, world.now).term;
    let until = Instant::from_millis(5_000);
    world.handle(Event::Lease(Leadership::Held(until)));
    let desired = plan(&world.state, world.now);
    assert_eq!((desired.term, desired.until), (term, until));
    world.apply(service("b"));
    assert!(!world.writes().is_empty(), "it goes on without new lists");
    world.handle(Event::Lease(Leadership::Lost));
    assert_eq!(plan(&world.state, world.now), crate::desired::Desired::default());
}
