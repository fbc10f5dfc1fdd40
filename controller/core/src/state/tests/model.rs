//! Reference model of address assignment. The model is slow and simple: it visits every address,
//! without intervals and without an index. Tests with random changes compare the state with the
//! model: every assignment must be legal, and every request that can be met must be met.

mod changes;
mod predicted;

use ferrolb_proto::facts::{FamilyPolicy, RememberedAddresses, TrafficPolicy};

use super::*;

/// Addresses of each Service, as the state has assigned them.
type AssignedAddresses = BTreeMap<Key, Vec<IpAddr>>;

/// Model of a cluster: its objects, and the addresses of each Service.
struct AssignmentModel<'a> {
    cluster: &'a Cluster,
    assigned: AssignedAddresses,
    /// Former addresses of Services, from the statuses of all pools.
    remembered: Vec<RememberedAddresses>,
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
            remembered: cluster.address_memory.iter().flat_map(|it| it.services.clone()).collect(),
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
        let buggy = |address: &IpAddr| {
            let text = address.to_string();
            pool.avoid_buggy
                && address.is_ipv4()
                && (text.ends_with(".0") || text.ends_with(".255"))
        };
        let all = pool.ranges.iter().flat_map(within);
        all.filter(|address| !excluded.contains(address) && !buggy(address)).collect()
    }

    /// Returns true if a host uses the address, so that it is not assigned automatically.
    fn of_host(&self, address: IpAddr) -> bool {
        self.refuses(address) || self.limits_subnet(address)
    }

    /// Returns true if a host has the address, so that not even a request gets it.
    fn refuses(&self, address: IpAddr) -> bool {
        let on_interface = |speaker: &Speaker| speaker.host_addresses.contains(&address);
        self.surely_of_host(address) || self.cluster.speakers.values().any(on_interface)
    }

    /// Returns true if a Node lists the address, or a router or an API server has it.
    fn surely_of_host(&self, address: IpAddr) -> bool {
        let is_api_server = |slice: &EndpointSlice| {
            slice.endpoint_addresses.iter().any(|endpoint| endpoint.address == address)
        };
        self.cluster.nodes.values().any(|node| node.addresses.contains(&address))
            || self.cluster.api_server.as_ref().is_some_and(is_api_server)
            || self.cluster.speakers.values().any(|it| it.gateways.contains(&address))
    }

    /// Returns true if the address is the first or the last one of a subnet.
    fn limits_subnet(&self, address: IpAddr) -> bool {
        let interfaces = self.cluster.speakers.values().flat_map(|it| &it.interfaces);
        let mut subnets = interfaces.flat_map(|it| &it.subnets);
        subnets.any(|subnet| [subnet.first(), subnet.last()].contains(&address))
    }

    /// Returns true if a host other than a node's interface has the address: not even the Service
    /// that had the address gets it again automatically, and no Service shares it automatically.
    fn prevents_return(&self, address: IpAddr) -> bool {
        self.surely_of_host(address) || self.limits_subnet(address)
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
        let remembered =
            |address: &IpAddr| self.remembered.iter().any(|it| it.addresses.contains(address));
        let candidates = of_family.filter(|address| {
            !(of_routers(address) || remembered(address))
                || self.services_with(*address).next().is_some()
        });
        // An interface can have the address for the Services that have it already.
        let prevented = |address: &IpAddr| match self.services_with(*address).next() {
            Some(_) => self.prevents_return(*address),
            None => self.of_host(*address),
        };
        candidates
            .into_iter()
            .find(|address| self.is_free_for(*address, service, true) && !prevented(address))
    }

    /// Returns true if another Service has the address among its external IPs.
    fn is_external_ip_of_others(&self, address: IpAddr, service: &Service) -> bool {
        let mut others = self.cluster.services.values().filter(|it| it.key != service.key);
        others.any(|other| self.blocks(address, other))
    }

    /// Returns the address of a family and pool that the Service had, if it is free.
    fn former(&self, pool: &Pool, service: &Service, family: Family) -> Option<IpAddr> {
        let entry = self.remembered.iter().find(|it| it.key == service.key)?;
        let of_routers =
            |address: &IpAddr| matches!(address, IpAddr::V6(ip) if ip.segments()[4..] == [0; 4]);
        let in_pool = entry.addresses.iter().copied().filter(|address| {
            Family::of(*address) == family && self.addresses(pool).contains(address)
        });
        in_pool.into_iter().find(|address| {
            !(of_routers(address) || self.prevents_return(*address))
                && self.is_free_for(*address, service, false)
                && !self.is_external_ip_of_others(*address, service)
        })
    }

    /// Returns the free address of a family and pool that other Services lost first.
    fn longest_remembered(&self, pool: &Pool, service: &Service, family: Family) -> Option<IpAddr> {
        let of_routers =
            |address: &IpAddr| matches!(address, IpAddr::V6(ip) if ip.segments()[4..] == [0; 4]);
        let lost_at = |address: &IpAddr| {
            let entries = self.remembered.iter().filter(|it| it.addresses.contains(address));
            entries.map(|it| it.released_at).max()
        };
        let free = self.addresses(pool).into_iter().filter(|address| {
            Family::of(*address) == family
                && lost_at(address).is_some()
                && !(of_routers(address) || self.of_host(*address))
                && self.services_with(*address).next().is_none()
                && self.is_free_for(*address, service, true)
        });
        free.min_by_key(|address| (lost_at(address), *address))
    }

    /// Returns the addresses that a Service gets from the first suitable one of these pools.
    fn group_addresses(&self, group: &[&'a Pool], service: &Service) -> Option<Vec<IpAddr>> {
        let families = &service.families;
        let mut partial = Vec::new();
        for with_remembered in [false, true] {
            for pool in group {
                let address = |family: &Family| {
                    self.former(pool, service, *family)
                        .or_else(|| self.first(pool, service, *family))
                        .or_else(|| {
                            self.longest_remembered(pool, service, *family)
                                .filter(|_| with_remembered)
                        })
                };
                let found: Vec<_> = families.iter().map(address).collect();
                if found.iter().all(Option::is_some) {
                    return Some(found.into_iter().flatten().collect());
                }
                partial.push(found);
            }
        }
        let prefers = service.demand.family_policy == FamilyPolicy::Prefer;
        let mut partial_in_order =
            (0..families.len()).flat_map(|index| partial.iter().filter_map(move |it| it[index]));
        partial_in_order.next().filter(|_| prefers).map(|address| vec![address])
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
            let has_former = |pool: &&&Pool| {
                families.iter().any(|family| self.former(pool, service, *family).is_some())
            };
            let former: Vec<_> = group.iter().filter(has_former).copied().collect();
            let found = self.group_addresses(&former, service);
            if let Some(found) = found.or_else(|| self.group_addresses(&group, service)) {
                return found;
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
            self.refuses(*address) || self.is_external_ip_of_others(*address, service)
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
            let had = |address: &IpAddr| before.get(key).is_some_and(|it| it.contains(address));
            // The record of a Service may give back an address that is the limit of a subnet, and
            // its entry in the memory one that an interface has.
            let is_taken = |address: &&IpAddr| {
                let requests = service.demand.request.addresses.contains(*address);
                if requests { self.refuses(**address) } else { self.surely_of_host(**address) }
            };
            if let Some(address) = addresses.iter().find(|it| is_taken(it) && !had(it)) {
                return Some(format!("{key} has got {address}, which a host uses"));
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
            let first = self.first(pool, service, other);
            let free = first.or_else(|| self.longest_remembered(pool, service, other));
            let second = free.filter(|_| without_request)?;
            Some(format!(
                "{} has only {address} although pool {} has the free address {second}",
                service.key, pool.name
            ))
        })
    }
}
