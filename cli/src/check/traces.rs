//! Objects that other load balancers leave in the API while they announce or assign addresses.
//! `kubectl ferrolb check` and `why` name them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ferrolb_controller_core::other_load_balancers::{CILIUM_LB_IPAM, KUBE_VIP, METALLB};
use ferrolb_proto::facts::{Key, Service};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::DynamicObject;

use super::announcements::{Announcement, Announcer};
use super::cilium::{self, CiliumObject};
use super::finding::Object;
use crate::table::first_names;

/// Kind of Cilium's pools.
const CILIUM_POOL: &str = "CiliumLoadBalancerIPPool";

/// Objects of other load balancers, as the API server returns them.
#[derive(Clone, Debug, Default)]
pub struct TraceObjects {
    /// All Leases.
    pub leases: Vec<Lease>,
    /// ServiceL2Statuses of MetalLB.
    pub metallb_statuses: Vec<DynamicObject>,
    /// CiliumL2AnnouncementPolicies.
    pub cilium_policies: Vec<DynamicObject>,
    /// CiliumBGPAdvertisements.
    pub cilium_advertisements: Vec<DynamicObject>,
    /// CiliumLoadBalancerIPPools.
    pub cilium_pools: Vec<DynamicObject>,
}

/// Statements about Services of FerroLB in the objects of other load balancers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// Announcements of Services.
    pub announcements: Vec<Announcement>,
    /// CiliumL2AnnouncementPolicies.
    pub cilium_policies: Vec<CiliumObject>,
    /// CiliumBGPAdvertisements of Services of FerroLB.
    pub cilium_advertisements: Vec<CiliumObject>,
    /// CiliumLoadBalancerIPPools for all Services without a class, or for Services of FerroLB.
    pub cilium_pools: Vec<CiliumObject>,
}

impl Traces {
    /// Returns the statements about these Services, which FerroLB serves. `unix_time` is the
    /// present time in seconds since 1970.
    ///
    /// A Lease of Cilium can be about a Service of which Cilium announces only the external IPs. It
    /// counts if a policy announces the address of FerroLB, or if the user can read no policy.
    #[must_use]
    pub fn of(objects: &TraceObjects, services: &[Service], unix_time: i64) -> Self {
        let policies = cilium::policies(&objects.cilium_policies, services);
        let keys: Vec<_> = services.iter().map(|it| it.key.clone()).collect();
        let leases = objects.leases.iter();
        let of_leases = leases.filter_map(|it| Announcement::of_lease(it, &keys, unix_time));
        let counts = |it: &Announcement| {
            let is_announced = |key| policies.iter().any(|policy| policy.services.contains(key));
            it.announcer != Announcer::Cilium
                || policies.is_empty()
                || it.service.as_ref().is_some_and(is_announced)
        };
        let statuses = objects.metallb_statuses.iter();
        let of_metallb = statuses.filter_map(|it| Announcement::of_metallb(it, &keys));
        Self {
            announcements: of_leases.filter(counts).chain(of_metallb).collect(),
            cilium_advertisements: cilium::advertisements(&objects.cilium_advertisements, services),
            cilium_pools: cilium::pools(&objects.cilium_pools, services),
            cilium_policies: policies,
        }
    }

    /// Returns a text for each load balancer with announcements that `counts` selects, and the
    /// objects with its statements.
    pub fn announced(&self, counts: impl Fn(&Announcement) -> bool) -> Vec<(String, Vec<Object>)> {
        let mut by_announcer: BTreeMap<Announcer, Vec<&Announcement>> = BTreeMap::new();
        for it in self.announcements.iter().filter(|it| counts(it)) {
            by_announcer.entry(it.announcer).or_default().push(it);
        }
        let text = |(announcer, all): (Announcer, Vec<&Announcement>)| {
            let place = |it: &&Announcement| match &it.service {
                Some(service) => format!("{service} from {}", it.node),
                None => format!("its Services from {}", it.node),
            };
            let (name, remedy) = self.name_and_remedy(announcer, &all);
            let places: Vec<_> = all.iter().map(place).collect();
            let objects: Vec<_> = all.iter().map(|it| it.object.clone()).collect();
            let first = objects.first().map(ToString::to_string).unwrap_or_default();
            (format!("{name} announces {}, too ({first}): {remedy}", first_names(&places)), objects)
        };
        by_announcer.into_iter().map(text).collect()
    }

    fn name_and_remedy(
        &self,
        announcer: Announcer,
        all: &[&Announcement],
    ) -> (&'static str, String) {
        match announcer {
            Announcer::Cilium => ("Cilium", self.remedy_of_cilium(all)),
            Announcer::KubeVip => (KUBE_VIP.name, KUBE_VIP.remedy.to_owned()),
            Announcer::MetalLb => (
                METALLB.name,
                "remove the address from MetalLB's pools, or uninstall it".to_owned(),
            ),
        }
    }

    /// Returns the change that ends these announcements of Cilium, with its policies for them.
    fn remedy_of_cilium(&self, all: &[&Announcement]) -> String {
        let announced: Vec<_> = all.iter().filter_map(|it| it.service.as_ref()).collect();
        let policies = naming(&self.cilium_policies, |key| announced.contains(&key));
        match policies.is_empty() {
            true => "delete the CiliumL2AnnouncementPolicy that selects it".to_owned(),
            false => format!(
                "exclude it by spec.serviceSelector of CiliumL2AnnouncementPolicy {}, or delete \
                 that policy",
                first_names(&policies)
            ),
        }
    }

    /// Returns a text about the CiliumBGPAdvertisements of Services that `counts` selects; `None`
    /// without such advertisements.
    pub fn advertised_by_cilium(
        &self,
        counts: impl Fn(&Key) -> bool,
    ) -> Option<(String, Vec<Object>)> {
        let names = naming(&self.cilium_advertisements, &counts);
        let all = self.cilium_advertisements.iter().flat_map(|it| &it.services);
        let services: BTreeSet<_> = all.filter(|key| counts(key)).collect();
        let text = format!(
            "CiliumBGPAdvertisement {} selects {}, so Cilium's BGP can advertise it, too: exclude \
             it by spec.advertisements[].selector, or delete the entry",
            first_names(&names),
            first_names(&Vec::from_iter(services))
        );
        let object = |name: &&str| Object::cluster("CiliumBGPAdvertisement", name);
        (!names.is_empty()).then(|| (text, names.iter().map(object).collect()))
    }

    /// Returns a text about the pools of Cilium for Services without a class; `None` without such
    /// pools. For one Service, `service`, only its pools count.
    #[must_use]
    pub fn assigned_by_cilium(&self, service: Option<&Key>) -> Option<(String, Vec<Object>)> {
        let pools = self.cilium_pools.iter();
        let pools = pools.filter(|it| service.is_none_or(|key| it.services.contains(key)));
        let names: Vec<_> = pools.map(|it| &*it.name).collect();
        let text = format!(
            "{} assigns addresses of {CILIUM_POOL} {} to Services without a class, and so does \
             FerroLB: {}",
            CILIUM_LB_IPAM.name,
            first_names(&names),
            CILIUM_LB_IPAM.remedy
        );
        (!names.is_empty()).then(|| (text, pool_objects(&names)))
    }

    /// Returns the pools of Cilium for Services that `counts` selects.
    pub fn pools_for(&self, counts: impl Fn(&Key) -> bool) -> Vec<Object> {
        pool_objects(&naming(&self.cilium_pools, counts))
    }
}

fn pool_objects(names: &[&str]) -> Vec<Object> {
    names.iter().map(|name| Object::cluster(CILIUM_POOL, name)).collect()
}

/// Returns the names of the objects for Services that `counts` selects.
fn naming(objects: &[CiliumObject], counts: impl Fn(&Key) -> bool) -> Vec<&str> {
    let objects = objects.iter().filter(|it| it.services.iter().any(&counts));
    objects.map(|it| &*it.name).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::announcements::tests::{RENEWED, lease, object, served};
    use super::*;

    #[test]
    fn a_lease_of_cilium_counts_if_a_policy_announces_the_address_of_ferrolb() {
        let services = served().into_iter().map(|key| Service { key, ..Service::default() });
        let services: Vec<_> = services.collect();
        let policy = |name: &str, spec| object(json!({"metadata": {"name": name}, "spec": spec}));
        let label = "io.kubernetes.service.name";
        let web = json!({"matchLabels": {label: "web"}});
        let of_web = policy("of-web", json!({"loadBalancerIPs": true, "serviceSelector": web}));
        let external = policy("external", json!({"externalIPs": true}));
        let texts = |policies: &[&DynamicObject], seconds| {
            let objects = TraceObjects {
                leases: vec![
                    lease("kube-system", "cilium-l2announce-shop-web-1", "n1"),
                    lease("kube-system", "cilium-l2announce-default-web", "n2"),
                    lease("kube-system", "plndr-svcs-lock", "n3"),
                ],
                cilium_policies: policies.iter().map(|&it| it.clone()).collect(),
                ..TraceObjects::default()
            };
            let traces = Traces::of(&objects, &services, RENEWED + seconds);
            traces.announced(|_| true).into_iter().map(|(text, _)| text).collect::<Vec<_>>()
        };
        let both = texts(&[], 5);
        assert!(both[0].contains("shop/web-1 from n1, default/web from n2"), "{both:?}");
        assert!(both[0].contains("delete the CiliumL2AnnouncementPolicy that"), "{both:?}");
        let one = texts(&[&external, &of_web], 5);
        assert!(one[0].starts_with("Cilium announces default/web from n2, too"), "{one:?}");
        assert!(one[0].contains("CiliumL2AnnouncementPolicy of-web, or"), "{one:?}");
        assert!(texts(&[&external], 5)[0].starts_with("kube-vip announces its Services from n3"));
        assert!(texts(&[], 76).is_empty());
    }
}
