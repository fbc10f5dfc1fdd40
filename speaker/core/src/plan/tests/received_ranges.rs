//! Tests of the ranges of addresses about which the interfaces receive frames of other hosts.

use super::*;
use ferrolb_proto::facts::Pool;

/// Returns the ranges of the only interface, or none if they are not known.
fn received(cluster: &Cluster) -> Option<Vec<String>> {
    let plan = cluster.plan();
    let ranges = plan.links[&2].config.received_ranges.as_deref()?;
    Some(ranges.iter().map(ToString::to_string).collect())
}

#[test]
fn ranges_contain_all_pools_and_the_addresses_outside_them() {
    let pools = vec![pool("lan", &["172.30.0.0/24", "fd30::/64"]), pool("b", &["172.30.1.0/24"])];
    let services = vec![
        service("web", &["172.30.0.200"]),
        service("moved", &["172.31.0.9", "172.31.0.10", "fd31::9"]),
    ];
    let cluster = Cluster { pools, services, ..Cluster::default() };
    assert_eq!(
        received(&cluster).expect("all pools are valid"),
        [
            "172.30.0.0-172.30.1.255",
            "172.31.0.9-172.31.0.10",
            "fd30::-fd30::ffff:ffff:ffff:ffff",
            "fd31::9"
        ]
    );
}

#[test]
fn ranges_are_not_known_while_a_pool_is_invalid_or_an_input_is_missing() {
    let invalid = Pool { problem: Some(PoolProblem::Empty), ..pool("b", &[]) };
    let pools = vec![pool("lan", &["172.30.0.0/24"]), invalid];
    assert_eq!(received(&Cluster { pools, ..Cluster::default() }), None);
    let mut state = Cluster::default().state();
    let mut memo = Memo::default();
    let ranges_of = |state: &State, memo: &mut Memo| {
        let plan = super::super::plan(state, memo, Instant::ZERO);
        plan.links.values().next().and_then(|link| link.config.received_ranges.clone())
    };
    assert!(ranges_of(&state, &mut memo).is_some());
    // A pool becomes unreadable, and readable again.
    let key = Key::new("ferrolb-system", "lan");
    let unreadable = Change::Unreadable { key, why: "spec".to_owned() };
    memo.add(state.handle(Event::of::<Pool>(unreadable), Instant::ZERO));
    assert_eq!(ranges_of(&state, &mut memo), None);
    let valid = Change::Apply(pool("lan", &["172.30.0.0/24"]));
    memo.add(state.handle(Event::of::<Pool>(valid), Instant::ZERO));
    assert_eq!(ranges_of(&state, &mut memo).map(|ranges| ranges.len()), Some(1));
    let empty = State::new(state.config.clone());
    assert_eq!(Memo::default().received_ranges.ranges(), None);
    assert!(plan(&empty, Instant::ZERO).links.is_empty(), "the interfaces are not known yet");
}

#[test]
fn many_addresses_outside_pools_are_within_few_ranges() {
    let texts: Vec<String> = (0..200).map(|n| format!("172.31.{n}.9")).collect();
    let mut addresses: Vec<&str> = texts.iter().map(String::as_str).collect();
    let v6: Vec<String> = (0..40).map(|n| format!("fd31:{n}::9")).collect();
    addresses.extend(v6.iter().map(String::as_str));
    let cluster = Cluster {
        pools: Vec::new(),
        services: vec![service("moved", &addresses)],
        ..Cluster::default()
    };
    let plan = cluster.plan();
    let link = &plan.links[&2].config;
    let ranges = link.received_ranges.as_deref().expect("there is no invalid pool");
    assert_eq!(ranges.len(), IPV4_RANGES_MAX + IPV6_RANGES_MAX);
    for address in texts.iter().chain(&v6).map(|text| text.parse::<IpAddr>().expect("an address")) {
        let contains = |range: &AddressRange| range.first() <= address && address <= range.last();
        assert!(ranges.iter().any(contains), "{address}");
    }
}
