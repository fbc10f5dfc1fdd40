//! Summaries of claim sets, and the bounds of stretches.

use std::collections::BTreeSet;

use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Returns addresses of both families, ascending.
fn addresses() -> Vec<IpAddr> {
    let v4 = (0..20).map(|n| IpAddr::from([192, 0, 2, n]));
    let v6 = (0..20).map(|n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]));
    v4.chain(v6).collect()
}

const RANK: ClaimRank = ClaimRank { soft_rules: 2, preference: 1, order: 7 };

/// Returns the claims of these addresses with the same rank.
fn ranked(addresses: &[IpAddr]) -> impl Iterator<Item = (IpAddr, ClaimRank)> + '_ {
    addresses.iter().map(|address| (*address, RANK))
}

/// The hash is a part of the protocol. The values were computed by another program.
#[test]
fn the_hash_of_a_claim_is_stable() {
    let cases = [
        (0, "0.0.0.0", (0, 0, 0), 0x1af0_3630_17cd_7574),
        (0, "::", (0, 0, 0), 0x72ca_1a02_786a_65a4),
        (1, "192.0.2.1", (0, 0, 0), 0x7f46_a03c_b786_f8be),
        (1, "192.0.2.1", (130, 0, 0), 0xbd13_28c9_c94f_2ced),
        (1, "192.0.2.1", (0, 130, 0), 0xcaba_497a_ae64_94ea),
        (1, "192.0.2.1", (0, 0, 130), 0x368a_b473_d25b_c4c4),
        (1, "::ffff:192.0.2.1", (0, 0, 0), 0x1525_9970_d314_3c8c),
        (1, "2001:db8::1", (255, 65535, 4294967295), 0x17e7_3c68_6c9d_1486),
        (0xfeed_beef_0000_0001, "192.0.2.1", (2, 3, 4), 0x5802_d4de_cb8b_fcb7),
        (u64::MAX, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", (0, 0, 0), 0x909a_2d80_2c04_2b70),
    ];
    for (epoch, of, (soft_rules, preference, order), expect) in cases {
        let rank = ClaimRank { soft_rules, preference, order };
        let hash = ClaimSetSummary::hash(epoch, address(of), rank);
        assert_eq!(hash, expect, "{of} with {rank:?} in the epoch {epoch:#x}: {hash:#018x}");
    }
}

#[test]
fn the_summary_of_an_empty_set_is_zero_in_each_epoch() {
    for epoch in [0, 1, u64::MAX] {
        let empty = ClaimSetSummary::new(epoch, 5, []);
        assert_eq!(empty, ClaimSetSummary { counter: 5, count: 0, digest: 0 });
    }
}

#[test]
fn the_summary_follows_from_the_addresses_alone() {
    let (all, epoch) = (addresses(), 7);
    let summary = ClaimSetSummary::new(epoch, 3, ranked(&all));
    assert_eq!((summary.counter, summary.count), (3, 40));
    let reversed: Vec<_> = all.iter().rev().copied().collect();
    assert_eq!(ClaimSetSummary::new(epoch, 3, ranked(&reversed)), summary, "in any order");
    let mut changed = summary;
    for address in &all {
        changed.remove(epoch, *address, RANK);
        assert!(!changed.has_same_claims(summary), "the set without {address} differs");
        changed.add(epoch, *address, RANK);
        assert_eq!(changed, summary, "a removal of {address} and its addition cancel out");
    }
    for address in &all {
        changed.remove(epoch, *address, RANK);
    }
    assert_eq!(changed, ClaimSetSummary { counter: 3, count: 0, digest: 0 });
}

#[test]
fn summaries_are_compared_without_their_counters() {
    let set = |counter, addresses: &[IpAddr]| ClaimSetSummary::new(7, counter, ranked(addresses));
    let [a, b] = ["192.0.2.1", "192.0.2.2"].map(address);
    let cases = [
        ("the same set after more changes", set(1, &[a]), set(9, &[a]), true),
        ("two empty sets", set(1, &[]), set(9, &[]), true),
        ("another address", set(1, &[a]), set(1, &[b]), false),
        ("one more address", set(1, &[a]), set(1, &[a, b]), false),
        (
            "the same digest, and another number",
            set(1, &[]),
            ClaimSetSummary { count: 2, ..set(1, &[]) },
            false,
        ),
    ];
    for (name, one, other, expect) in cases {
        assert_eq!(one.has_same_claims(other), expect, "{name}");
        assert_eq!(other.has_same_claims(one), expect, "{name}, reversed");
    }
}

#[test]
fn the_digest_depends_on_the_epoch_and_on_the_family() {
    let digest = |epoch, of| ClaimSetSummary::new(epoch, 0, ranked(&[address(of)])).digest;
    let others = [
        (2, "192.0.2.1"),
        (1, "192.0.2.2"),
        (1, "::ffff:192.0.2.1"),
        (1, "::192.0.2.1"),
        (1, "0:0:c000:201::"),
    ];
    for (epoch, of) in others {
        assert_ne!(digest(epoch, of), digest(1, "192.0.2.1"), "{of} in the epoch {epoch}");
    }
}

#[test]
fn no_two_small_sets_have_the_same_digest() {
    let all = addresses();
    for epoch in [0, 1, 0xfeed_beef_0000_0001, u64::MAX] {
        let digest = |set: &[IpAddr]| ClaimSetSummary::new(epoch, 0, ranked(set)).digest;
        let mut digests = vec![digest(&[])];
        for (i, a) in all.iter().enumerate() {
            digests.push(digest(&[*a]));
            for (j, b) in all.iter().enumerate().skip(i + 1) {
                digests.push(digest(&[*a, *b]));
                digests.extend(all[j + 1..].iter().map(|c| digest(&[*a, *b, *c])));
            }
        }
        assert_eq!(digests.len(), 1 + 40 + 780 + 9_880, "sets of up to three of 40 addresses");
        let different: BTreeSet<_> = digests.iter().collect();
        assert_eq!(different.len(), digests.len(), "in the epoch {epoch:#x}");
    }
}

proptest! {
    #[test]
    fn different_random_sets_have_different_digests(
        epoch in any::<u64>(),
        one in prop::collection::btree_set(any::<IpAddr>(), 0..12),
        other in prop::collection::btree_set(any::<IpAddr>(), 0..12),
    ) {
        let [of_one, of_other] = [&one, &other].map(|set| {
            ClaimSetSummary::new(epoch, 1, set.iter().map(|address| (*address, RANK)))
        });
        prop_assert_eq!(of_one.has_same_claims(of_other), one == other);
        prop_assert_eq!(of_one.digest == of_other.digest, one == other);
    }
}

#[test]
fn a_stretch_contains_the_addresses_behind_its_start_up_to_its_end() {
    let [low, middle, high, v6] =
        ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"].map(address);
    let all = [low, middle, high, v6];
    let cases = [
        (None, None, [true, true, true, true]),
        (Some(middle), None, [false, false, true, true]),
        (None, Some(middle), [true, true, false, false]),
        (Some(low), Some(high), [false, true, true, false]),
        (Some(high), Some(v6), [false, false, false, true]),
        (Some(middle), Some(middle), [false; 4]),
        (Some(high), Some(low), [false; 4]),
    ];
    for (after, last, expect) in cases {
        let stretch = Stretch { after, last, claims: Vec::new() };
        let contained = all.map(|address| stretch.contains(&address));
        assert_eq!(contained, expect, "after {after:?}, last {last:?}");
    }
}
