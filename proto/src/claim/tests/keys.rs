//! Key rotation: each node gets and drops keys at a different time, and no node is excluded.

use super::*;

/// Runs ten minutes in which only keys change: the owner stays the same, and no node is suspected.
fn undisturbed(wire: &mut Wire, steps: impl IntoIterator<Item = (&'static str, HelloKeyRing)>) {
    let owner = ranked(&THREE, VIP)[0];
    for (name, ring) in steps {
        wire.node(name).ring = ring.clone();
        wire.input(name, Input::Keys(ring.ids()));
        wire.run(Duration::from_secs(7));
    }
    assert_eq!(wire.owners(VIP), [owner]);
    assert_eq!((wire.longest_gap(VIP), wire.longest_double(VIP)), (Duration::ZERO, Duration::ZERO));
    for name in THREE {
        assert_eq!(wire.node(name).machine.counts().suspicions, 0, "{name}");
    }
}

fn signs_with(wire: &mut Wire, name: &str) -> Option<u32> {
    wire.node(name).machine.signing_key()
}

#[test]
fn a_key_is_changed_one_node_after_the_other_and_nobody_is_suspected() {
    let (old, new) = (HelloKey::new([7; 32]), HelloKey::new([8; 32]));
    let (both, only_new) =
        (HelloKeyRing::new(vec![new.clone(), old.clone()]), HelloKeyRing::new(vec![new.clone()]));
    let mut wire = settled();
    undisturbed(&mut wire, THREE[..2].iter().map(|name| (*name, both.clone())));
    assert_eq!(signs_with(&mut wire, "node1"), Some(old.id()), "node3 cannot read the new key yet");
    undisturbed(&mut wire, [("node3", both)]);
    for name in THREE {
        assert_eq!(signs_with(&mut wire, name), Some(new.id()), "all say that they accept it");
    }
    undisturbed(&mut wire, THREE.map(|name| (name, only_new.clone())));
}

#[test]
fn a_node_that_starts_with_the_old_key_only_is_let_in() {
    let (old, new) = (HelloKey::new([7; 32]), HelloKey::new([8; 32]));
    let both = HelloKeyRing::new(vec![new, old]);
    let mut wire = settled();
    let last = ranked(&THREE, VIP)[2];
    wire.node(last).up = false;
    undisturbed_but_for(&mut wire, last, &both);
    // The node returns before it has read the new key.
    wire.start(last);
    wire.run(Duration::from_secs(3));
    assert_eq!(
        wire.node(last).machine.live_peers().count(),
        2,
        "it hears the others, who sign with the old key for it"
    );
    for name in THREE.iter().filter(|name| **name != last) {
        assert_eq!(wire.node(name).machine.live_peers().count(), 2, "{name} hears it");
    }
}

/// Gives the ring to all nodes but one.
fn undisturbed_but_for(wire: &mut Wire, without: &str, ring: &HelloKeyRing) {
    for name in THREE.iter().filter(|name| **name != without) {
        wire.node(name).ring = ring.clone();
        wire.input(name, Input::Keys(ring.ids()));
    }
    wire.run(Duration::from_secs(10));
}
