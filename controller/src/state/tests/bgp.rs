//! BGP custom resources in the state: when they are validated, and the statuses written to them.

use ferrolb_proto::facts::{
    BfdProfile, BgpAdvertisement, BgpPeer, Community, Speaker, SpeakerSession,
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
    Event::Peer(Change::Apply(BgpPeer::from(peer)))
}

fn ad(spec: &Value) -> Event {
    let ad = serde_json::from_value::<api::BgpAdvertisementObject>(object("ad", spec)).unwrap();
    Event::BgpAdvertisement(Change::Apply(BgpAdvertisement::from(ad)))
}

fn profile(name: &str) -> Event {
    let profile =
        serde_json::from_value::<api::BfdProfileObject>(object(name, &Value::Null)).unwrap();
    Event::BfdProfile(Change::Apply(BfdProfile::from(profile)))
}

fn community(alias: &str) -> Event {
    let spec = json!({"communities": [{"name": alias, "value": "1:2"}]});
    Event::Community(Change::Apply(Community::from(
        serde_json::from_value::<api::CommunityObject>(object("names", &spec)).unwrap(),
    )))
}

/// A world with an empty list of every custom resource.
fn listed() -> World {
    let mut world = World::new(vec![], vec![]);
    for [started, done] in lists() {
        world.handle(started);
        world.handle(done);
    }
    world
}

fn lists() -> [[Event; 2]; 5] {
    [
        [Event::Peer(Change::ResyncStarted), Event::Peer(Change::ResyncDone)],
        [
            Event::BgpAdvertisement(Change::ResyncStarted),
            Event::BgpAdvertisement(Change::ResyncDone),
        ],
        [Event::BfdProfile(Change::ResyncStarted), Event::BfdProfile(Change::ResyncDone)],
        [Event::Community(Change::ResyncStarted), Event::Community(Change::ResyncDone)],
        [Event::Speaker(Change::ResyncStarted), Event::Speaker(Change::ResyncDone)],
    ]
}

/// Returns the pending writes as `Kind name Reason`.
fn written(world: &World) -> Vec<String> {
    let told = world.writes().into_iter().filter_map(|write| match &write.status {
        Status::CustomResource(
            _,
            CustomResourceStatus::Advertisement(status)
            | CustomResourceStatus::Community(status)
            | CustomResourceStatus::BgpAdvertisement(status)
            | CustomResourceStatus::BfdProfile(status)
            | CustomResourceStatus::Peer(PeerStatus { valid: status, .. }),
        ) => {
            assert!(status.generation == 7, "{status:?}");
            Some(format!("{} {}", write.target(), status.condition.reason))
        }
        Status::CustomResource(_, CustomResourceStatus::Pool(_)) | Status::Service(..) => None,
    });
    told.collect()
}

#[test]
fn nothing_is_said_of_a_kind_before_all_is_known_that_it_depends_on() {
    let (on_peer, on_ad, on_profile) =
        ("BGPPeer tor Valid", "BGPAdvertisement ad Valid", "BFDProfile fast Valid");
    let cases = [
        (0, vec![on_profile]),
        (1, vec![on_profile, on_peer]),
        (2, vec![on_ad]),
        (3, vec![on_profile, on_peer]),
        (4, vec![on_profile, on_ad]),
    ];
    for (missing, expect) in cases {
        let mut world = World::new(vec![], vec![]);
        for [started, _] in lists() {
            world.handle(started);
        }
        world.handle_all(vec![peer("tor", "10.0.0.1", ""), ad(&json!({})), profile("fast")]);
        let (rest, late): (Vec<_>, Vec<_>) =
            lists().into_iter().enumerate().partition(|(place, _)| *place != missing);
        rest.into_iter().for_each(|(_, [_, done])| world.handle(done));
        let told: BTreeSet<_> = written(&world).into_iter().collect();
        assert_eq!(told, expect.into_iter().map(str::to_owned).collect(), "{missing}");
        late.into_iter().for_each(|(_, [_, done])| world.handle(done));
        assert_eq!(written(&world).len(), 3, "{missing}");
        world.handle(Event::Lease(Leadership::Lost));
        assert_eq!(written(&world), [""; 0]);
    }
}

#[test]
fn each_is_judged_anew_when_what_it_names_comes_and_goes() {
    let mut world = listed();
    world.handle(peer("tor", "10.0.0.1", "fast"));
    world.handle(ad(
        &json!({"peers": ["tor", "spine"], "communities": ["near"], "ipAddressPools": ["lan"]}),
    ));
    assert_eq!(
        written(&world),
        ["BGPPeer tor UnknownBFDProfile", "BGPAdvertisement ad UnknownCommunity"]
    );
    world.handle(profile("fast"));
    world.handle(community("near"));
    let rest = ["BFDProfile fast Valid", "Community names Valid"];
    let expect =
        |own: [&str; 2]| own.into_iter().chain(rest).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(written(&world), expect(["BGPPeer tor Valid", "BGPAdvertisement ad UnknownPool"]));
    world.apply_pool(pool("lan", &["10.0.0.0/24"]));
    assert_eq!(written(&world), expect(["BGPPeer tor Valid", "BGPAdvertisement ad UnknownPeer"]));
    world.handle(peer("spine", "10.0.0.1", ""));
    let told = written(&world);
    assert!(told.contains(&"BGPAdvertisement ad Valid".to_owned()), "{told:?}");
    assert!(
        told.contains(&"BGPPeer tor Conflict".to_owned()),
        "by name, as they are of one age: {told:?}"
    );
    world.handle(Event::Peer(Change::Delete(Key::new(api::NAMESPACE, "spine"))));
    assert_eq!(written(&world), expect(["BGPPeer tor Valid", "BGPAdvertisement ad UnknownPeer"]));
}

#[test]
fn what_speakers_say_of_a_secret_and_what_nodes_are_labelled_counts_at_once() {
    let mut world = listed();
    world.handle(peer("tor", "10.0.0.1", ""));
    let says = |why: Option<&str>| {
        let password_unavailable = why.map(Into::into);
        let session = SpeakerSession {
            peer: "tor".into(),
            password_unavailable,
            ..SpeakerSession::default()
        };
        let speaker =
            Speaker { node: "n1".into(), bgp: Some([session].into()), ..Speaker::default() };
        Event::Speaker(Change::Apply(speaker))
    };
    world.handle(says(Some("Secret key does not exist")));
    assert_eq!(written(&world), ["BGPPeer tor BadSecret"]);
    world.handle(says(None));
    assert_eq!(written(&world), ["BGPPeer tor Valid"]);
    world.handle(says(Some("Secret key does not exist")));
    world.handle(Event::Speaker(Change::Delete(Key::new(api::NAMESPACE, "n1"))));
    assert_eq!(written(&world), ["BGPPeer tor Valid"]);
    let on_x = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "10.0.0.1",
        "nodeSelectors": [{"matchLabels": {"rack": "x"}}]});
    let twin = serde_json::from_value::<api::BgpPeerObject>(object("a", &on_x)).unwrap();
    world.handle(Event::Peer(Change::Apply(twin.into())));
    assert_eq!(written(&world), ["BGPPeer tor Valid", "BGPPeer a Valid"]);
    let labels = [("rack".to_owned(), "x".to_owned())].into();
    world.handle(Event::Node(Change::Apply(Node { labels, ..node("n1", "192.0.2.1") })));
    assert_eq!(written(&world), ["BGPPeer tor Conflict", "BGPPeer a Valid"]);
}

#[test]
fn what_was_written_is_not_written_again_and_an_unreadable_object_says_so_once() {
    let mut world = listed();
    world.handle(peer("tor", "10.0.0.1", ""));
    world.handle(ad(&json!({})));
    world.handle(profile("fast"));
    let done = |world: &mut World| {
        for write in world.writes() {
            let (target, attempt) = (write.target(), write.attempt);
            world.handle(Event::Written { target, attempt, outcome: Outcome::Done });
        }
        world.handle(Event::Speaker(Change::ResyncDone));
        world.now = world.now + crate::state::RESOURCE_STATUS_INTERVAL;
    };
    assert_eq!(written(&world).len(), 3);
    done(&mut world);
    done(&mut world);
    assert_eq!(written(&world), [""; 0]);
    let unreadable =
        |name: &str| (Key::new(api::NAMESPACE, name), "spec.myASN: missing".to_owned());
    let all = |world: &mut World| {
        let [(peer, why), (ad, _), (profile, _)] = ["tor", "ad", "fast"].map(unreadable);
        world.handle(Event::Peer(Change::Unreadable { key: peer, why: why.clone() }));
        world.handle(Event::BgpAdvertisement(Change::Unreadable { key: ad, why: why.clone() }));
        world.handle(Event::BfdProfile(Change::Unreadable { key: profile, why }));
    };
    all(&mut world);
    let told =
        ["BGPPeer tor Unreadable", "BGPAdvertisement ad Unreadable", "BFDProfile fast Unreadable"];
    assert_eq!(written(&world), told);
    done(&mut world);
    all(&mut world);
    assert_eq!(written(&world), [""; 0]);
}
