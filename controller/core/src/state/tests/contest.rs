//! Tests of statuses that another client clears or replaces.

use super::*;
use crate::state::contest::CONTEST_END;
use crate::state::status_queue::Class;
use crate::state::status_queue::attempts::RESTORE_INTERVAL;
use ferrolb_proto::api::ConditionStatus;

fn lan() -> Cluster {
    Cluster::new(vec![service("a")], vec![pool("lan", &["10.0.0.1-10.0.0.9"])])
}

impl Cluster {
    pub(super) fn clear_status(&mut self, name: &str) {
        self.change(name, |service| service.assigned.clear());
    }

    /// Another client writes an address over that of FerroLB.
    fn replace_status(&mut self, name: &str, manager: &str) {
        self.change(name, |service| {
            service.assigned = vec![AssignedAddress { address: [192, 0, 2, 1].into(), mode: None }];
            service.ingress_manager = Some(manager.into());
        });
    }

    /// Returns the status of the condition `AddressAssigned`.
    fn status(&self, name: &str) -> ConditionStatus {
        self.services[&key(name)].conditions[0].status
    }

    /// Executes the due writes of Services, and returns their number.
    fn write_services(&mut self) -> usize {
        let due = self.writes().into_iter();
        let due: Vec<_> = due.filter(|it| matches!(it.status, Status::Service(..))).collect();
        due.iter().for_each(|write| self.write(write));
        due.len()
    }
}

#[test]
fn a_cleared_status_is_restored_at_once_and_the_condition_says_so() {
    let mut cluster = lan();
    cluster.notices.clear();
    for count in 1..=20 {
        if count > 2 {
            cluster.advance(Duration::from_secs(3));
        }
        cluster.clear_status("a");
        assert_eq!(cluster.write_services(), 1, "the status is restored at once");
        assert_eq!(cluster.statuses(), ["a=10.0.0.1"]);
        let expected = if count < 3 { "Assigned" } else { "StatusContested" };
        assert_eq!(cluster.reason("a"), expected, "after {count} changes");
    }
    assert!(cluster.message("a").contains("another client repeatedly removes the address"));
    let reasons: Vec<_> = cluster.notices.iter().map(|it| (&*it.reason, it.warning)).collect();
    assert_eq!(reasons, [("StatusContested", true)], "one Event tells it");
    assert_eq!(cluster.state.metric_values().services, [("Assigned", 0), ("StatusContested", 1)]);

    cluster.advance(CONTEST_END - Duration::from_secs(1));
    assert_eq!((cluster.write_services(), &*cluster.reason("a")), (0, "StatusContested"));
    cluster.advance(Duration::from_secs(2));
    assert_eq!((cluster.write_services(), &*cluster.reason("a")), (1, "Assigned"));
}

#[test]
fn a_client_that_clears_the_status_without_pause_causes_one_write_per_interval() {
    let mut cluster = lan();
    let (start, mut writes) = (cluster.now, 0);
    while cluster.now.since(start) < Duration::from_secs(60) {
        if !cluster.services[&key("a")].assigned.is_empty() {
            cluster.clear_status("a");
        }
        writes += cluster.write_services();
        cluster.advance(Duration::from_millis(10));
    }
    let most = Duration::from_secs(60).as_secs() / RESTORE_INTERVAL.as_secs() + 2;
    assert!((50..=usize::try_from(most).unwrap()).contains(&writes), "{writes} writes in a minute");
}

#[test]
fn a_replaced_status_is_restored_with_growing_delays() {
    let mut cluster = lan();
    let mut waits = Vec::new();
    for _ in 0..7 {
        cluster.replace_status("a", "k3s");
        let start = cluster.now;
        while cluster.write_services() == 0 {
            cluster.advance(Duration::from_millis(10));
        }
        waits.push(cluster.now.since(start).as_millis());
        assert_eq!(cluster.statuses(), ["a=10.0.0.1"]);
    }
    assert!(waits[0] >= 200 && waits[1] >= 400, "{waits:?}");
    // The third write has a new condition, so the delays begin again.
    assert!(waits[3..].is_sorted() && waits[6] >= 1_600, "{waits:?}");
    // A write for a new decision is due at once, because it is no conflict with another writer.
    cluster.change("a", |service| service.load_balancer = false);
    assert_eq!(cluster.write_services(), 1);
}

#[test]
fn the_condition_names_a_client_that_replaces_the_addresses() {
    let mut cluster = lan();
    for _ in 0..3 {
        cluster.replace_status("a", "k3s");
        cluster.settle();
        assert_eq!(cluster.statuses(), ["a=10.0.0.1"]);
    }
    assert_eq!(cluster.reason("a"), "Assigned", "settling took longer than the contest");
    for _ in 0..4 {
        cluster.replace_status("a", "k3s");
        cluster.advance(Duration::from_secs(20));
        cluster.write_services();
    }
    assert_eq!(
        (&*cluster.reason("a"), cluster.statuses()[0].as_str()),
        ("StatusContested", "a=10.0.0.1")
    );
    let message = cluster.message("a");
    assert!(message.contains("field manager \"k3s\" (ServiceLB) repeatedly changes"), "{message}");
    assert!(message.starts_with("10.0.0.1 from pool lan"), "{message}");
    cluster.delete("a");
    assert_eq!(cluster.state.status_queue.next(Class::Addresses, Instant::ZERO), None);
}

#[test]
fn a_client_that_changed_the_status_long_ago_is_not_named() {
    let mut cluster = lan();
    cluster.replace_status("a", "long-gone");
    cluster.settle();
    cluster.advance(Duration::from_secs(700));
    for _ in 0..3 {
        cluster.advance(Duration::from_secs(3));
        cluster.change("a", |service| {
            service.assigned.clear();
            service.ingress_manager = None;
        });
        cluster.write_services();
    }
    let message = cluster.message("a");
    assert!(message.contains("repeatedly") && !message.contains("long-gone"), "{message}");
}

#[test]
fn own_decisions_are_no_contest() {
    let mut cluster = lan();
    for last in [2, 3, 4, 5, 6] {
        cluster.change("a", |service| {
            service.demand.request.addresses = vec![[10, 0, 0, last].into()];
        });
        cluster.write_services();
    }
    assert_eq!((&*cluster.reason("a"), cluster.statuses()[0].as_str()), ("Assigned", "a=10.0.0.6"));
    for is_load_balancer in [false, true, false, true, false, true, false, true] {
        cluster.change("a", |service| service.load_balancer = is_load_balancer);
        cluster.write_services();
    }
    assert_eq!(cluster.reason("a"), "Assigned");
    assert_eq!(cluster.state.status_queue.next(Class::Addresses, Instant::ZERO), None);
}

#[test]
fn while_a_client_writes_other_addresses_the_service_has_none_and_the_contest_ends() {
    let mut cluster = lan();
    let (start, mut is_false) = (cluster.now, false);
    for _ in 0..12 {
        cluster.replace_status("a", "cilium-operator-lb-ipam");
        // The other addresses are in the status until the controller restores it.
        while cluster.write_services() == 0 {
            let waited = cluster.now.since(start);
            let is_early = waited < Duration::from_secs(1);
            assert!(is_early || cluster.status("a") == ConditionStatus::False, "{waited:?}");
            cluster.advance(Duration::from_millis(10));
        }
        is_false |= cluster.status("a") == ConditionStatus::False;
    }
    assert!(is_false, "the condition never changed");
    assert_eq!(&*cluster.reason("a"), "StatusContested");
    let last = cluster.now;
    while cluster.status("a") == ConditionStatus::False {
        cluster.write_services();
        cluster.advance(Duration::from_millis(100));
        assert!(cluster.now.since(last) < CONTEST_END + Duration::from_secs(1));
    }
    let result = (cluster.status("a"), &*cluster.reason("a"), cluster.statuses()[0].clone());
    assert_eq!(result, (ConditionStatus::True, "Assigned", "a=10.0.0.1".to_owned()));
}

#[test]
fn an_earlier_replacement_does_not_count_for_a_client_that_only_clears() {
    let mut cluster = lan();
    cluster.replace_status("a", "k3s");
    while cluster.write_services() == 0 {
        cluster.advance(Duration::from_millis(10));
    }
    cluster.advance(Duration::from_secs(700));
    for _ in 0..3 {
        cluster.clear_status("a");
        cluster.write_services();
        cluster.advance(Duration::from_secs(3));
    }
    assert_eq!(&*cluster.reason("a"), "StatusContested");
    assert_eq!(cluster.status("a"), ConditionStatus::True, "{}", cluster.message("a"));
}

#[test]
fn an_explanation_names_the_recorded_address_of_the_service_and_never_that_of_another_one() {
    let names = ["a", "b", "c"];
    let pools = vec![pool("lan", &["10.0.0.1-10.0.0.9"])];
    let mut cluster = Cluster::new(names.iter().map(|name| service(name)).collect(), pools);
    // Without the records, the first Service would get the address of the last one.
    cluster.delete("a");
    cluster.apply(service("d"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["b=10.0.0.2", "c=10.0.0.3", "d=10.0.0.1"]);
    let manager = "cilium-operator-lb-ipam";
    for name in ["b", "c", "d"] {
        cluster.replace_status(name, manager);
    }
    let text = |cluster: &Cluster, name: &str| {
        let explained = cluster.state.explain(&key(name)).unwrap();
        assert_eq!((&*explained.row.reason, explained.row.announced), ("StatusContested", false));
        assert!(explained.row.contested && explained.explained.is_empty(), "{explained:?}");
        explained.assignment
    };
    for is_recorded in [true, false] {
        // As `kubectl ferrolb why`, which has only the objects.
        cluster.restart();
        for (name, own) in [("b", "10.0.0.2"), ("c", "10.0.0.3"), ("d", "10.0.0.1")] {
            let text = text(&cluster, name);
            let of_ferrolb = match is_recorded {
                true => format!("{own} of FerroLB"),
                false => "FerroLB's addresses".to_owned(),
            };
            let begin = format!(
                "field manager \"{manager}\" (Cilium LB IPAM) has replaced {of_ferrolb} in the \
                 status by 192.0.2.1: set"
            );
            assert!(text.starts_with(&begin), "{name}: {text}");
            assert_eq!(text.contains("10.0.0."), is_recorded, "{name}: {text}");
        }
        for name in ["b", "c", "d"] {
            cluster.services.get_mut(&key(name)).unwrap().record = None;
        }
    }
}
