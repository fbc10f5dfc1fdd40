//! The proposal of a pool: free addresses near the end of the nodes' subnet. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ferrolb_proto::range::{AddressRange, AddressSet, Family};

use super::subnet::{NodeSubnet, node_subnet};
use crate::check::facts::Objects;
use crate::table::first_names;

/// Name of the pool without `--pool`.
pub const POOL: &str = "default";
/// Number of addresses of a proposed pool.
const SIZE: u32 = 11;
/// Number of addresses at each end of the subnet that are never proposed: the network and the
/// broadcast address, and the first and the last host, which are often routers.
const ENDS: u32 = 2;
/// Number of addresses at the end of a larger subnet that are not proposed, so that the pool of a
/// /24 ends at .250.
const LARGE_END: u32 = 5;
/// Number of addresses from which a subnet is a larger one.
const LARGE: u32 = 64;

/// The options of the command.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Name of the pool and of its L2Advertisement; default: default
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,
    /// Addresses of the pool; default: up to 11 free ones near the end of the subnet
    #[arg(long, value_name = "RANGE")]
    pub range: Option<String>,
    /// Apply the pool without a confirmation
    #[arg(long)]
    pub yes: bool,
}

/// A pool that can be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposedPool {
    /// Name of the pool, and of its L2Advertisement.
    pub name: String,
    /// The addresses.
    pub range: AddressRange,
    /// The subnet of the nodes; `None` if it is not known.
    pub subnet: Option<NodeSubnet>,
}

/// Addresses in use that are not in FerroLB's objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressesInUse {
    /// Ranges of cluster IPs. Without ServiceCIDRs: the cluster IPs.
    pub service_ranges: Vec<AddressRange>,
    /// Addresses of the API server, each with its source.
    pub api_servers: Vec<(&'static str, IpAddr)>,
}

/// The result of the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposal {
    /// These pools exist already, and the options name no new one.
    Exists(Vec<String>),
    /// A new pool.
    New(ProposedPool),
}

/// Reason why there is no proposal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoProposal {
    /// No node has an IPv4 InternalIP.
    #[error(
        "no Node has an IPv4 InternalIP, so the subnet is not known: name addresses with --range"
    )]
    NoSubnet,
    /// No speaker has reported a subnet, and nobody confirms the assumed one.
    #[error(
        "no speaker has reported its subnets yet, and --yes does not apply a pool in {0}, which is \
         assumed: wait until `kubectl ferrolb status` shows the speakers, or name addresses with \
         --range"
    )]
    Assumed(AddressRange),
    /// No address of the subnet is free.
    #[error(
        "no address is free in {0}, the subnet of the nodes: all are in Service or pod ranges, in \
         pools, or in use. Name addresses of another subnet with --range, and add a route to them \
         in the router"
    )]
    NoFreeAddress(AddressRange),
    /// `--range` is not a range.
    #[error("--range: {0}")]
    BadRange(#[from] ferrolb_proto::range::ParseRangeError),
    /// Addresses of `--range` are in use.
    #[error("--range: {} overlaps {}, {}: name other addresses", .0.range, .0.used, .0.usage)]
    InUse(Box<Overlap>),
}

/// Addresses of a range that are in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The range.
    pub range: AddressRange,
    /// The addresses that are in use.
    pub used: AddressRange,
    /// Their use.
    pub usage: Use,
}

/// Use of addresses that a pool may not contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// Cluster IPs.
    Services,
    /// Pods of a node.
    Pods,
    /// A node, by its name.
    Node(String),
    /// A pool, by its name.
    Pool(String),
    /// A Service, by its name.
    Service(String),
    /// The API server, as the named object says.
    ApiServer(&'static str),
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Services => f.write_str("the Service range"),
            Self::Pods => f.write_str("a pod range"),
            Self::Node(name) => write!(f, "an address of Node {name}"),
            Self::Pool(name) => write!(f, "in IPAddressPool {name}"),
            Self::Service(name) => write!(f, "an address of Service {name}"),
            Self::ApiServer(source) => write!(f, "the address of the API server in {source}"),
        }
    }
}

/// Returns the proposal.
///
/// # Errors
/// See [`NoProposal`].
pub fn propose(
    objects: &Objects,
    in_use: &AddressesInUse,
    request: &Request,
) -> Result<Proposal, NoProposal> {
    let pools: Vec<_> = objects.pools.iter().map(|pool| pool.name.to_string()).collect();
    let is_new = request.pool.as_ref().is_some_and(|name| !pools.contains(name));
    if !pools.is_empty() && !is_new {
        return Ok(Proposal::Exists(pools));
    }
    let used = used(objects, in_use);
    let requested: Option<AddressRange> = request.range.as_deref().map(str::parse).transpose()?;
    let subnet = node_subnet(objects, requested.map_or(Family::V4, |range| range.family()));
    let range = match requested {
        Some(range) => unused(range, &used)?,
        None => {
            let subnet = subnet.as_ref().ok_or(NoProposal::NoSubnet)?;
            if subnet.is_assumed && request.yes {
                return Err(NoProposal::Assumed(subnet.range));
            }
            free_block(subnet.range, &used).ok_or(NoProposal::NoFreeAddress(subnet.range))?
        }
    };
    let name = request.pool.clone().unwrap_or_else(|| POOL.to_owned());
    Ok(Proposal::New(ProposedPool { name, range, subnet }))
}

/// Returns all addresses that a pool may not contain.
fn used(objects: &Objects, in_use: &AddressesInUse) -> Vec<(AddressRange, Use)> {
    let single = |address: &IpAddr| AddressRange::single(*address);
    let AddressesInUse { service_ranges, api_servers } = in_use;
    let services = service_ranges.iter().map(|range| (*range, Use::Services));
    let api_servers =
        api_servers.iter().map(|(source, address)| (single(address), Use::ApiServer(source)));
    let nodes = objects.nodes.iter().flat_map(move |node| {
        let pods = node.pod_cidrs.iter().map(|range| (*range, Use::Pods));
        let own =
            node.addresses.iter().map(move |it| (single(it), Use::Node(node.name.to_string())));
        pods.chain(own)
    });
    let pools = objects.pools.iter().flat_map(|pool| {
        pool.ranges.iter().map(|range| (*range, Use::Pool(pool.name.to_string())))
    });
    let assigned = objects.services.iter().flat_map(move |service| {
        let assigned = service.assigned.iter().map(|it| it.address);
        let addresses = assigned.chain(service.demand.external_ips.iter().copied());
        addresses.map(move |it| (AddressRange::single(it), Use::Service(service.key.to_string())))
    });
    services.chain(nodes).chain(pools).chain(assigned).chain(api_servers).collect()
}

fn unused(range: AddressRange, used: &[(AddressRange, Use)]) -> Result<AddressRange, NoProposal> {
    match used.iter().find(|(other, _)| other.overlaps(&range)) {
        Some((used, usage)) => {
            Err(NoProposal::InUse(Box::new(Overlap { range, used: *used, usage: usage.clone() })))
        }
        None => Ok(range),
    }
}

/// Returns the highest block of free addresses in a subnet that has the wanted size, or else the
/// largest block.
fn free_block(subnet: AddressRange, used: &[(AddressRange, Use)]) -> Option<AddressRange> {
    let [first, last] = bits(&subnet)?;
    let size = last.saturating_sub(first);
    let end = if size >= LARGE { LARGE_END } else { ENDS };
    let (low, high) = (first.checked_add(ENDS)?, last.checked_sub(end)?);
    let mut free = AddressSet::default();
    free.insert(range(low, high)?);
    used.iter().for_each(|(range, _)| free.remove(*range));
    let block = |free: AddressRange| {
        let [first, last] = bits(&free)?;
        range(first.max(last.saturating_sub(SIZE - 1)), last)
    };
    let blocks = free.ranges().filter_map(block);
    // Of several blocks with the largest size, the last one is the highest.
    blocks.max_by_key(|block| bits(block).map(|[first, last]| last - first))
}

/// Returns the first and the last address as numbers; `None` for IPv6.
fn bits(range: &AddressRange) -> Option<[u32; 2]> {
    match [range.first(), range.last()] {
        [IpAddr::V4(first), IpAddr::V4(last)] => Some([first.to_bits(), last.to_bits()]),
        _ => None,
    }
}

fn range(first: u32, last: u32) -> Option<AddressRange> {
    let [first, last] = [first, last].map(Ipv4Addr::from_bits);
    format!("{first}-{last}").parse().ok()
}

impl fmt::Display for Proposal {
    /// Writes the explanation for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pool = match self {
            Self::Exists(pools) => {
                return writeln!(
                    f,
                    "IPAddressPool {} exists, so nothing changes: see `kubectl ferrolb status`. To \
                     add a pool, name it with --pool",
                    first_names(pools)
                );
            }
            Self::New(pool) => pool,
        };
        writeln!(f, "IPAddressPool {}: {}", pool.name, pool.range)?;
        if let Some(subnet) = &pool.subnet {
            subnet.explain(&pool.range, f)?;
        }
        writeln!(
            f,
            "The addresses are free according to the API. Check that no other host uses them, and \
             exclude them from the DHCP range of the router"
        )
    }
}

impl NodeSubnet {
    fn explain(&self, pool: &AddressRange, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { range, is_assumed, other_nodes } = self;
        if *is_assumed {
            writeln!(
                f,
                "No speaker has reported its subnet, so {range} around the nodes' InternalIPs is \
                 assumed"
            )?;
        } else {
            writeln!(f, "Subnet of the nodes: {range}")?;
        }
        if !(range.contains(pool.first()) && range.contains(pool.last())) {
            writeln!(
                f,
                "The pool is not in this subnet: add a route to it in the router, and set \
                 spec.routed of the pool to true"
            )?;
        } else if !other_nodes.is_empty() {
            writeln!(f, "Nodes outside of this subnet: {}", first_names(other_nodes))?;
        }
        Ok(())
    }
}
