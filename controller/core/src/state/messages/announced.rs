//! Messages of the condition `ferrolb.io/Announced`. Pure.

use std::fmt::{self, Display};
use std::net::IpAddr;

use ferrolb_proto::facts::EndpointCondition;
use ferrolb_proto::range::Family;

use super::cause::Causes;
use super::reason::Reason;
use super::{NAMED_MAX, Names, NamesWithCount, SEPARATOR, join};

/// The announcements of an address, or the reason why there are none. `first` is the finding that
/// decides the reason of the condition. `second` is the finding for the other path, if the address
/// can be announced on layer 2 and by BGP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) struct Diagnosis<'a> {
    pub(in crate::state) first: Finding<'a>,
    pub(in crate::state) second: Option<Finding<'a>>,
}

/// The announcement of an address by one path (layer 2 or BGP), or the reason why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) enum Finding<'a> {
    /// Layer 2: these nodes own the address.
    Owned {
        owners: Vec<Owner<'a>>,
        /// True if the owners' speakers do not receive each other's hellos.
        partitioned: bool,
        issue: Option<OwnerIssue<'a>>,
    },
    /// Layer 2: a foreign host also replies for the address.
    Conflict { mac: &'a str, seen_by: &'a str, owners: Vec<Owner<'a>> },
    /// Layer 2: the kernel of a node also replies for the address.
    KernelReplies { node: &'a str, mac: &'a str, owners: Vec<Owner<'a>> },
    /// The address has `ipMode: Proxy`, and the Service does not request its announcement by
    /// `Proxy,announce`.
    ProxyMode,
    /// No endpoint is eligible. `family` is set if only endpoints of this family are missing and
    /// the other family has eligible ones.
    NoEndpoint { family: Option<Family>, endpoint_condition: EndpointCondition },
    /// No valid advertisement selects the pool and the Service.
    NoAdvertisement { pool: &'a str },
    /// No pool contains the address.
    NoPool,
    /// Layer 2: no node is eligible, for these causes.
    NoNode(Causes<'a>),
    /// The speakers of these nodes announced the address, and do not run any more.
    NotRunning { nodes: Vec<&'a str>, bgp: bool },
    /// Layer 2: these nodes are eligible, and none of them has a speaker.
    NoSpeaker { nodes: Vec<&'a str> },
    /// Layer 2: the speakers of these eligible nodes are isolated: they receive no frames.
    Isolated { nodes: Vec<&'a str> },
    /// Layer 2: these nodes are eligible, and no speaker has claimed the address.
    Unclaimed { nodes: Vec<&'a str> },
    /// Layer 2: these nodes are eligible. The owner is unknown, because the API group in use has no
    /// SpeakerStatuses.
    OwnerUnknown { nodes: Vec<&'a str> },
    /// BGP: the nodes in `from` advertise the address to the BGPPeers in `to`.
    Routed {
        from: Senders<'a>,
        to: Vec<&'a str>,
        depreferred: Depreferred<'a>,
        /// BGPAdvertisements whose attributes an older BGPAdvertisement overrides.
        overridden: Vec<&'a str>,
    },
    /// BGP: these nodes should advertise the address, but have no session with these BGPPeers.
    NoSession { nodes: Vec<&'a str>, peers: Vec<&'a str> },
    /// BGP: no node can advertise the address, for these causes.
    NoRoute(Causes<'a>),
    /// BGP: whether the address is advertised is unknown, because the API group in use has no
    /// SpeakerStatuses.
    RouteUnknown,
}

/// A node that announces an address, and its interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) struct Owner<'a> {
    pub(in crate::state) node: &'a str,
    pub(in crate::state) interfaces: Vec<&'a str>,
}

/// An issue that a speaker reports for an address that is announced nevertheless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) enum OwnerIssue<'a> {
    /// The hellos of the node `from` do not arrive at an interface.
    HellosFiltered {
        at: Reporter<'a>,
        from: &'a str,
        /// False if the speakers do not recognize the loss by the second path either.
        has_second_path: bool,
    },
    /// A device with this MAC still replies for the failed owner.
    StaleNeighborProxy { mac: &'a str },
    /// This node, which does not announce the address, has it on an interface.
    NodeHasAddress { node: &'a str, mac: &'a str },
    /// The owner could not join this multicast group.
    MulticastJoinFailed { node: &'a str, group: &'a str },
}

/// An interface that reports an issue, and its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::state) struct Reporter<'a> {
    pub(in crate::state) node: &'a str,
    pub(in crate::state) interface: &'a str,
}

/// The nodes that advertise a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) enum Senders<'a> {
    /// Every eligible node with a session. With `externalTrafficPolicy: Cluster`, these nodes are
    /// the same for thousands of Services. The message names none of them, so that a change of one
    /// session changes no condition.
    Every,
    Nodes(Vec<&'a str>),
}

/// The nodes whose route is de-preferred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) enum Depreferred<'a> {
    None,
    /// These nodes have a de-preferred route, and other nodes have a preferred one.
    Also(Vec<&'a str>),
    All,
}

impl Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.node, self.interfaces.join(", "))
    }
}

impl OwnerIssue<'_> {
    /// Returns the warning about these addresses.
    fn text(&self, addresses: &str) -> String {
        match self {
            Self::HellosFiltered { at: Reporter { node, interface }, from, has_second_path } => {
                let port = if *has_second_path {
                    ""
                } else {
                    ", and the UDP port of --challenge-port (default 7473), by which speakers detect \
                     this loss"
                };
                format!(
                    "frames of EtherType 0x88B5 from {from} do not arrive at {node} ({interface}, \
                     HellosFiltered): let packet filters, host firewalls of network plugins and \
                     switches pass them{port}"
                )
            }
            Self::StaleNeighborProxy { mac } => format!(
                "{mac} still replies for {addresses} of the failed owner: clear the neighbor table \
                 of that device, or disable its proxy"
            ),
            Self::NodeHasAddress { node, mac } => format!(
                "{node} ({mac}) also replies for {addresses}, because an interface of it has the \
                 address: remove it there"
            ),
            Self::MulticastJoinFailed { node, group } => format!(
                "{node} could not join multicast group {group}, so neighbor solicitations may not \
                 reach it: see its speaker log"
            ),
        }
    }
}

impl Display for Senders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every => f.write_str("every eligible node with a session"),
            Self::Nodes(names) => NamesWithCount(names, NAMED_MAX).fmt(f),
        }
    }
}

impl Finding<'_> {
    /// Returns the reason of the condition for this finding.
    pub(in crate::state) const fn reason(&self) -> Reason {
        match self {
            Self::Owned { .. } | Self::Routed { .. } => Reason::Announced,
            Self::Conflict { .. } => Reason::AddressConflict,
            Self::KernelReplies { .. } => Reason::KernelAnswers,
            Self::ProxyMode => Reason::NotAnnouncedIPModeProxy,
            Self::NoEndpoint { .. } => Reason::NoEndpoints,
            Self::NoAdvertisement { .. } | Self::NoPool => Reason::NoAdvertisement,
            Self::NoNode(_) | Self::NoRoute(_) => Reason::NoCandidateNode,
            Self::NotRunning { .. } => Reason::SpeakersNotRunning,
            Self::NoSpeaker { .. } => Reason::NoSpeaker,
            Self::Isolated { .. } => Reason::SpeakersIsolated,
            Self::Unclaimed { .. } => Reason::Pending,
            Self::OwnerUnknown { .. } | Self::RouteUnknown => Reason::Unobservable,
            Self::NoSession { .. } => Reason::NoSession,
        }
    }

    const fn is_bgp(&self) -> bool {
        matches!(
            self,
            Self::Routed { .. }
                | Self::NoSession { .. }
                | Self::NoRoute(_)
                | Self::RouteUnknown
                | Self::NotRunning { bgp: true, .. }
        )
    }

    /// Renders the finding as the message about these addresses.
    fn text(&self, addresses: &str, names: &Names) -> String {
        if let Some(location) = self.location() {
            return format!("{addresses} {location}");
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "all other variants use one format")]
        match self {
            Self::Conflict { mac, seen_by, owners } => format!(
                "IP conflict: {mac} replies for {addresses} (seen by {seen_by}){}. Remove the \
                 address from that host, or exclude it from the pool",
                owned_by(owners)
            ),
            Self::KernelReplies { node, mac, owners } => format!(
                "IP conflict: node {node} ({mac}) replies for {addresses}{}. Candidates: a load \
                 balancer there, such as Cilium (see `kubectl ferrolb why`), kube-proxy in IPVS \
                 mode without strictARP, an interface with the address",
                owned_by(owners)
            ),
            _ => {
                let path = if self.is_bgp() { " by BGP" } else { "" };
                let fact =
                    self.unknown().map_or_else(|| format!("not announced{path}"), str::to_owned);
                format!("{addresses} {fact}: {}", self.cause(names))
            }
        }
    }

    /// Returns the text that names the unknown fact; `None` if the finding is certain.
    const fn unknown(&self) -> Option<&'static str> {
        if matches!(self, Self::OwnerUnknown { .. }) {
            Some("owner unknown")
        } else if matches!(self, Self::RouteUnknown) {
            Some("BGP state unknown")
        } else if matches!(self, Self::NotRunning { .. }) {
            Some("announcement unknown")
        } else {
            None
        }
    }

    /// Returns the problems of addresses that are announced nevertheless.
    fn warnings(&self, addresses: &str) -> Vec<String> {
        let Self::Owned { owners, partitioned, issue } = self else { return Vec::new() };
        let nodes: Vec<_> = owners.iter().map(|owner| owner.node).collect();
        let partition = partitioned.then(|| {
            format!(
                "the speakers of {} do not receive each other's hellos: check the network between \
                 them",
                list(&nodes)
            )
        });
        partition.into_iter().chain(issue.as_ref().map(|it| it.text(addresses))).collect()
    }

    /// Returns where the address is announced; `None` if it is not announced.
    fn location(&self) -> Option<String> {
        match self {
            Self::Owned { owners, .. } => Some(format!("from {}", owners_text(owners))),
            Self::Routed { from, to, depreferred, overridden } => {
                Some(routed(from, to, depreferred, overridden))
            }
            Self::Conflict { .. }
            | Self::KernelReplies { .. }
            | Self::ProxyMode
            | Self::NoEndpoint { .. }
            | Self::NoAdvertisement { .. }
            | Self::NoPool
            | Self::NoNode(_)
            | Self::NotRunning { .. }
            | Self::NoSpeaker { .. }
            | Self::Isolated { .. }
            | Self::Unclaimed { .. }
            | Self::OwnerUnknown { .. }
            | Self::NoSession { .. }
            | Self::NoRoute(_)
            | Self::RouteUnknown => None,
        }
    }

    /// Returns why the address is not announced, and the command or the change that helps.
    fn cause(&self, names: &Names) -> String {
        match self {
            // `text` renders these findings without a cause.
            Self::Owned { .. }
            | Self::Routed { .. }
            | Self::Conflict { .. }
            | Self::KernelReplies { .. } => String::new(),
            Self::ProxyMode => "ipMode is Proxy, so no node's kube-proxy accepts traffic for the \
                                address. If another component does, set the annotation \
                                ferrolb.io/ip-mode to Proxy,announce"
                .to_owned(),
            Self::NoEndpoint { family, endpoint_condition } => {
                no_endpoint(*family, *endpoint_condition)
            }
            Self::NoAdvertisement { pool } => format!(
                "no valid L2Advertisement or BGPAdvertisement selects IPAddressPool {pool} and \
                 this Service: create one, or change the selectors of one"
            ),
            Self::NoPool => {
                "no IPAddressPool contains the address any more: add it to spec.addresses of \
                 one"
                .to_owned()
            }
            Self::NoNode(causes) | Self::NoRoute(causes) => {
                format!("no node is eligible; {}", causes.text(names))
            }
            Self::NotRunning { nodes, .. } => format!(
                "the speakers that announced it do not run ({}). See {}",
                list(nodes),
                names.describe_speakers()
            ),
            Self::NoSpeaker { nodes } => format!(
                "no speaker runs on an eligible node ({}). See {}",
                list(nodes),
                names.describe_speakers()
            ),
            Self::Isolated { nodes } => format!(
                "the speakers of all eligible nodes ({}) receive nothing on their interfaces. \
                 Check cables, switch ports and VLANs",
                list(nodes)
            ),
            Self::Unclaimed { nodes } => format!(
                "no speaker has claimed the address yet (eligible: {}). If this persists, see \
                 `kubectl -n {} logs daemonset/speaker`",
                list(nodes),
                names.namespace
            ),
            Self::OwnerUnknown { nodes } => format!(
                "with this --api-group, speakers report no owner in a SpeakerStatus (eligible nodes: {}). See {STATE_COMMAND}",
                list(nodes)
            ),
            Self::NoSession { nodes, peers } => format!(
                "no session from {} to {}. See {}",
                list(nodes),
                list(peers),
                names.describe("bgppeers", &peers[..peers.len().min(NAMED_MAX)])
            ),
            Self::RouteUnknown => {
                format!(
                    "with this --api-group, speakers report no sessions in a SpeakerStatus. See {STATE_COMMAND}"
                )
            }
        }
    }
}

/// The command that shows the state of a node's speaker.
const STATE_COMMAND: &str = "`curl -s http://127.0.0.1:7472/state` on a node";

impl Diagnosis<'_> {
    /// Returns whether another host replies for the address, and no node announces it.
    pub(in crate::state) fn is_foreign(&self) -> bool {
        let is_foreign =
            matches!(&self.first, Finding::Conflict { owners, .. } if owners.is_empty());
        is_foreign && self.second.is_none()
    }

    /// Returns whether a node announces the address, on any path.
    pub(in crate::state) fn is_announced(&self) -> bool {
        let is_announced = |finding: &Finding<'_>| match finding {
            Finding::Owned { .. } | Finding::Routed { .. } => true,
            Finding::Conflict { owners, .. } | Finding::KernelReplies { owners, .. } => {
                !owners.is_empty()
            }
            Finding::ProxyMode
            | Finding::NoEndpoint { .. }
            | Finding::NoAdvertisement { .. }
            | Finding::NoPool
            | Finding::NoNode(_)
            | Finding::NotRunning { .. }
            | Finding::NoSpeaker { .. }
            | Finding::Isolated { .. }
            | Finding::Unclaimed { .. }
            | Finding::OwnerUnknown { .. }
            | Finding::NoSession { .. }
            | Finding::NoRoute(_)
            | Finding::RouteUnknown => false,
        };
        is_announced(&self.first) || self.second.as_ref().is_some_and(is_announced)
    }

    /// Returns the reason of the condition for this diagnosis.
    pub(in crate::state) const fn reason(&self) -> Reason {
        self.first.reason()
    }

    /// Returns the problems of these addresses, which are announced nevertheless.
    pub(in crate::state) fn warnings(&self, addresses: &[IpAddr]) -> Vec<String> {
        let addresses = join(addresses);
        let second = self.second.iter().flat_map(|finding| finding.warnings(&addresses));
        self.first.warnings(&addresses).into_iter().chain(second).collect()
    }

    /// Returns the part of the message about these addresses.
    pub(in crate::state) fn text(&self, addresses: &[IpAddr], names: &Names) -> String {
        let text = self.first.text(&join(addresses), names);
        let Some(second) = &self.second else { return text };
        let rest = match second.location() {
            Some(location) if self.reason() == Reason::Announced => {
                return format!("{text}, and {location}");
            }
            Some(location) => format!("announced {location}"),
            None => {
                let path = if self.first.is_bgp() { "on layer 2" } else { "by BGP" };
                let fact =
                    second.unknown().map_or_else(|| format!("not announced {path}"), str::to_owned);
                format!("{fact}: {}", second.cause(names))
            }
        };
        format!("{text}{SEPARATOR}{rest}")
    }
}

fn list(names: &[&str]) -> String {
    NamesWithCount(names, NAMED_MAX).to_string()
}

fn owners_text(owners: &[Owner<'_>]) -> String {
    let mut names: Vec<_> = owners.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    if owners.len() > NAMED_MAX {
        names.push(format!("{} more", owners.len() - NAMED_MAX));
    }
    names.join(" and ")
}

fn owned_by(owners: &[Owner<'_>]) -> String {
    if owners.is_empty() {
        return ", and no node announces it".to_owned();
    }
    format!(", announced from {}", owners_text(owners))
}

fn routed(
    from: &Senders<'_>,
    to: &[&str],
    depreferred: &Depreferred<'_>,
    overridden: &[&str],
) -> String {
    let depreferred = match depreferred {
        Depreferred::None => String::new(),
        Depreferred::Also(nodes) => format!(", and de-preferred (RFC 8326) from {}", list(nodes)),
        Depreferred::All => ", de-preferred (RFC 8326)".to_owned(),
    };
    let overridden = match overridden {
        [] => String::new(),
        names => format!(
            " (BGPAdvertisement {} is overridden by an older one with another localPref, med or \
             asPathPrepend)",
            list(names)
        ),
    };
    format!("by BGP from {from} to {}{depreferred}{overridden}", list(to))
}

fn no_endpoint(family: Option<Family>, endpoint_condition: EndpointCondition) -> String {
    let state = match endpoint_condition {
        EndpointCondition::ReadyOrTerminating => "is ready, or serving while terminating",
        EndpointCondition::Ready => {
            "is ready, as annotation ferrolb.io/endpoint-condition requires"
        }
        EndpointCondition::Serving => {
            "is serving, as annotation ferrolb.io/endpoint-condition requires"
        }
    };
    match family {
        Some(family) => format!(
            "no {family} endpoint of the Service {state}: add {family} to its pods, or set \
             spec.ipFamilyPolicy to SingleStack"
        ),
        None => format!("no endpoint of the Service {state}: check its pods and spec.selector"),
    }
}
