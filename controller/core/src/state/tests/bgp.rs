//! BGP custom resources in the state: when they are validated, and which statuses are written to
//! them.

use ferrolb_proto::facts::{
    BfdProfile, BgpAdvertisement, BgpPeer, Community, Node, Speaker, SpeakerSession,
};
use serde_json::{Value, json};

use super::*;
use crate::desired::PeerStatus;

fn object(name: &str, spec: &Value) -> Value {
    let mut object = json!({"metadata": {"name": name, "generation": 7}, "spec": spec});
    if spec.is_null() {
        object.as_object_mut().unwrap().remove("spec");
    }
    object
}

fn peer(name: &str, address: &str, profile: &str) -> Event {
    let spec = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": address, "bfdProfile": profile,
        "passwordSecret": {"name": "key"}});
    let peer = serde_json::from_value::<api::BgpPeerObject>(object(name, &spec)).unwrap();
    Event::of::<BgpPeer>(Change::Apply(BgpPeer::from(peer)))
}

fn ad(spec: &Value) -> Event {
    let ad = serde_json::from_value::<api::BgpAdvertisementObject>(object("ad", spec)).unwrap();
    Event::of::<BgpAdvertisement>(Change::Apply(BgpAdvertisement::from(ad)))
}

fn profile(name: &str) -> Event {
    let profile =
        serde_json::from_value::<api::BfdProfileObject>(object(name, &Value::Null)).unwrap();
    Event::of::<BfdProfile>(Change::Apply(BfdProfile::from(profile)))
}

fn community(alias: &str) -> Event {
    let spec = json!({"communities": [{"name": alias, "value": "1:2"}]});
    Event::of::<Community>(Change::Apply(Community::from(
        serde_json::from_value::<api::CommunityObject>(object("names", &spec)).unwrap(),
    )))
}

/// Returns a cluster with an empty list of every custom resource.
fn with_empty_lists() -> Cluster {
    let mut cluster = Cluster::new(vec![], vec![]);
    for [started, done] in lists() {
        cluster.handle(started);
        cluster.handle(done);
    }
    cluster
}

fn lists() -> [[Event; 2]; 5] {
    [
        [Event::of::<BgpPeer>(Change::ResyncStarted), Event::of::<BgpPeer>(Change::ResyncDone)],
        [
            Event::of::<BgpAdvertisement>(Change::ResyncStarted),
            Event::of::<BgpAdvertisement>(Change::ResyncDone),
        ],
        [
            Event::of::<BfdProfile>(Change::ResyncStarted),
            Event::of::<BfdProfile>(Change::ResyncDone),
        ],
        [Event::of::<Community>(Change::ResyncStarted), Event::of::<Community>(Change::ResyncDone)],
        [Event::of::<Speaker>(Change::ResyncStarted), Event::of::<Speaker>(Change::ResyncDone)],
    ]
}

/// Returns the pending writes as `Kind name Reason`.
fn pending_writes(cluster: &Cluster) -> Vec<String> {
    let statuses = cluster.writes().into_iter().filter_map(|write| match &write.status {
        Status::CustomResource(
            _,
            CustomResourceStatus::Valid(_, status)
            | CustomResourceStatus::Peer(PeerStatus { valid: status, .. }),
        ) => {
            assert!(status.generation == 7, "{status:?}");
            Some(format!("{} {}", write.target(), status.condition.reason))
        }
        Status::CustomResource(_, CustomResourceStatus::Pool(_))
        | Status::AddressMemory(_)
        | Status::Service(..) => None,
    });
    statuses.collect()
}

#[test]
fn a_status_is_written_after_all_lists_that_it_depends_on() {
    let (peer_write, ad_write, profile_write) =
        ("BGPPeer tor Valid", "BGPAdvertisement ad Valid", "BFDProfile fast Valid");
    let cases = [
        (0, vec![profile_write]),
        (1, vec![profile_write, peer_write]),
        (2, vec![ad_write]),
        (3, vec![profile_write, peer_write]),
        (4, vec![profile_write, ad_write]),
    ];
    for (missing, expect) in cases {
        let mut cluster = Cluster::new(vec![], vec![]);
        for [started, _] in lists() {
            cluster.handle(started);
        }
        cluster.handle_all(vec![peer("tor", "10.0.0.1", ""), ad(&json!({})), profile("fast")]);
        let (others, late): (Vec<_>, Vec<_>) =
            lists().into_iter().enumerate().partition(|(index, _)| *index != missing);
        others.into_iter().for_each(|(_, [_, done])| cluster.handle(done));
        let writes: BTreeSet<_> = pending_writes(&cluster).into_iter().collect();
        assert_eq!(
            writes,
            expect.into_iter().map(str::to_owned).collect(),
            "list {missing} is missing"
        );
        late.into_iter().for_each(|(_, [_, done])| cluster.handle(done));
        assert_eq!(pending_writes(&cluster).len(), 3, "list {missing} has arrived");
        cluster.handle(Event::Lease(Leadership::Lost));
        assert_eq!(pending_writes(&cluster), [""; 0]);
    }
}

#[test]
fn a_status_follows_the_objects_that_it_names() {
    let mut cluster = with_empty_lists();
    cluster.handle(peer("tor", "10.0.0.1", "fast"));
    cluster.handle(ad(
        &json!({"peers": ["tor", "spine"], "communities": ["near"], "ipAddressPools": ["lan"]}),
    ));
    assert_eq!(
        pending_writes(&cluster),
        ["BGPPeer tor UnknownBFDProfile", "BGPAdvertisement ad UnknownCommunity"]
    );
    cluster.handle(profile("fast"));
    cluster.handle(community("near"));
    let assert_pending = |cluster: &Cluster, ad: &str| {
        let mut writes = pending_writes(cluster);
        writes.sort_unstable();
        let others = ["BFDProfile fast Valid", "BGPPeer tor Valid", "Community names Valid"];
        assert_eq!(writes, [&others[..1], &[ad], &others[1..]].concat());
    };
    assert_pending(&cluster, "BGPAdvertisement ad UnknownPool");
    cluster.apply_pool(pool("lan", &["10.0.0.0/24"]));
    assert_pending(&cluster, "BGPAdvertisement ad UnknownPeer");
    cluster.handle(peer("spine", "10.0.0.1", ""));
    let writes = pending_writes(&cluster);
    assert!(writes.contains(&"BGPAdvertisement ad Valid".to_owned()), "{writes:?}");
    assert!(
        writes.contains(&"BGPPeer tor Conflict".to_owned()),
        "the later name has the conflict, because both have the same age: {writes:?}"
    );
    cluster.handle(Event::of::<BgpPeer>(Change::Delete(Key::new(api::NAMESPACE, "spine"))));
    assert_pending(&cluster, "BGPAdvertisement ad UnknownPeer");
}

#[test]
fn speaker_reports_and_node_labels_change_the_peer_status() {
    let mut cluster = with_empty_lists();
    cluster.handle(peer("tor", "10.0.0.1", ""));
    let speaker_report = |why: Option<&str>| {
        let password_unavailable = why.map(Into::into);
        let session = SpeakerSession {
            peer: "tor".into(),
            password_unavailable,
            ..SpeakerSession::default()
        };
        let speaker =
            Speaker { node: "n1".into(), bgp: Some([session].into()), ..Speaker::default() };
        Event::of::<Speaker>(Change::Apply(speaker))
    };
    cluster.handle(speaker_report(Some("Secret tor1 does not exist")));
    assert_eq!(pending_writes(&cluster), ["BGPPeer tor BadSecret"]);
    cluster.handle(speaker_report(None));
    assert_eq!(pending_writes(&cluster), ["BGPPeer tor Valid"]);
    cluster.handle(speaker_report(Some("Secret tor1 does not exist")));
    cluster.handle(Event::of::<Speaker>(Change::Delete(Key::new(api::NAMESPACE, "n1"))));
    assert_eq!(pending_writes(&cluster), ["BGPPeer tor Valid"]);
    let spec_for_rack_x = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "10.0.0.1",
        "nodeSelectors": [{"matchLabels": {"rack": "x"}}]});
    let same_router =
        serde_json::from_value::<api::BgpPeerObject>(object("a", &spec_for_rack_x)).unwrap();
    cluster.handle(Event::of::<BgpPeer>(Change::Apply(same_router.into())));
    assert_eq!(pending_writes(&cluster), ["BGPPeer tor Valid", "BGPPeer a Valid"]);
    let labels = [("rack".to_owned(), "x".to_owned())].into();
    cluster.handle(Event::of::<Node>(Change::Apply(Node { labels, ..node("n1", "192.0.2.1") })));
    assert_eq!(pending_writes(&cluster), ["BGPPeer tor Conflict", "BGPPeer a Valid"]);
}

#[test]
fn a_status_is_written_once_also_for_an_unreadable_object() {
    let mut cluster = with_empty_lists();
    cluster.handle(peer("tor", "10.0.0.1", ""));
    cluster.handle(ad(&json!({})));
    cluster.handle(profile("fast"));
    let complete_writes = |cluster: &mut Cluster| {
        for write in cluster.writes() {
            let (target, attempt) = (write.target(), write.attempt);
            cluster.handle(Event::Written { target, attempt, outcome: Outcome::Done });
        }
        cluster.handle(Event::of::<Speaker>(Change::ResyncDone));
        cluster.now = cluster.now + crate::state::RESOURCE_STATUS_INTERVAL;
    };
    assert_eq!(pending_writes(&cluster).len(), 3);
    complete_writes(&mut cluster);
    complete_writes(&mut cluster);
    assert_eq!(pending_writes(&cluster), [""; 0]);
    let unreadable =
        |name: &str| (Key::new(api::NAMESPACE, name), "spec.myASN: missing".to_owned());
    let report_unreadable = |cluster: &mut Cluster| {
        let [(peer, why), (ad, _), (profile, _)] = ["tor", "ad", "fast"].map(unreadable);
        cluster.handle(Event::of::<BgpPeer>(Change::Unreadable { key: peer, why: why.clone() }));
        cluster.handle(Event::of::<BgpAdvertisement>(Change::Unreadable {
            key: ad,
            why: why.clone(),
        }));
        cluster.handle(Event::of::<BfdProfile>(Change::Unreadable { key: profile, why }));
    };
    report_unreadable(&mut cluster);
    let writes =
        ["BGPPeer tor Unreadable", "BGPAdvertisement ad Unreadable", "BFDProfile fast Unreadable"];
    assert_eq!(pending_writes(&cluster), writes);
    complete_writes(&mut cluster);
    report_unreadable(&mut cluster);
    assert_eq!(pending_writes(&cluster), [""; 0]);
}
