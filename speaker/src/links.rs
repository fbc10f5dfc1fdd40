//! This node's links as events, from rtnetlink(7). One task, owned by the main loop's `JoinSet`; cancelling it is safe.
//!
//! It follows the kernel's messages and never polls. A connection that lost messages (an overrun) or ended is made anew and
//! begins with a full dump, so that nothing rests on it living. The only user of the netlink crates.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ferrolb_proto::wire::Mac;
use ferrolb_runtime::backoff::Backoff;
use ferrolb_runtime::clock::Clock;
use futures::channel::mpsc::UnboundedReceiver;
use futures::{FutureExt, StreamExt, TryStreamExt};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::event::{Event, Link};

/// Addresses of one link that are kept; a link with more has them cut off.
pub const ADDRESSES_PER_LINK_MAX: usize = 4_096;

type Messages = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, rtnetlink::sys::SocketAddr)>;

/// Why a connection to the kernel came to its end.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("no netlink socket: {0}")]
    Socket(#[source] std::io::Error),
    #[error("the kernel does not list its links: {0}")]
    Dump(#[source] rtnetlink::Error),
    #[error("messages were lost")]
    Overrun,
    #[error("the connection ended")]
    Ended,
}

/// Follows the links for ever. Ends only when nobody reads `events` any more.
pub async fn run(events: mpsc::Sender<Event>) {
    let mut backoff = Backoff::default();
    loop {
        let Err(error) = follow(&events).await else { return };
        match error {
            FollowError::Overrun | FollowError::Ended => debug!(%error, "reading this node's links anew"),
            FollowError::Socket(_) | FollowError::Dump(_) => {
                warn!(%error, "this node's links are not known; trying again");
            }
        }
        tokio::time::sleep(backoff.next_delay(Clock::now())).await;
    }
}

/// One connection: a dump, then the changes. The dump comes second, so that no change falls between.
async fn follow(events: &mpsc::Sender<Event>) -> Result<(), FollowError> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, handle, messages) = new_multicast_connection(&groups).map_err(FollowError::Socket)?;
    tokio::select! {
        () = connection => Err(FollowError::Ended),
        result = listen(&handle, messages, events) => result,
    }
}

async fn listen(handle: &Handle, mut messages: Messages, events: &mpsc::Sender<Event>) -> Result<(), FollowError> {
    let mut links = dump(handle).await.map_err(FollowError::Dump)?;
    loop {
        if events.send(Event::Links(links.values().cloned().collect())).await.is_err() {
            return Ok(());
        }
        let mut changed = false;
        while !changed {
            let (message, _) = messages.next().await.ok_or(FollowError::Ended)?;
            changed = take(&mut links, message)?;
            // One event for all that came at once.
            while let Some(message) = messages.next().now_or_never() {
                changed |= take(&mut links, message.ok_or(FollowError::Ended)?.0)?;
            }
        }
    }
}

async fn dump(handle: &Handle) -> Result<BTreeMap<u32, Link>, rtnetlink::Error> {
    let mut links = BTreeMap::new();
    let mut messages = std::pin::pin!(handle.link().get().execute());
    while let Some(message) = messages.try_next().await? {
        take_link(&mut links, &message);
    }
    let mut messages = std::pin::pin!(handle.address().get().execute());
    while let Some(message) = messages.try_next().await? {
        take_address(&mut links, &message, true);
    }
    Ok(links)
}

/// Takes one message; says whether anything changed.
fn take(links: &mut BTreeMap<u32, Link>, message: NetlinkMessage<RouteNetlinkMessage>) -> Result<bool, FollowError> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enums are open; we asked for three groups only")]
    match message.payload {
        NetlinkPayload::InnerMessage(inner) => Ok(match inner {
            RouteNetlinkMessage::NewLink(message) => take_link(links, &message),
            // A port that leaves its bridge is told as a deleted link, of the bridge family.
            RouteNetlinkMessage::DelLink(message) => {
                is_whole(&message) && links.remove(&message.header.index).is_some()
            }
            RouteNetlinkMessage::NewAddress(message) => take_address(links, &message, true),
            RouteNetlinkMessage::DelAddress(message) => take_address(links, &message, false),
            _ => false,
        }),
        NetlinkPayload::Overrun(_) => Err(FollowError::Overrun),
        _ => Ok(false),
    }
}

/// Whether a message speaks of the link itself, and not of one protocol's view of it.
fn is_whole(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

fn take_link(links: &mut BTreeMap<u32, Link>, message: &LinkMessage) -> bool {
    let (mut name, mut mac, mut enslaved, mut state) = (None, Mac::ZERO, false, false);
    let (mut shares, mut veth, mut below, mut elsewhere) = (false, false, None, false);
    for attribute in &message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel has a hundred attributes, and we use seven")]
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.as_str().into()),
            LinkAttribute::Address(bytes) => mac = bytes.as_slice().try_into().map_or(Mac::ZERO, Mac),
            LinkAttribute::Controller(index) => enslaved = *index != 0,
            LinkAttribute::OperState(_) => state = true,
            LinkAttribute::LinkInfo(infos) => {
                shares = infos.iter().any(shares_wire);
                veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
            }
            LinkAttribute::Link(index) => below = Some(*index),
            // Its parent, or other end, is in another network namespace, as for a container.
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            _ => {}
        }
    }
    // A message without an operational state carries news of a wireless link only, and nothing of what we want.
    let (Some(name), true, true) = (name, state, is_whole(message)) else { return false };
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
        parent: below.filter(|_| shares && !elsewhere),
        into_namespace: veth && elsewhere,
        addresses,
        prefixes,
        tentative,
    };
    // Statistics and the like come as messages, too, and change nothing.
    let changed = before.as_ref() != Some(&link);
    links.insert(index, link);
    changed
}

/// A kind of link that has its parent's wire, and is cut off from its parent by the kernel.
const fn shares_wire(info: &LinkInfo) -> bool {
    matches!(info, LinkInfo::Kind(InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan | InfoKind::IpVtap))
}

fn take_address(links: &mut BTreeMap<u32, Link>, message: &AddressMessage, there: bool) -> bool {
    // On a point-to-point link the address attribute is the other end's, and the local one is ours.
    let mut found: (Option<IpAddr>, Option<IpAddr>) = (None, None);
    for attribute in &message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "only two attributes hold the address")]
        match attribute {
            AddressAttribute::Local(address) => found.0 = Some(*address),
            AddressAttribute::Address(address) => found.1 = Some(*address),
            _ => {}
        }
    }
    let (Some(address), Some(link)) = (found.0.or(found.1), links.get_mut(&message.header.index)) else { return false };
    // What is optimistic is tentative, too (RFC 4429 section 2.1).
    let tentative = message.header.flags.intersects(AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed);
    let changed =
        set(&mut link.addresses, address, there) | set(&mut link.prefixes, (address, message.header.prefix_len), there);
    set(&mut link.tentative, address, there && tentative) | changed
}

/// Puts an address into an ascending list, or takes it out; says whether that changed anything.
fn set<A: Ord>(addresses: &mut Vec<A>, address: A, there: bool) -> bool {
    match (addresses.binary_search(&address), there) {
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
    fn the_end_of_a_veth_pair_whose_other_end_is_elsewhere_is_known_as_that() {
        let veth = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]);
        let bridge = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]);
        let elsewhere = LinkAttribute::LinkNetNsId(3);
        let cases =
            [(vec![veth.clone(), elsewhere.clone()], true), (vec![veth], false), (vec![bridge, elsewhere], false)];
        for (attributes, expect) in cases {
            let mut message = LinkMessage::default();
            message.header.index = 7;
            message.attributes = vec![LinkAttribute::IfName("a".into()), LinkAttribute::OperState(State::Up)];
            message.attributes.extend(attributes);
            let mut links = BTreeMap::new();
            assert_eq!((take_link(&mut links, &message), take_link(&mut links, &message)), (true, false));
            assert_eq!(links[&7].into_namespace, expect);
        }
    }

    #[test]
    fn an_address_is_there_at_once_and_may_be_used_when_nobody_else_has_it() {
        let own: IpAddr = "fe80::1".parse().unwrap();
        let mut links = BTreeMap::from([(7, Link::default())]);
        let mut tell = |flags, there| {
            let mut message = AddressMessage::default();
            (message.header.index, message.header.flags) = (7, flags);
            message.header.prefix_len = 64;
            message.attributes = vec![AddressAttribute::Address(own)];
            let changed = take_address(&mut links, &message, there);
            assert_eq!(links[&7].prefixes.contains(&(own, 64)), there);
            (changed, links[&7].addresses.clone(), links[&7].tentative.clone())
        };
        let failed = AddressHeaderFlags::Permanent | AddressHeaderFlags::Dadfailed;
        let optimistic = AddressHeaderFlags::Tentative | AddressHeaderFlags::Optimistic;
        let permanent = AddressHeaderFlags::Permanent;
        assert_eq!(tell(AddressHeaderFlags::Tentative, true), (true, vec![own], vec![own]));
        assert_eq!(tell(optimistic, true), (false, vec![own], vec![own]));
        assert_eq!(tell(permanent, true), (true, vec![own], vec![]));
        assert_eq!(tell(permanent, true), (false, vec![own], vec![]));
        assert_eq!(tell(failed, true), (true, vec![own], vec![own]));
        assert_eq!(tell(permanent, false), (true, vec![], vec![]));
    }
}
