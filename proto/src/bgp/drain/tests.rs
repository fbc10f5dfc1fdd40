//! The nodes that advertise in place of a draining one, and since when: a table of one cluster, and
//! virtual time.

use serde_json::{Value, json};

use super::*;
use crate::api;
use crate::facts::{
    BgpAdvertisement, Endpoint, EndpointCondition, FailingHealthCheck, Pool, SpeakerInterface,
    SpeakerSession, TrafficPolicy,
};

const ADDRESS: &str = "10.0.0.7";

/// `own` drains. `other` and `third` are healthy and advertise to both routers. All nodes have an
/// endpoint and receive each other's hellos, and no speaker has replied to a liveness request.
struct Cluster {
    nodes: [Node; 3],
    speakers: [Speaker; 3],
    answered: &'static [&'static str],
    policy: TrafficPolicy,
    spec: Value,
    endpoints: Vec<&'static str>,
}

fn object<O: serde::de::DeserializeOwned>(name: &str, spec: &Value) -> O {
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("an object")
}

impl Cluster {
    const NAMES: [&str; 3] = ["own", "other", "third"];

    fn new() -> Self {
        let labels = |name: &str| [("name".to_owned(), name.to_owned())].into();
        let session = |peer: &str| SpeakerSession {
            peer: peer.into(),
            established: true,
            ..SpeakerSession::default()
        };
        let link = |name: &str| SpeakerInterface {
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
                interfaces: [link(name)].into(),
                ..Speaker::default()
            }),
            answered: &[],
            policy: TrafficPolicy::Local,
            spec: json!({}),
            endpoints: Self::NAMES.into(),
        };
        // A speaker's own status lists the nodes whose hellos it receives;
        // `receives_hellos_of` needs the lists sorted.
        for speaker in &mut cluster.speakers {
            speaker.interfaces.iter_mut().for_each(|link| link.hello_senders.sort());
        }
        cluster
    }

    /// Returns the BGPPeers to whose routers the other nodes advertise the address.
    fn advertised_by_others(&self) -> String {
        self.advertised_and_unverified().0
    }

    /// Returns the same, and the nodes whose speakers need a liveness request.
    fn advertised_and_unverified(&self) -> (String, String) {
        let peer = |name: &str, address: &str, more: Value| -> BgpPeer {
            let mut spec = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": address});
            for (field, value) in more.as_object().expect("fields") {
                spec[field] = value.clone();
            }
            object::<api::BgpPeerObject>(name, &spec).into()
        };
        let dual = json!({"dualStackAddressFamily": true});
        let peers = [peer("spine", "fd00:1::1", dual), peer("tor", "192.0.2.1", json!({}))];
        let ads: [BgpAdvertisement; 1] =
            [object::<api::BgpAdvertisementObject>("all", &self.spec).into()];
        let pool = Pool {
            name: "lan".into(),
            ranges: vec!["10.0.0.0/24".parse().expect("a range")],
            ..Pool::default()
        };
        let scene = ClusterView::new(self.nodes.iter(), [&pool].into_iter(), [].into_iter(), false);
        let answered = self.answered.iter().map(|name| (*name).into()).collect();
        let others = AlternateNodes::new(
            &self.speakers[0],
            self.nodes.iter(),
            peers.iter(),
            self.speakers.iter(),
            &answered,
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
            policy: self.policy,
            eligible: EndpointCondition::default(),
            assigned: &assigned,
            from_pool: None,
            labels: &[],
            endpoints: endpoints.iter().collect(),
            failing_on: others.failing(&key).collect(),
        };
        let told = others.advertised_to(
            &scene,
            &BgpAdvertisements::new(&ads, []),
            &[served],
            assigned[0],
            &["spine", "tor"].into(),
        );
        let asked =
            others.unverified.iter().map(|(name, addresses)| format!("{name}@{addresses:?}"));
        (told.into_iter().collect::<Vec<_>>().join("+"), asked.collect::<Vec<_>>().join(" "))
    }
}

/// A change of another node or of its speaker's status.
type ClusterChange = fn(&mut Node, &mut Speaker);

#[test]
fn another_node_counts_while_it_is_sound_lives_and_has_the_session() {
    let alone = || Cluster { endpoints: vec!["own", "other"], ..Cluster::new() };
    assert_eq!(alone().advertised_by_others(), "spine+tor");
    let cases: [(&str, ClusterChange, &str); 14] = [
        ("it drains", |node, _| node.drain = Some(crate::facts::DrainReason::Annotation), ""),
        ("it is cordoned", |node, _| node.cordoned = true, ""),
        ("it is not ready", |node, _| node.ready = false, ""),
        ("its network is not there", |node, _| node.unreachable = true, ""),
        ("it is excluded", |node, _| node.excluded = true, ""),
        (
            "its speaker leaves, or kube-proxy says that it drains",
            |_, speaker| speaker.draining = true,
            "",
        ),
        ("its data path does not work", |_, speaker| speaker.kube_proxy = broken(), ""),
        ("its checks fail", |_, speaker| speaker.failing = [failing("web")].into(), ""),
        (
            "those of another Service fail",
            |_, speaker| speaker.failing = [failing("db")].into(),
            "spine+tor",
        ),
        ("it does not tell all", |_, speaker| speaker.incomplete = true, ""),
        ("it has no gobgpd", |_, speaker| speaker.bgp = None, ""),
        ("one session is down", |_, speaker| sessions_of(speaker)[1].established = false, "spine"),
        (
            "it has no next hop for the other family",
            |node, _| node.internal_addresses.clear(),
            "tor",
        ),
        ("nobody hears it", |_, speaker| speaker.node = "stranger".into(), ""),
    ];
    for (what, change, expect) in cases {
        let mut cluster = alone();
        change(&mut cluster.nodes[1], &mut cluster.speakers[1]);
        assert_eq!(cluster.advertised_by_others(), expect, "{what}");
    }
    let elsewhere = json!({"nodeSelectors": [{"matchLabels": {"name": "own"}}]});
    assert_eq!(Cluster { spec: elsewhere, ..alone() }.advertised_by_others(), "");
    assert_eq!(
        Cluster { endpoints: vec!["own"], ..Cluster::new() }.advertised_by_others(),
        "",
        "the only endpoint"
    );
    assert_eq!(
        Cluster { endpoints: vec!["own"], policy: TrafficPolicy::Cluster, ..Cluster::new() }
            .advertised_by_others(),
        "spine+tor"
    );
}

fn broken() -> Option<Box<api::KubeProxyStatus>> {
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
fn several_stand_in_together_and_all_that_drain_do_not() {
    let mut cluster = Cluster::new();
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
    speaker
        .interfaces
        .iter_mut()
        .for_each(|link| link.hello_senders = names.iter().map(|name| (*name).into()).collect());
}

#[test]
fn who_is_heard_no_longer_is_gone_before_anybody_has_said_so() {
    let mut cluster = Cluster { endpoints: vec!["own", "other"], ..Cluster::new() };
    assert_eq!(
        cluster.advertised_and_unverified(),
        ("spine+tor".into(), "".into()),
        "who is heard is not asked"
    );
    set_hello_senders(&mut cluster.speakers[0], &["third"]);
    assert_eq!(cluster.advertised_and_unverified(), ("".into(), "other@[172.30.0.11]".into()));
    cluster.answered = &["other"];
    assert_eq!(
        cluster.advertised_and_unverified(),
        ("spine+tor".into(), "other@[172.30.0.11]".into()),
        "it is asked on"
    );
    (cluster.nodes[1].ready, cluster.nodes[1].ready_unknown) = (false, true);
    assert_eq!(cluster.advertised_and_unverified(), ("".into(), "".into()));
}

#[test]
fn who_is_not_heard_both_ways_counts_while_it_answers() {
    // On separate segments no speaker receives hellos of another, and the status of a speaker
    // outlives its failure.
    let none: HelloSenders = [&[], &[], &[]];
    let one_way: HelloSenders = [&["other", "third"], &["third"], &["other", "own"]];
    let cases: [(HelloSenders, &[&str], &str); 6] = [
        (none, &[], ""),
        (none, &["third"], ""),
        (none, &["other"], "spine+tor"),
        (one_way, &[], ""),
        (one_way, &["other"], "spine+tor"),
        ([&["other", "third"], &["own"], &[]], &[], "spine+tor"),
    ];
    for (heard, answered, expect) in cases {
        let mut cluster = Cluster { endpoints: vec!["own", "other"], answered, ..Cluster::new() };
        cluster
            .speakers
            .iter_mut()
            .zip(heard)
            .for_each(|(speaker, names)| set_hello_senders(speaker, names));
        assert_eq!(cluster.advertised_by_others(), expect, "{heard:?} {answered:?}");
    }
}

#[test]
fn who_could_not_tell_anyway_is_not_asked_and_nobody_at_more_than_two_addresses() {
    let unheard = || {
        let mut cluster = Cluster::new();
        cluster.speakers.iter_mut().for_each(|speaker| set_hello_senders(speaker, &[]));
        cluster
    };
    assert_eq!(unheard().advertised_and_unverified().1, "other@[172.30.0.11] third@[172.30.0.11]");
    let cases: [(&str, ClusterChange); 7] = [
        ("it drains", |node, _| node.drain = Some(crate::facts::DrainReason::Annotation)),
        ("it is cordoned", |node, _| node.cordoned = true),
        ("it is not ready", |node, _| node.ready = false),
        ("its speaker leaves, or kube-proxy says that it drains", |_, speaker| {
            speaker.draining = true
        }),
        ("it does not tell all", |_, speaker| speaker.incomplete = true),
        ("it has no gobgpd", |_, speaker| speaker.bgp = None),
        ("no session is up", |_, speaker| {
            sessions_of(speaker).iter_mut().for_each(|session| session.established = false)
        }),
    ];
    for (what, change) in cases {
        let mut cluster = unheard();
        change(&mut cluster.nodes[1], &mut cluster.speakers[1]);
        assert_eq!(cluster.advertised_and_unverified().1, "third@[172.30.0.11]", "{what}");
    }
    let mut many = unheard();
    many.nodes[1].internal_addresses =
        ["192.0.2.1", "fd30::1", "192.0.2.2"].map(|text| text.parse().expect("one")).into();
    many.nodes[2].internal_addresses.clear();
    assert_eq!(many.advertised_and_unverified().1, "other@[192.0.2.1, fd30::1] third@[]");
}

#[test]
fn relief_comes_after_the_delay_without_a_break_router_by_router_and_ends_at_once() {
    const DELAY: Duration = Duration::from_secs(60);
    let at = |seconds: u64| Instant::from_millis(seconds * 1_000);
    let address: IpAddr = ADDRESS.parse().expect("an address");
    // The time, the BGPPeers to which others advertise the address then, and those from which this
    // node may withdraw.
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
    let mut covered = AlternateRoutes::default();
    for (second, found, relieved, next) in steps {
        covered = covered.updated([(address, found.iter().copied().collect())], at(second));
        let relief = covered.withdrawable(DELAY, at(second));
        let peers =
            relief.get(&address).into_iter().flatten().map(|peer| &**peer).collect::<Vec<_>>();
        assert_eq!(peers.join("+"), relieved, "at {second} s");
        assert_eq!(covered.deadline(DELAY, at(second)), next.map(at), "at {second} s");
        assert_eq!(
            covered.updated([(address, found.iter().copied().collect())], at(second)),
            covered,
            "the same again"
        );
    }
}
