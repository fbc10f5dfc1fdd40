//! Filtered frames of the ownership protocol: a packet filter on a node drops EtherType 0x88B5. The
//! speakers recognize this by UDP, and without UDP they still find one owner.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::wire::arp::{self, Arp, Operation};
use ferrolb_proto::wire::hello::HelloKeyRing;
use ferrolb_speaker::link::SecondPath;
use ferrolb_speaker::metrics::{DatagramDrop, SecondPathMetrics};
use ferrolb_speaker_core::plan::{OtherNode, SecondPathConfig};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

use crate::raw_socket::RawSocket;
use crate::segment::Segment;
use crate::speaker::{
    BOTH_VIPS, HOSTS, TestSpeaker, VIP, healthy_watchdog, key, runtime, settle_pair,
};

/// UDP port of the second path.
pub(crate) const PORT: u16 = 7473;
/// Rules of a packet filter that drops the frames of the ownership protocol which arrive.
const DROP_HELLOS: &str = r#"table netdev hellos {
    chain ingress {
        type filter hook ingress device "eth0" priority 0;
        ether type 0x88b5 drop
    }
}
"#;
/// Rules of a packet filter that also drops the datagrams which arrive.
const DROP_DATAGRAMS: &str = "table inet datagrams {
    chain input {
        type filter hook input priority 0;
        udp dport 7473 drop
    }
}
";
/// Time for which the owners are observed.
const OBSERVED: Duration = Duration::from_secs(5);
/// Number of requests while announcements are forged.
const REQUESTS: usize = 100;
/// Sender of these requests.
const REQUESTER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 109);

/// The InternalIPs of both nodes: IPv4, or IPv6.
pub(crate) type InternalIps = [IpAddr; 2];
pub(crate) const IPV4: InternalIps =
    [IpAddr::V4(Ipv4Addr::new(172, 30, 0, 11)), IpAddr::V4(Ipv4Addr::new(172, 30, 0, 12))];
const IPV6: InternalIps = [
    IpAddr::V6(Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x11)),
    IpAddr::V6(Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x12)),
];

/// A segment with two speakers and a second path between them.
pub(crate) struct Pair {
    pub(crate) lan: Segment,
    pub(crate) owner: TestSpeaker,
    pub(crate) other: TestSpeaker,
    /// Metrics of the second path on node1 and node2.
    pub(crate) metrics: [SecondPathMetrics; 2],
}

impl Pair {
    pub(crate) async fn start(internal_ips: InternalIps) -> Self {
        let lan = Segment::new(&HOSTS);
        let metrics = HOSTS.map(|_| SecondPathMetrics::new(&mut Registry::default()));
        let start = |own: usize| {
            add_internal_ip(&lan, own, internal_ips);
            let second_path = start_second_path(&lan, own, internal_ips, metrics[own].clone());
            TestSpeaker::with_second_path(
                &lan,
                (HOSTS[own], "eth0"),
                &BOTH_VIPS,
                (healthy_watchdog(), Arc::default()),
                Some(second_path),
            )
        };
        let pair = [start(0), start(1)];
        let (owner, other) = settle_pair(pair, &BOTH_VIPS).await;
        // The client becomes a witness: its frames prove that a node is not isolated.
        lan.client_learns(VIP, owner.mac).await;
        Self { lan, owner, other, metrics }
    }

    fn filter(&self, host: &str, filters: &[&str]) {
        filters.iter().for_each(|filter| self.lan.add_filter(host, filter));
    }

    /// Returns the unheard nodes of a speaker.
    fn unheard(speaker: &TestSpeaker) -> Vec<String> {
        let state = speaker.thread_state.borrow();
        state.as_ref().expect("the thread runs").unheard.iter().map(ToString::to_string).collect()
    }

    fn move_counts(&self) -> [u64; 2] {
        [&self.owner, &self.other].map(|speaker| {
            speaker.thread_state.borrow().as_ref().expect("the thread runs").move_count
        })
    }
}

/// Adds the InternalIP of the host with this position to its interface.
pub(crate) fn add_internal_ip(lan: &Segment, own: usize, internal_ips: InternalIps) {
    let address = internal_ips[own];
    let arguments = if address.is_ipv4() {
        format!("address add {address}/24 dev eth0")
    } else {
        format!("address add {address}/64 dev eth0 nodad")
    };
    lan.ip("-n", HOSTS[own], &arguments);
}

/// Starts the second path of the host with this position.
pub(crate) fn start_second_path(
    lan: &Segment,
    own: usize,
    internal_ips: InternalIps,
    metrics: SecondPathMetrics,
) -> Arc<SecondPath> {
    let peer = 1 - own;
    let (replies, _) = mpsc::channel(1);
    let start = || SecondPath::start(PORT, HOSTS[own], metrics, replies);
    let second_path = lan.inside(HOSTS[own], start).expect("a thread");
    second_path.set_config(Arc::new(SecondPathConfig {
        own: vec![internal_ips[own]],
        nodes: BTreeMap::from([(
            HOSTS[peer].into(),
            OtherNode { addresses: [internal_ips[peer]].into(), kubelet_port: 10_250 },
        )]),
        sources: [internal_ips[peer]].into(),
        keys: HelloKeyRing::new(vec![key()]),
    }));
    second_path
}

/// Checks that no address moves while these hosts drop hellos, and that those which drop them
/// report the other one as unheard.
fn check_filtered(internal_ips: InternalIps, filters_on: impl Fn(&Pair) -> Vec<&'static str>) {
    runtime().block_on(async {
        let pair = Pair::start(internal_ips).await;
        let before = pair.move_counts();
        let hosts = filters_on(&pair);
        hosts.iter().for_each(|host| pair.filter(host, &[DROP_HELLOS]));
        tokio::time::sleep(OBSERVED).await;
        for (speaker, peer) in [(&pair.owner, &pair.other), (&pair.other, &pair.owner)] {
            let filters = hosts.contains(&speaker.name);
            let expected = if filters { vec![peer.name.to_owned()] } else { vec![] };
            assert_eq!(Pair::unheard(speaker), expected, "{} filters: {filters}", speaker.name);
            assert_eq!(speaker.metrics.node_failures.get(), 0, "{}", speaker.name);
            assert_eq!(speaker.metrics.unheard_peers.get(), i64::from(filters));
        }
        assert_eq!(pair.move_counts(), before);
        assert!(pair.owner.owns_any() && !pair.other.owns_any());
        for reason in
            [DatagramDrop::Signature, DatagramDrop::LinkQueue, DatagramDrop::UnknownSource]
        {
            assert_eq!(pair.metrics.each_ref().map(|it| it.dropped(reason).get()), [0; 2]);
        }
    });
}

#[test]
fn nothing_moves_while_the_other_node_drops_hellos() {
    check_filtered(IPV4, |pair| vec![pair.other.name]);
}

#[test]
fn nothing_moves_while_the_owner_drops_hellos() {
    check_filtered(IPV4, |pair| vec![pair.owner.name]);
}

#[test]
fn nothing_moves_while_both_nodes_drop_hellos() {
    check_filtered(IPV4, |_| HOSTS.to_vec());
}

#[test]
fn nothing_moves_while_nodes_with_ipv6_alone_drop_hellos() {
    check_filtered(IPV6, |_| HOSTS.to_vec());
}

/// The owner receives no ARP requests of the other node, so only the reply of the client proves
/// that frames of the owner arrive.
#[test]
fn nothing_moves_if_a_witness_proves_that_the_owner_is_received() {
    check_filtered(IPV4, |pair| {
        let own = usize::from(pair.owner.name != HOSTS[0]);
        let (address, mac) = (IPV4[own], pair.owner.mac);
        let entry = format!("neighbor replace {address} lladdr {mac} dev eth0");
        pair.lan.ip("-n", pair.other.name, &entry);
        let rule = format!("arp operation request ether saddr {} drop", pair.other.mac);
        pair.filter(pair.owner.name, &[&DROP_HELLOS.replace("ether type 0x88b5 drop", &rule)]);
        vec![pair.other.name]
    });
}

#[test]
fn an_unheard_owner_that_fails_is_replaced() {
    runtime().block_on(async {
        let mut pair = Pair::start(IPV4).await;
        HOSTS.iter().for_each(|host| pair.filter(host, &[DROP_HELLOS]));
        pair.other.wait_until("reported the owner as unheard", |it| it.unheard.len() == 1).await;
        drop(pair.owner.handle);
        pair.other.wait_until("took over the addresses", |it| it.owned.len() == 2).await;
        assert!(Pair::unheard(&pair.other).is_empty());
        pair.lan.client_learns(VIP, pair.other.mac).await;
    });
}

/// Checks that each address has one owner after a while, although these hosts drop hellos and
/// datagrams.
fn check_without_second_path(filters_on: impl Fn(&Pair) -> Vec<&'static str>) {
    runtime().block_on(async {
        let pair = Pair::start(IPV4).await;
        for host in filters_on(&pair) {
            pair.filter(host, &[DROP_HELLOS, DROP_DATAGRAMS]);
        }
        tokio::time::sleep(OBSERVED).await;
        let owned = [&pair.owner, &pair.other].map(|speaker| {
            let state = speaker.thread_state.borrow();
            let report = state.as_ref().expect("the thread runs");
            report.owned.keys().copied().collect::<Vec<_>>()
        });
        let mut all: Vec<_> = owned.concat();
        all.sort_unstable();
        assert_eq!(all, BOTH_VIPS, "{owned:?}");
    });
}

#[test]
fn each_address_has_one_owner_while_one_node_drops_hellos_and_datagrams() {
    check_without_second_path(|pair| vec![pair.other.name]);
}

#[test]
fn each_address_has_one_owner_while_both_nodes_drop_hellos_and_datagrams() {
    check_without_second_path(|_| HOSTS.to_vec());
}

#[test]
fn forged_announcements_of_a_failed_node_prevent_no_reply() {
    runtime().block_on(async {
        let mut pair = Pair::start(IPV4).await;
        let failed = pair.owner.mac;
        drop(pair.owner.handle);
        pair.other.wait_until("took over the addresses", |it| it.owned.len() == 2).await;
        let client = RawSocket::open(&pair.lan, "client", "eth0");
        let is_reply = |frame: &[u8]| {
            Arp::decode(frame).is_some_and(|arp| {
                arp.operation == Operation::Reply
                    && (arp.sender, arp.sender_mac) == (VIP, pair.other.mac)
                    && arp.target == REQUESTER
            })
        };
        for _ in 0..REQUESTS {
            client.send(&arp::gratuitous_request(failed, VIP));
            client.send(&arp::request(client.mac, REQUESTER, VIP));
            client.read_until("the reply to a request", is_reply);
            // Longer than the interval between two challenges.
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        assert_eq!(pair.other.metrics.replies_sent.get(), REQUESTS as u64);
        assert!(pair.other.owns_any());
    });
}
