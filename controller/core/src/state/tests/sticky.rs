//! Tests of remembered addresses (`spec.stickyFor`): a Service of the same name gets back the
//! addresses that it had, and nothing is refused because of them.

use ferrolb_proto::api::REMEMBERED_SERVICES_MAX;
use ferrolb_proto::facts::{RememberedAddresses, Service};

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn sticky_pool(name: &str, ranges: &[&str]) -> Pool {
    Pool { sticky_for: HOUR, ..pool(name, ranges) }
}

impl Cluster {
    /// Returns the entries of the ConfigMap as `name=addresses`.
    fn remembered(&self) -> Vec<String> {
        let text =
            |it: &RememberedAddresses| format!("{}={}", it.key.name(), joined(&it.addresses));
        self.address_memory.iter().flat_map(|memory| &memory.services).map(text).collect()
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.handle(Event::Tick);
        self.settle();
    }
}

#[test]
fn a_service_that_is_created_again_gets_its_former_addresses() {
    let pools = vec![sticky_pool("lan", &["10.0.0.1-10.0.0.9", "fd00::1-fd00::9"])];
    let mut cluster = Cluster::new(vec![dual_stack_service("a"), service("b")], pools);
    cluster.delete("a");
    cluster.settle();
    assert_eq!(cluster.remembered(), ["a=fd00::1,10.0.0.1"]);
    let status = &cluster.pools["lan"].status;
    assert_eq!((status.assigned_ipv4, status.available_ipv4), (1, Some(8)));
    cluster.apply(service("c"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["b=10.0.0.2", "c=10.0.0.3"]);
    cluster.restart();
    cluster.apply(dual_stack_service("a"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=fd00::1,10.0.0.1", "b=10.0.0.2", "c=10.0.0.3"]);
    assert_eq!(cluster.remembered(), Vec::<String>::new());
}

#[test]
fn services_that_are_created_again_in_another_order_get_their_former_addresses() {
    let all: Vec<_> = (0..500).map(|n| service(&format!("s{n}"))).collect();
    let mut cluster = Cluster::new(all.clone(), vec![sticky_pool("lan", &["10.0.0.0/22"])]);
    let before = cluster.statuses();
    all.iter().for_each(|service| cluster.delete(service.key.name()));
    cluster.settle();
    cluster.restart();
    cluster.apply(service("newcomer"));
    let mut shuffled = all;
    Random(7).shuffle(&mut shuffled);
    for service in shuffled {
        let uid = format!("new {}", service.uid).into();
        cluster.apply(Service { uid, ..service });
    }
    cluster.settle();
    let mut after = cluster.statuses();
    after.retain(|status| !status.starts_with("newcomer="));
    assert_eq!(after, before);
    assert_eq!(cluster.remembered(), Vec::<String>::new());
}

#[test]
fn other_services_get_remembered_addresses_only_when_no_other_is_free() {
    let services = vec![service("a"), service("b"), service("c")];
    let mut cluster = Cluster::new(services, vec![sticky_pool("lan", &["10.0.0.1-10.0.0.4"])]);
    cluster.delete("b");
    cluster.wait(Duration::from_secs(5));
    cluster.delete("a");
    cluster.apply(service("x"));
    cluster.apply(service("y"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["c=10.0.0.3", "x=10.0.0.4", "y=10.0.0.2"], "b left first");
    cluster.apply(service("b"));
    cluster.settle();
    assert_eq!(
        cluster.statuses()[0],
        "b=10.0.0.1",
        "the former address is in use, another is free"
    );
    cluster.apply(service("a"));
    cluster.settle();
    assert_eq!(cluster.reason("a"), "PoolExhausted");
    cluster.delete("y");
    cluster.settle();
    assert_eq!(cluster.statuses()[0], "a=10.0.0.2");
}

#[test]
fn addresses_of_other_pools_come_before_remembered_ones() {
    let pools = vec![sticky_pool("a", &["10.0.0.1"]), sticky_pool("b", &["10.0.1.1"])];
    let mut cluster = Cluster::new(vec![service("x")], pools);
    cluster.delete("x");
    cluster.apply(service("y"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["y=10.0.1.1"]);
    cluster.delete("y");
    cluster.apply(service("y"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["y=10.0.1.1"], "the former pool comes before the first one");
}

#[test]
fn a_request_can_have_a_remembered_address() {
    let pools = vec![sticky_pool("lan", &["10.0.0.1-10.0.0.9"])];
    let mut cluster = Cluster::new(vec![service("a")], pools);
    cluster.delete("a");
    let mut request = service("x");
    request.demand.request.addresses = vec![[10, 0, 0, 1].into()];
    cluster.apply(request);
    cluster.apply(service("a"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=10.0.0.2", "x=10.0.0.1"]);
}

#[test]
fn an_address_is_remembered_for_the_time_of_its_pool() {
    let pools = vec![sticky_pool("lan", &["10.0.0.1-10.0.0.9"]), pool("off", &["10.0.1.1"])];
    let mut cluster = Cluster::new(vec![service("a"), service("b")], pools);
    cluster.delete("a");
    cluster.wait(HOUR - QUIET_TIME - Duration::from_secs(2));
    assert_eq!(cluster.remembered(), ["a=10.0.0.1"]);
    cluster.restart();
    cluster.wait(Duration::from_secs(10));
    assert_eq!(cluster.remembered(), Vec::<String>::new());
    cluster.apply(service("c"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["b=10.0.0.2", "c=10.0.0.1"]);

    cluster.apply_pool(pool("lan", &["10.0.0.1-10.0.0.9"]));
    cluster.delete("c");
    cluster.apply(service("d"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["b=10.0.0.2", "d=10.0.0.1"], "the pool remembers nothing");
}

#[test]
fn a_clock_that_jumps_ends_no_memory() {
    let day = Pool { sticky_for: 25 * HOUR, ..sticky_pool("lan", &["10.0.0.1-10.0.0.9"]) };
    let mut cluster = Cluster::new(vec![service("a")], vec![day]);
    cluster.delete("a");
    for jump in [48 * 3_600, 0] {
        cluster
            .state
            .set_unix_time(jump + cluster.now.since(Instant::ZERO).as_secs() as i64, cluster.now);
        cluster.wait(Duration::from_secs(10));
        assert_eq!(cluster.remembered(), ["a=10.0.0.1"], "after a jump of {jump} s");
    }
    cluster.wait(26 * HOUR);
    assert_eq!(cluster.remembered(), Vec::<String>::new());
}

#[test]
fn a_pool_that_returns_after_the_grace_gives_the_same_addresses() {
    let services = (0..9).map(|n| service(&format!("s{n}"))).collect();
    let lan = sticky_pool("lan", &["10.0.0.1-10.0.0.9"]);
    let mut cluster = Cluster::new(services, vec![lan.clone()]);
    cluster.delete("s0");
    cluster.apply(service("s9"));
    cluster.settle();
    let before = cluster.statuses();
    cluster.delete_pool("lan");
    cluster.wait(Duration::from_secs(70));
    assert_eq!(cluster.statuses()[0], "s1=");
    cluster.apply_pool(lan);
    cluster.settle();
    assert_eq!(cluster.statuses(), before);
}

#[test]
fn services_that_shared_an_address_share_it_again() {
    let sharing = |name: &str| {
        let mut service = service(name);
        service.demand.request.sharing_key = Some("k".into());
        service
    };
    let pools = vec![sticky_pool("lan", &["10.0.0.1-10.0.0.9"])];
    let mut cluster = Cluster::new(vec![service("a"), sharing("x"), sharing("y")], pools);
    assert_eq!(cluster.statuses(), ["a=10.0.0.1", "x=10.0.0.2", "y=10.0.0.2"]);
    ["a", "x", "y"].into_iter().for_each(|name| cluster.delete(name));
    cluster.apply(sharing("y"));
    cluster.apply(sharing("x"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["x=10.0.0.2", "y=10.0.0.2"]);
}

#[test]
fn the_memory_is_bounded_and_forgets_the_earliest_first() {
    let count = REMEMBERED_SERVICES_MAX + 10;
    let services = (0..count).map(|n| service(&format!("s{n}"))).collect();
    let mut cluster = Cluster::new(services, vec![sticky_pool("lan", &["10.0.0.0/16"])]);
    for n in 0..count {
        cluster.delete(&format!("s{n}"));
        cluster.now = cluster.now + Duration::from_secs(1);
    }
    cluster.settle();
    let remembered = cluster.remembered();
    assert_eq!(remembered.len(), REMEMBERED_SERVICES_MAX);
    for (name, is_remembered) in [("s0", false), ("s9", false), ("s10", true)] {
        let found = remembered.iter().any(|entry| entry.starts_with(&format!("{name}=")));
        assert_eq!(found, is_remembered, "{name}");
    }
}

#[test]
fn a_missing_pool_and_other_clients_do_not_end_the_memory() {
    let lan = Pool { sticky_for: HOUR * 168, ..pool("lan", &["10.0.0.1-10.0.0.9"]) };
    let services = vec![service("a"), service("b"), service("old")];
    let mut cluster = Cluster::new(services, vec![lan.clone()]);
    cluster.delete("old");
    cluster.wait(HOUR * 48);
    // The pool is missing for longer than its grace, and for longer than the default time.
    cluster.delete("a");
    cluster.apply(service("a"));
    cluster.settle();
    let before = cluster.statuses();
    cluster.delete_pool("lan");
    cluster.wait(Duration::from_secs(70));
    assert_eq!(cluster.statuses(), ["a=", "b="]);
    // Neither a change of the type nor the address of another client replaces the memory.
    for is_load_balancer in [false, true] {
        cluster.change("a", |service| service.load_balancer = is_load_balancer);
        cluster.settle();
    }
    cluster.change("b", |service| {
        service.assigned = vec![AssignedAddress { address: [192, 0, 2, 1].into(), mode: None }];
        service.ingress_manager = Some("k3s".into());
    });
    cluster.settle();
    cluster.change("b", |service| {
        service.assigned.clear();
        service.ingress_manager = None;
    });
    cluster.apply_pool(lan);
    cluster.settle();
    assert_eq!(cluster.statuses(), before);
    assert_eq!(cluster.remembered(), ["old=10.0.0.3"]);
}

#[test]
fn a_namespace_with_many_deleted_services_does_not_end_the_memory_of_others() {
    let of =
        |namespace: &str, name: &str| Service { key: Key::new(namespace, name), ..service(name) };
    let mut cluster = Cluster::new(
        vec![of("shop", "web"), of("shop", "old")],
        vec![sticky_pool("lan", &["10.0.0.0/16"])],
    );
    let delete = |cluster: &mut Cluster, key: Key| {
        cluster.services.remove(&key);
        cluster.handle(Event::of::<Service>(Change::Delete(key)));
        cluster.now = cluster.now + Duration::from_secs(1);
    };
    delete(&mut cluster, Key::new("shop", "web"));
    delete(&mut cluster, Key::new("shop", "old"));
    for n in 0..REMEMBERED_SERVICES_MAX + 10 {
        let job = of("ci", &format!("job{n}"));
        cluster.apply(job.clone());
        delete(&mut cluster, job.key);
    }
    cluster.settle();
    let remembered = cluster.remembered();
    assert_eq!(remembered.len(), REMEMBERED_SERVICES_MAX);
    for (entry, is_remembered) in [
        ("web=10.0.0.1", true),
        ("old=10.0.0.0", true),
        ("job11=10.0.0.13", false),
        ("job12=10.0.0.14", true),
    ] {
        assert_eq!(remembered.contains(&entry.to_owned()), is_remembered, "{entry}");
    }
}

#[test]
fn a_new_leader_remembers_for_as_long_as_the_pool_says_also_while_it_is_missing() {
    let week = Pool { sticky_for: HOUR * 168, ..pool("lan", &["10.0.0.1-10.0.0.9"]) };
    for is_missing in [false, true] {
        let mut cluster = Cluster::new(vec![service("a")], vec![week.clone()]);
        cluster.delete("a");
        cluster.wait(HOUR * 48);
        if is_missing {
            cluster.delete_pool("lan");
        }
        cluster.restart();
        cluster.wait(HOUR * 48);
        cluster.apply_pool(week.clone());
        cluster.apply(service("b"));
        cluster.apply(service("a"));
        cluster.settle();
        assert_eq!(cluster.statuses(), ["a=10.0.0.1", "b=10.0.0.2"], "missing: {is_missing}");
        cluster.delete("a");
        cluster.wait(HOUR * 169);
        assert_eq!(cluster.remembered(), Vec::<String>::new());
    }
}

#[test]
fn a_changed_time_of_the_pool_applies_to_addresses_that_are_already_remembered() {
    let minute = || Pool { sticky_for: Duration::from_secs(60), ..pool("lan", &["10.0.0.0/24"]) };
    let mut cluster = Cluster::new(vec![service("a")], vec![sticky_pool("lan", &["10.0.0.0/24"])]);
    cluster.delete("a");
    cluster.wait(Duration::from_secs(10));
    let before = cluster.address_memory.clone();
    cluster.apply_pool(minute());
    cluster.settle();
    assert_ne!(cluster.address_memory, before, "the ConfigMap has the new time");
    cluster.wait(Duration::from_secs(60));
    assert_eq!(cluster.remembered(), Vec::<String>::new());
}

#[test]
fn the_memory_is_written_once_in_five_seconds_whatever_changes() {
    let mut cluster = Cluster::new(vec![], vec![sticky_pool("lan", &["10.0.0.0/16"])]);
    let (start, mut writes) = (cluster.now, Vec::new());
    for n in 0..300 {
        let name = format!("s{n}");
        cluster.apply(service(&name));
        cluster.delete(&name);
        cluster.now = start + Duration::from_millis(100 * (n + 1));
        cluster.handle(Event::Tick);
        for write in cluster.writes() {
            if write.target() == Target::AddressMemory {
                writes.push(cluster.now.since(start).as_secs());
            }
            cluster.write(&write);
        }
    }
    assert_eq!(writes, [0, 5, 10, 15, 20, 25]);
    cluster.settle();
    assert_eq!(cluster.remembered().len(), 300);
}

#[test]
fn a_change_during_a_write_of_the_memory_waits_for_five_seconds_too() {
    let services = vec![service("a"), service("b")];
    let mut cluster = Cluster::new(services, vec![sticky_pool("lan", &["10.0.0.1-10.0.0.9"])]);
    let of_memory = |cluster: &Cluster| {
        cluster.writes().into_iter().find(|write| write.target() == Target::AddressMemory)
    };
    cluster.delete("a");
    let write = of_memory(&cluster).expect("the write is due");
    cluster.delete("b");
    assert_eq!(of_memory(&cluster).as_ref(), Some(&write), "no second write begins");
    cluster.write(&write);
    cluster.now = cluster.now + Duration::from_secs(4);
    assert_eq!(of_memory(&cluster), None);
    cluster.wait(Duration::from_secs(2));
    assert_eq!(cluster.remembered().len(), 2);
}

#[test]
fn the_memory_is_written_again_after_another_client_has_changed_or_deleted_it() {
    let mut cluster =
        Cluster::new(vec![service("a")], vec![sticky_pool("lan", &["10.0.0.1-10.0.0.9"])]);
    cluster.delete("a");
    cluster.settle();
    for is_deleted in [true, false] {
        match cluster.address_memory.as_mut().filter(|_| !is_deleted) {
            Some(memory) => memory.services.clear(),
            None => cluster.address_memory = None,
        }
        cluster.report_address_memory();
        cluster.settle();
        assert_eq!(cluster.remembered(), ["a=10.0.0.1"], "deleted: {is_deleted}");
    }
    cluster.restart();
    assert_eq!(cluster.writes(), [], "a new leader has the same memory");
}

#[test]
fn a_new_leader_knows_the_addresses_that_were_released_a_moment_ago() {
    let mut cluster = Cluster::new(vec![service("a")], vec![sticky_pool("lan", &["10.0.0.1/30"])]);
    let known = |cluster: &Cluster| cluster.state.former_routes.addresses().count();
    cluster.delete("a");
    for _ in 0..10 {
        cluster.now = cluster.now + Duration::from_secs(1);
        cluster.handle(Event::Tick);
        cluster.writes().iter().for_each(|write| cluster.write(write));
    }
    assert_eq!((cluster.remembered().len(), known(&cluster)), (1, 1));
    cluster.restart();
    assert_eq!(known(&cluster), 1);
    cluster.now = cluster.now + Duration::from_secs(171);
    cluster.handle(Event::Tick);
    assert_eq!(known(&cluster), 0, "three minutes after the release, whoever leads");
}
