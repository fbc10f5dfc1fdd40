//! Warnings in the message of the condition `ferrolb.io/Announced`, which follow the addresses.
//! Pure.

use std::fmt::{self, Display};
use std::net::IpAddr;

use ferrolb_proto::facts::EndpointProblem;
use ferrolb_proto::range::Family;

use super::{FirstNames, NamesWithCount, join};

/// Maximum number of nodes or endpoints that a warning names.
const NAMED_MAX: usize = 3;

/// A problem of a Service that does not prevent its announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) enum Warning<'a> {
    /// Every endpoint on these nodes fails its health check. `family` is set if the Service has
    /// addresses of both families.
    NodesFail { family: Option<Family>, nodes: Vec<&'a str>, why: Vec<&'a str> },
    /// Every endpoint on every node fails its health check.
    AllFail {
        family: Option<Family>,
        why: Vec<&'a str>,
        /// True with `externalTrafficPolicy: Local`: then the readiness of endpoints alone decides
        /// which nodes announce.
        local: bool,
    },
    /// An annotation about endpoints is invalid.
    Annotation(EndpointProblem<'a>),
    /// The effect of [`Self::Annotation`], which precedes this warning: only the readiness of
    /// endpoints counts.
    ReadinessOnly,
    /// These nodes announce the Service, each with a flaw that ranks it behind others.
    Flawed(Vec<FlawedOwner<'a>>),
    /// These nodes are silent, and endpoints of the Service are on them.
    SilentNodes(Vec<&'a str>),
    /// These nodes may still advertise these addresses by BGP for a deleted Service.
    FormerRouters { addresses: Vec<IpAddr>, nodes: Vec<&'a str> },
    /// Every Node has the exclude label, so the label has no effect.
    LabelIgnored,
    /// These addresses are in none of these subnets, which are all subnets of the interfaces on
    /// which the addresses are announced.
    OutsideSubnets { addresses: Vec<IpAddr>, pool: &'a str, subnets: Vec<String> },
}

/// A node that announces an address, and the reason why another node should announce it instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) struct FlawedOwner<'a> {
    pub(in crate::state) node: &'a str,
    pub(in crate::state) flaw: Flaw<'a>,
}

/// Reason why another node should announce an address instead of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) enum Flaw<'a> {
    EndpointsFail,
    Draining,
    /// kube-proxy is unhealthy; the cause is empty if the speaker reports none.
    KubeProxy(&'a str),
}

impl Display for Warning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let which = |family: &Option<Family>| {
            family.map_or_else(String::new, |family| format!("{family} "))
        };
        match self {
            Self::NodesFail { family, nodes, why } => write!(
                f,
                "all {}endpoints on {} fail their health check ({}): check these pods",
                which(family),
                NamesWithCount(nodes, NAMED_MAX),
                NamesWithCount(why, NAMED_MAX)
            ),
            Self::AllFail { family, why, local } => write!(
                f,
                "all {}endpoints fail their health check ({}){}: check the pods, and the \
                 annotation ferrolb.io/health-check",
                which(family),
                NamesWithCount(why, NAMED_MAX),
                if *local { ", so readiness alone selects the node" } else { "" }
            ),
            Self::Annotation(problem) => problem.fmt(f),
            Self::ReadinessOnly => f.write_str("until then only the readiness of endpoints counts"),
            Self::Flawed(owners) => {
                let owners = NamesWithCount(owners, NAMED_MAX);
                write!(
                    f,
                    "{owners}: no healthier node is eligible. Check that node, or make another \
                     one eligible"
                )
            }
            Self::OutsideSubnets { addresses, pool, subnets } if subnets.is_empty() => write!(
                f,
                "no interface that announces {} has a subnet of this family, so the nodes have no \
                 route back to clients there: give the interface an address, or set spec.routed of \
                 IPAddressPool {pool} to true if the nodes have a route",
                join(addresses)
            ),
            Self::OutsideSubnets { addresses, pool, subnets } => write!(
                f,
                "no interface that announces {} has a subnet with it ({}): correct spec.addresses \
                 of IPAddressPool {pool}, or set its spec.routed to true if a router has a route",
                join(addresses),
                FirstNames(subnets)
            ),
            Self::SilentNodes(nodes) => write!(
                f,
                "{} failed: the endpoints there serve no request until the node replies",
                NamesWithCount(nodes, NAMED_MAX)
            ),
            Self::FormerRouters { addresses, nodes } => write!(
                f,
                "{} may still advertise {}, which another Service had before: no speaker runs there. \
                 Start it, or stop gobgpd there",
                NamesWithCount(nodes, NAMED_MAX),
                join(addresses)
            ),
            Self::LabelIgnored => f.write_str(
                "every Node has the label node.kubernetes.io/exclude-from-external-load-balancers, \
                 so it is ignored: remove it from the nodes that should announce",
            ),
        }
    }
}

impl Display for FlawedOwner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} announces it although ", self.node)?;
        match self.flaw {
            Flaw::EndpointsFail => f.write_str("endpoints on it fail their health check"),
            Flaw::Draining => f.write_str("it is draining"),
            Flaw::KubeProxy("") => f.write_str("its kube-proxy is unhealthy"),
            Flaw::KubeProxy(why) => write!(f, "its kube-proxy is unhealthy ({why})"),
        }
    }
}
