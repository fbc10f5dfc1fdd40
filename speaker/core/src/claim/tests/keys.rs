//! Secret rotation: nodes read the new key at different times, and no node is excluded.

use super::*;

/// Applies key rings to nodes, 7 s apart. Checks that the owner stays the same, and that no node is
/// suspected.
fn rotate(segment: &mut Segment, steps: impl IntoIterator<Item = (&'static str, HelloKeyRing)>) {
    let owner = ranked(&NODES, VIP)[0];
    for (name, ring) in steps {
        segment.node(name).ring = ring.clone();
        segment.input(name, Input::Keys(ring.ids()));
        segment.run(Duration::from_secs(7));
    }
    assert_eq!(segment.owners(VIP), [owner]);
    assert_eq!(
        (segment.longest_gap(VIP), segment.longest_overlap(VIP)),
        (Duration::ZERO, Duration::ZERO)
    );
    for name in NODES {
        assert_eq!(segment.node(name).machine.counts().suspicions, 0, "suspicions of {name}");
    }
}

fn signing_key(segment: &mut Segment, name: &str) -> Option<u32> {
    segment.node(name).machine.members().signing_key()
}

#[test]
fn a_rolling_key_rotation_suspects_no_node() {
    let (old, new) = (HelloKey::new([7; 32]), HelloKey::new([8; 32]));
    let (both, only_new) =
        (HelloKeyRing::new(vec![new.clone(), old.clone()]), HelloKeyRing::new(vec![new.clone()]));
    let mut segment = settled_segment();
    rotate(&mut segment, NODES[..2].iter().map(|name| (*name, both.clone())));
    assert_eq!(
        signing_key(&mut segment, "node1"),
        Some(old.id()),
        "node3 cannot read the new key yet"
    );
    rotate(&mut segment, [("node3", both)]);
    for name in NODES {
        assert_eq!(signing_key(&mut segment, name), Some(new.id()), "all nodes accept the new key");
    }
    rotate(&mut segment, NODES.map(|name| (name, only_new.clone())));
}

#[test]
fn a_node_with_only_the_old_key_is_admitted() {
    let (old, new) = (HelloKey::new([7; 32]), HelloKey::new([8; 32]));
    let both = HelloKeyRing::new(vec![new, old]);
    let mut segment = settled_segment();
    let last = ranked(&NODES, VIP)[2];
    segment.node(last).up = false;
    rotate_all_but(&mut segment, last, &both);
    // The node returns before it has read the new key.
    segment.start(last);
    segment.run(Duration::from_secs(3));
    assert_eq!(
        segment.node(last).machine.members().peers().live().count(),
        2,
        "{last} receives frames with the old key"
    );
    for name in NODES.iter().filter(|name| **name != last) {
        assert_eq!(
            segment.node(name).machine.members().peers().live().count(),
            2,
            "{name} receives frames of {last}"
        );
    }
}

/// Sets the key ring of all nodes but one.
fn rotate_all_but(segment: &mut Segment, excluded: &str, ring: &HelloKeyRing) {
    for name in NODES.iter().filter(|name| **name != excluded) {
        segment.node(name).ring = ring.clone();
        segment.input(name, Input::Keys(ring.ids()));
    }
    segment.run(Duration::from_secs(10));
}
