//! Interface threads join and leave the solicited-node groups of their IPv6 addresses, because a
//! switch with MLD snooping forwards multicast only to ports that joined the group.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::wire::{Mac, arp, ndp};
use ferrolb_speaker::link::{ClaimSettings, LinkSet};
use ferrolb_speaker::metrics::Metrics;
use ferrolb_speaker_core::event::Event;
use ferrolb_speaker_core::plan::{LinkConfig, LinkPlan, Units};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::raw_socket::RawSocket;
use crate::segment::{Segment, wait_for_output};
use crate::speaker::{HOSTS, TIMEOUT, VIP, VIP6, healthy_watchdog, link_config, runtime};

const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x100);
/// The solicited-node group of [`VIP6`].
const GROUP: &str = "ff02::1:ff00:200";
/// An address whose solicited-node group no host joins.
const UNUSED_ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x999);

/// Returns whether a solicitation of the client for an address reaches a host.
fn solicitation_reaches(lan: &Segment, host: &str, address: Ipv6Addr) -> bool {
    let (client, host) =
        (RawSocket::open(lan, "client", "eth0"), RawSocket::open(lan, host, "eth0"));
    let solicitation_frame = ndp::solicitation(client.mac, CLIENT6, address);
    // A switch keeps the order of frames, so the broadcast arrives last.
    let broadcast = arp::request(client.mac, [172, 30, 0, 100].into(), VIP);
    client.send(&solicitation_frame);
    client.send(&broadcast);
    host.read_until("a broadcast", |frame| frame.starts_with(&broadcast))
        .iter()
        .any(|frame| frame.starts_with(&solicitation_frame))
}

/// The interface threads of node1, which use one interface.
struct GroupFixture<'a> {
    links: LinkSet,
    inbox: mpsc::Receiver<Event>,
    link: &'a str,
    index: u32,
    mac: Mac,
}

impl<'a> GroupFixture<'a> {
    fn new(lan: &Segment, link: &'a str) -> Self {
        let protocol = ClaimSettings {
            node: "node1".into(),
            hello_interval: Duration::from_millis(50),
            hello_misses_max: 3,
            detection_time_max: Duration::from_secs(2),
            preempt_delay: Some(Duration::from_secs(30)),
            gratuitous_interval: None,
        };
        let (events, inbox) = mpsc::channel(64);
        let links = LinkSet::new(
            protocol,
            Metrics::new(&mut Registry::default()),
            healthy_watchdog(),
            None,
            events,
        );
        Self {
            links,
            inbox,
            link,
            index: lan.index_of("node1", link),
            mac: lan.mac_of("node1", link),
        }
    }

    fn apply(&mut self, config: LinkConfig, ndp_addresses: BTreeSet<Ipv6Addr>) {
        let plan = LinkPlan {
            name: self.link.into(),
            mac: self.mac,
            selected: true,
            config: Arc::new(config),
            ndp_addresses: Arc::new(ndp_addresses),
        };
        self.links.apply(&BTreeMap::from([(self.index, plan)])).expect("random numbers");
    }

    /// Returns the addresses whose group could not be joined, from the next event.
    async fn next_not_joined(&mut self) -> Arc<[Ipv6Addr]> {
        let next = async {
            loop {
                if let Event::GroupsNotJoined { addresses, .. } =
                    self.inbox.recv().await.expect("the link set sends events")
                {
                    return addresses;
                }
            }
        };
        timeout(TIMEOUT, next).await.expect("an event GroupsNotJoined")
    }
}

/// Announces an address on an interface of node1, then removes the address, and checks the joined
/// groups.
async fn check_groups(lan: &Segment, link: &str) {
    let dropped = || (!solicitation_reaches(lan, "node2", UNUSED_ADDRESS)).to_string();
    wait_for_output("the switch drops frames to groups without members", dropped, |dropped| {
        dropped == "true"
    })
    .await;
    let mut set = GroupFixture::new(lan, link);
    let host_groups = || lan.ip("-n", "node1", &format!("-6 maddress show dev {link}"));
    let switch_groups = || lan.port_groups();
    let port = format!("port node1 grp {GROUP} ");
    set.apply(link_config(&[VIP6.into()]), [VIP6].into());
    wait_for_output("the group on the interface", host_groups, |groups| groups.contains(GROUP))
        .await;
    wait_for_output("the group on the switch port", switch_groups, |groups| groups.contains(&port))
        .await;
    lan.client_learns(VIP6, set.mac).await;
    assert!(
        solicitation_reaches(lan, "node1", VIP6) && !solicitation_reaches(lan, "node2", VIP6),
        "{}",
        switch_groups()
    );
    set.apply(
        LinkConfig { units: Units::default(), ..link_config(&[VIP6.into()]) },
        BTreeSet::new(),
    );
    wait_for_output("the group removed from the interface", host_groups, |groups| {
        !groups.contains(GROUP)
    })
    .await;
    wait_for_output("the group removed from the switch port", switch_groups, |groups| {
        !groups.contains(&port)
    })
    .await;
    assert!(!solicitation_reaches(lan, "node1", VIP6), "{}", switch_groups());
}

#[test]
fn multicast_groups_follow_the_addresses_of_an_interface() {
    let lan = Segment::new(&HOSTS);
    lan.enable_mld_snooping();
    lan.inside("node1", || runtime().block_on(check_groups(&lan, "eth0")));
}

#[test]
fn multicast_groups_follow_the_addresses_of_a_bridge() {
    let lan = Segment::new(&HOSTS);
    lan.add_bridge("node1");
    lan.enable_mld_snooping();
    lan.inside("node1", || runtime().block_on(check_groups(&lan, "br0")));
}

#[test]
fn an_interface_without_ipv6_reports_groups_and_joins_them_later() {
    let lan = Segment::new(&HOSTS);
    let host_groups = || lan.ip("-n", "node1", "-6 maddress show dev eth0");
    let with_source = |source_v6| LinkConfig { source_v6, ..link_config(&[VIP6.into()]) };
    lan.inside("node1", || {
        runtime().block_on(async {
            let mut set = GroupFixture::new(&lan, "eth0");
            // RFC 8200 section 5: an interface with a smaller MTU does not support IPv6.
            lan.ip("-n", "node1", "link set eth0 mtu 1279");
            set.apply(with_source(None), [VIP6].into());
            assert_eq!(*set.next_not_joined().await, [VIP6]);
            lan.ip("-n", "node1", "link set eth0 mtu 1500");
            set.apply(with_source(Some(CLIENT6)), [VIP6].into());
            assert!(set.next_not_joined().await.is_empty());
            wait_for_output("the group on the interface", host_groups, |groups| {
                groups.contains(GROUP)
            })
            .await;
            lan.ip("-n", "node1", "link set eth0 mtu 1279");
            lan.ip("-n", "node1", "link set eth0 mtu 1500");
            assert!(!host_groups().contains(GROUP), "the small MTU removes the group");
            set.apply(with_source(Some(UNUSED_ADDRESS)), [VIP6].into());
            wait_for_output("the group on the interface", host_groups, |groups| {
                groups.contains(GROUP)
            })
            .await;
        });
    });
}

#[test]
fn an_interface_joins_more_groups_than_one_socket_allows() {
    // By default a socket can join at most 2,340 groups.
    let addresses = || (0..3_000_u128).map(|n| Ipv6Addr::from(0xfd30 << 112 | n));
    let lan = Segment::new(&HOSTS);
    lan.inside("node1", || {
        runtime().block_on(async {
            let mut set = GroupFixture::new(&lan, "eth0");
            set.apply(link_config(&[VIP6.into()]), addresses().collect());
            assert!(set.next_not_joined().await.is_empty());
            let joined =
                lan.ip("-n", "node1", "-6 maddress show dev eth0").matches("ff02::1:ff").count();
            assert!(joined >= 3_000, "{joined}");
        });
    });
}
