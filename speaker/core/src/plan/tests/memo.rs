//! Property of the memo: after any sequence of events, a plan with a memo equals a plan without
//! one. Events that report no change must not change the plan either.

use ferrolb_proto::api::{BgpSessionState, KubeProxyState};
use ferrolb_proto::facts::{
    BfdProfile, BgpAdvertisement, BgpPeer, CheckKind, CheckPort, Community, DrainReason,
    EndpointAddress, EndpointSlice, HealthCheck, L2Advertisement, Node, PasswordSecret, Pool,
    Service,
};
use ferrolb_proto::wire::hello::HelloKeyRing;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::*;
use crate::event::{BgpReport, PodRoute, SessionReport};
use crate::health::kube_proxy::KubeProxyHealth;
use crate::health::prober::ProbeTarget;

/// Number of events of the property test.
const STEPS: usize = 30_000;
/// Number of events after which the test continues with a new state.
const STEPS_PER_STATE: usize = 2_000;

/// Source of pseudorandom numbers (xorshift64), so that every run has the same events.
struct Random(u64);

impl Random {
    /// Returns a number less than `below`.
    fn number(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or_default() % below
    }

    /// Returns true once in `times`.
    fn once_in(&mut self, times: usize) -> bool {
        self.number(times) == 0
    }

    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.number(choices.len())].clone()
    }

    /// Returns a few of these values, in order.
    fn some_of<T: Clone>(&mut self, choices: &[T]) -> Vec<T> {
        choices.iter().filter(|_| self.once_in(2)).cloned().collect()
    }

    /// Returns a change of an object: it is applied, or deleted, or cannot be read.
    fn change<F: ferrolb_proto::facts::Keyed>(&mut self, key: Key, fact: F) -> Change<F> {
        match self.number(12) {
            0 => Change::Delete(key),
            1 => Change::Unreadable { key, why: "spec".to_owned() },
            2 if self.once_in(8) => Change::ResyncStarted,
            3 if self.once_in(8) => Change::ResyncDone,
            _ => Change::Apply(fact),
        }
    }
}

const NODES: [&str; 4] = ["node1", "node2", "node3", "node4"];
const SERVICES: [&str; 5] = ["a", "b", "c", "d", "e"];
const ADDRESSES: [&str; 6] =
    ["172.30.0.1", "172.30.0.2", "172.30.0.3", "172.30.1.1", "fd30::1", "fd30::2"];
const ENDPOINTS: [&str; 4] = ["10.244.1.1", "10.244.1.2", "10.244.2.1", "fd00::1"];
const PEERS: [&str; 2] = ["tor", "spine"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn random_service(random: &mut Random) -> Change<Service> {
    let name = random.one_of(&SERVICES);
    let addresses = random.some_of(&ADDRESSES);
    let mut fact = service(name, &addresses);
    fact.policy = random.one_of(&[TrafficPolicy::Local, TrafficPolicy::Cluster]);
    fact.load_balancer = !random.once_in(10);
    fact.health_check_node_port = random.one_of(&[0, 30_000, 30_001]);
    fact.pool_annotation = random.one_of(&[None, Some("lan".into()), Some("other".into())]);
    let check = HealthCheck {
        kind: CheckKind::Tcp,
        port: random.one_of(&[CheckPort::Number(80), CheckPort::Named("http".into())]),
        interval: random.one_of(&[None, Some(Duration::from_millis(10))]),
        timeout: None,
        fall: None,
        rise: None,
    };
    fact.health_check_annotation = random.one_of(&[None, Some(Box::new(Ok(check)))]);
    fact.demand.labels = random.one_of(&[[].into(), [("tier".into(), "web".into())].into()]);
    random.change(Key::new("default", name), fact)
}

fn random_slice(random: &mut Random) -> Change<EndpointSlice> {
    let service = random.one_of(&["a", "b", "c", "d", "e", "cluster-ip"]);
    let name = format!("{service}-{}", random.number(2));
    let key = Key::new("default", &name);
    let (service, name) =
        if random.once_in(20) { ("kubernetes", "kubernetes") } else { (service, &*name) };
    let endpoints = random.some_of(&NODES).into_iter().map(|node| Endpoint {
        node: Some(node.into()),
        family: random.one_of(&[Family::V4, Family::V6]),
        ready: !random.once_in(4),
        serving: !random.once_in(4),
        terminating: random.once_in(4),
    });
    let endpoints: Vec<_> = endpoints.collect();
    let target = |random: &mut Random, endpoint| EndpointAddress {
        address: ip(random.one_of(&ENDPOINTS)),
        endpoint,
    };
    let endpoint_addresses = (0..endpoints.len()).map(|index| target(random, index)).collect();
    let fact = EndpointSlice {
        key: Key::new("default", name),
        service: Some(Key::new("default", service)),
        endpoints,
        endpoint_addresses,
        ports: vec![("http".into(), random.one_of(&[80, 8080]))],
    };
    random.change(key, fact)
}

fn random_node(random: &mut Random) -> Change<Node> {
    let name = random.one_of(&NODES);
    let mut fact = node(name);
    fact.ready = !random.once_in(4);
    fact.cordoned = random.once_in(3);
    fact.excluded = random.once_in(6);
    fact.unreachable = random.once_in(6);
    fact.drain = random.once_in(4).then_some(DrainReason::Annotation);
    fact.internal_addresses =
        random.one_of(&[[].into(), [ip("172.30.0.11"), ip("fd30::11")].into()]);
    fact.addresses = fact.internal_addresses.clone();
    random.change(Key::new("", name), fact)
}

fn random_pool(random: &mut Random) -> Change<Pool> {
    let name = random.one_of(&["lan", "other"]);
    let ranges = random.some_of(&["172.30.0.0/24", "172.30.1.0/24", "fd30::/64"]);
    let mut fact = pool(name, &ranges);
    fact.problem = random.once_in(8).then(|| PoolProblem::Unreadable("spec".into()));
    random.change(Key::new("ferrolb-system", name), fact)
}

fn random_advertisement(random: &mut Random) -> Change<L2Advertisement> {
    let spec = random.one_of(&[
        json!({}),
        json!({"interfaces": ["eth0"]}),
        json!({"ipAddressPools": ["lan"]}),
        json!({"serviceSelectors": [{"matchLabels": {"tier": "web"}}]}),
        select("node1"),
        json!({"preferredNodeSelectors": [{"weight": 5, "preference": {"matchLabels": {"name": "node2"}}}]}),
    ]);
    let number = random.number(3);
    random.change(Key::new("ferrolb-system", &format!("l2-{number}")), advertisement(number, &spec))
}

fn read<O: serde::de::DeserializeOwned, F: From<O>>(name: &str, spec: &serde_json::Value) -> F {
    let object = json!({"metadata": {"name": name, "namespace": "ferrolb-system", "generation": 1}, "spec": spec});
    serde_json::from_value::<O>(object).expect("an object").into()
}

fn random_bgp_object(random: &mut Random) -> Event {
    let name = random.one_of(&PEERS);
    let key = |name: &str| Key::new("ferrolb-system", name);
    match random.number(5) {
        0 => {
            let spec = random.one_of(&[
                json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1", "bfdProfile": "fast"}),
                json!({"myASN": 64512, "peerASN": 64512, "peerAddress": "192.0.2.2", "dualStackAddressFamily": true}),
                json!({"myASN": 64512, "peerASN": 64514, "interface": "eth0", "passwordSecret": {"name": "secret"}}),
            ]);
            Event::of::<BgpPeer>(
                random.change(key(name), read::<api::BgpPeerObject, BgpPeer>(name, &spec)),
            )
        }
        1 => {
            let spec = random.one_of(&[
                json!({}),
                json!({"aggregationLength": 24}),
                json!({"peers": ["tor"], "communities": ["blue"]}),
                json!({"localPref": 200, "nodeSelectors": [{"matchLabels": {"name": "node1"}}]}),
            ]);
            let object = read::<api::BgpAdvertisementObject, BgpAdvertisement>(name, &spec);
            Event::of::<BgpAdvertisement>(random.change(key(name), object))
        }
        2 => {
            let spec = json!({"communities": [{"name": "blue", "value": format!("64512:{}", random.number(3))}]});
            Event::of::<Community>(
                random.change(key(name), read::<api::CommunityObject, Community>(name, &spec)),
            )
        }
        3 => {
            let spec = json!({"transmitInterval": 100 + random.number(3)});
            Event::of::<BfdProfile>(
                random
                    .change(key("fast"), read::<api::BfdProfileObject, BfdProfile>("fast", &spec)),
            )
        }
        _ => {
            let data = [(
                "password".to_owned(),
                ByteString(random.one_of(&[&b"one"[..], b"two"]).to_vec()),
            )];
            let mut secret = Secret {
                type_: Some("kubernetes.io/basic-auth".to_owned()),
                data: Some(data.into()),
                ..Secret::default()
            };
            secret.metadata.name = Some("secret".to_owned());
            Event::of::<PasswordSecret>(random.change(key("secret"), PasswordSecret::from(secret)))
        }
    }
}

fn random_links(random: &mut Random) -> Event {
    let mut links = vec![link(2, "eth0"), link(3, "eth1"), link(4, "cni0")];
    links.retain(|_| !random.once_in(6));
    for link in &mut links {
        link.up = !random.once_in(6);
        link.addresses = random.one_of(&[vec![], vec![ip("172.30.0.11"), ip("fe80::1")]]);
        link.prefixes =
            random.one_of(&[vec![], vec![(ip("172.30.0.9"), 16)], vec![(ip("172.30.0.200"), 32)]]);
    }
    let into_pod = |index| Link {
        into_namespace: true,
        prefixes: vec![(ip("169.254.1.1"), 32)],
        ..link(index, &format!("veth{index}"))
    };
    links.extend((10..10 + u32::try_from(random.number(3)).unwrap()).map(into_pod));
    Event::Links(links)
}

fn random_routes(random: &mut Random) -> Event {
    let to = |address: &str| PodRoute { range: AddressRange::single(ip(address)), link: 10 };
    let to_pods = random.some_of(&ENDPOINTS).into_iter().map(to).collect();
    Event::Routes(Routes { to_pods, ..Routes::default() })
}

fn random_report(random: &mut Random) -> Event {
    let report = LinkReport {
        speakers: random.some_of(&["node2", "node3"]).into_iter().map(Into::into).collect(),
        owned: owned(random.some_of(&ADDRESSES).into_iter().map(ip)),
        isolated: random.once_in(5),
        standby: random.once_in(5),
        proxy_healthy_elsewhere: random.once_in(2),
        handed_over: random.once_in(5),
        ..LinkReport::default()
    };
    Event::Report { link: random.one_of(&[2, 3]), report }
}

/// Returns the reports of drivers about this node.
fn random_node_event(random: &mut Random) -> Event {
    let service = Arc::new(Key::new("default", random.one_of(&SERVICES)));
    let endpoint = (ip(random.one_of(&ENDPOINTS)), random.one_of(&[80, 8080])).into();
    let session = SessionReport {
        state: random.one_of(&[BgpSessionState::Idle, BgpSessionState::Established]),
        address: random.once_in(2).then(|| ip("fe80::7")),
        ..SessionReport::default()
    };
    match random.number(7) {
        0 | 1 => Event::EndpointHealth {
            id: ProbeTarget { service, endpoint },
            failing: random.one_of(&[None, Some("refused".into()), Some("timeout".into())]),
        },
        2 => Event::ProxyHealth(KubeProxyHealth {
            state: random.one_of(&[
                KubeProxyState::Healthy,
                KubeProxyState::Unhealthy,
                KubeProxyState::Unknown,
            ]),
            ineligible: random.once_in(8),
            ..KubeProxyHealth::default()
        }),
        3 => Event::LinkFailed { link: random.one_of(&[2, 3]), why: "gone".into() },
        4 => Event::GroupsNotJoined {
            link: random.one_of(&[2, 3]),
            addresses: random.one_of(&[vec![], vec!["fd30::1".parse().unwrap()]]).into(),
        },
        5 => Event::Bgp(BgpReport {
            unusable: random.once_in(5).then(|| "no socket".into()),
            sessions: [(random.one_of(&PEERS).into(), session)].into(),
        }),
        _ => Event::GobgpRead(random.number(2)),
    }
}

fn random_event(random: &mut Random, now: Instant) -> Event {
    match random.number(22) {
        0..4 => Event::of::<Service>(random_service(random)),
        4..10 => Event::of::<EndpointSlice>(random_slice(random)),
        10 | 11 => Event::of::<Node>(random_node(random)),
        12 => Event::of::<Pool>(random_pool(random)),
        13 => Event::of::<L2Advertisement>(random_advertisement(random)),
        14 | 15 => random_bgp_object(random),
        16 if random.once_in(2) => random_routes(random),
        16 => random_links(random),
        17 => random_report(random),
        18 if random.once_in(4) => {
            let key = HelloKey::new([u8::try_from(random.number(3)).unwrap(); KEY_LENGTH]);
            Event::of::<HelloKeyRing>(Change::Apply(HelloKeyRing::new(vec![key])))
        }
        19 if random.once_in(500) => Event::StopRequested,
        20 if random.once_in(2) => {
            Event::RuleUpdate { family: random.one_of(&[Family::V4, Family::V6]), end: now }
        }
        _ => random_node_event(random),
    }
}

/// Returns the state of a node with gobgpd. All lists are complete, or none is.
fn random_state(random: &mut Random) -> State {
    let mut state = if random.once_in(4) {
        Cluster { services: vec![], slices: vec![], pools: vec![], ..Cluster::default() }.state()
    } else {
        Cluster::default().state()
    };
    state.config.gobgp = !random.once_in(4);
    apply_resync::<BgpPeer>(&mut state, &[], Event::of::<BgpPeer>);
    apply_resync::<BgpAdvertisement>(&mut state, &[], Event::of::<BgpAdvertisement>);
    apply_resync::<Community>(&mut state, &[], Event::of::<Community>);
    apply_resync::<BfdProfile>(&mut state, &[], Event::of::<BfdProfile>);
    if !random.once_in(4) {
        apply_resync::<PasswordSecret>(&mut state, &[], Event::of::<PasswordSecret>);
    }
    state
}

/// Returns whether former endpoints count for a Service.
fn is_held(state: &State, service: &str) -> bool {
    let key = Key::new("default", service);
    let mut families = [Family::V4, Family::V6].into_iter();
    families.any(|family| state.former_endpoints(&key, family).is_some())
}

#[test]
fn a_plan_with_a_memo_equals_a_plan_without_one() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut plans, mut skipped) = (0, 0);
    let (mut with_withheld, mut with_moved) = (0, 0);
    for _ in 0..STEPS / STEPS_PER_STATE {
        let mut state = random_state(&mut random);
        let mut now = Instant::from_millis(1_000_000);
        let mut memo = Memo::default();
        let mut desired = crate::plan::plan(&state, &mut memo, now);
        for step in 0..STEPS_PER_STATE {
            now = now + Duration::from_millis(random.number(3_000) as u64);
            // The main loop also handles several events before it plans.
            let mut context = format!("step {step}:");
            let mut is_changed = false;
            loop {
                let event = random_event(&mut random, now);
                context += &format!(" {event:?}");
                let changes = state.handle(event, now);
                is_changed |= !changes.is_empty();
                memo.add(changes);
                with_withheld += usize::from(!state.withheld().is_empty());
                with_moved += usize::from(SERVICES.iter().any(|it| is_held(&state, it)));
                if random.once_in(20) {
                    let changes = state.expire(now);
                    is_changed |= !changes.is_empty();
                    memo.add(changes);
                }
                if !random.once_in(4) {
                    break;
                }
            }
            if !is_changed && desired.replan_at.is_none_or(|at| at > now) {
                skipped += 1;
            } else {
                plans += 1;
                desired = crate::plan::plan(&state, &mut memo, now);
            }
            let mut without_results = Memo::default();
            let expected = crate::plan::plan(&state, &mut without_results, now);
            assert_eq!(desired, expected, "{context}");
            assert_eq!(memo.addresses.serving_names(), without_results.addresses.serving_names());
        }
    }
    // The events reach the cases that matter.
    assert!(plans > STEPS / 2 && skipped > STEPS / 20, "{plans} plans, {skipped} skipped");
    assert!(with_withheld > STEPS / 20, "{with_withheld} plans with withheld addresses");
    assert!(with_moved > STEPS / 1_000, "{with_moved} plans with moved endpoints");
}
