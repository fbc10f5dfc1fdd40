//! Rules about IPAddressPools. Pure.

use ferrolb_controller_core::state::Config;
use ferrolb_proto::facts::{Node, Pool};
use ferrolb_proto::range::{AddressRange, AddressSet};

use super::facts::{ClusterFacts, Objects};
use super::finding::{Code, Finding, Object};
use crate::table::first_names;

/// Returns the findings.
#[must_use]
pub fn findings(facts: &ClusterFacts) -> Vec<Finding> {
    let Some(objects) = &facts.objects else { return Vec::new() };
    let pod_ranges: Vec<_> = objects.nodes.iter().flat_map(|it| &it.pod_cidrs).copied().collect();
    let per_pool = |pool: &Pool| {
        let object = || {
            Object::namespaced(
                "IPAddressPool",
                &objects.installation.config.names.namespace,
                &pool.name,
            )
        };
        let service = overlap(pool, &facts.service_ranges).map(|[own, other]| {
            let text = format!(
                "{own} of IPAddressPool {} overlaps the Service range {other}: correct its \
                 spec.addresses",
                pool.name
            );
            Finding::new(Code::PoolInServiceRange, vec![object()], text)
        });
        let pods = overlap(pool, &pod_ranges).map(|[own, other]| {
            let text = format!(
                "{own} of IPAddressPool {} overlaps the pod range {other}: correct its \
                 spec.addresses",
                pool.name
            );
            Finding::new(Code::PoolInPodRange, vec![object()], text)
        });
        let outside = outside(pool, objects)
            .map(|text| Finding::new(Code::PoolOutsideSubnets, vec![object()], text));
        let nodes = node_addresses(pool, &objects.nodes)
            .map(|text| Finding::new(Code::NodeAddressInPool, vec![object()], text));
        let widened =
            widened(pool).map(|text| Finding::new(Code::WidenedCidr, vec![object()], text));
        [service, pods, outside, nodes, widened].into_iter().flatten()
    };
    objects.pools.iter().flat_map(per_pool).chain(missing(objects)).collect()
}

/// Returns one finding for each pool that does not exist, and whose Services still have their
/// addresses.
fn missing(objects: &Objects) -> impl Iterator<Item = Finding> {
    let Config { names, pool_grace, .. } = &objects.installation.config;
    objects.pool_rows.iter().filter(|row| row.missing).map(move |row| {
        let text = format!(
            "IPAddressPool {} does not exist: create it again within {} s after its deletion, or \
             the Services with its addresses lose them: {}",
            row.pool,
            pool_grace.as_secs(),
            row.services
        );
        let object = Object::namespaced("IPAddressPool", &names.namespace, &row.pool);
        Finding::new(Code::PoolMissing, vec![object], text)
    })
}

/// Returns the line without findings.
#[must_use]
pub fn summary(facts: &ClusterFacts) -> String {
    let pools = facts.objects.as_ref().map(|objects| objects.pools.len()).unwrap_or_default();
    if pools == 0 {
        "no IPAddressPool: see `kubectl ferrolb init`".to_owned()
    } else {
        format!("pools: {pools}, without overlap")
    }
}

/// Returns the first range of a pool that overlaps one of `others`, and that one. Excluded
/// addresses do not count.
fn overlap(pool: &Pool, others: &[AddressRange]) -> Option<[AddressRange; 2]> {
    pool.ranges.iter().find_map(|own| {
        let mut set = AddressSet::default();
        set.insert(*own);
        pool.excluded.iter().for_each(|range| set.remove(*range));
        let other = others.iter().find(|other| set.lowest_in(other).is_some())?;
        Some([*own, *other])
    })
}

fn outside(pool: &Pool, objects: &Objects) -> Option<String> {
    let ranges = objects.ranges_outside.get(&pool.name).filter(|ranges| !ranges.is_empty())?;
    Some(format!(
        "addresses of {} in IPAddressPool {} are in no subnet of the interfaces that announce \
         them, so clients do not find them or the nodes have no route back: correct \
         spec.addresses, or set spec.routed to true if routes exist",
        first_names(ranges),
        pool.name
    ))
}

fn widened(pool: &Pool) -> Option<String> {
    (!pool.widened.is_empty()).then(|| {
        format!(
            "IPAddressPool {}: {}. Write the network, or a range with the addresses that you want",
            pool.name,
            first_names(&pool.widened)
        )
    })
}

fn node_addresses(pool: &Pool, nodes: &[Node]) -> Option<String> {
    let has = |ranges: &[AddressRange], address| ranges.iter().any(|it| it.contains(address));
    let addresses = nodes.iter().flat_map(|node| &node.addresses);
    let inside: Vec<_> = addresses
        .filter(|address| has(&pool.ranges, **address) && !has(&pool.excluded, **address))
        .collect();
    (!inside.is_empty()).then(|| {
        format!(
            "IPAddressPool {} contains addresses of Nodes, which FerroLB never assigns ({}): list \
             them in spec.excludeAddresses",
            pool.name,
            first_names(&inside)
        )
    })
}
