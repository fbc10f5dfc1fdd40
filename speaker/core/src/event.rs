//! Events of the speaker. They are the variants of one enum, so that one list names everything that
//! triggers work. Events are plain values. Watches, drivers and the main loop create them, and only
//! [`crate::state`] consumes them.

mod bgp;
mod issue;

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ferrolb_core::shared_map::SharedMap;
use ferrolb_core::watched_kinds;
use ferrolb_proto::Instant;
use ferrolb_proto::api::{SUBNETS_MAX, WatchedNode};
use ferrolb_proto::facts::{
    BfdProfile, BgpAdvertisement, BgpPeer, Community, EndpointSlice, Key, L2Advertisement, Node,
    PasswordSecret, Pool, Service,
};
use ferrolb_proto::range::{AddressRange, Family};
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::HelloKeyRing;

use crate::claim::{AddressConflict, LateHellos, Move, Owned};
use crate::health::kube_proxy::KubeProxyHealth;
use crate::health::prober::ProbeTarget;

pub use bgp::{BgpReport, SessionReport};
pub use issue::{NodeIssue, PREFIXES_MAX, SessionIssue};

/// An input of the speaker's state.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most events are changes of objects")]
pub enum Event {
    /// An object changed.
    Object(ObjectChange),
    /// All interfaces of this node, after a change of any of them.
    Links(Vec<Link>),
    /// The routes of this node, after a change of any of them.
    Routes(Routes),
    /// The report of an interface's thread changed.
    Report {
        /// Index of the interface.
        link: u32,
        /// New report.
        report: LinkReport,
    },
    /// The thread of an interface ended with an error.
    LinkFailed {
        /// Index of the interface.
        link: u32,
        /// Error message.
        why: Box<str>,
    },
    /// An interface does not receive neighbor solicitations for these IPv6 addresses, because
    /// joining their multicast groups failed.
    GroupsNotJoined {
        /// Index of the interface.
        link: u32,
        /// IPv6 addresses whose multicast group could not be joined, ascending. If empty, all
        /// groups are joined.
        addresses: Arc<[Ipv6Addr]>,
    },
    /// The health of kube-proxy on this node changed.
    ProxyHealth(KubeProxyHealth),
    /// kube-proxy on this node has updated its rules while a new address waits for them.
    RuleUpdate {
        /// Address family of the rules.
        family: Family,
        /// End of the update.
        end: Instant,
    },
    /// An endpoint of this node started or stopped failing its health check.
    EndpointHealth {
        /// Endpoint, and the Service for which the endpoint is checked.
        id: ProbeTarget,
        /// Reason for which the health check fails. None: the check passes, or the endpoint is not
        /// checked.
        failing: Option<Box<str>>,
    },
    /// The state of gobgpd or of its sessions changed.
    Bgp(BgpReport),
    /// The BGP driver has read gobgpd's state for the first time since the speaker started. The
    /// value is the number of prefixes that gobgpd still had from an earlier run of the speaker.
    GobgpRead(usize),
    /// The state of the nodes that this node watches changed. Sorted by name.
    WatchedNodes(Arc<[WatchedNode]>),
    /// After a change: true if kube-proxy was checked and works on a node that this node watches.
    KubeProxyWorksElsewhere(bool),
    /// The process received a signal to end, so this node must hand over its addresses.
    StopRequested,
}

watched_kinds! {
    /// A change of an object of any watched kind.
    #[derive(Debug)]
    pub enum ObjectChange;

    /// Passes the kinds to the visitor that every speaker watches.
    for_each_kind: {
        Service,
        EndpointSlice,
        Node,
        Pool,
        L2Advertisement,
        HelloKeyRing,
    }

    /// Passes the kinds to the visitor that only a speaker with a gobgpd watches.
    for_each_bgp_kind: {
        BgpPeer,
        BgpAdvertisement,
        Community,
        BfdProfile,
        PasswordSecret,
    }
}

/// A network interface of this node, as rtnetlink(7) reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index, unique among the interfaces that exist.
    pub index: u32,
    /// Interface name.
    pub name: Box<str>,
    /// Hardware address.
    pub mac: Mac,
    /// True if the interface carries Ethernet frames (`ARPHRD_ETHER`).
    pub ethernet: bool,
    /// True if the interface is up and has a carrier (`IFF_UP`, `IFF_LOWER_UP`, `IFF_RUNNING`).
    pub up: bool,
    /// True if the interface supports broadcast (`IFF_BROADCAST`).
    pub broadcast: bool,
    /// True if the interface is a port of a bridge, bond or other master (`IFLA_MASTER`).
    pub enslaved: bool,
    /// Index of the parent interface, if this interface is a macvlan, ipvlan or similar with a
    /// parent on this node. Both are on the same network segment, but neither receives frames that
    /// the other sends.
    pub parent: Option<u32>,
    /// True if the interface is one end of a veth or netkit pair whose other end is in another
    /// network namespace, like a pod's.
    pub into_namespace: bool,
    /// IP addresses of the interface, ascending.
    pub addresses: Vec<IpAddr>,
    /// IP addresses of the interface with the length of their on-link prefix, ascending.
    pub prefixes: Vec<(IpAddr, u8)>,
    /// Addresses of the interface that must not be used, ascending: their duplicate address
    /// detection is running or has failed (RFC 4862 section 5.4).
    pub tentative: Vec<IpAddr>,
}

impl Link {
    /// Returns the subnets that are on this interface's network segment. Link-local subnets are
    /// left out, because every segment has them.
    pub fn subnets(&self) -> impl Iterator<Item = AddressRange> + '_ {
        self.networks().map(|(address, length)| AddressRange::network(address, length))
    }

    /// Returns an address and the prefix length of each of [`Self::subnets`].
    fn networks(&self) -> impl Iterator<Item = (IpAddr, u8)> + '_ {
        let is_network = |(address, length): &&(IpAddr, u8)| {
            *length < Family::of(*address).width() && !is_link_local(*address)
        };
        self.prefixes.iter().filter(is_network).copied()
    }

    /// Returns the subnets as text, ascending, such as `192.168.1.0/24`.
    #[must_use]
    pub fn subnet_names(&self) -> Vec<String> {
        let first = |(address, length)| (AddressRange::network(address, length).first(), length);
        let networks: BTreeSet<_> = self.networks().map(first).collect();
        let text = |(first, length): (IpAddr, u8)| format!("{first}/{length}");
        networks.into_iter().take(SUBNETS_MAX).map(text).collect()
    }

    /// Returns whether the interface has no address, apart from link-local ones.
    #[must_use]
    pub fn is_unnumbered(&self) -> bool {
        self.addresses.iter().copied().all(is_link_local)
    }

    /// Returns whether the interface has an IPv6 address. The kernel gives each interface on which
    /// IPv6 is enabled a link-local one.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv6)
    }
}

const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Routes of this node's kernel, from its main table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// The default gateways, ascending.
    pub gateways: Box<[IpAddr]>,
    /// Routes that may lead to pods of this node, ascending.
    pub to_pods: Box<[PodRoute]>,
}

/// A route that may lead to pods of this node. It leads to a single address without a gateway, or
/// to a range with the source address of its own packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodRoute {
    /// Destinations of the route.
    pub range: AddressRange,
    /// Index of the interface.
    pub link: u32,
}

/// Maximum number of moves in a [`LinkReport`].
pub const MOVES_MAX: usize = 16;

/// Report of an interface's thread to the main loop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkReport {
    /// Names of the nodes with whose speakers this interface is in contact, ascending: it receives
    /// their frames, or they are unheard.
    pub speakers: Vec<Box<str>>,
    /// Names of the unheard nodes, ascending: their speakers run, but the frames of the ownership
    /// protocol that they send do not arrive on this interface.
    pub unheard: Vec<Box<str>>,
    /// Addresses that this node owns on the interface.
    pub owned: SharedMap<IpAddr, Owned>,
    /// Latest moves of addresses from and to this node, oldest first, at most [`MOVES_MAX`].
    pub moves: VecDeque<Move>,
    /// Number of all moves since the start of the interface's thread.
    pub move_count: u64,
    /// True if the interface is isolated: it receives no frames, and acts as if this node were
    /// alone on the network segment.
    pub isolated: bool,
    /// True if this is a standby interface: another interface of this node is active on the same
    /// network segment.
    pub standby: bool,
    /// Present if hellos of this node were late in the last minutes.
    pub late_hellos: Option<LateHellos>,
    /// True if a speaker on the segment reports that the kube-proxy of its node was checked and is
    /// healthy.
    pub proxy_healthy_elsewhere: bool,
    /// Address conflicts, ascending by address: other hosts that use addresses which this node may
    /// announce.
    pub conflicts: Arc<[AddressConflict]>,
    /// True if the interface has handed over its addresses, because the speaker stops. The process
    /// may end once this is true for all interfaces.
    pub handed_over: bool,
}

impl LinkReport {
    /// Returns the moves since the report `before`, oldest first, and the number of further moves
    /// that the report no longer contains.
    pub fn moves_since(&self, before: &Self) -> (impl Iterator<Item = &Move>, u64) {
        // A thread that has restarted counts its moves from 0.
        let new = self.move_count.checked_sub(before.move_count).unwrap_or(self.move_count);
        let reported = usize::try_from(new).unwrap_or(usize::MAX).min(self.moves.len());
        (self.moves.range(self.moves.len() - reported..), new - reported as u64)
    }
}
