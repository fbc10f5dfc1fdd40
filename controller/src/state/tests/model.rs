//! Reference model of address assignment, slow and obvious: no intervals, no index, every address
//! is visited. Random histories compare the state with it: which assignments are legal, and which
//! requests could be met.

use proptest::prelude::*;

use super::script::{Op, named, rows};
use super::*;
use ferrolb_proto::facts::{FamilyPolicy, TrafficPolicy};

/// Addresses of each Service, as the state decided.
type Given = BTreeMap<Key, Vec<IpAddr>>;

/// Cluster as the model sees it.
struct Rules<'a> {
    world: &'a World,
    given: Given,
}

impl<'a> Rules<'a> {
    fn new(world: &'a World) -> Self {
        let claims = world
            .state
            .services
            .iter()
            .filter_map(|(key, entry)| Some((key.clone(), entry.assignment.clone()?)));
        Self { world, given: claims.map(|(key, claim)| (key, claim.addresses)).collect() }
    }

    /// Returns the valid pools, by name: without a problem, and without an overlap with an older
    /// pool.
    fn pools(&self) -> Vec<&'a Pool> {
        let mut usable: Vec<&Pool> = Vec::new();
        let mut pools: Vec<&Pool> =
            self.world.pools.values().filter(|pool| pool.problem.is_none()).collect();
        pools.sort_by_key(|pool| pool.created);
        for pool in pools {
            let overlaps = |other: &&Pool| {
                pool.ranges.iter().any(|a| other.ranges.iter().any(|b| a.overlaps(b)))
            };
            if !usable.iter().any(overlaps) {
                usable.push(pool);
            }
        }
        usable.sort_by_key(|pool| pool.name.clone());
        usable
    }

    /// Returns true if the Service's pool exists, but became invalid.
    fn slipped(&self, service: &Service) -> bool {
        let from =
            service.pool_annotation.as_ref().filter(|name| self.world.pools.contains_key(*name));
        from.is_some_and(|name| self.pools().iter().all(|pool| pool.name != *name))
    }

    /// Returns every address that a pool can assign, in the order of its spec.
    fn addresses(&self, pool: &Pool) -> Vec<IpAddr> {
        let within = |range: &ferrolb_proto::range::AddressRange| {
            let mut all = vec![range.first()];
            while *all.last().unwrap() < range.last() {
                all.push(match all.last().unwrap() {
                    IpAddr::V4(address) => (u32::from(*address) + 1).to_be_bytes().into(),
                    IpAddr::V6(address) => (u128::from(*address) + 1).to_be_bytes().into(),
                });
            }
            all
        };
        let excluded: Vec<_> = pool.excluded.iter().flat_map(within).collect();
        let of_node = |address: &IpAddr| {
            self.world.nodes.values().any(|node| node.addresses.contains(address))
        };
        let buggy = |address: &IpAddr| {
            let text = address.to_string();
            pool.avoid_buggy
                && address.is_ipv4()
                && (text.ends_with(".0") || text.ends_with(".255"))
        };
        let all = pool.ranges.iter().flat_map(within);
        all.filter(|address| !excluded.contains(address) && !of_node(address) && !buggy(address))
            .collect()
    }

    fn is_open(&self, pool: &Pool, service: &Service) -> bool {
        let labels = service
            .demand
            .labels
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        let nothing = BTreeMap::new();
        let namespace = self
            .world
            .namespaces
            .get(&service.key.namespace)
            .map_or(&nothing, |found| &found.labels);
        pool.allocation
            .as_ref()
            .is_none_or(|it| it.allows(&service.key.namespace, namespace, || labels))
    }

    /// Returns true if two Services may share an address.
    fn share(one: &Service, other: &Service) -> bool {
        let key = |service: &Service| service.demand.request.sharing_key.clone();
        let local = |service: &Service| match (service.policy, &*service.demand.selector) {
            (TrafficPolicy::Local, selector) => selector.to_owned(),
            (TrafficPolicy::Cluster, _) => String::new(),
        };
        let ports = |service: &Service| -> BTreeSet<String> {
            service.demand.ports.iter().map(ToString::to_string).collect()
        };
        key(one).is_some()
            && key(one) == key(other)
            && local(one) == local(other)
            && ports(one).is_disjoint(&ports(other))
    }

    fn tenants(&self, address: IpAddr) -> impl Iterator<Item = &'a Service> {
        let has = self.given.iter().filter(move |(_, addresses)| addresses.contains(&address));
        has.map(|(key, _)| &self.world.services[key])
    }

    /// Returns true if a Service may use the pool of an address that it lists in its external IPs.
    fn names(&self, address: IpAddr, other: &Service) -> bool {
        let has = |pool: &&Pool| self.addresses(pool).contains(&address);
        other.demand.external_ips.contains(&address)
            && self.pools().into_iter().find(has).is_some_and(|pool| self.is_open(pool, other))
    }

    /// Returns true if no other Service has the address, or all that have it would share it.
    ///
    /// With `unless_external`, an address without a user must not be an external IP either.
    fn is_free_for(&self, address: IpAddr, service: &Service, unless_external: bool) -> bool {
        let external = |other: &Service| self.names(address, other);
        let joins = self
            .tenants(address)
            .filter(|other| other.key != service.key)
            .all(|other| Self::share(other, service));
        let held = self.tenants(address).next().is_some();
        let taken = unless_external && !held && self.world.services.values().any(external);
        joins && !taken
    }

    /// Returns the first address of a family that a pool would assign.
    fn first(&self, pool: &Pool, service: &Service, family: Family) -> Option<IpAddr> {
        let of_family =
            self.addresses(pool).into_iter().filter(|address| Family::of(*address) == family);
        let of_routers =
            |address: &IpAddr| matches!(address, IpAddr::V6(ip) if ip.segments()[4..] == [0; 4]);
        // Addresses of routers are never assigned automatically. But a Service may join another one
        // that requested such an address and shares it.
        let given = of_family
            .filter(|address| !of_routers(address) || self.tenants(*address).next().is_some());
        given.into_iter().find(|address| self.is_free_for(*address, service, true))
    }

    /// Returns true if the Service requires two families and has cluster IPs of one.
    fn is_hopeless(service: &Service) -> bool {
        service.demand.family_policy == FamilyPolicy::Require && service.families.len() == 1
    }

    /// Returns the addresses for a Service that has none and requests none.
    fn choice(&self, service: &Service) -> Vec<IpAddr> {
        let families = &service.families;
        if Self::is_hopeless(service) {
            return Vec::new();
        }
        let open: Vec<_> =
            self.pools().into_iter().filter(|pool| self.is_open(pool, service)).collect();
        let groups = match &service.demand.request.pool {
            Some(name) => {
                vec![open.into_iter().filter(|pool| pool.name == *name).collect::<Vec<_>>()]
            }
            None => {
                let automatic = open.into_iter().filter(|pool| pool.auto_assign);
                let (mut own, everyones): (Vec<_>, Vec<_>) =
                    automatic.partition(|pool| pool.allocation.is_some());
                let priority =
                    |pool: &&Pool| match pool.allocation.as_ref().map_or(0, |it| it.priority) {
                        none if none <= 0 => i64::MAX,
                        priority => priority,
                    };
                own.sort_by_key(priority);
                vec![own, everyones]
            }
        };
        for group in groups {
            let found: Vec<Vec<_>> = group
                .iter()
                .map(|pool| families.iter().map(|f| self.first(pool, service, *f)).collect())
                .collect();
            if let Some(all) = found.iter().find(|found| found.iter().all(Option::is_some)) {
                return all.iter().flatten().copied().collect();
            }
            if service.demand.family_policy == FamilyPolicy::Prefer {
                for place in 0..families.len() {
                    if let Some(one) = found.iter().find_map(|found| found[place]) {
                        return vec![one];
                    }
                }
            }
        }
        Vec::new()
    }

    /// Returns true if a Service may have exactly these addresses, which it does not have yet.
    fn would_fit(&self, service: &Service, asked: &[IpAddr]) -> bool {
        let named = |pool: &&Pool| {
            service.demand.request.pool.as_ref().is_none_or(|name| *name == pool.name)
        };
        let others = |address: &IpAddr| {
            let external =
                |other: &Service| other.key != service.key && self.names(*address, other);
            self.world.services.values().any(external)
        };
        self.pools().into_iter().filter(named).any(|pool| {
            let has = self.addresses(pool);
            self.is_open(pool, service)
                && asked.iter().all(|ip| {
                    has.contains(ip) && self.is_free_for(*ip, service, false) && !others(ip)
                })
        })
    }

    /// Returns a description of an illegal assignment, if there is any.
    fn illegal(&self, kept: &Given) -> Option<String> {
        for (key, addresses) in self.given.iter().filter(|(_, addresses)| !addresses.is_empty()) {
            let service = &self.world.services[key];
            let has = |pool: &&Pool| {
                addresses.iter().all(|address| self.addresses(pool).contains(address))
            };
            let families: Vec<_> = addresses.iter().copied().map(Family::of).collect();
            let in_order: Vec<_> =
                service.families.iter().copied().filter(|f| families.contains(f)).collect();
            if families != in_order {
                return Some(format!("{key} has {addresses:?} for {:?}", service.families));
            }
            // A Service keeps addresses of a pool that became invalid. Then it had them before.
            let was = kept
                .get(key)
                .is_some_and(|kept| addresses.iter().all(|address| kept.contains(address)));
            let pool = self.pools().into_iter().find(has);
            if pool.is_none_or(|pool| !self.is_open(pool, service))
                && !(was && self.slipped(service))
            {
                return Some(format!("{key} has {addresses:?} out of no one pool that is for it"));
            }
            if let Some(address) =
                addresses.iter().find(|address| !self.is_free_for(**address, service, false))
            {
                return Some(format!("{key} has {address}, which somebody else has"));
            }
        }
        None
    }

    /// Returns a description of a Service that waits although its request could be met.
    fn starving(&self) -> Option<String> {
        let waits = |(key, entry): (&Key, &super::super::service::ServiceEntry)| {
            let service = &self.world.services[key];
            let claim = entry
                .assignment
                .as_ref()
                .filter(|claim| claim.addresses.is_empty() && !service.deleting)?;
            let request = &service.demand.request;
            let fits = match request.addresses.as_slice() {
                _ if request.problem.is_some() || Self::is_hopeless(service) => None,
                [] => Some(self.choice(service)).filter(|choice| !choice.is_empty()),
                asked => self.would_fit(service, asked).then(|| asked.to_vec()),
            };
            fits.map(|fits| format!("{key} waits ({:?}), and {fits:?} would fit", claim.shortage))
        };
        self.world.state.services.iter().find_map(waits).or_else(|| self.stunted())
    }

    /// Returns a description of a Service that prefers a second family and whose pool has it free.
    fn stunted(&self) -> Option<String> {
        let one = self.given.iter().filter(|(_, addresses)| addresses.len() == 1);
        let mut candidates = one.map(|(key, addresses)| (&self.world.services[key], addresses[0]));
        candidates.find_map(|(service, address)| {
            let request = &service.demand.request;
            let other = *service.families.iter().find(|family| **family != Family::of(address))?;
            let pool =
                self.pools().into_iter().find(|pool| self.addresses(pool).contains(&address))?;
            let silent =
                request.problem.is_none() && request.addresses.is_empty() && !self.slipped(service);
            let second = self.first(pool, service, other).filter(|_| silent)?;
            Some(format!("{} has {address}, and {} has {second} for it", service.key, pool.name))
        })
    }
}

/// Generates a line out of few words of each type, so that lines refer to the same objects.
fn line() -> impl Strategy<Value = String> {
    let pool = (0..4u8, 0..7usize, prop::sample::subsequence(POOL_WORDS.to_vec(), 0..3)).prop_map(
        |(name, ranges, words)| format!("pool p{name} {} {}", RANGES[ranges], words.join(" ")),
    );
    let service = (0..10u8, 0..6usize, prop::sample::subsequence(SERVICE_WORDS.to_vec(), 0..5))
        .prop_map(|(name, families, words)| {
            let namespace = ["red", "blue"][usize::from(name % 2)];
            format!("svc {namespace}/s{name} {} {}", FAMILIES[families], words.join(" "))
        });
    prop_oneof![
        4 => pool,
        12 => service,
        1 => (0..9u8).prop_map(|last| format!("node n 10.0.0.{last}")),
        1 => any::<bool>().prop_map(|warm| format!("ns red colour={}", if warm { "warm" } else { "cold" })),
        3 => (0..10u8).prop_map(|name| format!("gone svc {}/s{name}", ["red", "blue"][usize::from(name % 2)])),
        1 => (0..4u8).prop_map(|name| format!("gone pool p{name}")),
    ]
}

const RANGES: [&str; 7] = [
    "10.0.0.0-10.0.0.3",
    "10.0.0.2-10.0.0.5,fd00::/127",
    "10.0.0.8,10.0.0.4-10.0.0.6",
    "fd00::2-fd00::4",
    "10.0.0.255-10.0.1.1,fd01::1",
    "10.0.0.3-10.0.0.1",
    "10.0.2.0/31,fd02::/127",
];
const POOL_WORDS: [&str; 9] = [
    "made=5",
    "manual",
    "buggy",
    "exclude=10.0.0.4,10.0.2.0",
    "prio=3",
    "prio=7",
    "ns=red",
    "nssel=colour:warm",
    "svcsel=tier:web",
];
const FAMILIES: [&str; 6] =
    ["v4", "v6", "v4 v6 require", "v6 v4 prefer", "v4 v6 prefer", "v4 require"];
const SERVICE_WORDS: [&str; 15] = [
    "key=k",
    "key=l",
    "ports=TCP/1",
    "ports=TCP/1,UDP/2",
    "ports=UDP/1",
    "ports=",
    "local",
    "sel=one",
    "label=tier:web",
    "pool=p1",
    "ips=10.0.0.2",
    "ips=10.0.0.5,fd00::1",
    "ips=fd00::",
    "external=10.0.0.4",
    "type=NodePort",
];

impl World {
    /// Returns true if the line is possible in the present state.
    fn may_undergo(&self, op: &Op) -> bool {
        match op {
            Op::Gone(kind, name) if kind == "svc" => self.services.contains_key(&named(name)),
            Op::Gone(_, name) => self.pools.contains_key(name.as_str()),
            Op::Service(_) | Op::Pool(_) | Op::Namespace(_) | Op::Node(_) => true,
        }
    }
}

/// Runs one line, and checks the result against the model.
fn play(world: &mut World, op: &Op) -> Result<(), TestCaseError> {
    let before = Rules::new(world).given;
    let expected = match op {
        // A new Service is the only one that changes, so the model can predict its addresses.
        Op::Service(service)
            if !world.services.contains_key(&service.key) && service.load_balancer =>
        {
            let asks = !service.demand.request.addresses.is_empty()
                || service.demand.request.problem.is_some();
            let external = !service.demand.external_ips.is_empty();
            let mut with =
                World { services: world.services.clone(), ..World::unled(vec![], vec![]) };
            with.services.insert(service.key.clone(), service.clone());
            (with.pools, with.nodes, with.namespaces) =
                (world.pools.clone(), world.nodes.clone(), world.namespaces.clone());
            let rules = Rules { world: &with, given: before.clone() };
            (!asks && !external).then(|| (service.key.clone(), rules.choice(service)))
        }
        Op::Service(_) | Op::Pool(_) | Op::Namespace(_) | Op::Node(_) | Op::Gone(..) => None,
    };
    world.undergo(op, true);
    world.settle();
    let rules = Rules::new(world);
    prop_assert_eq!(rules.illegal(&before), None);
    prop_assert_eq!(rules.starving(), None);
    if let Some((key, choice)) = expected {
        prop_assert_eq!(rules.given.get(&key), Some(&choice), "{}", key);
    }
    // A line about one Service must not change another one's addresses, except to add missing ones.
    if let Op::Service(Service { key: changed, .. }) = op {
        for (key, had) in before.iter().filter(|(key, had)| *key != changed && !had.is_empty()) {
            let has = &rules.given[key];
            prop_assert!(
                had.iter().all(|address| has.contains(address)) || has.len() > had.len(),
                "{} had {:?}, has {:?}",
                key,
                had,
                has
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn nothing_is_given_against_the_rules_nor_kept_from_who_could_have_it(lines in prop::collection::vec(line(), 1..40)) {
        let mut world = World::new(vec![], vec![]);
        for name in ["red", "blue"] {
            world.undergo(&Op::Namespace(Namespace { name: name.into(), ..Namespace::default() }), true);
        }
        for line in lines {
            let row = rows(&format!("row: one\n{line}")).remove(0);
            let op = &row.steps[0].changes[0];
            if world.may_undergo(op) {
                play(&mut world, op)?;
            }
        }
        let (shown, written) = (world.shown(), world.log.len());
        world.restart();
        world.settle();
        prop_assert_eq!(world.shown(), shown);
        prop_assert_eq!(world.log.len(), written, "a restart writes: {:?}", &world.log[written..]);
    }
}
