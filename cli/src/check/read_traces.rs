//! Reads the objects that other load balancers leave in the API. Performs I/O with the permissions
//! of the user: a missing permission, or a kind that the cluster does not have, is no error.

use ferrolb_proto::facts::Service;
use kube::api::{DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use super::plugins::CiliumConfig;
use super::traces::{TraceObjects, Traces};

/// API group of Cilium.
const CILIUM: &str = "cilium.io";
/// Versions of Cilium's pools and advertisements: that of Cilium 1.20, and the earlier one.
const CILIUM_VERSIONS: &[&str] = &["v2", "v2alpha1"];
/// Version of Cilium's policies.
const CILIUM_POLICY_VERSIONS: &[&str] = &["v2alpha1"];
/// Version of MetalLB's ServiceL2Statuses.
const METALLB_VERSIONS: &[&str] = &["v1beta1"];

/// Reads the objects about these Services, which FerroLB serves. `with_metallb` is true if speakers
/// of MetalLB run: its ServiceL2Statuses remain after them. `cilium` is `None` if Cilium does not
/// run, or its settings are not known.
pub async fn traces(
    client: &Client,
    services: &[Service],
    with_metallb: bool,
    cilium: Option<CiliumConfig>,
    unix_time: i64,
) -> Traces {
    let versions = |is_read: bool, all: &'static [&str]| if is_read { all } else { &[] };
    let of_pools = versions(cilium.is_none_or(|it| it.assigns_without_class), CILIUM_VERSIONS);
    let of_advertisements = versions(cilium.is_none_or(|it| it.has_bgp), CILIUM_VERSIONS);
    let of_statuses = versions(with_metallb, METALLB_VERSIONS);
    let all_leases = Api::all(client.clone());
    let (leases, metallb_statuses, cilium_policies, cilium_advertisements, cilium_pools) = futures::join!(
        list(&all_leases),
        kind(client, "metallb.io", of_statuses, "ServiceL2Status"),
        kind(client, CILIUM, CILIUM_POLICY_VERSIONS, "CiliumL2AnnouncementPolicy"),
        kind(client, CILIUM, of_advertisements, "CiliumBGPAdvertisement"),
        kind(client, CILIUM, of_pools, "CiliumLoadBalancerIPPool")
    );
    let objects = TraceObjects {
        leases,
        metallb_statuses,
        cilium_policies,
        cilium_advertisements,
        cilium_pools,
    };
    Traces::of(&objects, services, unix_time)
}

/// Returns all objects of a kind of another product, in the first version that has any.
async fn kind(client: &Client, group: &str, versions: &[&str], name: &str) -> Vec<DynamicObject> {
    for version in versions {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, name));
        let objects = list(&Api::all_with(client.clone(), &resource)).await;
        if !objects.is_empty() {
            return objects;
        }
    }
    Vec::new()
}

async fn list<K: Clone + DeserializeOwned + std::fmt::Debug>(api: &Api<K>) -> Vec<K> {
    let list = api.list(&ListParams::default().match_any()).await;
    list.map(|list| list.items).unwrap_or_default()
}
