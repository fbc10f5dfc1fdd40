//! Tables, and the allocator beside a slow and obvious one that scans lists.

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn key(name: &str) -> Key {
    Key::new("default", name)
}

fn pool(name: &str, ranges: &[&str], excluded: &[&str]) -> Pool {
    let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Pool { name: name.into(), ranges: parse(ranges), excluded: parse(excluded), auto_assign: true, ..Pool::default() }
}

fn allocator(pools: &[Pool], nodes: &[&str]) -> Allocator {
    let mut allocator = Allocator::default();
    allocator.set_pools(pools.iter().map(|pool| (pool, true)), nodes.iter().map(|node| ip(node)));
    allocator
}

const V4: &[Family] = &[Family::V4];
const V6: &[Family] = &[Family::V6];
const BOTH: &[Family] = &[Family::V4, Family::V6];

#[test]
fn the_lowest_free_address_of_the_first_pool_by_name_is_given() {
    let pools = [pool("b", &["10.0.1.0/30"], &[]), pool("a", &["10.0.0.8-10.0.0.9", "10.0.0.2"], &[])];
    let mut allocator = allocator(&pools, &[]);
    let given: Vec<_> = ["1", "2", "3", "4"]
        .iter()
        .map(|name| {
            let (pool, addresses) = allocator.give(&key(name), V4, None).unwrap();
            format!("{} {pool}", addresses[0])
        })
        .collect();
    assert_eq!(given, ["10.0.0.2 a", "10.0.0.8 a", "10.0.0.9 a", "10.0.1.0 b"]);
    allocator.release(ip("10.0.0.8"));
    assert_eq!(allocator.give(&key("5"), V4, None).unwrap().1, [ip("10.0.0.8")]);
}

#[test]
fn what_must_not_be_given_is_skipped_and_not_counted() {
    let pool =
        Pool { avoid_buggy: true, ..pool("lan", &["10.0.0.254-10.0.1.2", "fd00::/126"], &["10.0.1.1", "fd00::1"]) };
    let mut allocator = allocator(&[pool], &["10.0.1.2", "fd00::"]);
    // Left: .254, without .255, .0, the excluded .1 and the Node's .2; ::2 and ::3.
    assert_eq!(allocator.counts("lan"), [(1, 0), (2, 0)]);
    assert_eq!(allocator.give(&key("a"), BOTH, None).unwrap().1, [ip("10.0.0.254"), ip("fd00::2")]);
    assert_eq!(allocator.give(&key("b"), V4, None), Err(Shortage::Exhausted(vec!["lan".into()])));
    assert_eq!(allocator.give(&key("b"), V6, None).unwrap().1, [ip("fd00::3")]);
    assert_eq!(allocator.counts("lan"), [(1, 1), (2, 2)]);
    for (address, loss) in [("10.0.1.0", Loss::NoPool), ("10.0.1.1", Loss::NoPool), ("10.0.1.2", Loss::Node)] {
        assert_eq!(allocator.holder(ip(address), &key("c"), None), Err(loss), "{address}");
    }
}

#[test]
fn both_families_come_from_one_pool() {
    let pools =
        [pool("a", &["10.0.0.0/24"], &[]), pool("b", &["fd00::/120"], &[]), pool("c", &["10.0.2.1", "fd02::1"], &[])];
    let mut allocator = allocator(&pools, &[]);
    assert_eq!(allocator.give(&key("1"), BOTH, None).unwrap(), ("c".into(), vec![ip("10.0.2.1"), ip("fd02::1")]));
    assert_eq!(allocator.give(&key("2"), BOTH, None), Err(Shortage::Exhausted(vec!["c".into()])));
    assert_eq!(allocator.counts("a"), [(256, 0), (0, 0)], "nothing is taken for one who does not get all");
}

#[test]
fn it_is_said_why_there_is_none() {
    let mut reserved = pool("a", &["10.0.0.1"], &[]);
    reserved.auto_assign = false;
    let none = allocator(&[reserved.clone()], &[]).give(&key("1"), V4, None);
    assert_eq!(none, Err(Shortage::NoPool));
    let v6 = allocator(&[pool("a", &["10.0.0.1"], &[])], &[]).give(&key("1"), V6, None);
    assert_eq!(v6, Err(Shortage::Family(V6.to_vec())));
    let mut reserved = allocator(&[reserved], &[]);
    assert_eq!(reserved.give(&key("1"), V4, Some("a")).unwrap().1, [ip("10.0.0.1")], "asked for by name");
}

#[test]
fn a_huge_pool_costs_no_more_than_a_small_one() {
    let huge = Pool { avoid_buggy: true, ..pool("huge", &["10.0.0.0/8", "fd00::/8"], &[]) };
    let mut allocator = allocator(&[huge], &[]);
    assert_eq!(allocator.counts("huge"), [((1 << 24) - (1 << 17), 0), (1 << 120, 0)]);
    for n in 0..1_000 {
        allocator.give(&key(&n.to_string()), BOTH, None).unwrap();
    }
    let space = &allocator.pools["huge"];
    assert!(space.free.ranges().count() < 10 && space.all.ranges().count() == 2);
    assert_eq!(
        allocator.usage()[0].1,
        [Usage { total: (1 << 24) - (1 << 17), used: 1_000 }, Usage { total: i64::MAX, used: 1_000 }]
    );
}

#[test]
fn an_owner_keeps_its_address_when_pools_change_and_is_counted_to_the_pool_that_has_it_now() {
    let mut allocator = allocator(&[pool("old", &["10.0.0.0/24"], &[])], &[]);
    allocator.give(&key("a"), V4, None).unwrap();
    let (renamed, broken) = (pool("new", &["10.0.0.0/24"], &[]), pool("old", &[], &[]));
    allocator.set_pools([(&renamed, true), (&broken, false)].into_iter(), [].into_iter());
    assert_eq!(allocator.give(&key("b"), V4, None).unwrap().1, [ip("10.0.0.1")]);
    let holder = allocator.holder(ip("10.0.0.0"), &key("a"), Some("old")).unwrap();
    assert_eq!(&*holder, "new");
    allocator.take(ip("10.0.0.0"), key("a"), &holder);
    assert_eq!(allocator.counts("new")[0], (256, 2));
    assert_eq!(allocator.holder(ip("10.0.0.0"), &key("b"), None), Err(Loss::Taken(key("a"))));
    // What the broken pool gave stays; nothing stays of one that is not there.
    assert_eq!(allocator.holder(ip("10.9.9.9"), &key("c"), Some("old")), Ok("old".into()));
    assert_eq!(allocator.holder(ip("10.9.9.9"), &key("c"), Some("gone")), Err(Loss::NoPool));
}

/// The same, slowly: every address in a list.
#[derive(Default)]
struct Model {
    pools: BTreeMap<Box<str>, Vec<IpAddr>>,
    owners: BTreeMap<IpAddr, Key>,
}

impl Model {
    fn give(&mut self, key: &Key, families: &[Family]) -> Option<Vec<IpAddr>> {
        let free = |pool: &Vec<IpAddr>, family: Family| {
            pool.iter().filter(|ip| Family::of(**ip) == family && !self.owners.contains_key(*ip)).min().copied()
        };
        let given = self
            .pools
            .values()
            .find_map(|pool| families.iter().map(|family| free(pool, *family)).collect::<Option<Vec<_>>>())?;
        self.owners.extend(given.iter().map(|ip| (*ip, key.clone())));
        Some(given)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Give(u8, u8),
    Release(u8),
    Pools(u8, bool),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (any::<u8>(), 0..3u8).prop_map(|(name, families)| Op::Give(name, families)),
        4 => any::<u8>().prop_map(Op::Release),
        1 => (0..4u8, any::<bool>()).prop_map(|(pools, buggy)| Op::Pools(pools, buggy)),
    ];
    prop::collection::vec(op, 1..80)
}

/// One of a few sets of pools, with the addresses that each may give.
fn pools(which: u8, avoid_buggy: bool) -> Vec<(Pool, Vec<IpAddr>)> {
    let all = [
        (pool("a", &["10.0.0.250-10.0.1.5", "fd00::/125"], &["10.0.1.2-10.0.1.3"]), "10.0.0.252"),
        (pool("b", &["10.0.2.0/30"], &[]), "10.0.2.3"),
        (pool("c", &["fd01::/126", "10.0.3.7"], &["fd01::1"]), "fd01::"),
    ];
    let some = all.into_iter().take(usize::from(which));
    some.map(|(pool, node)| {
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
        let out: Vec<_> = pool.excluded.iter().flat_map(listed).chain([ip(node)]).collect();
        let buggy =
            |ip: &IpAddr| avoid_buggy && ip.is_ipv4() && [".0", ".255"].iter().any(|end| ip.to_string().ends_with(end));
        let may = pool.ranges.iter().flat_map(listed).filter(|ip| !out.contains(ip) && !buggy(ip)).collect();
        (pool, may)
    })
    .collect()
}

proptest! {
    #[test]
    fn the_allocator_does_what_scanning_lists_would(ops in ops()) {
        let (mut allocator, mut model) = (Allocator::default(), Model::default());
        for op in ops {
            match op {
                Op::Give(name, families) => {
                    let families = [V4, V6, BOTH][usize::from(families)];
                    let name = key(&name.to_string());
                    let given = allocator.give(&name, families, None).ok().map(|(_, addresses)| addresses);
                    prop_assert_eq!(given, model.give(&name, families));
                }
                Op::Release(which) => {
                    let owned = model.owners.keys().nth(usize::from(which) % model.owners.len().max(1)).copied();
                    if let Some(address) = owned {
                        allocator.release(address);
                        model.owners.remove(&address);
                    }
                }
                Op::Pools(which, buggy) => {
                    let pools = pools(which, buggy);
                    let nodes = ["10.0.0.252", "10.0.2.3", "fd01::"].map(ip);
                    allocator.set_pools(pools.iter().map(|(pool, _)| (pool, true)), nodes.into_iter());
                    model.pools = pools.into_iter().map(|(pool, may)| (pool.name, may)).collect();
                    // The state asks for every owner again and releases those that may not stay.
                    for (address, owner) in model.owners.clone() {
                        let holder = allocator.holder(address, &owner, None).ok();
                        let expect = model.pools.iter().find(|(_, may)| may.contains(&address)).map(|(name, _)| name);
                        prop_assert_eq!(holder.as_ref(), expect);
                        if let Some(pool) = holder {
                            allocator.take(address, owner, &pool);
                        } else {
                            allocator.release(address);
                            model.owners.remove(&address);
                        }
                    }
                }
            }
            let owners: BTreeMap<_, _> = allocator.owners().map(|(address, key)| (address, key.clone())).collect();
            prop_assert_eq!(&owners, &model.owners);
            for (name, may) in &model.pools {
                let count = |family: Family| {
                    let of = may.iter().filter(|ip| Family::of(**ip) == family);
                    (of.clone().count() as u128, of.filter(|ip| model.owners.contains_key(*ip)).count() as u64)
                };
                prop_assert_eq!(allocator.counts(name), [count(Family::V4), count(Family::V6)], "{}", name);
            }
        }
    }
}
