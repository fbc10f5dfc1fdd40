//! Predicts which nodes announce an address after all speakers have handled the present objects.
//! Pure; `kubectl ferrolb plan` and `drain` print the result.

use std::net::IpAddr;

use ferrolb_core::announce::Layer2Address;
use ferrolb_core::bgp::{RouteInput, RouteTable};
use ferrolb_core::election::Rank;
use ferrolb_proto::facts::Speaker;

use super::finding::DiagnosisInput;
use crate::state::OwnerOutlook;

/// A node that can announce an address.
struct Able<'a> {
    rank: Rank<'a>,
    speaker: &'a Speaker,
}

impl DiagnosisInput<'_> {
    /// Returns the present and the next owners of each address that L2Advertisements announce.
    pub(in crate::state) fn owner_outlooks(&self) -> impl Iterator<Item = (IpAddr, OwnerOutlook)> {
        self.layer2.iter().map(|(address, layer2)| {
            let owners = self.live_speakers.map(|live| live.owners(*address)).unwrap_or_default();
            let present = owners.all.iter().map(|owner| owner.node.to_owned()).collect();
            (*address, OwnerOutlook { present, next: self.next_owners(layer2) })
        })
    }

    /// Adds the routes of an address to the routes of the node of `input`.
    pub(in crate::state) fn set_routes(
        &self,
        table: &mut RouteTable,
        input: &RouteInput<'_, '_>,
        address: IpAddr,
    ) {
        table.set_address(self.cluster, input, address, self.services.of(address));
    }

    /// Returns the nodes that will announce an address, ascending: one for each part of the network
    /// whose speakers are in contact. Empty if speakers do not report their state.
    fn next_owners(&self, layer2: &Layer2Address<'_, '_>) -> Vec<String> {
        let Some(live) = self.live_speakers else { return Vec::new() };
        let ranks = self.ranks(layer2, |node| node.drain.is_some()).into_iter();
        let mut left: Vec<_> =
            ranks.filter_map(|rank| Some(Able { rank, speaker: live.of(rank.node)? })).collect();
        let present = live.owners(layer2.address()).all;
        let owns = |able: &&Able<'_>| present.iter().any(|owner| owner.node == able.rank.node);
        let mut owners = Vec::new();
        while !left.is_empty() {
            let part = take_part(&mut left);
            let Some(best) = part.first() else { break };
            let owner = part.iter().find(owns);
            let keeps = owner.filter(|owner| !best.rank.may_take_from(&owner.rank, false));
            owners.push(keeps.unwrap_or(best).rank.node.to_owned());
        }
        owners.sort_unstable();
        owners
    }
}

/// Removes the first node, and all nodes with which it is in contact, also through others. Returns
/// them in the same order.
fn take_part<'a>(left: &mut Vec<Able<'a>>) -> Vec<Able<'a>> {
    let mut part: Vec<Able<'_>> = left.drain(..left.len().min(1)).collect();
    loop {
        let is_reached = |able: &Able<'_>| part.iter().any(|it| is_in_contact(it, able));
        let (reached, others): (Vec<_>, Vec<_>) = left.drain(..).partition(is_reached);
        *left = others;
        if reached.is_empty() {
            part.sort_unstable_by_key(|able| able.rank);
            return part;
        }
        part.extend(reached);
    }
}

/// Returns whether a speaker receives the hellos of the other. An isolated speaker receives none,
/// but the other nodes announce in its place.
fn is_in_contact(one: &Able<'_>, other: &Able<'_>) -> bool {
    let is_isolated = |able: &Able<'_>| able.speaker.interfaces.iter().all(|it| it.isolated);
    one.speaker.receives_hellos_of(other.rank.node)
        || other.speaker.receives_hellos_of(one.rank.node)
        || is_isolated(one)
        || is_isolated(other)
}
