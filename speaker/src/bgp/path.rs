//! Conversion of paths to gobgpd's API, and of destinations from it. Pure.

use ferrolb_core::bgp::Prefix;
use ferrolb_proto::range::Family;
use ferrolb_speaker_core::gobgp::{ContentHash, family};
use gobgp_proto as api;
use gobgp_proto::attribute::Attr;

/// Returns the path to a prefix with this mark, or a withdrawal of the path if `mark` is none.
pub(super) fn path(prefix: Prefix, mark: Option<ContentHash>) -> api::Path {
    let unspecified = match prefix.family() {
        Family::V4 => "0.0.0.0",
        Family::V6 => "::",
    };
    let marks = mark.map(|mark| {
        Attr::LargeCommunities(api::LargeCommunitiesAttribute {
            communities: vec![mark.community()],
        })
    });
    let attributes = [
        Attr::Origin(api::OriginAttribute { origin: 0 }),
        Attr::NextHop(api::NextHopAttribute { next_hop: unspecified.to_owned() }),
        // The lowest preference, unless a policy statement sets another one. External routers do
        // not receive LOCAL_PREF.
        Attr::LocalPref(api::LocalPrefAttribute { local_pref: 0 }),
    ];
    let nlri = api::IpAddressPrefix {
        prefix_len: prefix.length().into(),
        prefix: prefix.network().to_string(),
    };
    api::Path {
        nlri: Some(api::Nlri { nlri: Some(api::nlri::Nlri::Prefix(nlri)) }),
        pattrs: attributes
            .into_iter()
            .chain(marks)
            .map(|attr| api::Attribute { attr: Some(attr) })
            .collect(),
        is_withdraw: mark.is_none(),
        family: Some(family(prefix.family())),
    }
}

/// Returns the prefix of a destination of gobgpd, or none if the text is not a prefix.
pub(super) fn prefix(text: &str) -> Option<Prefix> {
    let (network, length) = text.split_once('/')?;
    Some(Prefix::of(network.parse().ok()?, length.parse().ok()?))
}

/// Returns the mark of the path to a destination, if any.
pub(super) fn mark(destination: &api::Destination) -> Option<ContentHash> {
    let attributes = destination.paths.iter().flat_map(|path| &path.pattrs);
    attributes.filter_map(|attribute| attribute.attr.as_ref()).find_map(|attr| match attr {
        Attr::LargeCommunities(large) => {
            large.communities.iter().find_map(ContentHash::from_community)
        }
        Attr::Origin(_) | Attr::NextHop(_) | Attr::LocalPref(_) => None,
    })
}
