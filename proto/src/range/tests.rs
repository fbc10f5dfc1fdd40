//! Tests of the parser with tables, and comparison of the interval set with a simple model.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn range(text: &str) -> AddressRange {
    text.parse().expect(text)
}

#[test]
fn every_range_format_is_parsed() {
    let cases = [
        ("10.0.0.0/30", "10.0.0.0", "10.0.0.3"),
        ("10.0.0.7/30", "10.0.0.4", "10.0.0.7"),
        ("10.0.0.5 - 10.0.0.9", "10.0.0.5", "10.0.0.9"),
        ("10.0.0.7", "10.0.0.7", "10.0.0.7"),
        (" 10.0.0.7 ", "10.0.0.7", "10.0.0.7"),
        ("0.0.0.0/0", "0.0.0.0", "255.255.255.255"),
        ("fd00::/64", "fd00::", "fd00::ffff:ffff:ffff:ffff"),
        ("fd00::1-fd00::a", "fd00::1", "fd00::a"),
        ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ];
    for (text, first, last) in cases {
        let range = range(text);
        assert_eq!(
            (range.first().to_string(), range.last().to_string()),
            (first.to_owned(), last.to_owned()),
            "the range is {text}"
        );
    }
}

#[test]
fn an_invalid_range_has_a_reason() {
    let cases = [
        ("", "is not an address"),
        ("10.0.0.0/33", "prefix length: IPv4 takes 0 to 32"),
        ("fd00::/129", "prefix length: IPv6 takes 0 to 128"),
        ("10.0.0.0/x", "prefix length"),
        ("10.0.0.9-10.0.0.5", "ends before it starts"),
        ("10.0.0.9-fd00::1", "mixes IPv4 and IPv6"),
        ("10.0.0.256", "is not an address"),
        ("10.0.0.1-", "is not an address"),
        ("host/24", "is not an address"),
    ];
    for (text, reason) in cases {
        let error = text.parse::<AddressRange>().expect_err(text).to_string();
        assert!(error.contains(reason), "the error of {text} contains {reason:?}: {error}");
    }
}

#[test]
fn a_huge_set_is_stored_as_few_intervals() {
    let mut set = AddressSet::default();
    set.insert(range("fd00::/64"));
    set.insert(range("10.0.0.0/8"));
    set.remove(range("fd00::"));
    assert_eq!(set.count(Family::V6), (1 << 64) - 1);
    assert_eq!(set.count(Family::V4), 1 << 24);
    assert_eq!(set.lowest_in(&range("::/0")), Some("fd00::1".parse().expect("address")));
    assert_eq!(set.ranges().count(), 2);
    set.insert(range("::/0"));
    assert_eq!(set.count(Family::V6), u128::MAX);
}

#[test]
fn ranges_of_different_families_are_never_merged() {
    let mut set = AddressSet::default();
    set.insert(range("255.255.255.255"));
    set.insert(range("::"));
    assert_eq!(set.ranges().count(), 2);
    set.remove(range("0.0.0.0/0"));
    assert_eq!(set.lowest_in(&range("0.0.0.0/0")), None);
    assert_eq!(set.lowest_in(&range("::/0")), Some("::".parse().expect("address")));
}

proptest! {
    #[test]
    fn the_address_set_matches_a_btree_set(steps in prop::collection::vec((any::<bool>(), 0u8..64, 0u8..12), 0..60)) {
        let (mut set, mut model) = (AddressSet::default(), BTreeSet::new());
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let range_of = |first: u8, last: u8| range(&format!("{}-{}", address(first), address(last)));
        for (add, start, length) in steps {
            let last = start.saturating_add(length);
            let range = range_of(start, last);
            if add { set.insert(range) } else { set.remove(range) }
            for n in start..=last {
                if add { model.insert(n); } else { model.remove(&n); }
            }
            prop_assert_eq!(set.count(Family::V4), model.len() as u128);
            for range in [range, range_of(0, 255), range_of(20, 30)] {
                let inside = |n: &&u8| address(**n) >= range.first() && address(**n) <= range.last();
                prop_assert_eq!(set.lowest_in(&range), model.iter().find(inside).map(|n| address(*n)));
            }
            prop_assert!((0..80).all(|n| set.contains(address(n)) == model.contains(&n)));
            let ranges: Vec<_> = set.ranges().collect();
            prop_assert!(ranges.windows(2).all(|pair| bits(pair[0].last()) + 1 < bits(pair[1].first())), "adjacent intervals are merged");
        }
    }
}

#[test]
fn covering_ranges_leave_out_the_largest_gaps() {
    let mut set = AddressSet::default();
    for text in ["10.0.0.1", "10.0.0.3", "10.0.0.9-10.0.0.20", "10.0.1.0/24", "fd00::1", "fd01::1"]
    {
        set.insert(range(text));
    }
    let covering = |family, max| {
        let ranges = set.covering_ranges(family, max);
        ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    for (max, expect) in [
        (9, "10.0.0.1 10.0.0.3 10.0.0.9-10.0.0.20 10.0.1.0-10.0.1.255"),
        (4, "10.0.0.1 10.0.0.3 10.0.0.9-10.0.0.20 10.0.1.0-10.0.1.255"),
        (3, "10.0.0.1-10.0.0.3 10.0.0.9-10.0.0.20 10.0.1.0-10.0.1.255"),
        (2, "10.0.0.1-10.0.0.20 10.0.1.0-10.0.1.255"),
        (1, "10.0.0.1-10.0.1.255"),
        (0, "10.0.0.1-10.0.1.255"),
    ] {
        assert_eq!(covering(Family::V4, max), expect, "at most {max} ranges");
    }
    assert_eq!(covering(Family::V6, 1), "fd00::1-fd01::1");
    assert_eq!(AddressSet::default().covering_ranges(Family::V4, 4), []);
}

proptest! {
    #[test]
    fn covering_ranges_contain_the_set(starts in prop::collection::vec(any::<u16>(), 0..100), max in 1_usize..20) {
        let mut set = AddressSet::default();
        for start in &starts {
            set.insert(AddressRange::single(Ipv4Addr::from_bits(u32::from(*start)).into()));
        }
        let covering = set.covering_ranges(Family::V4, max);
        prop_assert!(covering.len() <= max);
        prop_assert!(covering.windows(2).all(|pair| pair[0].last < pair[1].first), "ascending");
        for interval in set.ranges() {
            prop_assert!(covering.iter().any(|range| range.first <= interval.first && interval.last <= range.last));
        }
        prop_assert!(covering.iter().all(|range| set.contains(range.first()) && set.contains(range.last())));
    }
}

#[test]
fn the_widest_network_is_inside_the_range() {
    let cases = [
        ("10.0.0.0/24", 24),
        ("10.0.0.7", 32),
        // In this example from MetalLB, the widest network inside the range is a /26.
        ("3.3.3.2-3.3.3.254", 26),
        ("10.0.0.1-10.0.0.2", 32),
        ("0.0.0.0-255.255.255.255", 0),
        ("128.0.0.0-255.255.255.255", 1),
        ("255.255.255.254-255.255.255.255", 31),
        ("::/0", 0),
        ("fd00::-fd00::ff", 120),
        ("fd00::1-fd00::100", 121),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 128),
    ];
    for (text, length) in cases {
        assert_eq!(range(text).widest_network(), length, "the range is {text}");
    }
}
