//! The nodes that advertise in place of a draining node, in variants of one cluster; and the time
//! since which they do, in virtual time.

use serde_json::{Value, json};

use super::*;
use crate::api;
use crate::eligibility::EligibleEndpoints;
use crate::facts::{
    BgpAdvertisement, Endpoint, EndpointCondition, FailingHealthCheck, Pool, SpeakerInterface,
    SpeakerSession, TrafficPolicy,
};

const ADDRESS: &str = "10.0.0.7";

/// A cluster in which `own` drains. `other` and `third` are healthy and advertise to both routers.
/// All nodes have an endpoint and receive each other's hellos.
struct DrainCluster {
    nodes: [Node; 3],
    speakers: [Speaker; 3],
    policy: TrafficPolicy,
    spec: Value,
    endpoints: Vec<&'static str>,
}

fn object<O: serde::de::DeserializeOwned>(name: &str, spec: &Value) -> O {
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("an object")
}

impl DrainCluster {
    const NAMES: [&str; 3] = ["own", "other", "third"];

    fn new() -> Self {
        let labels = |name: &str| [("name".to_owned(), name.to_owned())].into();
        let session = |peer: &str| SpeakerSession {
            peer: peer.into(),
            established: true,
            ..SpeakerSession::default()
        };
        let interface = |name: &str| SpeakerInterface {
            hello_senders: Self::NAMES
                .into_iter()
                .filter(|other| *other != name)
                .map(Into::into)
                .collect(),
            ..SpeakerInterface::default()
        };
        let mut cluster = Self {
            nodes: Self::NAMES.map(|name| Node {
                name: name.into(),
                ready: true,
                labels: labels(name),
                internal_addresses: vec!["172.30.0.11".parse().expect("an address")],
                ..Node::default()
            }),
            speakers: Self::NAMES.map(|name| Speaker {
                node: name.into(),
                bgp: Some(["spine", "tor"].map(session).into()),
                interfaces: [interface(name)].into(),
                ..Speaker::default()
            }),
            policy: TrafficPolicy::Local,
            spec: json!({}),
            endpoints: Self::NAMES.into(),
        };
        // A speaker's own status lists the nodes whose hellos it receives;
        // `receives_hellos_of` needs the lists sorted.
        for speaker in &mut cluster.speakers {
            speaker.interfaces.iter_mut().for_each(|interface| interface.hello_senders.sort());
        }
        cluster
    }

    /// Returns the BGPPeers to whose routers the other nodes advertise the address.
    fn advertised_by_others(&self) -> String {
        let peer = |name: &str, address: &str, more: Value| -> BgpPeer {
            let mut spec = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": address});
            for (field, value) in more.as_object().expect("fields") {
                spec[field] = value.clone();
            }
            object::<api::BgpPeerObject>(name, &spec).into()
        };
        let dual = json!({"dualStackAddressFamily": true});
        let peers = [peer("spine", "fd00:1::1", dual), peer("tor", "192.0.2.1", json!({}))];
        let advertisements: [BgpAdvertisement; 1] =
            [object::<api::BgpAdvertisementObject>("all", &self.spec).into()];
        let pool = Pool {
            name: "lan".into(),
            ranges: vec!["10.0.0.0/24".parse().expect("a range")],
            ..Pool::default()
        };
        let view = ClusterView::new(self.nodes.iter(), [&pool].into_iter(), [].into_iter(), false);
        let others = AlternateNodes::new(
            &self.speakers[0],
            self.nodes.iter(),
            peers.iter(),
            self.speakers.iter(),
        );
        let (assigned, key) = ([ADDRESS.parse().expect("an address")], Key::new("default", "web"));
        let endpoint = |node: &&str| Endpoint {
            node: Some((*node).into()),
            family: Family::V4,
            ready: true,
            serving: true,
            terminating: false,
        };
        let endpoints: Vec<_> = self.endpoints.iter().map(endpoint).collect();
        let served = ServiceView {
            assigned: &assigned,
            from_pool: None,
            labels: &[],
            endpoints: EligibleEndpoints::new(
                self.policy,
                EndpointCondition::default(),
                &endpoints,
            ),
            failing_on: others.failing(&key).collect(),
        };
        let peers = others.advertised_to(
            &view,
            &BgpAdvertisements::new(&advertisements, []),
            assigned[0],
            [&served],
            &["spine", "tor"].into(),
        );
        peers.into_iter().collect::<Vec<_>>().join("+")
    }
}

/// A change of another node or of its speaker's status.
type ClusterChange = fn(&mut Node, &mut Speaker);

#[test]
fn an_alternate_node_must_be_healthy_and_have_the_session() {
    let two_nodes = || DrainCluster { endpoints: vec!["own", "other"], ..DrainCluster::new() };
    assert_eq!(two_nodes().advertised_by_others(), "spine+tor");
    let cases: [(&str, ClusterChange, &str); 14] = [
        ("the node drains", |node, _| node.drain = Some(crate::facts::DrainReason::Annotation), ""),
        ("the node is cordoned", |node, _| node.cordoned = true, ""),
        ("the node is not Ready", |node, _| node.ready = false, ""),
        ("the node is unreachable", |node, _| node.unreachable = true, ""),
        ("the node is excluded", |node, _| node.excluded = true, ""),
        ("the status of the speaker is draining", |_, speaker| speaker.draining = true, ""),
        ("kube-proxy is unhealthy", |_, speaker| speaker.kube_proxy = unhealthy_kube_proxy(), ""),
        (
            "health checks of the Service fail",
            |_, speaker| speaker.failing = [failing("web")].into(),
            "",
        ),
        (
            "health checks of another Service fail",
            |_, speaker| speaker.failing = [failing("db")].into(),
            "spine+tor",
        ),
        ("the status is incomplete", |_, speaker| speaker.incomplete = true, ""),
        ("the node has no gobgpd", |_, speaker| speaker.bgp = None, ""),
        ("one session is down", |_, speaker| sessions_of(speaker)[1].established = false, "spine"),
        (
            "the node has no next hop for the other family",
            |node, _| node.internal_addresses.clear(),
            "tor",
        ),
        ("the Node of the speaker is deleted", |_, speaker| speaker.node = "unknown".into(), ""),
    ];
    for (case, change, expect) in cases {
        let mut cluster = two_nodes();
        change(&mut cluster.nodes[1], &mut cluster.speakers[1]);
        assert_eq!(cluster.advertised_by_others(), expect, "routers of `other` if {case}");
    }
    let elsewhere = json!({"nodeSelectors": [{"matchLabels": {"name": "own"}}]});
    assert_eq!(DrainCluster { spec: elsewhere, ..two_nodes() }.advertised_by_others(), "");
    assert_eq!(
        DrainCluster { endpoints: vec!["own"], ..DrainCluster::new() }.advertised_by_others(),
        "",
        "the draining node has the only endpoint"
    );
    assert_eq!(
        DrainCluster {
            endpoints: vec!["own"],
            policy: TrafficPolicy::Cluster,
            ..DrainCluster::new()
        }
        .advertised_by_others(),
        "spine+tor"
    );
}

fn unhealthy_kube_proxy() -> Option<Box<api::KubeProxyStatus>> {
    Some(Box::new(api::KubeProxyStatus {
        state: api::KubeProxyState::Unhealthy,
        message: "why".into(),
    }))
}

fn failing(service: &str) -> FailingHealthCheck {
    FailingHealthCheck {
        service: Key::new("default", service),
        family: Family::V4,
        why: "why".into(),
    }
}

fn sessions_of(speaker: &mut Speaker) -> &mut [SpeakerSession] {
    speaker.bgp.as_deref_mut().expect("sessions")
}

#[test]
fn several_alternate_nodes_add_up_and_draining_ones_do_not_count() {
    let mut cluster = DrainCluster::new();
    sessions_of(&mut cluster.speakers[1])[0].established = false;
    sessions_of(&mut cluster.speakers[2])[1].established = false;
    assert_eq!(cluster.advertised_by_others(), "spine+tor");
    cluster.nodes.iter_mut().for_each(|node| node.cordoned = true);
    assert_eq!(cluster.advertised_by_others(), "");
}

/// For each speaker, the nodes whose hellos it receives.
type HelloSenders = [&'static [&'static str]; 3];

/// Sets the nodes whose hellos a speaker receives.
fn set_hello_senders(speaker: &mut Speaker, names: &[&str]) {
    speaker.interfaces.iter_mut().for_each(|interface| {
        interface.hello_senders = names.iter().map(|name| (*name).into()).collect()
    });
}

#[test]
fn a_speaker_that_has_probably_failed_does_not_count() {
    // The cases of a stale status have their own test; see `stale_speakers`.
    let cases: [(&str, HelloSenders, &str); 6] = [
        ("all are live", [&["other", "third"], &["own", "third"], &["other", "own"]], "spine+tor"),
        ("each node has its own segment", [&[], &[], &[]], "spine+tor"),
        (
            "other has failed, as own and third report",
            [&["third"], &["own", "third"], &["own"]],
            "",
        ),
        ("other has failed, as third in their segment reports", [&[], &["third"], &[]], ""),
        ("other and third have failed", [&[], &["own", "third"], &["other", "own"]], ""),
        ("no hello reaches other", [&["other", "third"], &[], &["other", "own"]], "spine+tor"),
    ];
    for (case, senders, expect) in cases {
        let mut cluster = DrainCluster { endpoints: vec!["own", "other"], ..DrainCluster::new() };
        cluster
            .speakers
            .iter_mut()
            .zip(senders)
            .for_each(|(speaker, names)| set_hello_senders(speaker, names));
        assert_eq!(cluster.advertised_by_others(), expect, "{case}");
    }
    let mut unknown = DrainCluster { endpoints: vec!["own", "other"], ..DrainCluster::new() };
    (unknown.nodes[1].ready, unknown.nodes[1].ready_unknown) = (false, true);
    assert_eq!(unknown.advertised_by_others(), "");
}

#[test]
fn routes_are_withdrawable_per_router_after_a_delay() {
    const DELAY: Duration = Duration::from_secs(60);
    let at = |seconds: u64| Instant::from_millis(seconds * 1_000);
    let address: IpAddr = ADDRESS.parse().expect("an address");
    // Each step: the time in seconds, the BGPPeers to which other nodes advertise the address, the
    // ones from which this node may withdraw, and the next deadline.
    let steps: [(u64, &[&str], &str, Option<u64>); 9] = [
        (0, &["tor"], "", Some(60)),
        (30, &["spine", "tor"], "", Some(60)),
        (59, &["spine", "tor"], "", Some(60)),
        (60, &["spine", "tor"], "tor", Some(90)),
        (90, &["spine", "tor"], "spine+tor", None),
        (91, &["spine"], "spine", None),
        (92, &["spine", "tor"], "spine", Some(152)),
        (100, &[], "", None),
        (300, &["spine", "tor"], "", Some(360)),
    ];
    let mut alternate = AlternateRoutes::default();
    for (second, found, withdrawable, next) in steps {
        let found = || [(address, found.iter().copied().collect())];
        alternate.update(found(), at(second));
        let routes = alternate.withdrawable(DELAY, at(second));
        let peers = routes
            .get(&address)
            .into_iter()
            .flat_map(|peers| &**peers)
            .map(|peer| &**peer)
            .collect::<Vec<_>>();
        assert_eq!(peers.join("+"), withdrawable, "withdrawable routes at {second} s");
        assert_eq!(
            alternate.deadline(DELAY, at(second)),
            next.map(at),
            "next deadline, computed at {second} s"
        );
        let before = alternate.clone();
        alternate.update(found(), at(second));
        assert_eq!(alternate, before, "the same observation changes nothing");
    }
}
