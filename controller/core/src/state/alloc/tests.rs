//! Tests of the allocator: tables of assignments, and a comparison with a simple model that scans
//! lists of addresses.

use ferrolb_proto::facts::{Node, Service};
use ferrolb_proto::range::AddressRange;
use proptest::prelude::*;

use super::super::choose::{Shortage, UnusablePools};
use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn key(name: &str) -> Key {
    Key::new("default", name)
}

fn pool(name: &str, ranges: &[&str], excluded: &[&str]) -> Pool {
    let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Pool {
        name: name.into(),
        ranges: parse(ranges),
        excluded: parse(excluded),
        auto_assign: true,
        ..Pool::default()
    }
}

fn allocator(pools: &[Pool], nodes: &[&str]) -> Allocator {
    let mut allocator = Allocator::default();
    let nodes = [node(nodes)];
    allocator.set_pools(pools.iter().map(|pool| (pool, true)), hosts(&nodes), [].into_iter());
    allocator
}

fn hosts(nodes: &[Node]) -> impl Iterator<Item = (AddressUser, HostUses)> {
    nodes.iter().map(|node| (AddressUser::node(&node.name), of_node(node, None)))
}

fn node(addresses: &[&str]) -> Node {
    let addresses = addresses.iter().map(|address| ip(address)).collect();
    Node { name: "n1".into(), addresses, ..Node::default() }
}

/// Calls `act` with a requester: a Service with this key that requests no address and no pool.
fn with_requester<R>(key: &Key, act: impl FnOnce(&Requester<'_>) -> R) -> R {
    let service = Service { key: key.clone(), ..Service::default() };
    act(&Requester {
        service: &service,
        sharing: SharingParameters::default(),
        namespace_labels: None,
    })
}

fn assign_automatically(
    allocator: &mut Allocator,
    key: &Key,
    families: &[Family],
) -> Result<(Box<str>, Vec<IpAddr>), Shortage> {
    with_requester(key, |requester| allocator.assign_from_pools(requester, families, false, None))
}

fn check_address(
    allocator: &Allocator,
    address: &str,
    key: &Key,
    from: Option<&str>,
) -> Result<Box<str>, Refusal> {
    with_requester(key, |requester| allocator.check_address(requester, ip(address), from))
}

/// Returns the numbers of assignable and of assigned addresses of a pool, per family.
fn counts(allocator: &Allocator, pool: &str) -> [(u128, u64); 2] {
    allocator.counts(pool).map(|count| (count.total, count.used))
}

const V4: &[Family] = &[Family::V4];
const V6: &[Family] = &[Family::V6];
const BOTH: &[Family] = &[Family::V4, Family::V6];

#[test]
fn the_first_free_address_of_the_first_pool_by_name_is_assigned() {
    let pools =
        [pool("b", &["10.0.1.0/30"], &[]), pool("a", &["10.0.0.8-10.0.0.9", "10.0.0.2"], &[])];
    let mut allocator = allocator(&pools, &[]);
    let assigned: Vec<_> = ["1", "2", "3", "4"]
        .iter()
        .map(|name| {
            let (pool, addresses) = assign_automatically(&mut allocator, &key(name), V4).unwrap();
            format!("{} {pool}", addresses[0])
        })
        .collect();
    assert_eq!(assigned, ["10.0.0.8 a", "10.0.0.9 a", "10.0.0.2 a", "10.0.1.0 b"]);
    allocator.release(ip("10.0.0.8"), &key("1"));
    assert_eq!(assign_automatically(&mut allocator, &key("5"), V4).unwrap().1, [ip("10.0.0.8")]);
}

#[test]
fn unassignable_addresses_are_skipped_and_not_counted() {
    let pool = Pool {
        avoid_buggy: true,
        ..pool("lan", &["10.0.0.254-10.0.1.2", "fd00::/126"], &["10.0.1.1", "fd00::1"])
    };
    let mut allocator = allocator(&[pool], &["10.0.1.2", "fd00::"]);
    // The pool can assign .254, ::2 and ::3. It cannot assign .255 and .0 (`avoidBuggyIPs`), and
    // the excluded .1 and ::1. It skips the Node's .2 and ::.
    assert_eq!(counts(&allocator, "lan"), [(2, 0), (3, 0)]);
    assert_eq!(
        assign_automatically(&mut allocator, &key("a"), BOTH).unwrap().1,
        [ip("10.0.0.254"), ip("fd00::2")]
    );
    assert_eq!(
        assign_automatically(&mut allocator, &key("b"), V4),
        Err(Shortage::Exhausted(vec!["lan".into()]))
    );
    assert_eq!(assign_automatically(&mut allocator, &key("b"), V6).unwrap().1, [ip("fd00::3")]);
    assert_eq!(counts(&allocator, "lan"), [(2, 1), (3, 2)]);
    assert_eq!(allocator.counts("lan").map(|count| count.available), [0, 0]);
    let node = AddressUser::Node("n1".into());
    let node = UnmanagedUse { user: node, source: UnmanagedSource::NodeAddress };
    for (address, refusal) in [
        ("10.0.1.0", Refusal::NoPool),
        ("10.0.1.1", Refusal::NoPool),
        ("10.0.1.2", Refusal::Unmanaged(node)),
    ] {
        let requested = [ip(address)];
        let checked = with_requester(&key("c"), |it| allocator.check_requested(it, &requested));
        assert_eq!(checked, Err((requested[0], refusal)));
    }
    let skipped: Vec<_> = allocator.skipped("lan").map(|(address, _)| address).collect();
    assert_eq!(
        skipped,
        [ip("10.0.1.2"), ip("fd00::")],
        "skipped addresses include those of Nodes, but not excluded ones"
    );
}

#[test]
fn both_families_come_from_one_pool() {
    let pools = [
        pool("a", &["10.0.0.0/24"], &[]),
        pool("b", &["fd00::/120"], &[]),
        pool("c", &["10.0.2.1", "fd02::1"], &[]),
    ];
    let mut allocator = allocator(&pools, &[]);
    assert_eq!(
        assign_automatically(&mut allocator, &key("1"), BOTH).unwrap(),
        ("c".into(), vec![ip("10.0.2.1"), ip("fd02::1")])
    );
    assert_eq!(
        assign_automatically(&mut allocator, &key("2"), BOTH),
        Err(Shortage::Exhausted(vec!["c".into()]))
    );
    assert_eq!(
        counts(&allocator, "a"),
        [(256, 0), (0, 0)],
        "a Service that cannot get both families reserves no address of pool a"
    );
}

#[test]
fn each_shortage_has_its_cause() {
    let reserved = Pool { auto_assign: false, ..pool("a", &["10.0.0.1"], &[]) };
    let mut allocator = allocator(&[reserved], &[]);
    let manual = UnusablePools { manual: vec!["a".into()], ..UnusablePools::default() };
    assert_eq!(assign_automatically(&mut allocator, &key("1"), V4), Err(Shortage::NoPool(manual)));
    let requested = |allocator: &mut Allocator, pool, families| {
        with_requester(&key("1"), |requester| {
            allocator.assign_from_pools(requester, families, false, Some(pool))
        })
        .map(|(_, addresses)| addresses)
    };
    assert_eq!(requested(&mut allocator, "a", V6), Err(Shortage::Family(V6.to_vec())));
    assert_eq!(requested(&mut allocator, "b", V4), Err(Shortage::UnknownPool("b".into())));
    assert_eq!(
        requested(&mut allocator, "a", V4),
        Ok(vec![ip("10.0.0.1")]),
        "a Service can request a pool without autoAssign"
    );
    let none = assign_automatically(&mut Allocator::default(), &key("1"), V4);
    assert_eq!(none, Err(Shortage::NoPool(UnusablePools::default())));
}

#[test]
fn unmanaged_addresses_are_skipped_unless_already_assigned() {
    let mut allocator = allocator(&[pool("lan", &["10.0.0.1-10.0.0.3"], &[])], &[]);
    assert_eq!(assign_automatically(&mut allocator, &key("a"), V4).unwrap().1, [ip("10.0.0.1")]);
    let unmanaged = [ip("10.0.0.1"), ip("10.0.0.2"), ip("192.0.2.1")]
        .map(|address| (address, UnmanagedSource::OtherLoadBalancer));
    let user = AddressUser::Service(key("x"));
    let used_by_x = UnmanagedUse { user, source: UnmanagedSource::OtherLoadBalancer };
    let set = |allocator: &mut Allocator, name: &str, addresses: &[(IpAddr, UnmanagedSource)]| {
        with_requester(&key(name), |requester| allocator.set_unmanaged(requester, addresses));
    };
    set(&mut allocator, "x", &unmanaged);
    set(&mut allocator, "y", &unmanaged[..2]);
    assert_eq!(allocator.counts("lan")[0], AddressCounts { total: 3, used: 1, available: 1 });
    assert_eq!(
        allocator.skipped("lan").collect::<Vec<_>>(),
        [(ip("10.0.0.2"), SkipReason::Unmanaged(&used_by_x))]
    );
    assert_eq!(assign_automatically(&mut allocator, &key("b"), V4).unwrap().1, [ip("10.0.0.3")]);
    let requested = |allocator: &Allocator, name: &str| {
        with_requester(&key(name), |requester| {
            allocator.check_requested(requester, &[ip("10.0.0.2")])
        })
    };
    assert_eq!(
        requested(&allocator, "b"),
        Err((ip("10.0.0.2"), Refusal::Unmanaged(used_by_x.clone())))
    );
    allocator.release(ip("10.0.0.1"), &key("a"));
    assert_eq!(
        allocator.counts("lan")[0],
        AddressCounts { total: 3, used: 1, available: 0 },
        "the released address is skipped, because Service x uses it"
    );
    assert!(allocator.take_freed());
    set(&mut allocator, "x", &[]);
    assert_eq!(allocator.counts("lan")[0].available, 0, "Service y still uses the address");
    assert_eq!(
        requested(&allocator, "y"),
        Ok("lan".into()),
        "a Service can request an address that it already uses itself"
    );
    assert!(!allocator.take_freed());
    set(&mut allocator, "y", &[]);
    assert_eq!((allocator.counts("lan")[0].available, allocator.take_freed()), (2, true));
    assert_eq!(assign_automatically(&mut allocator, &key("c"), V4).unwrap().1, [ip("10.0.0.1")]);
}

#[test]
fn buggy_addresses_are_counted_without_enumeration() {
    let cases = [
        ("10.0.0.0/8", 1 << 17),
        ("10.0.0.0/24", 2),
        ("10.0.0.0/25", 1),
        ("10.0.0.128/25", 1),
        ("10.0.0.1-10.0.0.254", 0),
        ("10.0.0.255-10.0.1.0", 2),
        ("10.0.0.0", 1),
        ("0.0.0.0/0", 1 << 25),
        ("fd00::/64", 0),
    ];
    for (range, count) in cases {
        assert_eq!(
            super::super::pool_addresses::count_buggy(&range.parse().unwrap()),
            count,
            "{range}"
        );
    }
}

#[test]
fn router_anycast_addresses_are_counted_without_enumeration() {
    let cases = [
        ("fd00::/64", 1),
        ("fd00::/48", 1 << 16),
        ("fd00::/8", 1 << 56),
        ("fd00::1/128", 0),
        ("fd00::", 1),
        ("fd00::1-fd00:0:0:1::", 1),
        ("fd00::1-fd00::ffff", 0),
        ("ffff:ffff:ffff:ffff::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1),
        ("10.0.0.0/8", 0),
    ];
    for (range, count) in cases {
        assert_eq!(
            super::super::pool_addresses::count_router_anycast(&range.parse().unwrap()),
            count,
            "{range}"
        );
    }
}

#[test]
fn a_huge_pool_needs_few_intervals_of_free_addresses() {
    let huge = Pool { avoid_buggy: true, ..pool("huge", &["10.0.0.0/8", "fd00::/8"], &[]) };
    let mut allocator = allocator(&[huge], &[]);
    assert_eq!(counts(&allocator, "huge"), [((1 << 24) - (1 << 17), 0), (1 << 120, 0)]);
    for n in 0..1_000 {
        assign_automatically(&mut allocator, &key(&n.to_string()), BOTH).unwrap();
    }
    assert!(allocator.pools["huge"].fragments() < 10);
    let [v4, v6] = allocator.counts("huge");
    assert_eq!(
        (v4.available, v6.available),
        ((1 << 24) - (1 << 17) - 1_000, (1 << 120) - (1 << 56) - 1_000)
    );
}

#[test]
fn an_assigned_address_is_counted_in_the_pool_that_contains_it() {
    let mut allocator = allocator(&[pool("old", &["10.0.0.0/24"], &[])], &[]);
    assign_automatically(&mut allocator, &key("a"), V4).unwrap();
    let (renamed, broken) = (pool("new", &["10.0.0.0/24"], &[]), pool("old", &[], &[]));
    allocator.set_pools(
        [(&renamed, true), (&broken, false)].into_iter(),
        [].into_iter(),
        [].into_iter(),
    );
    assert_eq!(assign_automatically(&mut allocator, &key("b"), V4).unwrap().1, [ip("10.0.0.1")]);
    assert_eq!(check_address(&allocator, "10.0.0.0", &key("a"), Some("deleted")), Ok("new".into()));
    assert_eq!(counts(&allocator, "new")[0], (256, 2));
    assert_eq!(
        check_address(&allocator, "10.0.0.0", &key("b"), None),
        Err(Refusal::AssignedTo(key("a"), SharingConflict::NoKey))
    );
    // The Service keeps an address of an invalid pool, but not one of a deleted pool.
    assert_eq!(check_address(&allocator, "10.9.9.9", &key("c"), Some("old")), Ok("old".into()));
    assert_eq!(
        check_address(&allocator, "10.9.9.9", &key("c"), Some("deleted")),
        Err(Refusal::NoPool)
    );
}

fn is_router_anycast_address(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.segments()[4..] == [0; 4])
}

/// Addresses of a Node, one in each pool.
const NODE_ADDRESSES: [&str; 3] = ["10.0.0.252", "10.0.2.3", "fd01::2"];

fn is_skipped_address(address: IpAddr) -> bool {
    is_router_anycast_address(address) || NODE_ADDRESSES.contains(&&*address.to_string())
}

/// Model of the allocator, which stores every address in a list.
#[derive(Default)]
struct AllocatorModel {
    pools: BTreeMap<Box<str>, Vec<IpAddr>>,
    assignments: BTreeMap<IpAddr, Key>,
}

impl AllocatorModel {
    fn assign_automatically(&mut self, key: &Key, families: &[Family]) -> Option<Vec<IpAddr>> {
        let free = |pool: &Vec<IpAddr>, family: Family| {
            let mut free = pool
                .iter()
                .filter(|ip| !is_skipped_address(**ip) && !self.assignments.contains_key(*ip));
            free.find(|ip| Family::of(**ip) == family).copied()
        };
        let assigned = self.pools.values().find_map(|pool| {
            families.iter().map(|family| free(pool, *family)).collect::<Option<Vec<_>>>()
        })?;
        self.assignments.extend(assigned.iter().map(|ip| (*ip, key.clone())));
        Some(assigned)
    }
}

#[derive(Clone, Debug)]
enum AllocatorOp {
    Assign(u8, u8),
    Release(u8),
    Pools(u8, bool),
}

fn ops() -> impl Strategy<Value = Vec<AllocatorOp>> {
    let op = prop_oneof![
        6 => (any::<u8>(), 0..3u8).prop_map(|(name, families)| AllocatorOp::Assign(name, families)),
        4 => any::<u8>().prop_map(AllocatorOp::Release),
        1 => (0..4u8, any::<bool>()).prop_map(|(pools, buggy)| AllocatorOp::Pools(pools, buggy)),
    ];
    prop::collection::vec(op, 1..80)
}

/// Returns the first `count` of three pools, each with the addresses that it can assign.
fn pool_set(count: u8, avoid_buggy: bool) -> Vec<(Pool, Vec<IpAddr>)> {
    let all = [
        pool("a", &["10.0.0.250-10.0.1.5", "fd00::/125"], &["10.0.1.2-10.0.1.3"]),
        pool("b", &["10.0.2.0/30"], &[]),
        pool("c", &["fd01::/126", "10.0.3.7"], &["fd01::1"]),
    ];
    let some = all.into_iter().take(usize::from(count));
    some.map(|pool| {
        let pool = Pool { avoid_buggy, ..pool };
        let listed = |range: &AddressRange| {
            let mut list = vec![range.first()];
            while *list.last().unwrap() < range.last() {
                list.push(match list.last().unwrap() {
                    IpAddr::V4(address) => (u32::from(*address) + 1).to_be_bytes().into(),
                    IpAddr::V6(address) => (u128::from(*address) + 1).to_be_bytes().into(),
                });
            }
            list
        };
        let out: Vec<_> = pool.excluded.iter().flat_map(listed).collect();
        let buggy = |ip: &IpAddr| {
            avoid_buggy
                && ip.is_ipv4()
                && [".0", ".255"].iter().any(|end| ip.to_string().ends_with(end))
        };
        let assignable = pool
            .ranges
            .iter()
            .flat_map(listed)
            .filter(|ip| !out.contains(ip) && !buggy(ip))
            .collect();
        (pool, assignable)
    })
    .collect()
}

proptest! {
    #[test]
    fn the_allocator_agrees_with_a_model_that_scans_lists(ops in ops()) {
        let (mut allocator, mut model) = (Allocator::default(), AllocatorModel::default());
        for op in ops {
            match op {
                AllocatorOp::Assign(name, families) => {
                    let families = [V4, V6, BOTH][usize::from(families)];
                    let name = key(&name.to_string());
                    let assigned = assign_automatically(&mut allocator, &name, families).ok().map(|(_, addresses)| addresses);
                    prop_assert_eq!(assigned, model.assign_automatically(&name, families));
                }
                AllocatorOp::Release(index) => {
                    let owned = model.assignments.iter().nth(usize::from(index) % model.assignments.len().max(1));
                    if let Some((address, service)) = owned.map(|(address, service)| (*address, service.clone())) {
                        allocator.release(address, &service);
                        model.assignments.remove(&address);
                    }
                }
                AllocatorOp::Pools(count, buggy) => {
                    let pools = pool_set(count, buggy);
                    let nodes = [node(&NODE_ADDRESSES)];
                    allocator.set_pools(pools.iter().map(|(pool, _)| (pool, true)), hosts(&nodes), [].into_iter());
                    model.pools = pools.into_iter().map(|(pool, assignable)| (pool.name, assignable)).collect();
                    // Like the state, checks every assignment again, and releases the rejected
                    // addresses.
                    for (address, service) in model.assignments.clone() {
                        let found_pool = with_requester(&service, |requester| allocator.check_address(requester, address, None)).ok();
                        let expect = model.pools.iter().find(|(_, assignable)| assignable.contains(&address)).map(|(name, _)| name);
                        prop_assert_eq!(found_pool.as_ref(), expect);
                        if let Some(pool) = found_pool {
                            allocator.assign(address, &service, &SharingParameters::default(), &pool);
                        } else {
                            allocator.release(address, &service);
                            model.assignments.remove(&address);
                        }
                    }
                }
            }
            let assignments: BTreeMap<_, _> = allocator.assignments().map(|(address, keys)| (address, keys[0].clone())).collect();
            prop_assert_eq!(&assignments, &model.assignments);
            for (name, assignable) in &model.pools {
                let count = |family: Family| {
                    let of = assignable.iter().filter(|ip| Family::of(**ip) == family);
                    (of.clone().count() as u128, of.filter(|ip| model.assignments.contains_key(*ip)).count() as u64)
                };
                prop_assert_eq!(counts(&allocator, name), [count(Family::V4), count(Family::V6)], "{}", name);
                let automatic = assignable.iter().filter(|ip| ip.is_ipv6() && !is_skipped_address(**ip));
                let available = automatic.filter(|ip| !model.assignments.contains_key(*ip)).count() as u128;
                prop_assert_eq!(allocator.counts(name)[1].available, available, "{}", name);
            }
        }
    }
}
