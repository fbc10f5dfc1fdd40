//! Difference between the units of two configurations of an interface. Pure; used by the thread of
//! the interface.

use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_proto::claim::Input;
use ferrolb_proto::election::Unit;

/// Returns the input that changes the units `before` into `after`; `None` if all units are the
/// same. Both lists are sorted by address.
pub(super) fn unit_changes(before: &[Arc<Unit>], after: &[Arc<Unit>]) -> Option<Input> {
    let (mut changed, mut removed): (Vec<Arc<Unit>>, Vec<IpAddr>) = Default::default();
    let mut before = before.iter().peekable();
    for unit in after {
        while let Some(old) = before.next_if(|old| old.address < unit.address) {
            removed.push(old.address);
        }
        let old = before.next_if(|old| old.address == unit.address);
        // The comparison of two `Arc`s begins with their pointers, and the plan reuses equal units.
        if old != Some(unit) {
            changed.push(Arc::clone(unit));
        }
    }
    removed.extend(before.map(|old| old.address));
    let is_same = changed.is_empty() && removed.is_empty();
    (!is_same).then_some(Input::Units { changed, removed })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the units of these addresses, each with whether its health check fails.
    fn units(facts: &[(u8, bool)]) -> Vec<Arc<Unit>> {
        let unit = |(n, failing): &(u8, bool)| {
            let address = IpAddr::from([172, 30, 0, *n]);
            Arc::new(Unit {
                failing: *failing,
                ..Unit::new(address, address, Arc::default(), None)
            })
        };
        facts.iter().map(unit).collect()
    }

    fn last_byte(address: &IpAddr) -> u8 {
        let IpAddr::V4(address) = address else { panic!("{address} is not an IPv4 address") };
        address.octets()[3]
    }

    #[test]
    fn only_new_changed_and_removed_units_are_in_the_input() {
        let before = units(&[(1, false), (3, false), (4, true), (7, false), (9, false)]);
        let after = units(&[(2, false), (3, true), (4, true), (5, false), (7, false)]);
        let Some(Input::Units { changed, removed }) = unit_changes(&before, &after) else {
            panic!("the units have changed")
        };
        let changed: Vec<_> = changed.iter().map(|unit| last_byte(&unit.address)).collect();
        let removed: Vec<_> = removed.iter().map(last_byte).collect();
        assert_eq!((changed, removed), (vec![2, 3, 5], vec![1, 9]));
        assert!(unit_changes(&before, &before.clone()).is_none());
    }
}
