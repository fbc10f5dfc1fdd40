//! Messages of the condition `ferrolb.io/AddressAssigned` and its Events. Pure;
//! `docs/reference/conditions.md` has the doc comments of the reasons.

use std::fmt::{self, Display};
use std::net::IpAddr;

use ferrolb_proto::api::{ADOPT_ANNOTATION, ConditionStatus, IpMode};
use ferrolb_proto::facts::Service;

use super::{FirstNames, Message, Names, SEPARATOR, join};
use crate::other_load_balancers::{described, remedy};
use crate::state::alloc::{Refusal, UnmanagedSource, UnmanagedUse};
use crate::state::choose::{Shortage, UnusablePools};
use crate::state::contest::changes::Contest;
use crate::state::service_addresses::{Assignment, LostAddresses};
use crate::state::sharing::{SharingConflict, SharingParameters};

/// `True`: the Service has the addresses that it needs.
///
/// Action: None.
pub(in crate::state) const ASSIGNED: &str = "Assigned";
const BAD_ANNOTATION: &str = "BadAnnotation";
const FAMILY_MISSING: &str = "FamilyMissing";
const NO_POOL_MATCHES: &str = "NoPoolMatches";
const POOL_EXHAUSTED: &str = "PoolExhausted";
/// `True`: the pool of the addresses does not exist. They are kept for `--pool-grace`.
///
/// Action: Create the pool again.
const POOL_MISSING: &str = "PoolMissing";
const REQUESTED_IN_USE: &str = "RequestedAddressInUse";
const REQUESTED_OUTSIDE: &str = "RequestedAddressOutsidePools";
const SHARING_CONFLICT: &str = "SharingConflict";
/// Another client repeatedly changes the addresses in the status. `True` if it only removes them.
///
/// Action: Stop the client in the message, or [find
/// it](docs/reference/conditions.md#second-controller).
pub(in crate::state) const STATUS_CONTESTED: &str = "StatusContested";
/// An annotation shows that MetalLB serves the Service, which has no class.
///
/// Action: See [Services of MetalLB](docs/reference/conditions.md#services-of-metallb).
pub(in crate::state) const SERVED_BY_METALLB: &str = "ServedByMetalLB";
/// Another load balancer has assigned an address outside the pools.
///
/// Action: None, or [adopt the
/// Service](docs/configure/stable-addresses.md#a-service-of-another-load-balancer).
pub(in crate::state) const SERVED_BY_OTHER: &str = "ServedByOther";

/// The content of a Service's condition `AddressAssigned`.
#[derive(Clone, Copy, Debug)]
pub(in crate::state) enum AssignedMessage<'a> {
    /// FerroLB serves the Service; `assignment` is the controller's decision about its addresses.
    /// `contest` has the other client that repeatedly changes the status.
    Decided {
        service: &'a Service,
        assignment: &'a Assignment,
        contest: Option<&'a Contest>,
        names: &'a Names,
    },
    /// MetalLB serves the Service, as this annotation shows.
    MetalLb { annotation: &'a str },
    /// Another load balancer serves the Service, as the field manager of its addresses shows.
    Other { service: &'a Service, manager: &'a str },
}

impl Message for AssignedMessage<'_> {
    fn status(&self) -> ConditionStatus {
        match self {
            Self::Decided { assignment, contest, .. } => {
                let is_replaced = contest.is_some_and(Contest::replaces);
                (assignment.satisfied && !is_replaced).into()
            }
            Self::MetalLb { .. } | Self::Other { .. } => ConditionStatus::False,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Decided { assignment, contest, .. } => assignment.reason(*contest),
            Self::MetalLb { .. } => SERVED_BY_METALLB,
            Self::Other { .. } => SERVED_BY_OTHER,
        }
    }
}

impl Display for AssignedMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decided { service, assignment, contest, names } => {
                f.write_str(&decided(service, assignment, *contest, names))
            }
            Self::MetalLb { annotation } => write!(
                f,
                "MetalLB serves this Service (annotation {annotation}), so FerroLB does not change \
                 it. If MetalLB is gone, remove the annotation; if both run, set \
                 spec.loadBalancerClass of the Services for FerroLB"
            ),
            Self::Other { service, manager } => write!(
                f,
                "{} has assigned the address, which is in no IPAddressPool, so FerroLB does not \
                 change it. To replace it by an address of FerroLB: kubectl -n {} annotate service \
                 {} {ADOPT_ANNOTATION}=true",
                described(manager),
                service.key.namespace(),
                service.key.name()
            ),
        }
    }
}

/// Returns the message about the decision on a Service's addresses. Without a contest, the message
/// depends on the objects only, so a restart of the controller does not change it.
fn decided(
    service: &Service,
    assignment: &Assignment,
    contest: Option<&Contest>,
    names: &Names,
) -> String {
    let from = assignment.pool.as_deref().unwrap_or_default();
    let has = format!("{} from pool {from}", join(&assignment.addresses));
    let short = assignment.shortage.as_deref().map(|shortage| shortage.text(assignment, names));
    let mut parts = match (short, assignment.satisfied) {
        (None, _) => vec![has],
        (Some(why), true) => vec![has, format!("ipFamilyPolicy PreferDualStack: {why}")],
        (Some(why), false) if assignment.addresses.is_empty() => vec![why],
        (Some(why), false) => vec![why, format!("still assigned: {has}")],
    };
    if !assignment.addresses.is_empty() {
        parts.extend(
            Some(SharingParameters::of(service).to_string()).filter(|text| !text.is_empty()),
        );
        parts.extend(proxy(service, assignment));
        parts.extend(warnings(assignment));
        parts.extend(contest.map(contested));
    }
    parts.join(SEPARATOR)
}

/// Returns the problems of addresses that the Service keeps: their pool does not exist, or a host
/// has one of them, too.
pub(in crate::state) fn warnings(assignment: &Assignment) -> impl Iterator<Item = String> {
    let hosts = assignment.hosts.iter().map(also_of_host);
    missing_pool(assignment).into_iter().chain(hosts)
}

/// Returns the part of the message about `ipMode: Proxy`, if the addresses have this mode.
fn proxy(service: &Service, assignment: &Assignment) -> Option<String> {
    let announced = if service.demand.request.announce_in_proxy_mode {
        "and the address is announced, as annotation ferrolb.io/ip-mode requests"
    } else {
        "so the address is not announced"
    };
    (assignment.mode == IpMode::Proxy).then(|| {
        format!("ipMode is Proxy: kube-proxy accepts no traffic for it on any node, {announced}")
    })
}

/// Returns the part of the message about the pool of the addresses, if the pool does not exist.
fn missing_pool(assignment: &Assignment) -> Option<String> {
    let (pool, grace) = (assignment.pool.as_deref()?, assignment.pool_grace?);
    Some(format!(
        "IPAddressPool {pool} does not exist: create it again within {} s, or the address is \
         released (--pool-grace)",
        grace.as_secs()
    ))
}

/// Returns the part of the message about a host that uses the Service's address too.
fn also_of_host((address, host): &(IpAddr, UnmanagedUse)) -> String {
    match host.source {
        UnmanagedSource::NetworkAddress | UnmanagedSource::BroadcastAddress => {
            format!("{address} is {host}, and hosts there cannot use it: request another address")
        }
        UnmanagedSource::Gateway | UnmanagedSource::ApiServer => {
            format!("{address} is also {host}, and the Service keeps it: request another address")
        }
        UnmanagedSource::NodeAddress
        | UnmanagedSource::InterfaceAddress
        | UnmanagedSource::FormerRoute
        | UnmanagedSource::ExternalIps
        | UnmanagedSource::OtherLoadBalancer
        | UnmanagedSource::ClusterIp
        | UnmanagedSource::StillInStatus
        | UnmanagedSource::ForeignHost => format!(
            "{address} is also {host}, and the Service keeps it: remove it from that node (kubelet \
             flag --node-ip), or request another address"
        ),
    }
}

/// Returns the part of the message about another client that repeatedly changes the status.
fn contested(contest: &Contest) -> String {
    if let Some(manager) = contest.manager.as_deref() {
        return format!(
            "{} repeatedly changes the addresses in the status: {}",
            described(manager),
            remedy(manager)
        );
    }
    let removes = "another client repeatedly removes the address from the status";
    match contest.suspect.as_deref() {
        Some(manager) => {
            format!("{removes}, perhaps {}: {}", described(manager), remedy(manager))
        }
        None => format!(
            "{removes}. Kubernetes does not name a client that only removes: stop ServiceLB of \
             k3s, minikube tunnel, or the other load balancer of this cluster"
        ),
    }
}

impl Assignment {
    /// Returns the reason of the condition. `contest` has the other client that repeatedly changes
    /// the status.
    pub(in crate::state) fn reason(&self, contest: Option<&Contest>) -> &'static str {
        match &self.shortage {
            Some(shortage) if !self.satisfied => shortage.reason(),
            Some(_) | None if contest.is_some() => STATUS_CONTESTED,
            Some(_) | None if self.pool_grace.is_some() => POOL_MISSING,
            Some(_) | None => ASSIGNED,
        }
    }
}

impl Shortage {
    /// Returns the reason of the condition.
    pub(in crate::state) const fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => BAD_ANNOTATION,
            Self::OneFamily(_) | Self::Family(_) => FAMILY_MISSING,
            Self::Refused(_, refusal) => refusal.reason(),
            Self::UnknownPool(_)
            | Self::InvalidPool(_)
            | Self::PoolNotAllowed(_)
            | Self::NoPool(_) => NO_POOL_MATCHES,
            Self::Exhausted(_) => POOL_EXHAUSTED,
        }
    }

    /// Returns why the Service does not have all addresses that it requests, and the change that
    /// helps.
    pub(in crate::state) fn text(&self, assignment: &Assignment, names: &Names) -> String {
        match self {
            Self::BadRequest(problem) => problem.to_string(),
            Self::OneFamily(family) => format!(
                "spec.ipFamilyPolicy is RequireDualStack, and the Service has only an {family} \
                 cluster IP: make the cluster dual-stack, or set spec.ipFamilyPolicy to SingleStack"
            ),
            Self::Refused(address, refusal) => refusal.text(*address),
            Self::UnknownPool(pool) => format!(
                "IPAddressPool {pool}, which the Service requests, does not exist: create it, or \
                 remove the annotation ferrolb.io/address-pool"
            ),
            Self::InvalidPool(pool) => format!(
                "IPAddressPool {pool}, which the Service needs an address from, is invalid. See {}",
                names.describe("ipaddresspools", &[pool])
            ),
            Self::PoolNotAllowed(pool) => format!(
                "IPAddressPool {pool}, which the Service requests, is for other namespaces or \
                 Services: change its spec.serviceAllocation, or request another pool"
            ),
            Self::NoPool(unusable) => no_pool(unusable, names),
            Self::Family(families) => match (families.as_slice(), &assignment.pool) {
                (_, Some(pool)) if !assignment.addresses.is_empty() => format!(
                    "IPAddressPool {pool} has no {} addresses: add a range to it, request a pool \
                     with both, or set spec.ipFamilyPolicy to SingleStack",
                    join(families)
                ),
                ([_, _, ..], _) => format!(
                    "no IPAddressPool has {} addresses: add the missing range to one of them, or \
                     set spec.ipFamilyPolicy to SingleStack",
                    join(families)
                ),
                (_, _) => format!(
                    "no IPAddressPool has {} addresses: add a range to one of them",
                    join(families)
                ),
            },
            Self::Exhausted(pools) => format!(
                "no address is free in IPAddressPool {}: add addresses to spec.addresses, or \
                 delete a Service that has one",
                FirstNames(pools)
            ),
        }
    }
}

fn no_pool(UnusablePools { invalid, manual, others }: &UnusablePools, names: &Names) -> String {
    let causes = [
        (invalid, "invalid"),
        (manual, "spec.autoAssign is false"),
        (others, "spec.serviceAllocation excludes it"),
    ];
    let present = causes.into_iter().filter(|(pools, _)| !pools.is_empty());
    let causes: Vec<_> =
        present.map(|(pools, cause)| format!("{} ({cause})", FirstNames(pools))).collect();
    if causes.is_empty() {
        let namespace = &names.namespace;
        return format!(
            "no IPAddressPool exists: create one in namespace {namespace}, for example with \
             `kubectl ferrolb init`"
        );
    }
    format!(
        "no IPAddressPool assigns addresses to this Service automatically: {}. Change or create a \
         pool, or request one with annotation ferrolb.io/address-pool",
        causes.join(", ")
    )
}

impl Refusal {
    const fn reason(&self) -> &'static str {
        match self {
            Self::NoPool | Self::OtherPool(_) => REQUESTED_OUTSIDE,
            Self::PoolNotAllowed(_) => NO_POOL_MATCHES,
            Self::Unmanaged(_) | Self::AssignedTo(_, SharingConflict::NoKey) => REQUESTED_IN_USE,
            Self::AssignedTo(
                _,
                SharingConflict::Key | SharingConflict::Port(_) | SharingConflict::Local,
            ) => SHARING_CONFLICT,
            Self::ForeignHost => REQUESTED_IN_USE,
            Self::NotRequested | Self::Family => BAD_ANNOTATION,
        }
    }

    /// Returns why the Service cannot have an address that it requests, and the change that helps.
    fn text(&self, address: IpAddr) -> String {
        let requested = format!("requested address {address}");
        match self {
            Self::NoPool => format!(
                "{requested} is in no valid IPAddressPool, or excluded (spec.excludeAddresses, \
                 spec.avoidBuggyIPs): request another address, or add it to a pool"
            ),
            Self::OtherPool(pool) => format!(
                "{requested} is in IPAddressPool {pool}, and all addresses of a Service come from \
                 one pool, the one that it requests: request an address of that pool, or another \
                 pool"
            ),
            Self::PoolNotAllowed(pool) => format!(
                "{requested} is in IPAddressPool {pool}, which is for other namespaces or \
                 Services: change its spec.serviceAllocation, or request another address"
            ),
            Self::Unmanaged(user @ UnmanagedUse { source: UnmanagedSource::StillInStatus, .. }) => {
                format!(
                    "{requested} is {user}: this Service gets it when that status is written, or \
                     when that Service is gone"
                )
            }
            Self::Unmanaged(user) => {
                format!("{requested} is {user}: request another address, or remove it there")
            }
            Self::AssignedTo(key, SharingConflict::NoKey) => format!(
                "{requested} is assigned to Service {key}: request another address, or share it \
                 with the same annotation ferrolb.io/allow-shared-ip on both"
            ),
            Self::AssignedTo(key, conflict) => {
                format!("{requested} cannot be shared with Service {key}: {conflict}")
            }
            Self::ForeignHost => {
                format!("{requested} is in use by another host: request another address")
            }
            Self::NotRequested | Self::Family => format!(
                "{requested} is not of an IP family of the Service: request one address of each \
                 family"
            ),
        }
    }

    /// Returns why the controller has released an address of the Service.
    fn released(&self) -> String {
        match self {
            Self::NoPool => "no IPAddressPool contains it any more".to_owned(),
            Self::PoolNotAllowed(pool) => {
                format!("IPAddressPool {pool} is now for other namespaces or Services")
            }
            Self::OtherPool(pool) => format!(
                "it is from IPAddressPool {pool}, and the Service needs its addresses from another \
                 one"
            ),
            Self::Unmanaged(user) => format!("it is {user}"),
            Self::AssignedTo(key, SharingConflict::NoKey) => {
                format!("it is assigned to Service {key}")
            }
            Self::AssignedTo(key, conflict) => {
                format!("it cannot be shared with Service {key}: {conflict}")
            }
            Self::ForeignHost => {
                "another host replied for it before any node announced it".to_owned()
            }
            Self::NotRequested => "the Service requests another address".to_owned(),
            Self::Family => {
                "the Service has no cluster IP of its family, or another address of that family"
                    .to_owned()
            }
        }
    }
}

impl Display for SharingConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey => {
                f.write_str("set the same annotation ferrolb.io/allow-shared-ip on both")
            }
            Self::Key => {
                f.write_str("set their annotations ferrolb.io/allow-shared-ip to the same value")
            }
            Self::Port(port) => write!(f, "both have port {port}. Change one of them"),
            Self::Local => f.write_str(
                "with externalTrafficPolicy Local both must be Local and have equal selectors. \
                 Change spec.externalTrafficPolicy or spec.selector of one",
            ),
        }
    }
}

/// Returns the message of an Event: the message of the condition, followed by the released
/// addresses and the reasons.
pub(in crate::state) fn with_released(message: &str, lost: &LostAddresses) -> String {
    let mut text = message.to_owned();
    for (address, refusal) in lost {
        text.push_str(&format!("{SEPARATOR}{address} was released: {}", refusal.released()));
    }
    text
}
