//! Task that follows this node's default gateways by rtnetlink(7), and reports them as events. The
//! main loop's `JoinSet` owns the task; cancelling the task is safe.
//!
//! The task reads all routes after each change of a default route, and never polls. It has a
//! connection of its own, because a node with many routes can lose messages about them, and no
//! message about an interface may be lost with these. Linux sends no message about IPv4 routes that
//! it removes with their interface, so such a gateway stays until the next change.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_proto::api::GATEWAYS_MAX;
use ferrolb_runtime::backoff::Backoff;
use ferrolb_runtime::clock::Clock;
use ferrolb_speaker_core::event::Event;
use futures::{FutureExt, StreamExt, TryStreamExt};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::sync::mpsc;
use tracing::debug;

use crate::links::{NetlinkError, NetlinkMessages};

/// Minimum time between two lists of the routes.
const LIST_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Sends the default gateways as an event after each change, until the receiver of `events` is
/// dropped.
pub async fn run(events: mpsc::Sender<Event>) {
    let mut backoff = Backoff::default();
    loop {
        let Err(error) = follow(&events).await else { return };
        debug!(%error, "reading the default gateways of this node again");
        tokio::time::sleep(backoff.next_delay(Clock::now())).await;
    }
}

/// Runs one netlink connection. The task subscribes before it reads the routes, so that no change
/// is missed.
async fn follow(events: &mpsc::Sender<Event>) -> Result<(), NetlinkError> {
    let groups = [MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];
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
        let gateways = list_gateways(handle).await.map_err(NetlinkError::Dump)?;
        if events.send(Event::Gateways(gateways)).await.is_err() {
            return Ok(());
        }
        tokio::time::sleep(LIST_INTERVAL_MIN).await;
        let mut changed = false;
        while !changed {
            let (message, _) = messages.next().await.ok_or(NetlinkError::Ended)?;
            changed = concerns_default_route(&message.payload)?;
            // Reads all queued messages, so that they cause only one list.
            while let Some(message) = messages.next().now_or_never() {
                let (message, _) = message.ok_or(NetlinkError::Ended)?;
                changed |= concerns_default_route(&message.payload)?;
            }
        }
    }
}

fn concerns_default_route(
    payload: &NetlinkPayload<RouteNetlinkMessage>,
) -> Result<bool, NetlinkError> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the crate's enums are open; the connection subscribes to routes only"
    )]
    match payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) => Ok(is_default(route)),
        NetlinkPayload::Overrun(_) => Err(NetlinkError::Overrun),
        _ => Ok(false),
    }
}

/// Returns the default gateways of both families, at most [`GATEWAYS_MAX`].
async fn list_gateways(handle: &Handle) -> Result<Box<[IpAddr]>, rtnetlink::Error> {
    let mut gateways = BTreeSet::new();
    // Without a family, the kernel lists the routes of all families.
    let mut routes = std::pin::pin!(handle.route().get(RouteMessage::default()).execute());
    while let Some(route) = routes.try_next().await? {
        if is_default(&route) {
            gateways.extend(addresses(&route.attributes));
        }
    }
    Ok(gateways.into_iter().take(GATEWAYS_MAX).collect())
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
}
