//! Solicitations for IPv6 addresses where a switch forwards multicast only to ports that joined the
//! group: the set of interface threads joins and leaves groups.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::wire::{Mac, arp, ndp};
use ferrolb_speaker::event::Event;
use ferrolb_speaker::link::{ClaimSettings, LinkSet};
use ferrolb_speaker::metrics::Metrics;
use ferrolb_speaker::plan::{LinkConfig, LinkPlan};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::raw_socket::RawSocket;
use crate::segment::{Segment, wait_for_output};
use crate::speaker::{HOSTS, TIMEOUT, VIP, VIP6, healthy_watchdog, link_config, runtime};

const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x100);
/// The solicited-node group of the address, and an address of another group that no host joins.
const GROUP: &str = "ff02::1:ff00:200";
const UNWANTED: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x999);

/// Returns whether a solicitation of the client for an address reaches a host.
fn reaches(lan: &Segment, host: &str, address: Ipv6Addr) -> bool {
    let (client, host) =
        (RawSocket::open(lan, "client", "eth0"), RawSocket::open(lan, host, "eth0"));
    let question = ndp::solicitation(client.mac, CLIENT6, address);
    // A switch keeps the order of frames, so the broadcast arrives last.
    let last = arp::request(client.mac, [172, 30, 0, 100].into(), VIP);
    client.send(&question);
    client.send(&last);
    host.until("a broadcast", |frame| frame.starts_with(&last))
        .iter()
        .any(|frame| frame.starts_with(&question))
}

/// A set of threads with one interface of node1.
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
            preempt_delay: Some(Duration::from_secs(30)),
            gratuitous_interval: None,
        };
        let (events, inbox) = mpsc::channel(64);
        let links = LinkSet::new(
            protocol,
            Metrics::new(&mut Registry::default()),
            healthy_watchdog(),
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

    fn apply(&mut self, order: LinkConfig, listened_for: BTreeSet<Ipv6Addr>) {
        let (order, listened_for) = (Arc::new(order), Arc::new(listened_for));
        let order = LinkPlan {
            name: self.link.into(),
            mac: self.mac,
            selected: true,
            config: order,
            ndp_addresses: listened_for,
        };
        self.links.apply(&BTreeMap::from([(self.index, order)])).expect("random numbers");
    }

    /// Returns the addresses whose group could not be joined, from the next event.
    async fn not_joined(&mut self) -> Arc<[Ipv6Addr]> {
        let told = async {
            loop {
                if let Event::GroupsNotJoined { addresses, .. } =
                    self.inbox.recv().await.expect("the link set is there")
                {
                    return addresses;
                }
            }
        };
        timeout(TIMEOUT, told).await.expect("a word about what is heard")
    }
}

/// Uses an interface of node1 with and then without an address, and checks its groups.
async fn check_groups(lan: &Segment, link: &str) {
    let withheld = || (!reaches(lan, "node2", UNWANTED)).to_string();
    wait_for_output("the switch withholds what nobody asked for", withheld, |withheld| {
        withheld == "true"
    })
    .await;
    let mut set = GroupFixture::new(lan, link);
    let joined = || lan.ip("-n", "node1", &format!("-6 maddress show dev {link}"));
    let asked = || lan.groups();
    let port = format!("port node1 grp {GROUP} ");
    set.apply(link_config(&[VIP6.into()]), [VIP6].into());
    wait_for_output("the group at the link", joined, |groups| groups.contains(GROUP)).await;
    wait_for_output("the group at the switch", asked, |groups| groups.contains(&port)).await;
    lan.client_learns(VIP6, set.mac).await;
    assert!(reaches(lan, "node1", VIP6) && !reaches(lan, "node2", VIP6), "{}", asked());
    set.apply(LinkConfig { units: Vec::new(), ..link_config(&[VIP6.into()]) }, BTreeSet::new());
    wait_for_output("no group at the link", joined, |groups| !groups.contains(GROUP)).await;
    wait_for_output("no group at the switch", asked, |groups| !groups.contains(&port)).await;
    assert!(!reaches(lan, "node1", VIP6), "{}", asked());
}

#[test]
fn a_switch_that_watches_mld_lets_the_questions_of_a_links_addresses_through_and_no_longer_than_they_are_wanted()
 {
    let lan = Segment::new(&HOSTS);
    lan.snoop();
    lan.inside("node1", || runtime().block_on(check_groups(&lan, "eth0")));
}

#[test]
fn a_bridge_of_the_node_that_watches_mld_does_so_too() {
    let lan = Segment::new(&HOSTS);
    lan.bridge("node1");
    lan.snoop();
    lan.inside("node1", || runtime().block_on(check_groups(&lan, "br0")));
}

#[test]
fn a_link_without_ipv6_says_what_it_cannot_hear_and_is_in_its_groups_again_when_it_has_an_address()
{
    let lan = Segment::new(&HOSTS);
    let joined = || lan.ip("-n", "node1", "-6 maddress show dev eth0");
    let with_source = |source_v6| LinkConfig { source_v6, ..link_config(&[VIP6.into()]) };
    lan.inside("node1", || {
        runtime().block_on(async {
            let mut set = GroupFixture::new(&lan, "eth0");
            // RFC 8200 section 5: an interface with a smaller MTU does not support IPv6.
            lan.ip("-n", "node1", "link set eth0 mtu 1279");
            set.apply(with_source(None), [VIP6].into());
            assert_eq!(*set.not_joined().await, [VIP6]);
            lan.ip("-n", "node1", "link set eth0 mtu 1500");
            set.apply(with_source(Some(CLIENT6)), [VIP6].into());
            assert!(set.not_joined().await.is_empty());
            wait_for_output("the group at the link", joined, |groups| groups.contains(GROUP)).await;
            lan.ip("-n", "node1", "link set eth0 mtu 1279");
            lan.ip("-n", "node1", "link set eth0 mtu 1500");
            assert!(!joined().contains(GROUP), "the kernel has forgotten it");
            set.apply(with_source(Some(UNWANTED)), [VIP6].into());
            wait_for_output("the group at the link", joined, |groups| groups.contains(GROUP)).await;
        });
    });
}

#[test]
fn a_link_is_in_more_groups_than_one_socket_takes() {
    // By default a socket has room for 2,340 groups at most.
    let addresses = || (0..3_000_u128).map(|n| Ipv6Addr::from(0xfd30 << 112 | n));
    let lan = Segment::new(&HOSTS);
    lan.inside("node1", || {
        runtime().block_on(async {
            let mut set = GroupFixture::new(&lan, "eth0");
            set.apply(link_config(&[VIP6.into()]), addresses().collect());
            assert!(set.not_joined().await.is_empty());
            let joined =
                lan.ip("-n", "node1", "-6 maddress show dev eth0").matches("ff02::1:ff").count();
            assert!(joined >= 3_000, "{joined}");
        });
    });
}
