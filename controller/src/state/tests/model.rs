//! Reference model of address assignment. The model is slow and simple: it visits every address,
//! without intervals and without an index. Tests with random changes compare the state with the
//! model: every assignment must be legal, and every request that can be met must be met.

use proptest::prelude::*;

use super::script::{Op, rows, service_key};
use super::*;
use ferrolb_proto::facts::{FamilyPolicy, TrafficPolicy};

/// Addresses of each Service, as the state has assigned them.
type AssignedAddresses = BTreeMap<Key, Vec<IpAddr>>;

/// Model of a cluster: its objects, and the addresses of each Service.
struct AssignmentModel<'a> {
    cluster: &'a Cluster,
    assigned: AssignedAddresses,
}

impl<'a> AssignmentModel<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let assignments = cluster
            .state
            .services
            .iter()
            .filter_map(|(key, entry)| Some((key.clone(), entry.assignment.clone()?)));
        Self {
            cluster,
            assigned: assignments.map(|(key, assignment)| (key, assignment.addresses)).collect(),
        }
    }

    /// Returns the valid pools, by name: without a problem, and without an overlap with an older
    /// pool.
    fn pools(&self) -> Vec<&'a Pool> {
        let mut usable: Vec<&Pool> = Vec::new();
        let mut pools: Vec<&Pool> =
            self.cluster.pools.values().filter(|pool| pool.problem.is_none()).collect();
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

    /// Returns true if the pool of the Service's addresses exists, but has become invalid.
    fn has_invalid_pool(&self, service: &Service) -> bool {
        let from =
            service.pool_annotation.as_ref().filter(|name| self.cluster.pools.contains_key(*name));
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
            self.cluster.nodes.values().any(|node| node.addresses.contains(address))
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

    fn may_use(&self, pool: &Pool, service: &Service) -> bool {
        let labels = service
            .demand
            .labels
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        let no_labels = BTreeMap::new();
        let namespace = self
            .cluster
            .namespaces
            .get(service.key.namespace())
            .map_or(&no_labels, |found| &found.labels);
        pool.allocation.as_ref().is_none_or(|allocation| {
            allocation.allows(service.key.namespace(), namespace, || labels)
        })
    }

    /// Returns true if two Services can share an address.
    fn can_share(one: &Service, other: &Service) -> bool {
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

    fn services_with(&self, address: IpAddr) -> impl Iterator<Item = &'a Service> {
        let has = self.assigned.iter().filter(move |(_, addresses)| addresses.contains(&address));
        has.map(|(key, _)| &self.cluster.services[key])
    }

    /// Returns true if the address is an external IP of this Service, and the Service may use the
    /// pool of the address.
    fn blocks(&self, address: IpAddr, other: &Service) -> bool {
        let has = |pool: &&Pool| self.addresses(pool).contains(&address);
        other.demand.external_ips.contains(&address)
            && self.pools().into_iter().find(has).is_some_and(|pool| self.may_use(pool, other))
    }

    /// Returns true if no other Service has the address, or all Services that have the address can
    /// share it with this Service.
    ///
    /// With `unless_external`, an unassigned address must not be an external IP of any Service
    /// either.
    fn is_free_for(&self, address: IpAddr, service: &Service, unless_external: bool) -> bool {
        let external = |other: &Service| self.blocks(address, other);
        let shareable = self
            .services_with(address)
            .filter(|other| other.key != service.key)
            .all(|other| Self::can_share(other, service));
        let is_assigned = self.services_with(address).next().is_some();
        let is_external =
            unless_external && !is_assigned && self.cluster.services.values().any(external);
        shareable && !is_external
    }

    /// Returns the first address of a family that a pool would assign to a Service automatically.
    fn first(&self, pool: &Pool, service: &Service, family: Family) -> Option<IpAddr> {
        let of_family =
            self.addresses(pool).into_iter().filter(|address| Family::of(*address) == family);
        let of_routers =
            |address: &IpAddr| matches!(address, IpAddr::V6(ip) if ip.segments()[4..] == [0; 4]);
        // Subnet-Router anycast addresses are not assigned automatically. But a Service may share
        // such an address with a Service that requested it.
        let candidates = of_family.filter(|address| {
            !of_routers(address) || self.services_with(*address).next().is_some()
        });
        candidates.into_iter().find(|address| self.is_free_for(*address, service, true))
    }

    /// Returns true if the Service requires two families, but has cluster IPs of one family only.
    fn lacks_required_family(service: &Service) -> bool {
        service.demand.family_policy == FamilyPolicy::Require && service.families.len() == 1
    }

    /// Returns the addresses that a Service without addresses must get if it requests no specific
    /// ones.
    fn expected_addresses(&self, service: &Service) -> Vec<IpAddr> {
        let families = &service.families;
        if Self::lacks_required_family(service) {
            return Vec::new();
        }
        let usable: Vec<_> =
            self.pools().into_iter().filter(|pool| self.may_use(pool, service)).collect();
        let groups = match &service.demand.request.pool {
            Some(name) => {
                vec![usable.into_iter().filter(|pool| pool.name == *name).collect::<Vec<_>>()]
            }
            None => {
                let automatic = usable.into_iter().filter(|pool| pool.auto_assign);
                let (mut selecting, unrestricted): (Vec<_>, Vec<_>) =
                    automatic.partition(|pool| pool.allocation.is_some());
                let priority = |pool: &&Pool| match pool
                    .allocation
                    .as_ref()
                    .map_or(0, |allocation| allocation.priority)
                {
                    none if none <= 0 => i64::MAX,
                    priority => priority,
                };
                selecting.sort_by_key(priority);
                vec![selecting, unrestricted]
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
                for index in 0..families.len() {
                    if let Some(one) = found.iter().find_map(|found| found[index]) {
                        return vec![one];
                    }
                }
            }
        }
        Vec::new()
    }

    /// Returns true if a Service can have exactly these addresses, which it does not have yet.
    fn can_assign(&self, service: &Service, requested: &[IpAddr]) -> bool {
        let named = |pool: &&Pool| {
            service.demand.request.pool.as_ref().is_none_or(|name| *name == pool.name)
        };
        let others = |address: &IpAddr| {
            let external =
                |other: &Service| other.key != service.key && self.blocks(*address, other);
            self.cluster.services.values().any(external)
        };
        self.pools().into_iter().filter(named).any(|pool| {
            let has = self.addresses(pool);
            self.may_use(pool, service)
                && requested.iter().all(|ip| {
                    has.contains(ip) && self.is_free_for(*ip, service, false) && !others(ip)
                })
        })
    }

    /// Returns a description of an illegal assignment, if there is any.
    fn illegal_assignment(&self, before: &AssignedAddresses) -> Option<String> {
        for (key, addresses) in self.assigned.iter().filter(|(_, addresses)| !addresses.is_empty())
        {
            let service = &self.cluster.services[key];
            let has = |pool: &&Pool| {
                addresses.iter().all(|address| self.addresses(pool).contains(address))
            };
            let families: Vec<_> = addresses.iter().copied().map(Family::of).collect();
            let in_order: Vec<_> =
                service.families.iter().copied().filter(|f| families.contains(f)).collect();
            if families != in_order {
                return Some(format!("{key} has {addresses:?} for {:?}", service.families));
            }
            // A Service may keep addresses of a pool that became invalid, if it had these before.
            let was = before
                .get(key)
                .is_some_and(|before| addresses.iter().all(|address| before.contains(address)));
            let pool = self.pools().into_iter().find(has);
            if pool.is_none_or(|pool| !self.may_use(pool, service))
                && !(was && self.has_invalid_pool(service))
            {
                return Some(format!(
                    "{key} has {addresses:?}, which are not all from one pool that it may use"
                ));
            }
            if let Some(address) =
                addresses.iter().find(|address| !self.is_free_for(**address, service, false))
            {
                return Some(format!(
                    "{key} has {address}, which another Service uses without sharing it"
                ));
            }
        }
        None
    }

    /// Returns a description of a Service that waits although its request can be met, if there is
    /// any.
    fn unserved_service(&self) -> Option<String> {
        let waits = |(key, entry): (&Key, &super::super::service::ServiceEntry)| {
            let service = &self.cluster.services[key];
            let assignment = entry
                .assignment
                .as_ref()
                .filter(|assignment| assignment.addresses.is_empty() && !service.deleting)?;
            let request = &service.demand.request;
            let possible = match request.addresses.as_slice() {
                _ if request.problem.is_some() || Self::lacks_required_family(service) => None,
                [] => Some(self.expected_addresses(service))
                    .filter(|expected_addresses| !expected_addresses.is_empty()),
                requested => self.can_assign(service, requested).then(|| requested.to_vec()),
            };
            possible.map(|possible| {
                format!(
                    "{key} waits ({:?}) although it could have {possible:?}",
                    assignment.shortage
                )
            })
        };
        self.cluster.state.services.iter().find_map(waits).or_else(|| self.missing_family())
    }

    /// Returns a description of a Service that lacks a family of which its pool has a free address.
    fn missing_family(&self) -> Option<String> {
        let with_one_address = self.assigned.iter().filter(|(_, addresses)| addresses.len() == 1);
        let mut candidates =
            with_one_address.map(|(key, addresses)| (&self.cluster.services[key], addresses[0]));
        candidates.find_map(|(service, address)| {
            let request = &service.demand.request;
            let other = *service.families.iter().find(|family| **family != Family::of(address))?;
            let pool =
                self.pools().into_iter().find(|pool| self.addresses(pool).contains(&address))?;
            let without_request = request.problem.is_none()
                && request.addresses.is_empty()
                && !self.has_invalid_pool(service);
            let second = self.first(pool, service, other).filter(|_| without_request)?;
            Some(format!(
                "{} has only {address} although pool {} has the free address {second}",
                service.key, pool.name
            ))
        })
    }
}

/// Generates a line of a row, as in [`super::script`], from few words of each type, so that
/// different lines refer to the same objects.
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

impl Cluster {
    /// Returns true if the objects that the change deletes exist.
    fn is_possible(&self, op: &Op) -> bool {
        match op {
            Op::Delete(kind, name) if kind == "svc" => {
                self.services.contains_key(&service_key(name))
            }
            Op::Delete(_, name) => self.pools.contains_key(name.as_str()),
            Op::Service(_) | Op::Pool(_) | Op::Namespace(_) | Op::Node(_) => true,
        }
    }
}

/// Applies one change to the cluster, and compares the result with the model.
fn apply_and_check(cluster: &mut Cluster, op: &Op) -> Result<(), TestCaseError> {
    let before = AssignmentModel::new(cluster).assigned;
    let expected = match op {
        // A new Service is the only one that changes, so the model can predict its addresses.
        Op::Service(service)
            if !cluster.services.contains_key(&service.key) && service.load_balancer =>
        {
            let has_request = !service.demand.request.addresses.is_empty()
                || service.demand.request.problem.is_some();
            let external = !service.demand.external_ips.is_empty();
            let mut cluster_with_service = Cluster {
                services: cluster.services.clone(),
                ..Cluster::without_leader(vec![], vec![])
            };
            cluster_with_service.services.insert(service.key.clone(), service.clone());
            (
                cluster_with_service.pools,
                cluster_with_service.nodes,
                cluster_with_service.namespaces,
            ) = (cluster.pools.clone(), cluster.nodes.clone(), cluster.namespaces.clone());
            let model =
                AssignmentModel { cluster: &cluster_with_service, assigned: before.clone() };
            (!has_request && !external)
                .then(|| (service.key.clone(), model.expected_addresses(service)))
        }
        Op::Service(_) | Op::Pool(_) | Op::Namespace(_) | Op::Node(_) | Op::Delete(..) => None,
    };
    cluster.apply_change(op, true);
    cluster.settle();
    let model = AssignmentModel::new(cluster);
    prop_assert_eq!(model.illegal_assignment(&before), None);
    prop_assert_eq!(model.unserved_service(), None);
    if let Some((key, expected_addresses)) = expected {
        prop_assert_eq!(model.assigned.get(&key), Some(&expected_addresses), "{}", key);
    }
    // A change of one Service must not remove another one's addresses, unless that one gets more.
    if let Op::Service(Service { key: changed, .. }) = op {
        for (key, had) in before.iter().filter(|(key, had)| *key != changed && !had.is_empty()) {
            let has = &model.assigned[key];
            prop_assert!(
                had.iter().all(|address| has.contains(address)) || has.len() > had.len(),
                "Service {} had {:?} and has {:?}",
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
    fn assignments_are_legal_and_all_possible_requests_are_met(lines in prop::collection::vec(line(), 1..40)) {
        let mut cluster = Cluster::new(vec![], vec![]);
        for name in ["red", "blue"] {
            cluster.apply_change(&Op::Namespace(Namespace { name: name.into(), ..Namespace::default() }), true);
        }
        for line in lines {
            let row = rows(&format!("row: one\n{line}")).remove(0);
            let op = &row.steps[0].changes[0];
            if cluster.is_possible(op) {
                apply_and_check(&mut cluster, op)?;
            }
        }
        let (statuses, written) = (cluster.statuses(), cluster.log.len());
        cluster.restart();
        cluster.settle();
        prop_assert_eq!(cluster.statuses(), statuses);
        prop_assert_eq!(cluster.log.len(), written, "the new leader writes after a restart: {:?}", &cluster.log[written..]);
    }
}
