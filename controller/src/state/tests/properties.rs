//! Random histories: after any events, no address has two owners, the controller settles, and a
//! restart changes nothing.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Apply(u8, u8),
    Delete(u8),
    Type(u8),
    Steal(u8, u8),
    Pool(u8, u8),
    DeletePool(u8),
    Node(u8),
    Fail,
    Settle,
    Restart,
    Relist,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..12u8, 0..3u8).prop_map(|(name, families)| Op::Apply(name, families)),
        4 => (0..12u8).prop_map(Op::Delete),
        2 => (0..12u8).prop_map(Op::Type),
        1 => (0..12u8, 0..8u8).prop_map(|(name, last)| Op::Steal(name, last)),
        3 => (0..3u8, 0..4u8).prop_map(|(name, shape)| Op::Pool(name, shape)),
        1 => (0..3u8).prop_map(Op::DeletePool),
        1 => (0..8u8).prop_map(Op::Node),
        2 => Just(Op::Fail),
        3 => Just(Op::Settle),
        1 => Just(Op::Restart),
        1 => Just(Op::Relist),
    ]
}

fn perform(world: &mut World, op: Op) {
    let name = |n: u8| format!("s{n}");
    match op {
        Op::Apply(n, families) => {
            let before =
                world.services.get(&key(&name(n))).cloned().unwrap_or_else(|| service(&name(n)));
            let families = [vec![Family::V4], vec![Family::V6], vec![Family::V4, Family::V6]]
                [usize::from(families)]
            .clone();
            world.apply(Service { families, load_balancer: true, ..before });
        }
        Op::Delete(n) => world.delete(&name(n)),
        Op::Type(n) if world.services.contains_key(&key(&name(n))) => {
            world.change(&name(n), |s| s.load_balancer = false)
        }
        Op::Steal(n, last) if world.services.contains_key(&key(&name(n))) => {
            world.change(&name(n), |service| {
                service.assigned =
                    vec![AssignedAddress { address: [10, 0, 0, last].into(), mode: None }];
            })
        }
        Op::Type(_) | Op::Steal(..) => {}
        Op::Pool(n, shape) => {
            let ranges: &[&str] = [
                &["10.0.0.0-10.0.0.3"] as &[&str],
                &["10.0.0.2-10.0.0.5", "fd00::/126"],
                &["10.0.0.4-10.0.0.7"],
                &["fd00::2-fd00::5"],
            ][usize::from(shape)];
            world.apply_pool(pool(&format!("p{n}"), ranges));
        }
        Op::DeletePool(n) => world.delete_pool(&format!("p{n}")),
        Op::Node(last) => {
            let moved = node("n1", &format!("10.0.0.{last}"));
            world.nodes.insert("n1".into(), moved.clone());
            world.handle(Event::Node(Change::Apply(moved)));
        }
        Op::Fail => {
            for write in world.writes() {
                let outcome = Outcome::Failed;
                world.handle(Event::Written {
                    target: write.target(),
                    attempt: write.attempt,
                    outcome,
                });
            }
        }
        Op::Settle => world.settle(),
        Op::Restart => world.restart(),
        Op::Relist => world.list_all(Order::Backwards),
    }
}

/// Checks that no address is assigned twice, none belongs to a Node, and the allocator agrees with
/// the decisions.
fn check(world: &World) -> Result<(), TestCaseError> {
    let mut given = BTreeMap::new();
    for (key, entry) in world.state.services.iter() {
        for address in entry.assignment.iter().flat_map(|claim| &claim.addresses) {
            prop_assert_eq!(
                given.insert(*address, key.clone()),
                None,
                "{} has two owners",
                address
            );
            prop_assert!(!world.nodes["n1"].addresses.contains(address), "{} is a Node's", address);
        }
    }
    let tenants = world.state.allocator.assignments();
    let owned: BTreeMap<_, _> = tenants.map(|(address, keys)| (address, keys[0].clone())).collect();
    prop_assert_eq!(given, owned);
    Ok(())
}

proptest! {
    #[test]
    fn no_history_doubles_an_address_or_leaves_work_undone(ops in prop::collection::vec(op(), 1..60)) {
        let mut world = World::new(vec![], vec![pool("p0", &["10.0.0.0-10.0.0.3", "fd00::/126"])]);
        for op in ops {
            perform(&mut world, op);
            check(&world)?;
        }
        world.settle();
        check(&world)?;
        let shown = world.shown();
        let addresses: Vec<_> = world
            .services
            .values()
            .filter(|service| service.load_balancer)
            .flat_map(|service| service.assigned.iter().map(|assigned| assigned.address))
            .collect();
        prop_assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len(), "{:?}", shown);
        world.log.clear();
        world.restart();
        check(&world)?;
        world.settle();
        prop_assert_eq!(&world.log, &Vec::<String>::new());
        prop_assert_eq!(world.shown(), shown);
    }

    #[test]
    fn the_order_of_the_first_lists_does_not_matter(
        services in prop::collection::btree_map(0..12u8, (any::<bool>(), prop::option::of(0..8u8)), 0..12),
    ) {
        let services: Vec<_> = services
            .into_iter()
            .map(|(n, (both, has))| {
                let families = if both { vec![Family::V6, Family::V4] } else { vec![Family::V4] };
                let has = has.map(|last| AssignedAddress { address: [10, 0, 0, last].into(), mode: Some(IpMode::Vip) });
                Service { families, assigned: has.into_iter().collect(), ..service(&format!("s{n}")) }
            })
            .collect();
        let pools = vec![pool("a", &["10.0.0.0-10.0.0.3"]), pool("b", &["10.0.0.3-10.0.0.7"]), pool("c", &["10.0.0.5-10.0.0.7", "fd00::/126"])];
        let planned = [Order::ByName, Order::Backwards].map(|order| {
            let mut world = World::unled(services.clone(), pools.clone());
            world.handle(Event::Lease(held()));
            world.list_all(order);
            let mut writes = world.writes();
            writes.sort_by_key(Write::target);
            writes.into_iter().map(|write| (write.target(), write.status)).collect::<Vec<_>>()
        });
        prop_assert_eq!(&planned[0], &planned[1]);
    }
}
