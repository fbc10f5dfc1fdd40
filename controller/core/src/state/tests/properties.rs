//! Tests with random histories of events: no address is assigned twice, the controller settles, and
//! a restart changes nothing.

use ferrolb_proto::facts::Node;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum ClusterOp {
    Apply(u8, u8),
    Delete(u8),
    Type(u8),
    SetAddress(u8, u8),
    Pool(u8, u8),
    DeletePool(u8),
    Node(u8),
    Fail,
    Settle,
    Restart,
    Relist,
}

fn op() -> impl Strategy<Value = ClusterOp> {
    prop_oneof![
        8 => (0..12u8, 0..3u8).prop_map(|(name, families)| ClusterOp::Apply(name, families)),
        4 => (0..12u8).prop_map(ClusterOp::Delete),
        2 => (0..12u8).prop_map(ClusterOp::Type),
        1 => (0..12u8, 0..8u8).prop_map(|(name, last)| ClusterOp::SetAddress(name, last)),
        3 => (0..3u8, 0..4u8).prop_map(|(name, range_set)| ClusterOp::Pool(name, range_set)),
        1 => (0..3u8).prop_map(ClusterOp::DeletePool),
        1 => (0..8u8).prop_map(ClusterOp::Node),
        2 => Just(ClusterOp::Fail),
        3 => Just(ClusterOp::Settle),
        1 => Just(ClusterOp::Restart),
        1 => Just(ClusterOp::Relist),
    ]
}

fn apply_op(cluster: &mut Cluster, op: ClusterOp) {
    let name = |n: u8| format!("s{n}");
    match op {
        ClusterOp::Apply(n, families) => {
            let before =
                cluster.services.get(&key(&name(n))).cloned().unwrap_or_else(|| service(&name(n)));
            let families = [vec![Family::V4], vec![Family::V6], vec![Family::V4, Family::V6]]
                [usize::from(families)]
            .clone();
            cluster.apply(Service { families, load_balancer: true, ..before });
        }
        ClusterOp::Delete(n) => cluster.delete(&name(n)),
        ClusterOp::Type(n) if cluster.services.contains_key(&key(&name(n))) => {
            cluster.change(&name(n), |s| s.load_balancer = false)
        }
        ClusterOp::SetAddress(n, last) if cluster.services.contains_key(&key(&name(n))) => cluster
            .change(&name(n), |service| {
                service.assigned =
                    vec![AssignedAddress { address: [10, 0, 0, last].into(), mode: None }];
            }),
        ClusterOp::Type(_) | ClusterOp::SetAddress(..) => {}
        ClusterOp::Pool(n, range_set) => {
            let ranges: &[&str] = [
                &["10.0.0.0-10.0.0.3"] as &[&str],
                &["10.0.0.2-10.0.0.5", "fd00::/126"],
                &["10.0.0.4-10.0.0.7"],
                &["fd00::2-fd00::5"],
            ][usize::from(range_set)];
            cluster.apply_pool(pool(&format!("p{n}"), ranges));
        }
        ClusterOp::DeletePool(n) => cluster.delete_pool(&format!("p{n}")),
        ClusterOp::Node(last) => {
            let changed = node("n1", &format!("10.0.0.{last}"));
            cluster.nodes.insert("n1".into(), changed.clone());
            cluster.handle(Event::of::<Node>(Change::Apply(changed)));
        }
        ClusterOp::Fail => {
            for write in cluster.writes() {
                let outcome = Outcome::Failed;
                cluster.handle(Event::Written {
                    target: write.target(),
                    attempt: write.attempt,
                    outcome,
                });
            }
        }
        ClusterOp::Settle => cluster.settle(),
        ClusterOp::Restart => cluster.restart(),
        ClusterOp::Relist => cluster.list_all(Order::Reversed),
    }
}

/// Returns the assigned addresses of all Services.
fn assigned(cluster: &Cluster) -> BTreeMap<Key, Vec<IpAddr>> {
    let services = cluster.state.services.iter();
    let assigned = services.filter_map(|(key, entry)| {
        Some((key.clone(), entry.assignment.as_ref()?.addresses.clone()))
    });
    assigned.collect()
}

/// Applies an operation, and checks that a Node's address is never assigned, and that a Node takes
/// no assigned address away.
fn apply_op_with_nodes(cluster: &mut Cluster, op: ClusterOp) -> Result<(), TestCaseError> {
    let is_node = matches!(op, ClusterOp::Node(_));
    let before = assigned(cluster);
    apply_op(cluster, op);
    let after = assigned(cluster);
    let had = |key: &Key, address: &IpAddr| {
        let in_status = cluster.services.get(key).is_some_and(|service| {
            service.assigned.iter().any(|assigned| assigned.address == *address)
        });
        in_status || before.get(key).is_some_and(|addresses| addresses.contains(address))
    };
    let of_node = &cluster.nodes["n1"].addresses;
    for (key, address) in after.iter().flat_map(|(key, all)| all.iter().map(move |it| (key, it))) {
        prop_assert!(had(key, address) || !of_node.contains(address), "{} of a Node", address);
    }
    for (key, addresses) in before.iter().filter(|_| is_node) {
        let kept = |it: &IpAddr| after.get(key).is_some_and(|after| after.contains(it));
        prop_assert!(addresses.iter().all(kept), "a Node took an address of Service {}", key);
    }
    Ok(())
}

/// Checks that no address is assigned twice, and the allocator agrees with the decisions.
fn check(cluster: &Cluster) -> Result<(), TestCaseError> {
    let mut owners = BTreeMap::new();
    for (key, entry) in cluster.state.services.iter() {
        for address in entry.assignment.iter().flat_map(|assignment| &assignment.addresses) {
            prop_assert_eq!(
                owners.insert(*address, key.clone()),
                None,
                "{} is assigned to two Services",
                address
            );
        }
    }
    let assignments = cluster.state.allocator.assignments();
    let allocated: BTreeMap<_, _> =
        assignments.map(|(address, keys)| (address, keys[0].clone())).collect();
    prop_assert_eq!(owners, allocated);
    Ok(())
}

proptest! {
    #[test]
    fn no_history_assigns_an_address_twice_or_stays_unsettled(ops in prop::collection::vec(op(), 1..60)) {
        let mut cluster = Cluster::new(vec![], vec![pool("p0", &["10.0.0.0-10.0.0.3", "fd00::/126"])]);
        for op in ops {
            apply_op_with_nodes(&mut cluster, op)?;
            check(&cluster)?;
        }
        cluster.settle();
        check(&cluster)?;
        let statuses = cluster.statuses();
        let addresses: Vec<_> = cluster
            .services
            .values()
            .filter(|service| service.load_balancer)
            .flat_map(|service| service.assigned.iter().map(|assigned| assigned.address))
            .collect();
        prop_assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len(), "{:?}", statuses);
        cluster.log.clear();
        cluster.restart();
        check(&cluster)?;
        cluster.settle();
        prop_assert_eq!(&cluster.log, &Vec::<String>::new());
        prop_assert_eq!(cluster.statuses(), statuses);
    }

    #[test]
    fn the_order_of_the_first_lists_does_not_change_the_writes(
        services in prop::collection::btree_map(0..12u8, (any::<bool>(), prop::option::of(0..8u8)), 0..12),
    ) {
        let services: Vec<_> = services
            .into_iter()
            .map(|(n, (dual_stack, has))| {
                let families = if dual_stack { vec![Family::V6, Family::V4] } else { vec![Family::V4] };
                let has = has.map(|last| AssignedAddress { address: [10, 0, 0, last].into(), mode: Some(IpMode::Vip) });
                Service { families, assigned: has.into_iter().collect(), ..service(&format!("s{n}")) }
            })
            .collect();
        let pools = vec![pool("a", &["10.0.0.0-10.0.0.3"]), pool("b", &["10.0.0.3-10.0.0.7"]), pool("c", &["10.0.0.5-10.0.0.7", "fd00::/126"])];
        let planned_writes = [Order::ByName, Order::Reversed].map(|order| {
            let mut cluster = Cluster::without_leader(services.clone(), pools.clone());
            cluster.handle(Event::Lease(permanent_lease()));
            cluster.list_all(order);
            let mut writes = cluster.writes();
            writes.sort_by_key(Write::target);
            writes.into_iter().map(|write| (write.target(), write.status)).collect::<Vec<_>>()
        });
        prop_assert_eq!(&planned_writes[0], &planned_writes[1]);
    }
}

/// An operation in a history in which each write succeeds or fails on its own.
#[derive(Clone, Debug)]
enum WriteOp {
    /// The Service requests an address, or none.
    Request(u8, Option<u8>),
    /// The Service begins to be deleted, and keeps its status meanwhile.
    BeginDeletion(u8),
    Cluster(ClusterOp),
    /// One of the due writes is sent, unless another write to its object is on its way.
    Send(u8),
    /// One of the writes on their way is stored.
    Succeed(u8),
    /// One of the writes on their way is stored, but its reply is lost.
    LoseReply(u8),
    /// One of the writes on their way fails.
    Fail(u8),
    /// Time passes, so that failed writes are due again.
    Wait,
}

fn write_op() -> impl Strategy<Value = WriteOp> {
    let cluster = prop_oneof![
        4 => (0..6u8).prop_map(|name| ClusterOp::Apply(name, 0)),
        2 => (0..6u8).prop_map(ClusterOp::Delete),
        1 => (0..6u8).prop_map(ClusterOp::Type),
        2 => (0..2u8, 0..3u8).prop_map(|(name, range_set)| ClusterOp::Pool(name, range_set)),
        1 => (0..4u8).prop_map(ClusterOp::Node),
        1 => Just(ClusterOp::Restart),
    ];
    prop_oneof![
        4 => (0..6u8, prop::option::of(0..4u8)).prop_map(|(name, last)| WriteOp::Request(name, last)),
        1 => (0..6u8).prop_map(WriteOp::BeginDeletion),
        6 => cluster.prop_map(WriteOp::Cluster),
        12 => any::<u8>().prop_map(WriteOp::Send),
        8 => any::<u8>().prop_map(WriteOp::Succeed),
        2 => any::<u8>().prop_map(WriteOp::LoseReply),
        4 => any::<u8>().prop_map(WriteOp::Fail),
        2 => Just(WriteOp::Wait),
    ]
}

/// Applies one operation. `sent` are the writes on their way, at most one per object.
fn apply_write_op(cluster: &mut Cluster, sent: &mut Vec<Write>, op: WriteOp) {
    let name = |n: u8| format!("s{n}");
    let mut take = |n: u8| {
        let index = usize::from(n) % sent.len().max(1);
        (index < sent.len()).then(|| sent.remove(index))
    };
    match op {
        WriteOp::Request(n, last) if cluster.services.contains_key(&key(&name(n))) => {
            cluster.change(&name(n), |service| {
                let address = |last: u8| IpAddr::from([10, 0, 0, last]);
                service.demand.request.addresses = last.map(address).into_iter().collect();
            });
        }
        WriteOp::BeginDeletion(n) if cluster.services.contains_key(&key(&name(n))) => {
            cluster.change(&name(n), |service| service.deleting = true);
        }
        WriteOp::Request(..) | WriteOp::BeginDeletion(_) => {}
        WriteOp::Cluster(op) => {
            match op {
                // The API server rejects a write to a Service of another uid or type.
                ClusterOp::Delete(n) | ClusterOp::Type(n) => {
                    sent.retain(|write| write.target() != Target::Service(key(&name(n))));
                }
                ClusterOp::Restart => sent.clear(),
                ClusterOp::Apply(..)
                | ClusterOp::SetAddress(..)
                | ClusterOp::Pool(..)
                | ClusterOp::DeletePool(_)
                | ClusterOp::Node(_)
                | ClusterOp::Fail
                | ClusterOp::Settle
                | ClusterOp::Relist => {}
            }
            apply_op(cluster, op);
        }
        WriteOp::Send(n) => {
            let is_free = |write: &Write| !sent.iter().any(|it| it.target() == write.target());
            let free: Vec<_> = cluster.writes().into_iter().filter(is_free).collect();
            sent.extend(free.get(usize::from(n) % free.len().max(1)).cloned());
        }
        WriteOp::Succeed(n) => {
            if let Some(write) = take(n) {
                cluster.write(&write);
            }
        }
        WriteOp::LoseReply(n) => {
            if let Some(write) = take(n) {
                cluster.store_write(&write);
                cluster.report(&write, Outcome::Failed);
            }
        }
        WriteOp::Fail(n) => {
            if let Some(write) = take(n) {
                cluster.report(&write, Outcome::Failed);
            }
        }
        WriteOp::Wait => {
            cluster.now = cluster.now + Duration::from_secs(10);
            cluster.handle(Event::Tick);
        }
    }
}

proptest! {
    #[test]
    fn no_two_services_show_one_address_whichever_writes_fail(
        ops in prop::collection::vec(write_op(), 1..80),
    ) {
        let mut cluster = Cluster::new(vec![], vec![pool("p0", &["10.0.0.0-10.0.0.3"])]);
        let mut sent = Vec::new();
        for op in ops {
            apply_write_op(&mut cluster, &mut sent, op);
            let mut shown = BTreeMap::new();
            for (key, service) in &cluster.services {
                for assigned in &service.assigned {
                    let other = shown.insert(assigned.address, key);
                    prop_assert_eq!(other, None, "{} of {} is on two Services", assigned.address, key);
                }
            }
        }
    }
}
