//! All that can happen to the speaker: one closed enum, so that one list shows what can trigger work. Plain values, made by
//! the drivers at the edge and read by [`crate::state`] alone.

mod bgp;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ferrolb_proto::bgp::Covered;
use ferrolb_proto::claim::Trouble;
use ferrolb_proto::facts::{
    Advertisement, BfdProfile, BgpAdvertisement, BgpPeer, Community, Key, Node, Pool, Service, Slice, Speaker,
};
use ferrolb_proto::health::data_path::Judgement;
use ferrolb_proto::health::prober::TargetId;
use ferrolb_proto::range::{AddressRange, Family};
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::KeyRing;
use ferrolb_runtime::watch::Change;

use crate::state::Password;

pub use bgp::{BgpReport, SessionReport};

/// What can happen.
#[derive(Debug)]
pub enum Event {
    /// A Service changed.
    Service(Change<Service>),
    /// An EndpointSlice changed.
    Slice(Change<Slice>),
    /// A Node changed.
    Node(Change<Node>),
    /// An IPAddressPool changed.
    Pool(Change<Pool>),
    /// An L2Advertisement changed.
    Advertisement(Change<Advertisement>),
    /// A BGPPeer changed.
    BgpPeer(Change<BgpPeer>),
    /// A BGPAdvertisement changed.
    BgpAdvertisement(Change<BgpAdvertisement>),
    /// A Community changed.
    Community(Change<Community>),
    /// A BFDProfile changed.
    BfdProfile(Change<BfdProfile>),
    /// A Secret changed that may have a router's password.
    Password(Change<Password>),
    /// The Secret with the keys of the hello protocol changed.
    Keys(Change<KeyRing>),
    /// These are all links of this node; some of them changed.
    Links(Vec<Link>),
    /// What the thread of a link does has changed.
    Report {
        /// The link's index.
        link: u32,
        /// What it does.
        report: LinkReport,
    },
    /// The thread of a link has ended by itself.
    LinkFailed {
        /// The link's index.
        link: u32,
        /// What a person has to know.
        why: Box<str>,
    },
    /// A link cannot hear the questions for these IPv6 addresses: their groups could not be joined.
    Unheard {
        /// The link's index.
        link: u32,
        /// The addresses, ascending; none: it hears all that it is to hear.
        addresses: Arc<[Ipv6Addr]>,
    },
    /// This is what is thought of the node's data path from now on.
    DataPath(Judgement),
    /// An endpoint of this node passes its health check no longer, or again.
    Probe {
        /// Which, for which Service.
        id: TargetId,
        /// Why it fails, for a person; none: it passes, or is checked no more.
        failing: Option<Box<str>>,
    },
    /// This is how gobgpd and its sessions stand.
    Bgp(BgpReport),
    /// The speaker has read gobgpd for the first time, and found so many of its prefixes there.
    BgpFound(usize),
    /// What a node's speaker says of itself changed.
    Speaker(Change<Speaker>),
    /// What speakers say of themselves is not known any more.
    SpeakersUnknown,
    /// Of the speakers that are asked whether they live, those of these nodes have answered lately.
    Answered(BTreeSet<Box<str>>),
    /// The plan found this: what others announce by BGP in place of this node, and since when.
    Covered(Arc<Covered>),
    /// The process was asked to end.
    Leave,
}

impl Event {
    /// The object that this event says cannot be read: its kind, its name and why.
    #[must_use]
    pub fn unreadable(&self) -> Option<(&'static str, &Key, &str)> {
        fn of<'a, F>(kind: &'static str, change: &'a Change<F>) -> Option<(&'static str, &'a Key, &'a str)> {
            match change {
                Change::Unreadable { key, why } => Some((kind, key, why.as_str())),
                Change::ResyncStarted | Change::Apply(_) | Change::Delete(_) | Change::ResyncDone => None,
            }
        }
        match self {
            Self::Service(change) => of("Service", change),
            Self::Slice(change) => of("EndpointSlice", change),
            Self::Node(change) => of("Node", change),
            Self::Pool(change) => of("IPAddressPool", change),
            Self::Advertisement(change) => of("L2Advertisement", change),
            Self::BgpPeer(change) => of("BGPPeer", change),
            Self::BgpAdvertisement(change) => of("BGPAdvertisement", change),
            Self::Community(change) => of("Community", change),
            Self::BfdProfile(change) => of("BFDProfile", change),
            Self::Password(change) => of("Secret", change),
            Self::Keys(change) => of("Secret", change),
            Self::Speaker(change) => of("SpeakerStatus", change),
            Self::Links(_)
            | Self::Report { .. }
            | Self::LinkFailed { .. }
            | Self::Unheard { .. }
            | Self::DataPath(_)
            | Self::Probe { .. }
            | Self::Bgp(_)
            | Self::BgpFound(_)
            | Self::SpeakersUnknown
            | Self::Answered(_)
            | Self::Covered(_)
            | Self::Leave => None,
        }
    }
}

/// A link of this node, as the kernel tells it (rtnetlink(7)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index, its identity while it exists.
    pub index: u32,
    /// Its name.
    pub name: Box<str>,
    /// Its hardware address.
    pub mac: Mac,
    /// It carries Ethernet frames (`ARPHRD_ETHER`).
    pub ethernet: bool,
    /// It is set up and has a carrier (`IFF_UP`, `IFF_LOWER_UP`, `IFF_RUNNING`).
    pub up: bool,
    /// It can broadcast (`IFF_BROADCAST`).
    pub broadcast: bool,
    /// It is a port of a bridge, bond or other master (`IFLA_MASTER`).
    pub enslaved: bool,
    /// Of a macvlan, ipvlan or the like the link of this node that it is on: they share a wire, and neither hears the other.
    pub parent: Option<u32>,
    /// It is one end of a veth pair whose other end is in another network namespace, as a pod's is.
    pub into_namespace: bool,
    /// Its addresses, ascending.
    pub addresses: Vec<IpAddr>,
    /// The same with the length of the prefix that is on the link, ascending.
    pub prefixes: Vec<(IpAddr, u8)>,
    /// Those of them that may not be used, ascending: whether another host has them is being checked, or known (RFC 4862 section 5.4).
    pub tentative: Vec<IpAddr>,
}

impl Link {
    /// The networks that its addresses say are on its segment: link-local ones are on every
    /// segment.
    pub fn subnets(&self) -> impl Iterator<Item = AddressRange> + '_ {
        let is_network = |(address, length): &&(IpAddr, u8)| {
            let link_local = match address {
                IpAddr::V4(address) => address.is_link_local(),
                IpAddr::V6(address) => address.is_unicast_link_local(),
            };
            *length < Family::of(*address).width() && !link_local
        };
        self.prefixes.iter().filter(is_network).map(|(address, length)| AddressRange::network(*address, *length))
    }
}

/// What the thread of a link does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkReport {
    /// The nodes whose speakers it hears, ascending.
    pub heard: Vec<Box<str>>,
    /// The addresses it answers for, ascending.
    pub held: Arc<[IpAddr]>,
    /// It hears nothing any more, and acts as if it were alone.
    pub deaf: bool,
    /// Another link of this node, of a lower index, is on the same wire and speaks there.
    pub muted: bool,
    /// Another node says that its data path was asked after and works.
    pub hears_checked: bool,
    /// Who else uses addresses that are ours to announce, by address.
    pub troubles: Arc<[Trouble]>,
    /// It has handed over what it had, as it was asked to: the process may end.
    pub left: bool,
}
