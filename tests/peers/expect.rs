//! Functions that start the routers of most scenarios, and functions that wait for an expected
//! state of a router.

use crate::objects::{self, ADDRESSES, BGP_MAX};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::routers::{BgpRoute, Peering, Router, RouterKind};
use ferrolb_lab::topology::routers::ROUTERS;
use ferrolb_lab::topology::{CLIENT, Host};
use ferrolb_lab::{Lab, wait};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Starts FRR, BIRD and GoBGP, each on a host of its own, with eBGP sessions to all nodes.
pub(crate) fn start_one_of_each(lab: &Lab) -> Result<Vec<Router<'_>>> {
    let router = |(kind, host): (RouterKind, &str)| {
        Router::start_with_peering(lab, kind, host, &Peering::with_nodes(lab, host)?)
    };
    RouterKind::ALL.into_iter().zip(ROUTERS).map(router).collect()
}

/// Waits until the kernel of a router forwards an address of the Service to exactly these nodes.
pub(crate) fn wait_forwards(router: &Router, address: IpAddr, nodes: &[Host]) -> Result<()> {
    let hops =
        nodes.iter().flat_map(Host::addresses).filter(|hop| hop.is_ipv4() == address.is_ipv4());
    let hops: BTreeSet<IpAddr> = hops.collect();
    wait::until("the kernel has the routes", BGP_MAX, || {
        let now = router.forwards(address)?;
        ensure!(now == hops, "{router} forwards {address} to {now:?}, not {hops:?}");
        Ok(Some(()))
    })
}

/// Runs [`wait_forwards`] for both addresses, if the router writes routes to its kernel.
pub(crate) fn wait_forwards_all(router: &Router, nodes: &[Host]) -> Result<()> {
    let checked = ADDRESSES.into_iter().filter(|_| router.kind().forwards());
    checked.into_iter().try_for_each(|address| wait_forwards(router, address, nodes))
}

/// Waits until a router has established sessions with exactly these neighbors.
pub(crate) fn wait_sessions_with(router: &Router, neighbors: &[IpAddr]) -> Result<()> {
    wait::until("the router has the sessions", BGP_MAX, || {
        let sessions = router.sessions()?;
        let up =
            sessions.iter().filter(|session| session.established).map(|session| session.neighbor);
        ensure!(
            up.collect::<Vec<_>>() == neighbors,
            "{router} has {sessions:?}, not sessions with {neighbors:?}"
        );
        Ok(Some(()))
    })
}

/// Waits until a router has exactly these paths.
pub(crate) fn wait_exact_paths(router: &Router, mut paths: Vec<BgpRoute>) -> Result<()> {
    paths.sort();
    wait::until("the router has the paths", BGP_MAX, || {
        let routes = router.routes()?;
        ensure!(routes == paths, "{router} has the paths {routes:#?}, not {paths:#?}");
        Ok(Some(()))
    })
}

/// Waits until the next hops of a router's paths are exactly these nodes.
pub(crate) fn wait_paths_through(router: &Router, nodes: &[&Host]) -> Result<()> {
    let expect: BTreeSet<IpAddr> = nodes.iter().flat_map(|node| node.addresses()).collect();
    wait::until("the router has the paths", BGP_MAX, || {
        let now = next_hops(router)?;
        ensure!(now == expect, "{router} has paths through {now:?}, not {expect:?}");
        Ok(Some(()))
    })
}

/// Returns the next hops of a router's paths.
pub(crate) fn next_hops(router: &Router) -> Result<BTreeSet<IpAddr>> {
    Ok(router.routes()?.into_iter().filter_map(|route| route.next_hop).collect())
}

/// Runs [`route_client_range_through`] for one address.
pub(crate) fn route_client_through(lab: &Lab, address: IpAddr, router: &str) -> Result<()> {
    route_client_range_through(lab, &objects::prefix(address), router)
}

/// Routes the client's packets for a range of addresses through a router. The router forwards them
/// through the interface on which it receives them, and therefore sends redirects (RFC 792, RFC
/// 4861 section 8). The client must ignore these redirects.
pub(crate) fn route_client_range_through(lab: &Lab, range: &str, router: &str) -> Result<()> {
    for family in ["ipv4", "ipv6"] {
        for link in ["all", "eth0"] {
            lab.exec(
                CLIENT,
                &["sysctl", "-qw", &format!("net.{family}.conf.{link}.accept_redirects=0")],
            )?;
        }
    }
    let addresses = objects::host(lab, router)?.addresses();
    let gateway = addresses
        .into_iter()
        .find(|gateway| gateway.is_ipv6() == range.contains(':'))
        .context("the router has no address of this family")?;
    lab.exec(CLIENT, &["ip", "route", "replace", range, "via", &gateway.to_string()]).map(drop)
}
