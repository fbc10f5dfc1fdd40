//! Task that follows this node's default gateways and routes to its own pods by rtnetlink(7), and
//! reports them as events. The main loop's `JoinSet` owns the task; cancelling the task is safe.
//!
//! The task reads all routes after each change of such a route or of an interface, and never polls.
//! Linux sends no message about IPv4 routes that it removes when an interface goes down. The task
//! has a connection of its own, because a node with many routes can lose messages about them, and
//! [`crate::links`] must not lose messages about interfaces with these.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_proto::api::GATEWAYS_MAX;
use ferrolb_proto::range::AddressRange;
use ferrolb_runtime::backoff::Backoff;
use ferrolb_runtime::clock::Clock;
use ferrolb_speaker_core::event::{Event, PodRoute, Routes};
use futures::{StreamExt, TryStreamExt};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::sync::mpsc;
use tracing::debug;

use crate::links::{NetlinkError, NetlinkMessages};

/// Minimum time between two lists of the routes.
const LIST_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Maximum number of routes to pods; further routes are ignored.
const POD_ROUTES_MAX: usize = 4_096;

/// Sends the routes as an event after each change, until the receiver of `events` is dropped.
pub async fn run(events: mpsc::Sender<Event>) {
    let mut backoff = Backoff::default();
    loop {
        let Err(error) = follow(&events).await else { return };
        debug!(%error, "reading the routes of this node again");
        tokio::time::sleep(backoff.next_delay(Clock::now())).await;
    }
}

/// Runs one netlink connection. The task subscribes before it reads the routes, so that no change
/// is missed.
async fn follow(events: &mpsc::Sender<Event>) -> Result<(), NetlinkError> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];
    let (connection, handle, messages) =
        new_multicast_connection(&groups).map_err(NetlinkError::Socket)?;
    tokio::select! {
        () = connection => Err(NetlinkError::Ended),
        result = follow_changes(&handle, messages, events) => result,
    }
}

async fn follow_changes(
    handle: &Handle,
    mut messages: NetlinkMessages,
    events: &mpsc::Sender<Event>,
) -> Result<(), NetlinkError> {
    loop {
        let routes = list(handle).await.map_err(NetlinkError::Dump)?;
        if events.send(Event::Routes(routes)).await.is_err() {
            return Ok(());
        }
        // Reads messages also while it waits, so that a burst does not fill the memory.
        let mut pause = std::pin::pin!(tokio::time::sleep(LIST_INTERVAL_MIN));
        let (mut paused, mut changed) = (false, false);
        while !paused || !changed {
            tokio::select! {
                () = &mut pause, if !paused => paused = true,
                message = messages.next() => {
                    changed |= is_relevant(&message.ok_or(NetlinkError::Ended)?.0.payload)?;
                }
            }
        }
    }
}

/// Returns whether a message is about an interface, a default route, or a route that may lead to
/// pods.
fn is_relevant(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Result<bool, NetlinkError> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the crate's enums are open; the connection subscribes to three groups only"
    )]
    match payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) => Ok(is_default(route) || pod_route(route).is_some()),
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_),
        ) => Ok(true),
        NetlinkPayload::Overrun(_) => Err(NetlinkError::Overrun),
        _ => Ok(false),
    }
}

/// Returns the default gateways of both families, at most [`GATEWAYS_MAX`], and the routes that may
/// lead to pods, at most [`POD_ROUTES_MAX`].
async fn list(handle: &Handle) -> Result<Routes, rtnetlink::Error> {
    let (mut gateways, mut to_pods) = (BTreeSet::new(), BTreeSet::new());
    // Without a family, the kernel lists the routes of all families.
    let mut routes = std::pin::pin!(handle.route().get(RouteMessage::default()).execute());
    while let Some(route) = routes.try_next().await? {
        if is_default(&route) {
            gateways.extend(addresses(&route.attributes));
        } else if to_pods.len() < POD_ROUTES_MAX {
            to_pods.extend(pod_route(&route));
        }
    }
    let gateways = gateways.into_iter().take(GATEWAYS_MAX).collect();
    Ok(Routes { gateways, to_pods: to_pods.into_iter().collect() })
}

/// Returns a route of the main table as the state needs it, if it may lead to pods.
fn pod_route(route: &RouteMessage) -> Option<PodRoute> {
    let RouteHeader { destination_prefix_length: length, table, kind, .. } = route.header;
    if table != RouteHeader::RT_TABLE_MAIN || kind != RouteType::Unicast {
        return None;
    }
    let (mut destination, mut link, mut gateway, mut source) = (None, None, None, None);
    for attribute in &route.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel has thirty attributes")]
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Gateway(address) => gateway = Some(ip(address)?),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) => return None,
            _ => {}
        }
    }
    let (range, link) = (AddressRange::network(destination?, length), link?);
    // Cilium's IPv4 routes have the source address as gateway, too.
    let may_lead_to_pods = if range.first() == range.last() {
        gateway.is_none()
    } else {
        source.is_some_and(|source| range.contains(source))
            && (gateway.is_none() || gateway == source)
    };
    may_lead_to_pods.then_some(PodRoute { range, link })
}

const fn ip(address: &RouteAddress) -> Option<IpAddr> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "other addresses are no IP addresses")]
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn is_default(route: &RouteMessage) -> bool {
    let RouteHeader { destination_prefix_length, table, .. } = route.header;
    destination_prefix_length == 0 && table == RouteHeader::RT_TABLE_MAIN
}

/// Returns the gateways of a route, one of each next hop, without link-local ones.
fn addresses(attributes: &[RouteAttribute]) -> Vec<IpAddr> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only two attributes hold gateways")]
    let of_attribute = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(v4)) if !v4.is_link_local() => {
            vec![IpAddr::V4(*v4)]
        }
        RouteAttribute::Gateway(RouteAddress::Inet6(v6)) if !v6.is_unicast_link_local() => {
            vec![IpAddr::V6(*v6)]
        }
        RouteAttribute::MultiPath(hops) => {
            hops.iter().flat_map(|hop| addresses(&hop.attributes)).collect()
        }
        _ => Vec::new(),
    };
    attributes.iter().flat_map(of_attribute).collect()
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteNextHop;

    use super::*;

    #[test]
    fn the_gateways_of_a_route_are_those_of_all_its_next_hops() {
        let gateway = |text: &str| RouteAttribute::Gateway(text.parse::<IpAddr>().unwrap().into());
        let hop = |text| {
            let mut hop = RouteNextHop::default();
            hop.attributes = vec![gateway(text)];
            hop
        };
        let hops = RouteAttribute::MultiPath(vec![hop("10.0.0.1"), hop("10.0.0.2")]);
        let metric = RouteAttribute::Priority(100);
        for (attributes, expect) in [
            (vec![metric, gateway("10.0.0.9")], &["10.0.0.9"][..]),
            (vec![hops], &["10.0.0.1", "10.0.0.2"]),
            (vec![gateway("fd00::1")], &["fd00::1"]),
            (vec![gateway("fe80::1")], &[]),
            (vec![], &[]),
        ] {
            let found: Vec<_> = addresses(&attributes).iter().map(ToString::to_string).collect();
            assert_eq!(found, expect);
        }
    }

    #[test]
    fn only_a_route_to_everything_in_the_main_table_is_a_default_route() {
        let route = |length, table| {
            let mut route = RouteMessage::default();
            (route.header.destination_prefix_length, route.header.table) = (length, table);
            route
        };
        let main = RouteHeader::RT_TABLE_MAIN;
        let cases = [(0, main, true), (24, main, false), (0, 100, false)];
        for (length, table, expect) in cases {
            assert_eq!(is_default(&route(length, table)), expect, "{length} in table {table}");
        }
    }

    #[test]
    fn routes_that_may_lead_to_pods_have_a_single_address_or_contain_their_source() {
        let ip = |text: &str| RouteAddress::from(text.parse::<IpAddr>().unwrap());
        let route = |to: &str, length, attributes: &[RouteAttribute]| {
            let mut route = RouteMessage::default();
            route.header.destination_prefix_length = length;
            (route.header.table, route.header.kind) =
                (RouteHeader::RT_TABLE_MAIN, RouteType::Unicast);
            route.attributes = vec![RouteAttribute::Destination(ip(to)), RouteAttribute::Oif(7)];
            route.attributes.extend_from_slice(attributes);
            route
        };
        let via = |text| RouteAttribute::Gateway(ip(text));
        let from = |text| RouteAttribute::PrefSource(ip(text));
        let hops = RouteAttribute::MultiPath(Vec::new());
        let cilium = [via("10.0.1.13"), from("10.0.1.13")];
        let cases = [
            (route("10.244.1.7", 32, &[]), Some("10.244.1.7"), "a pod"),
            (route("fd00::7", 128, &[]), Some("fd00::7"), "a pod, by IPv6"),
            (route("10.244.1.7", 32, &[via("192.0.2.1")]), None, "a host behind a gateway"),
            (route("10.244.1.7", 32, &[hops]), None, "several next hops"),
            (route("10.244.1.0", 24, &[]), None, "a range without an address of the node"),
            (route("10.0.1.0", 24, &cilium), Some("10.0.1.0/24"), "Cilium"),
            (route("fd00::100", 120, &[from("fd00::113")]), Some("fd00::100/120"), "Cilium, IPv6"),
            (route("10.0.2.0", 24, &cilium), None, "remote pods"),
            (route("fd00::200", 120, &[from("fd00::113")]), None, "remote pods, by IPv6"),
            (route("10.0.1.0", 24, &[via("10.0.1.1"), from("10.0.1.13")]), None, "a router"),
        ];
        for (route, expect, what) in cases {
            let expect = expect.map(|text| PodRoute { range: text.parse().unwrap(), link: 7 });
            assert_eq!(pod_route(&route), expect, "{what}");
        }
        let mut local = route("10.244.1.7", 32, &[]);
        local.header.table = 255;
        assert_eq!(pod_route(&local), None, "an address of the node");
        let mut blackhole = route("10.244.1.7", 32, &[]);
        blackhole.header.kind = RouteType::BlackHole;
        assert_eq!(pod_route(&blackhole), None);
    }
}
