//! Tests of the queue: order, delays, conflicts and room.

use ferrolb_proto::api::{ConditionMessage, ConditionStatus, CustomResourceKind};

use super::*;
use crate::desired::{Condition, CustomResourceStatus, ValidStatus};
use crate::state::ADDRESS_MEMORY_INTERVAL;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// Returns a status of the Community with this name; each generation is a different status.
fn status(name: &str, generation: i64) -> Option<Status> {
    let (reason, message) = ("Valid".into(), ConditionMessage::default());
    let condition = Condition { status: ConditionStatus::True, reason, message, since: None };
    let valid = ValidStatus { condition, generation };
    let status = CustomResourceStatus::Valid(CustomResourceKind::Community, valid);
    Some(Status::CustomResource(name.into(), status))
}

/// The queue, and the attempts of one object.
#[derive(Default)]
struct Object {
    queue: StatusQueue,
    attempts: Attempts,
}

impl Object {
    fn write(&mut self, status: Option<Status>, now: Instant) {
        let target = Target::CustomResource(CustomResourceKind::Community, "a".into());
        self.queue.write(&mut self.attempts, &target, status, now);
    }

    fn end(&mut self, attempt: u64, outcome: Outcome, now: Instant) -> Option<Status> {
        self.queue.end_attempt(&mut self.attempts, (attempt, outcome), now)
    }

    /// Returns the number of the attempt in flight.
    fn attempt(&self) -> Option<u64> {
        self.queue.in_flight().next().map(|write| write.attempt)
    }
}

#[test]
fn the_outcome_of_a_replaced_attempt_has_no_effect() {
    let mut a = Object::default();
    a.write(status("a", 1), at(0));
    let first = a.attempt().unwrap();
    a.write(status("a", 1), at(0));
    assert_eq!(a.attempt(), Some(first), "an unchanged status keeps its attempt number");
    a.write(status("a", 2), at(0));
    assert_eq!(a.end(first, Outcome::Done, at(1)), None);
    assert_eq!(a.end(first, Outcome::Failed, at(1)), None);
    let second = a.attempt().expect("the write of the new status is in flight");
    assert_eq!(a.end(second, Outcome::Done, at(1)), status("a", 2));
    assert_eq!(a.attempt(), None);
}

#[test]
fn a_write_is_done_when_the_watch_returns_the_status() {
    let mut a = Object::default();
    a.write(None, at(0));
    assert_eq!(a.attempts.done_at(), None, "no write was pending");
    a.write(status("a", 1), at(1));
    a.write(None, at(2));
    assert_eq!((a.attempts.done_at(), a.attempt()), (Some(at(2)), None));
}

#[test]
fn the_delay_after_failures_doubles_up_to_the_limit() {
    let (mut a, mut now) = (Object::default(), at(0));
    a.write(status("a", 1), now);
    for delay in [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
        let attempt = a.attempt().unwrap();
        a.end(attempt, Outcome::Failed, now);
        a.write(status("a", 1), now);
        assert_eq!(a.attempt(), None);
        assert_eq!(a.queue.deadline(now), Some(now + Duration::from_millis(delay)));
        now = now + Duration::from_millis(delay);
        a.write(status("a", 1), now);
    }
}

#[test]
fn a_write_that_another_writer_undoes_is_repeated_with_backoff() {
    let (mut a, mut now) = (Object::default(), at(0));
    for delay in [0, 200, 400, 800] {
        a.write(status("a", 1), now);
        let due = now + Duration::from_millis(delay);
        assert_eq!(a.queue.deadline(now), (delay > 0).then_some(due));
        a.write(status("a", 1), due);
        let attempt = a.attempt().expect("the write is in flight after the delay");
        assert_eq!(a.end(attempt, Outcome::Done, due), status("a", 1));
        now = due;
    }
    a.attempts.reset_delay();
    a.write(status("a", 1), now);
    assert!(a.attempt().is_some(), "after a new decision the write begins at once");
}

#[test]
fn a_write_without_room_waits_in_the_order_of_arrival() {
    let mut queue = StatusQueue::default();
    let target = |name: &str| status(name, 1).unwrap().target();
    for n in 0..WRITES_MAX {
        let name = n.to_string();
        queue.write_resource(target(&name), status(&name, 1), at(0));
    }
    for (name, millis) in [("b", 1), ("a", 2)] {
        queue.write_resource(target(name), status(name, 1), at(millis));
    }
    queue.write_resource(target("b"), status("b", 2), at(3));
    assert_eq!(queue.due_with_room(Class::Resource, at(3)), []);
    assert_eq!(queue.deadline(at(3)), None, "the result of a write makes room");
    let first = queue.in_flight().next().unwrap().clone();
    queue.end_resource_attempt(&first.target(), (first.attempt, Outcome::Done), at(3));
    assert_eq!(queue.due_with_room(Class::Resource, at(3)), [target("b")]);
    queue.remove_resource(&target("b"));
    assert_eq!(queue.due_with_room(Class::Resource, at(3)), [target("a")]);
}

/// Queues or begins the writes of these Services, each with its attempts.
fn write_services(queue: &mut StatusQueue, services: &mut [(&str, Attempts)], now: Instant) {
    for (name, attempts) in services {
        let target = Target::Service(Key::new("default", name));
        queue.write(attempts, &target, status(name, 1), now);
    }
}

/// Returns the names of the objects whose writes are in flight.
fn in_flight(queue: &StatusQueue) -> Vec<String> {
    queue.in_flight().map(|write| write.target().to_string()).collect()
}

#[test]
fn a_service_overtakes_none_that_is_due_and_leaves_room_to_resources() {
    let mut queue = StatusQueue::default();
    let names: Vec<String> = (100..100 + WRITES_MAX).map(|n| n.to_string()).collect();
    let mut services: Vec<_> = names.iter().map(|it| (&**it, Attempts::default())).collect();
    write_services(&mut queue, &mut services, at(1));
    let begun = WRITES_MAX - RESOURCE_ROOM;
    assert_eq!((queue.room(Class::Addresses), queue.in_flight().count()), (0, begun));
    assert_eq!(queue.room(Class::Resource), RESOURCE_ROOM);
    let first = &mut services[0].1;
    queue.end_attempt(first, (first.latest, Outcome::Done), at(2));
    let mut newcomer = [("000", Attempts::default())];
    write_services(&mut queue, &mut newcomer, at(2));
    assert_eq!(queue.in_flight().count(), begun - 1, "another Service is due");
    assert_eq!(queue.deadline(at(2)), Some(at(2) + NEXT_PASS_DELAY));
    let next = [Target::Service(Key::new("default", &names[begun]))];
    assert_eq!(queue.due_with_room(Class::Addresses, at(2)), next);
}

#[test]
fn a_replaced_write_keeps_its_place_and_an_earlier_result_ends_nothing() {
    let (mut queue, mut a, mut b) =
        (StatusQueue::default(), Attempts::default(), Attempts::default());
    let target = Target::Service(Key::new("default", "web"));
    queue.write(&mut a, &target, status("a", 1), at(0));
    queue.write(&mut b, &target, status("b", 1), at(0));
    queue.write(&mut a, &target, status("a", 2), at(0));
    let sent = a.latest;
    assert_eq!(in_flight(&queue), ["Community a", "Community b"]);
    // The write ends although its result is on its way, and the next one must wait.
    queue.write(&mut a, &target, None, at(0));
    a.limit_rate();
    queue.write(&mut a, &target, status("a", 3), at(1));
    assert_eq!(in_flight(&queue), ["Community b"]);
    assert!(!a.is_latest(sent) && a.is_pending());
    assert_eq!(queue.end_attempt(&mut a, (sent, Outcome::Done), at(1)), None);
}

#[test]
fn a_change_during_a_write_to_the_config_map_waits_for_the_interval() {
    let (mut queue, target) = (StatusQueue::default(), Target::AddressMemory);
    queue.write_resource(target.clone(), status("a", 1), at(0));
    queue.write_resource(target.clone(), status("a", 2), at(1));
    let write = queue.in_flight().next().unwrap().clone();
    assert_eq!(write.status, status("a", 1).unwrap());
    queue.end_resource_attempt(&target, (write.attempt, Outcome::Done), at(2));
    assert_eq!(queue.due_with_room(Class::Resource, at(2)), std::slice::from_ref(&target));
    queue.write_resource(target, status("a", 2), at(2));
    assert_eq!(in_flight(&queue), [""; 0]);
    assert_eq!(queue.deadline(at(2)), Some(at(2) + ADDRESS_MEMORY_INTERVAL));
}

#[test]
fn an_object_is_queued_once_in_a_class_at_its_earliest_time() {
    let (mut a, key) = (Object::default(), Key::new("default", "web"));
    for millis in [30, 20, 40] {
        let target = Target::Service(key.clone());
        a.queue.queue(&mut a.attempts, Class::Condition, target, at(millis));
    }
    let due = |a: &Object, millis| a.queue.due(Class::Condition, at(millis)).count();
    assert_eq!((due(&a, 19), due(&a, 20), due(&a, 40)), (0, 1, 1));
    assert_eq!(a.queue.next(Class::Condition, at(10)), Some(at(20)));
    assert_eq!(a.queue.next(Class::Addresses, Instant::ZERO), None);
    a.queue.forget(&mut a.attempts, &Target::Service(key));
    assert_eq!(due(&a, 40), 0);
}
