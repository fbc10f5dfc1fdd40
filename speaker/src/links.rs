//! Task that follows this node's interfaces by rtnetlink(7), and reports them as events. The main
//! loop's `JoinSet` owns the task; cancelling the task is safe.
//!
//! The task follows the kernel's messages and never polls. If a connection loses messages (an
//! overrun) or ends, the task opens a new one and lists all interfaces again. Only this module and
//! [`crate::routes`] use the netlink crates.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ferrolb_proto::wire::Mac;
use ferrolb_runtime::backoff::Backoff;
use ferrolb_runtime::clock::Clock;
use ferrolb_speaker_core::event::{Event, Link};
use futures::channel::mpsc::UnboundedReceiver;
use futures::{FutureExt, StreamExt, TryStreamExt};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::sync::mpsc;
use tracing::{debug, warn};

/// Maximum number of addresses of one interface; further addresses are ignored.
pub const ADDRESSES_PER_LINK_MAX: usize = 4_096;

/// Messages of a connection, each with the sender's address.
pub(crate) type NetlinkMessages =
    UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, rtnetlink::sys::SocketAddr)>;

/// Reasons why a netlink connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetlinkError {
    #[error("no netlink socket: {0}")]
    Socket(#[source] std::io::Error),
    #[error("the kernel does not list its interfaces or routes: {0}")]
    Dump(#[source] rtnetlink::Error),
    #[error("messages were lost")]
    Overrun,
    #[error("the connection ended")]
    Ended,
}

/// Sends all interfaces as an event after each change, until the receiver of `events` is dropped.
pub async fn run(events: mpsc::Sender<Event>) {
    let mut backoff = Backoff::default();
    loop {
        let Err(error) = follow(&events).await else { return };
        match error {
            NetlinkError::Overrun | NetlinkError::Ended => {
                debug!(%error, "listing the interfaces of this node again")
            }
            NetlinkError::Socket(_) | NetlinkError::Dump(_) => {
                warn!(%error, "cannot list the network interfaces of this node, retrying");
            }
        }
        tokio::time::sleep(backoff.next_delay(Clock::now())).await;
    }
}

/// Runs one netlink connection: subscribes to changes, lists all interfaces, then applies the
/// changes. The task subscribes before it lists, so that no change is missed.
async fn follow(events: &mpsc::Sender<Event>) -> Result<(), NetlinkError> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
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
    let mut links = list_links(handle).await.map_err(NetlinkError::Dump)?;
    loop {
        if events.send(Event::Links(links.values().cloned().collect())).await.is_err() {
            return Ok(());
        }
        let mut changed = false;
        while !changed {
            let (message, _) = messages.next().await.ok_or(NetlinkError::Ended)?;
            changed = apply(&mut links, message)?;
            // Applies all queued messages, so that they cause only one event.
            while let Some(message) = messages.next().now_or_never() {
                changed |= apply(&mut links, message.ok_or(NetlinkError::Ended)?.0)?;
            }
        }
    }
}

async fn list_links(handle: &Handle) -> Result<BTreeMap<u32, Link>, rtnetlink::Error> {
    let mut links = BTreeMap::new();
    let mut messages = std::pin::pin!(handle.link().get().execute());
    while let Some(message) = messages.try_next().await? {
        apply_link(&mut links, &message);
    }
    let mut messages = std::pin::pin!(handle.address().get().execute());
    while let Some(message) = messages.try_next().await? {
        apply_address(&mut links, &message, true);
    }
    Ok(links)
}

/// Applies one netlink message to `links`. Returns whether `links` has changed.
fn apply(
    links: &mut BTreeMap<u32, Link>,
    message: NetlinkMessage<RouteNetlinkMessage>,
) -> Result<bool, NetlinkError> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the crate's enums are open; the connection subscribes to three groups only"
    )]
    match message.payload {
        NetlinkPayload::InnerMessage(inner) => Ok(match inner {
            RouteNetlinkMessage::NewLink(message) => apply_link(links, &message),
            // When a port leaves its bridge, the kernel reports a deleted interface of the bridge
            // family, although the interface still exists.
            RouteNetlinkMessage::DelLink(message) => {
                is_unspecified_family(&message) && links.remove(&message.header.index).is_some()
            }
            RouteNetlinkMessage::NewAddress(message) => apply_address(links, &message, true),
            RouteNetlinkMessage::DelAddress(message) => apply_address(links, &message, false),
            _ => false,
        }),
        NetlinkPayload::Overrun(_) => Err(NetlinkError::Overrun),
        _ => Ok(false),
    }
}

/// Returns whether a message is about the interface itself, and not about its part in one protocol
/// family, such as being a port of a bridge.
fn is_unspecified_family(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

fn apply_link(links: &mut BTreeMap<u32, Link>, message: &LinkMessage) -> bool {
    let (mut name, mut mac, mut enslaved, mut state) = (None, Mac::ZERO, false, false);
    let (mut shares_segment, mut paired, mut parent, mut in_other_namespace) =
        (false, false, None, false);
    for attribute in &message.attributes {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the kernel has a hundred attributes; this function uses seven"
        )]
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.as_str().into()),
            LinkAttribute::Address(bytes) => {
                mac = bytes.as_slice().try_into().map_or(Mac::ZERO, Mac)
            }
            LinkAttribute::Controller(index) => enslaved = *index != 0,
            LinkAttribute::OperState(_) => state = true,
            LinkAttribute::LinkInfo(infos) => {
                shares_segment = infos.iter().any(shares_parent_segment);
                paired = infos.iter().any(is_paired);
            }
            LinkAttribute::Link(index) => parent = Some(*index),
            // The parent, or the other end of a pair, is in another network namespace, as for a
            // container.
            LinkAttribute::LinkNetNsId(_) => in_other_namespace = true,
            _ => {}
        }
    }
    // A message without an operational state reports only an event of a wireless interface.
    let (Some(name), true, true) = (name, state, is_unspecified_family(message)) else {
        return false;
    };
    let index = message.header.index;
    let flags = message.header.flags;
    let before = links.remove(&index);
    let Link { addresses, prefixes, tentative, .. } = before.clone().unwrap_or_default();
    let link = Link {
        index,
        name,
        ethernet: message.header.link_layer_type == LinkLayerType::Ether && mac != Mac::ZERO,
        mac,
        up: flags.contains(LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running),
        broadcast: flags.contains(LinkFlags::Broadcast),
        enslaved,
        parent: parent.filter(|_| shares_segment && !in_other_namespace),
        into_namespace: paired && in_other_namespace,
        addresses,
        prefixes,
        tentative,
    };
    // Some messages, such as those about statistics, change none of these fields.
    let changed = before.as_ref() != Some(&link);
    links.insert(index, link);
    changed
}

/// Returns whether an interface of this kind is on the same segment as its parent, although the
/// kernel passes no frames between the two.
const fn shares_parent_segment(info: &LinkInfo) -> bool {
    matches!(
        info,
        LinkInfo::Kind(InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan | InfoKind::IpVtap)
    )
}

/// Returns whether an interface of this kind is one end of a pair.
const fn is_paired(info: &LinkInfo) -> bool {
    matches!(info, LinkInfo::Kind(InfoKind::Veth | InfoKind::Netkit))
}

fn apply_address(links: &mut BTreeMap<u32, Link>, message: &AddressMessage, present: bool) -> bool {
    // On a point-to-point interface, `Address` is the address of the other end, and `Local` is this
    // node's.
    let (mut local, mut fallback): (Option<IpAddr>, Option<IpAddr>) = (None, None);
    for attribute in &message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "only two attributes hold the address")]
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => fallback = Some(*address),
            _ => {}
        }
    }
    let (Some(address), Some(link)) = (local.or(fallback), links.get_mut(&message.header.index))
    else {
        return false;
    };
    // An optimistic address also has the tentative flag (RFC 4429 section 2.1).
    let tentative = message
        .header
        .flags
        .intersects(AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed);
    let changed = set_present(&mut link.addresses, address, present)
        | set_present(&mut link.prefixes, (address, message.header.prefix_len), present);
    set_present(&mut link.tentative, address, present && tentative) | changed
}

/// Inserts an address into an ascending list if `present` is true, otherwise removes it from the
/// list. Returns whether the list has changed.
fn set_present<A: Ord>(addresses: &mut Vec<A>, address: A, present: bool) -> bool {
    match (addresses.binary_search(&address), present) {
        (Ok(at), false) => {
            addresses.remove(at);
            true
        }
        (Err(at), true) if addresses.len() < ADDRESSES_PER_LINK_MAX => {
            addresses.insert(at, address);
            true
        }
        (Ok(_), true) | (Err(_), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::State;

    use super::*;

    #[test]
    fn a_pair_of_interfaces_into_another_namespace_is_detected() {
        let veth = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]);
        let bridge = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]);
        let in_other_namespace = LinkAttribute::LinkNetNsId(3);
        let netkit = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Netkit)]);
        let cases = [
            (vec![veth.clone(), in_other_namespace.clone()], true),
            (vec![netkit, in_other_namespace.clone()], true),
            (vec![veth], false),
            (vec![bridge, in_other_namespace], false),
        ];
        for (attributes, expect) in cases {
            let mut message = LinkMessage::default();
            message.header.index = 7;
            message.attributes =
                vec![LinkAttribute::IfName("a".into()), LinkAttribute::OperState(State::Up)];
            message.attributes.extend(attributes);
            let mut links = BTreeMap::new();
            assert_eq!(
                (apply_link(&mut links, &message), apply_link(&mut links, &message)),
                (true, false)
            );
            assert_eq!(links[&7].into_namespace, expect);
        }
    }

    #[test]
    fn an_address_is_tentative_until_duplicate_detection_passes() {
        let own: IpAddr = "fe80::1".parse().unwrap();
        let mut links = BTreeMap::from([(7, Link::default())]);
        let mut apply_flags = |flags, present| {
            let mut message = AddressMessage::default();
            (message.header.index, message.header.flags) = (7, flags);
            message.header.prefix_len = 64;
            message.attributes = vec![AddressAttribute::Address(own)];
            let changed = apply_address(&mut links, &message, present);
            assert_eq!(links[&7].prefixes.contains(&(own, 64)), present);
            (changed, links[&7].addresses.clone(), links[&7].tentative.clone())
        };
        let failed = AddressHeaderFlags::Permanent | AddressHeaderFlags::Dadfailed;
        let optimistic = AddressHeaderFlags::Tentative | AddressHeaderFlags::Optimistic;
        let permanent = AddressHeaderFlags::Permanent;
        assert_eq!(apply_flags(AddressHeaderFlags::Tentative, true), (true, vec![own], vec![own]));
        assert_eq!(apply_flags(optimistic, true), (false, vec![own], vec![own]));
        assert_eq!(apply_flags(permanent, true), (true, vec![own], vec![]));
        assert_eq!(apply_flags(permanent, true), (false, vec![own], vec![]));
        assert_eq!(apply_flags(failed, true), (true, vec![own], vec![own]));
        assert_eq!(apply_flags(permanent, false), (true, vec![], vec![]));
    }
}
