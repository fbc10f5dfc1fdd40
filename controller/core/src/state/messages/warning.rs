//! Warnings in the message of the condition `ferrolb.io/Announced`, which follow the addresses.
//! Pure.

use std::fmt::{self, Display};
use std::net::IpAddr;

use ferrolb_proto::api::UncheckedReason;
use ferrolb_proto::facts::{EndpointProblem, HEALTH_CHECK_ANNOTATION};
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
    /// Endpoints on these nodes are not checked although the Service requests it.
    Unchecked(UncheckedEndpoints<'a>),
    /// No speaker checks the endpoints without `nodeName`, although the Service requests it.
    UncheckedWithoutNode,
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

/// Endpoints that are not checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) struct UncheckedEndpoints<'a> {
    /// Number of endpoints that are not checked, and of all endpoints on `nodes`.
    pub(in crate::state) count: [u64; 2],
    pub(in crate::state) nodes: Vec<&'a str>,
    pub(in crate::state) reason: UncheckedReason,
    /// An endpoint of each family with this reason.
    pub(in crate::state) examples: Vec<IpAddr>,
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

impl Warning<'_> {
    /// Returns whether the warning is about endpoints that are not checked.
    pub(in crate::state) const fn is_about_unchecked(&self) -> bool {
        matches!(self, Self::Unchecked(_) | Self::UncheckedWithoutNode)
    }
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
            Self::Unchecked(endpoints) => endpoints.fmt(f),
            Self::UncheckedWithoutNode => write!(
                f,
                "endpoints without nodeName are not checked: write nodeName into the \
                 EndpointSlices, or remove the annotation {HEALTH_CHECK_ANNOTATION}"
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

impl Display for UncheckedEndpoints<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count: [unchecked, all], nodes, reason, examples } = self;
        write!(
            f,
            "{unchecked} of {all} endpoints on {} are not checked ({}), so only readiness \
             counts: ",
            NamesWithCount(nodes, NAMED_MAX),
            join(examples)
        )?;
        match reason {
            UncheckedReason::Off => write!(
                f,
                "--health-checks of the speakers is off. Set it to node, or remove the annotation \
                 {HEALTH_CHECK_ANNOTATION}"
            ),
            UncheckedReason::OutsideRanges => f.write_str(
                "the speakers may not contact these addresses. Add the pods' range of each family \
                 to --health-checks (chart: speaker.extraArgs)",
            ),
            UncheckedReason::Excluded => write!(
                f,
                "speakers never contact addresses of Nodes, API servers and link-local ones. \
                 Correct the EndpointSlices, or remove the annotation {HEALTH_CHECK_ANNOTATION}"
            ),
            UncheckedReason::NoPort => write!(
                f,
                "their EndpointSlices lack the port. Write its number into the annotation \
                 {HEALTH_CHECK_ANNOTATION}, as in tcp:8080"
            ),
            UncheckedReason::TooMany => write!(
                f,
                "the speaker checks its maximum number of endpoints. Remove the annotation \
                 {HEALTH_CHECK_ANNOTATION} from other Services"
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
