//! Tests of the queue: order, delays, conflicts and room.

use ferrolb_proto::api::{ConditionMessage, ConditionStatus, CustomResourceKind};

use super::*;
use crate::desired::{Condition, CustomResourceStatus, ValidStatus};

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
        self.queue.write(&mut self.attempts, (Class::Addresses, &target), status, now);
    }

    fn end(&mut self, attempt: u64, outcome: Outcome, now: Instant) -> Option<Status> {
        self.queue.end_attempt(&mut self.attempts, Class::Addresses, (attempt, outcome), now)
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
    assert_eq!(queue.due_with_room(Class::Resource, at(3)).len(), 0);
    assert_eq!(queue.deadline(at(3)), None, "the result of a write makes room");
    let first = queue.in_flight().next().unwrap().clone();
    queue.end_resource_attempt(&first.target(), (first.attempt, Outcome::Done), at(3));
    assert_eq!(queue.due_with_room(Class::Resource, at(3)), [target("b")].into());
    queue.remove_resource(&target("b"));
    assert_eq!(queue.due_with_room(Class::Resource, at(3)), [target("a")].into());
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
