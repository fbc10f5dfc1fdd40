//! Messages of the condition `Valid` of an IPAddressPool, an L2Advertisement, a Community and a
//! BFDProfile.

use ferrolb_proto::facts::{
    BfdProfileProblem, CommunityProblem, L2AdvertisementProblem, PoolProblem,
};
use ferrolb_proto::range::{AddressRange, ParseRangeError};

use super::*;
use crate::state::alloc::{AddressUser, SkipReason, UnmanagedSource, UnmanagedUse};
use crate::state::messages::pool::{PoolFault, PoolMessage, SkippedAddress};
use crate::state::messages::valid::{CommunityMessage, L2Message, ProfileMessage};

const SELECTOR_PROBLEM: &str =
    "spec.nodeSelectors: operator \"Like\" of key a: use In, NotIn, Exists or DoesNotExist";

fn range(text: &str) -> AddressRange {
    text.parse().unwrap()
}

fn fault(fault: &PoolFault) -> (String, String) {
    condition(&PoolMessage::Fault(fault))
}

#[test]
fn every_fault_of_a_pool_has_its_message() {
    use PoolFault::{Overlap, Problem};
    let text = |text: &str| text.to_owned();
    let problem = |problem| Problem(problem);
    table!(PoolFault, fault;
        Problem(PoolProblem::Empty) => [(problem(PoolProblem::Empty), "BadAddresses", "spec.addresses is empty: write at least one CIDR, range or address")],
        Problem(PoolProblem::Addresses(ParseRangeError::Address(_))) => [
            (problem(PoolProblem::Addresses(ParseRangeError::Address(text("oops")))), "BadAddresses", "spec.addresses: \"oops\" is not an address: write a CIDR (10.0.0.0/24), a range (10.0.0.5-10.0.0.9) or one address (10.0.0.7)")
        ],
        Problem(PoolProblem::Addresses(ParseRangeError::Prefix { .. })) => [(
            problem(PoolProblem::Addresses(ParseRangeError::Prefix {
                text: text("10.0.0.0/40"),
                family: Family::V4,
                max: 32,
            })),
            "BadAddresses",
            "spec.addresses: \"10.0.0.0/40\" has no valid prefix length: IPv4 takes 0 to 32"
        )],
        Problem(PoolProblem::Addresses(ParseRangeError::Reversed(_))) => [
            (problem(PoolProblem::Addresses(ParseRangeError::Reversed(text("10.0.0.9-10.0.0.5")))), "BadAddresses", "spec.addresses: range \"10.0.0.9-10.0.0.5\" ends before it starts: write the lower address first")
        ],
        Problem(PoolProblem::Addresses(ParseRangeError::Mixed(_))) => [
            (problem(PoolProblem::Addresses(ParseRangeError::Mixed(text("10.0.0.1-fd00::1")))), "BadAddresses", "spec.addresses: range \"10.0.0.1-fd00::1\" mixes IPv4 and IPv6: write one range for each family")
        ],
        Problem(PoolProblem::Exclude(_)) => [
            (problem(PoolProblem::Exclude(ParseRangeError::Address(text("oops")))), "BadExcludeAddresses", "spec.excludeAddresses: \"oops\" is not an address: write a CIDR (10.0.0.0/24), a range (10.0.0.5-10.0.0.9) or one address (10.0.0.7)")
        ],
        Problem(PoolProblem::Overlap(..)) => [
            (problem(PoolProblem::Overlap(range("10.0.0.0/24"), range("10.0.0.7"))), "Overlap", "spec.addresses: 10.0.0.0-10.0.0.255 and 10.0.0.7 overlap: write every address once")
        ],
        Problem(PoolProblem::Special(..)) => [
            (problem(PoolProblem::Special(range("127.0.0.1"), range("127.0.0.0/8"))), "BadAddresses", "spec.addresses: 127.0.0.1 overlaps 127.0.0.0-127.255.255.255: remove loopback, link-local, multicast, broadcast and unspecified addresses")
        ],
        Problem(PoolProblem::Selector(_)) => [(problem(PoolProblem::Selector(SELECTOR_PROBLEM.into())), "BadSelector", "spec.nodeSelectors: operator \"Like\" of key a: use In, NotIn, Exists or DoesNotExist")],
        Problem(PoolProblem::StickyFor(_)) => [
            (problem(PoolProblem::StickyFor("1d".into())), "BadTime", "spec.stickyFor: \"1d\" is no duration from 0s to 8760h: write one such as 24h")
        ],
        Problem(PoolProblem::Unreadable(_)) => [
            (problem(PoolProblem::Unreadable("missing field `addresses`".into())), "Unreadable", "the object cannot be read: missing field `addresses`. Apply the CRDs of this version")
        ],
        Overlap { .. } => [(
            Overlap {
                pool: "wan".into(),
                range: range("10.0.0.128/25"),
                older: "lan".into(),
                older_range: range("10.0.0.0/24"),
            },
            "Overlap",
            "10.0.0.128-10.0.0.255 of this pool (wan) overlaps 10.0.0.0-10.0.0.255 of IPAddressPool lan, which is older: this pool assigns nothing until the overlap is removed from one of them"
        )],
    );
}

#[test]
fn a_valid_pool_lists_its_skipped_addresses() {
    let service = AddressUser::Service(key("web"));
    let unmanaged = UnmanagedUse { user: service, source: UnmanagedSource::ExternalIps };
    let skipped_address = |last, why| SkippedAddress(IpAddr::from([10, 0, 0, last]), why);
    check(
        condition(&PoolMessage::Valid { skipped: vec![], outside: &[], widened: &[] }),
        ("Valid", "addresses of this pool can be assigned"),
    );
    let skipped = vec![
        skipped_address(2, SkipReason::Unmanaged(&unmanaged)),
        skipped_address(3, SkipReason::RouterAnycast),
    ];
    check(
        condition(&PoolMessage::Valid { skipped, outside: &[], widened: &[] }),
        (
            "Valid",
            "addresses of this pool can be assigned, except 10.0.0.2 (in spec.externalIPs of Service default/web), 10.0.0.3 (Subnet-Router anycast, assigned on request only)",
        ),
    );
    let outside = [range("10.9.0.0/24")];
    check(
        condition(&PoolMessage::Valid { skipped: vec![], outside: &outside, widened: &[] }),
        (
            "OutsideSubnets",
            "addresses of this pool can be assigned; addresses of 10.9.0.0-10.9.0.255 are in no subnet of the interfaces that announce this pool, so clients do not find them or get no reply: correct spec.addresses, or set spec.routed to true if routes exist",
        ),
    );
}

#[test]
fn every_validity_of_the_other_kinds_has_its_message() {
    table!(L2Message<'static>, condition;
        L2Message::Valid => [(L2Message::Valid, "Valid", "the selected addresses are announced")],
        L2Message::Problem(L2AdvertisementProblem::Selector(_)) => [
            (L2Message::Problem(Box::leak(Box::new(L2AdvertisementProblem::Selector(SELECTOR_PROBLEM.into())))), "BadSelector", "spec.nodeSelectors: operator \"Like\" of key a: use In, NotIn, Exists or DoesNotExist")
        ],
        L2Message::Problem(L2AdvertisementProblem::Unreadable(_)) => [
            (L2Message::Problem(Box::leak(Box::new(L2AdvertisementProblem::Unreadable("no".into())))), "Unreadable", "the object cannot be read: no. Apply the CRDs of this version")
        ],
        L2Message::UnknownInterface(_) => [(L2Message::UnknownInterface(vec!["eth7", "eth8"]), "UnknownInterface", "spec.interfaces: no speaker uses the interface eth7, eth8: correct the name. `kubectl get fspeaker -A -o yaml` lists the interfaces; ports of a bridge or bond are not used")],
        L2Message::UnknownPool(_) => [(L2Message::UnknownPool(vec!["wan", "dmz"]), "UnknownPool", "spec.ipAddressPools: IPAddressPool wan, dmz does not exist: create it, or remove the name. The other selected pools are announced")],
    );
    use CommunityMessage as Names;
    table!(Names<'static>, condition;
        Names::Valid => [(Names::Valid, "Valid", "BGPAdvertisements can use these names")],
        Names::Duplicate { .. } => [(Names::Duplicate { name: "near", owner: "first" }, "DuplicateName", "spec.communities: name \"near\" is already defined by Community first, which takes precedence: rename one")],
        Names::Problem(CommunityProblem::MissingName) => [(Names::Problem(&CommunityProblem::MissingName), "BadName", "spec.communities: an entry has no name: give it one, or remove it")],
        Names::Problem(CommunityProblem::DuplicateName(_)) => [
            (Names::Problem(Box::leak(Box::new(CommunityProblem::DuplicateName("near".into())))), "BadName", "spec.communities: name \"near\" occurs twice: write it once")
        ],
        Names::Problem(CommunityProblem::Value { .. }) => [(
            Names::Problem(Box::leak(Box::new(CommunityProblem::Value { name: "near".into(), value: "1".into() }))),
            "BadValue",
            "spec.communities: the value of \"near\" is \"1\": write A:B with numbers up to 65535, or large:A:B:C with numbers up to 4294967295"
        )],
        Names::Problem(CommunityProblem::Unreadable(_)) => [
            (Names::Problem(Box::leak(Box::new(CommunityProblem::Unreadable("no".into())))), "Unreadable", "the object cannot be read: no. Apply the CRDs of this version")
        ],
    );
    use ProfileMessage as Profile;
    let range =
        BfdProfileProblem::Range { field: "receiveInterval", value: 1, min: 10, max: 60_000 };
    table!(Profile<'static>, condition;
        Profile::Valid => [(Profile::Valid, "Valid", "BGPPeers can use this profile")],
        Profile::Problem(BfdProfileProblem::Range { .. }) => [
            (Profile::Problem(Box::leak(Box::new(range.clone()))), "BadTime", "spec.receiveInterval is 1: write 10 to 60000")
        ],
        Profile::Problem(BfdProfileProblem::Unsupported(_)) => [
            (Profile::Problem(&BfdProfileProblem::Unsupported("echoMode")), "Unsupported", "spec.echoMode: GoBGP's BFD does not support it: remove it")
        ],
        Profile::Problem(BfdProfileProblem::Unreadable(_)) => [
            (Profile::Problem(Box::leak(Box::new(BfdProfileProblem::Unreadable("no".into())))), "Unreadable", "the object cannot be read: no. Apply the CRDs of this version")
        ],
    );
}
