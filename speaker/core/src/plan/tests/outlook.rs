//! Compares the owners and routes that the controller's core predicts, for `kubectl ferrolb plan`,
//! with the plans of the speakers of all nodes, after random changes. A core that handles only the
//! changed lists predicts the same as a new one.

use std::collections::BTreeMap;

use fastrand::Rng;
use ferrolb_controller_core::event::{Event as ControllerEvent, Leadership};
use ferrolb_controller_core::state::{Config, Names, State as Controller};
use ferrolb_core::bgp::Prefix;
use ferrolb_core::election::Rank;
use ferrolb_proto::facts::{
    AddressMemory, BfdProfile, BgpAdvertisement, BgpPeer, Community, DrainReason, EndpointSlice,
    L2Advertisement, Namespace, Node, PasswordSecret, Pool, Service, Speaker, SpeakerInterface,
    SpeakerSession,
};
use ferrolb_proto::wire::hello::Flags;

use super::*;

/// Number of random changes.
const CHANGES: usize = 4_000;
/// Number of changes of one cluster.
const HISTORY: usize = 100;
const NODES: [&str; 3] = ["node1", "node2", "node3"];
const ADDRESSES: [&str; 4] = ["172.30.0.200", "172.30.0.201", "203.0.113.1", "203.0.113.2"];
const POOLS: [(&str, &str); 2] = [("lan", "172.30.0.0/24"), ("routed", "203.0.113.0/24")];
/// Index of the interface of each node.
const LINK: u32 = 2;
/// Time of all changes.
const NOW: Instant = Instant::from_nanos(1_000_000_000);
/// Time at which the lease of the controller ends.
const FOREVER: Instant = Instant::from_nanos(u64::MAX);

fn one_in(random: &mut Rng, times: usize) -> bool {
    random.usize(..times) == 0
}

/// The objects of a cluster, and the present owners of the addresses.
#[derive(Default)]
struct World {
    nodes: BTreeMap<usize, Node>,
    services: BTreeMap<usize, Service>,
    slices: BTreeMap<usize, EndpointSlice>,
    layer2: BTreeMap<usize, L2Advertisement>,
    bgp: BTreeMap<usize, BgpAdvertisement>,
    peers: BTreeMap<usize, BgpPeer>,
    owners: BTreeMap<IpAddr, String>,
}

/// The events of the list of each kind of object.
type Lists = [Vec<ControllerEvent>; 12];

/// Nodes that advertise a prefix to the router of a BGPPeer; true for a de-preferred route.
type WorldRoutes = BTreeMap<(Box<str>, Prefix), BTreeMap<Box<str>, bool>>;

impl World {
    fn new() -> Self {
        let mut world = Self::default();
        for (index, name) in NODES.iter().enumerate() {
            world.nodes.insert(index, node(name));
        }
        world
    }

    /// Changes one object.
    fn change(&mut self, random: &mut Rng) {
        let select = |random: &mut Rng, of: &[&str]| match random.usize(..3) {
            0 => json!([{"matchLabels": {"name": of[random.usize(..of.len())]}}]),
            _ => json!([]),
        };
        let index = random.usize(..3);
        let is_removed = one_in(random, 4);
        match random.usize(..7) {
            0 => {
                let node = self.nodes.get_mut(&index).expect("all nodes exist");
                node.cordoned = one_in(random, 4);
                node.drain = one_in(random, 4).then_some(DrainReason::Annotation);
                node.excluded = one_in(random, 4);
            }
            1 | 2 => drop(self.services.insert(index, random_service(index, random))),
            3 => {
                let names: Vec<_> = NODES.into_iter().filter(|_| one_in(random, 2)).collect();
                self.slices.insert(index, slice(&format!("s{index}"), &names));
            }
            4 if is_removed => drop(self.layer2.remove(&index)),
            4 => {
                let mut spec = json!({"nodeSelectors": select(random, &NODES)});
                if one_in(random, 3) {
                    spec["ipAddressPools"] = json!([POOLS[random.usize(..2)].0]);
                }
                if one_in(random, 5) {
                    let name = if one_in(random, 2) { "eth0" } else { "eth1" };
                    spec["interfaces"] = json!([name]);
                }
                self.layer2.insert(index, advertisement(index, &spec));
            }
            5 if is_removed => drop(self.bgp.remove(&index)),
            5 => {
                let mut spec = json!({"nodeSelectors": select(random, &NODES)});
                if one_in(random, 3) {
                    spec["aggregationLength"] = json!(28);
                }
                if one_in(random, 3) {
                    spec["peers"] = json!(["tor0"]);
                }
                let object = json!({"metadata": {"name": format!("bgp{index}")}, "spec": spec});
                let ad = serde_json::from_value::<api::BgpAdvertisementObject>(object).unwrap();
                self.bgp.insert(index, ad.into());
            }
            _ if is_removed => drop(self.peers.remove(&index)),
            _ => {
                let spec = json!({"myASN": 64512, "peerASN": 64513, "nodeSelectors": select(random, &NODES),
                    "peerAddress": format!("192.0.2.{}", random.usize(..3))});
                let object = json!({"metadata": {"name": format!("tor{index}")}, "spec": spec});
                let peer = serde_json::from_value::<api::BgpPeerObject>(object).unwrap();
                self.peers.insert(index, peer.into());
            }
        }
    }

    fn pools() -> Vec<Pool> {
        POOLS.map(|(name, range)| Pool { auto_assign: true, ..pool(name, &[range]) }).into()
    }

    /// Returns the list of each kind of object, as the controller receives it.
    fn lists(&self) -> Lists {
        let namespace = Namespace { name: "default".into(), ..Namespace::default() };
        [
            list(self.services.values(), ControllerEvent::of::<Service>),
            list(self.slices.values(), ControllerEvent::of::<EndpointSlice>),
            list(self.nodes.values(), ControllerEvent::of::<Node>),
            list([&namespace].into_iter(), ControllerEvent::of::<Namespace>),
            list(std::iter::empty(), ControllerEvent::of::<AddressMemory>),
            list(Self::pools().iter(), ControllerEvent::of::<Pool>),
            list(self.layer2.values(), ControllerEvent::of::<L2Advertisement>),
            list(std::iter::empty(), ControllerEvent::of::<Community>),
            list(self.peers.values(), ControllerEvent::of::<BgpPeer>),
            list(self.bgp.values(), ControllerEvent::of::<BgpAdvertisement>),
            list(std::iter::empty(), ControllerEvent::of::<BfdProfile>),
            list(self.speakers().iter(), ControllerEvent::of::<Speaker>),
        ]
    }

    /// Returns the SpeakerStatus of each node: all are in contact, and have all sessions.
    fn speakers(&self) -> Vec<Speaker> {
        let speaker = |node: &&str| {
            let others = NODES.iter().filter(|other| *other != node);
            let owned = self.owners.iter().filter(|(_, owner)| *owner == node);
            let session = |peer: &BgpPeer| SpeakerSession {
                peer: peer.name.clone(),
                established: true,
                ..SpeakerSession::default()
            };
            Speaker {
                node: (*node).into(),
                interfaces: [SpeakerInterface {
                    name: "eth0".into(),
                    up: true,
                    hello_senders: others.map(|other| (*other).into()).collect(),
                    addresses: owned.map(|(address, _)| *address).collect(),
                    subnets: link(LINK, "eth0").subnets().collect(),
                    ..SpeakerInterface::default()
                }]
                .into(),
                bgp: Some(self.peers.values().map(session).collect()),
                ..Speaker::default()
            }
        };
        NODES.iter().map(speaker).collect()
    }

    /// Returns the plan of the speaker of a node.
    fn plan_of(&self, node: &str) -> Desired {
        let mut state = Cluster::default().state();
        (state.config.node, state.config.gobgp) = (node.into(), true);
        let values = |all: &BTreeMap<usize, _>| all.values().cloned().collect::<Vec<_>>();
        apply_resync(
            &mut state,
            &self.services.values().cloned().collect::<Vec<_>>(),
            Event::of::<Service>,
        );
        apply_resync(
            &mut state,
            &self.slices.values().cloned().collect::<Vec<_>>(),
            Event::of::<EndpointSlice>,
        );
        apply_resync(&mut state, &values(&self.nodes), Event::of::<Node>);
        apply_resync(&mut state, &Self::pools(), Event::of::<Pool>);
        let layer2: Vec<_> = self.layer2.values().cloned().collect();
        apply_resync(&mut state, &layer2, Event::of::<L2Advertisement>);
        let peers: Vec<_> = self.peers.values().cloned().collect();
        apply_resync(&mut state, &peers, Event::of::<BgpPeer>);
        let bgp: Vec<_> = self.bgp.values().cloned().collect();
        apply_resync(&mut state, &bgp, Event::of::<BgpAdvertisement>);
        apply_resync::<Community>(&mut state, &[], Event::of::<Community>);
        apply_resync::<BfdProfile>(&mut state, &[], Event::of::<BfdProfile>);
        apply_resync::<PasswordSecret>(&mut state, &[], Event::of::<PasswordSecret>);
        state.handle(Event::GobgpRead(1), Instant::ZERO);
        let later = Instant::from_millis(60_000);
        state.expire(later);
        super::super::plan(&state, &mut Memo::default(), later)
    }

    /// Elects the owner of each address from the plans of all nodes, as the claim machines do.
    fn elect(&self, plans: &BTreeMap<&str, Desired>) -> BTreeMap<IpAddr, String> {
        let mut ranks: BTreeMap<IpAddr, Vec<Rank<'_>>> = BTreeMap::new();
        for (node, plan) in plans {
            let draining = plan.drain_reason.is_some();
            for unit in plan.links.get(&LINK).iter().flat_map(|link| link.config.units.values()) {
                let Some(own) = unit.own_candidate(node).filter(|_| unit.can_serve_here) else {
                    continue;
                };
                let flags = Flags { draining, ..Flags::default() };
                let rank = unit.rank(own, flags);
                ranks.entry(unit.address).or_default().push(rank);
            }
        }
        let elect = |(address, mut ranks): (IpAddr, Vec<Rank<'_>>)| {
            ranks.sort_unstable();
            let owner = self.owners.get(&address);
            let owner = ranks.iter().find(|rank| owner.is_some_and(|owner| *owner == *rank.node));
            let keeps = owner.filter(|owner| !ranks[0].may_take_from(owner, false));
            (address, keeps.unwrap_or(&ranks[0]).node.to_owned())
        };
        ranks.into_iter().map(elect).collect()
    }
}

/// Returns a Service whose addresses are in its status already.
fn random_service(index: usize, random: &mut Rng) -> Service {
    let address = ADDRESSES[random.usize(..ADDRESSES.len())];
    let from = if address.starts_with("172") { POOLS[0] } else { POOLS[1] };
    let mut service = service(&format!("s{index}"), &[address]);
    service.uid = format!("uid{index}").into();
    service.families = vec![Family::V4];
    service.pool_annotation = Some(from.0.into());
    service.demand.request.sharing_key = Some("shared".into());
    // Only Services with equal policies and selectors can share an address.
    if address.ends_with('1') {
        service.policy = TrafficPolicy::Local;
        service.demand.selector = "app=same".into();
    }
    service
}

/// Returns the events of a list.
fn list<'a, F: Clone + 'a>(
    facts: impl Iterator<Item = &'a F>,
    wrap: fn(Change<F>) -> ControllerEvent,
) -> Vec<ControllerEvent> {
    let changes = facts.cloned().map(Change::Apply);
    let list = std::iter::once(Change::ResyncStarted).chain(changes);
    list.chain([Change::ResyncDone]).map(wrap).collect()
}

/// The controller's core, which predicts owners and routes.
struct Core {
    controller: Controller,
    lists: Lists,
}

impl Core {
    fn new(lists: Lists) -> Self {
        let names = Names { namespace: api::NAMESPACE.to_owned(), group: api::GROUP.to_owned() };
        let config = Config { default_implementation: true, names, ..Config::default() };
        let mut controller = Controller::new(config);
        controller.handle([ControllerEvent::Lease(Leadership::Held(FOREVER))], NOW);
        controller.handle(lists.iter().flatten().cloned(), NOW);
        Self { controller, lists }
    }

    /// Handles the lists that have changed. A changed Service has a status that another client has
    /// written, which only a new core takes over.
    fn change(&mut self, lists: Lists) {
        if self.lists[0] != lists[0] {
            *self = Self::new(lists);
            return;
        }
        let pairs = self.lists.iter().zip(&lists);
        for (_, changed) in pairs.filter(|(before, after)| before != after) {
            self.controller.handle(changed.iter().cloned(), NOW);
        }
        self.lists = lists;
    }
}

/// Returns the routes of all nodes.
fn routes(plans: &BTreeMap<&str, Desired>) -> WorldRoutes {
    let mut routes = WorldRoutes::new();
    for (node, plan) in plans {
        let config = plan.bgp.as_ref().expect("a BGP configuration");
        for (prefix, class) in config.routes.iter() {
            for (attributes, peers) in &class.peers_by_attributes {
                for peer in peers {
                    let nodes = routes.entry((peer.clone(), *prefix)).or_default();
                    nodes.insert((*node).into(), attributes.is_de_preferred());
                }
            }
        }
    }
    routes
}

#[test]
fn predicted_owners_and_routes_equal_the_plans_of_all_speakers() {
    let mut random = Rng::with_seed(0x5eed);
    let (mut compared, mut found) = (0, [0; 2]);
    while compared < CHANGES {
        let mut world = World::new();
        let mut core = Core::new(world.lists());
        for _ in 0..HISTORY {
            world.change(&mut random);
            compared += 1;
            core.change(world.lists());
            let outlook = core.controller.outlook();
            let other = Core::new(world.lists()).controller.outlook();
            assert_eq!(outlook.owners, other.owners, "change {compared}");
            assert_eq!(outlook.routes, other.routes, "change {compared}");
            let plans = NODES.iter().map(|node| (*node, world.plan_of(node))).collect();
            let owners = world.elect(&plans);
            let predicted = outlook.owners.iter().filter_map(|(address, owner)| {
                assert!(owner.next.len() <= 1, "all nodes are in contact: {owner:?}");
                Some((*address, owner.next.first()?.clone()))
            });
            let predicted = predicted.collect::<BTreeMap<_, _>>();
            assert_eq!(predicted, owners, "change {compared}");
            let routes = routes(&plans);
            assert_eq!(outlook.routes, routes, "change {compared}");
            found[0] += owners.len();
            found[1] += routes.len();
            world.owners = owners;
        }
    }
    assert!(found.iter().all(|count| *count > CHANGES), "few owners and routes: {found:?}");
    println!("owners and routes after {compared} changes are as predicted: {found:?}");
}
