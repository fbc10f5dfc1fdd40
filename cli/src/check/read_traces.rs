//! Reads the objects that other load balancers leave in the API. Performs I/O with the permissions
//! of the user: a missing permission, or a kind that the cluster does not have, is no error.

use ferrolb_proto::facts::Key;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use super::plugins::CiliumConfig;
use super::traces::{Announcement, Traces, cilium_pools};

/// Versions of Cilium's pools: that of Cilium 1.20, and the earlier one.
const CILIUM_POOL_VERSIONS: [&str; 2] = ["v2", "v2alpha1"];

/// Reads the objects about these Services, which FerroLB serves. `with_metallb` is true if speakers
/// of MetalLB run: its ServiceL2Statuses remain after them. `cilium` is `None` if Cilium does not
/// run, or its settings are not known.
pub async fn traces(
    client: &Client,
    services: &[Key],
    with_metallb: bool,
    cilium: Option<CiliumConfig>,
    unix_time: i64,
) -> Traces {
    let leases = Api::<Lease>::all(client.clone());
    let (leases, policies, pools, statuses) = futures::join!(
        list(&leases),
        kind(client, "cilium.io", "v2alpha1", "CiliumL2AnnouncementPolicy"),
        pools(client, cilium),
        kind(client, "metallb.io", "v1beta1", "ServiceL2Status")
    );
    let of_leases = leases.iter().filter_map(|it| Announcement::of_lease(it, services, unix_time));
    let statuses = statuses.iter().filter(|_| with_metallb);
    let of_metallb = statuses.filter_map(|it| Announcement::of_metallb(it, services));
    let name = |policy: DynamicObject| policy.metadata.name;
    Traces {
        announcements: of_leases.chain(of_metallb).collect(),
        cilium_policies: policies.into_iter().filter_map(name).collect(),
        cilium_pools: pools,
    }
}

async fn pools(client: &Client, cilium: Option<CiliumConfig>) -> Vec<String> {
    if cilium.is_some_and(|it| !it.assigns_without_class) {
        return Vec::new();
    }
    for version in CILIUM_POOL_VERSIONS {
        let pools = kind(client, "cilium.io", version, "CiliumLoadBalancerIPPool").await;
        if !pools.is_empty() {
            return cilium_pools(&pools);
        }
    }
    Vec::new()
}

/// Returns all objects of a kind of another product.
async fn kind(client: &Client, group: &str, version: &str, kind: &str) -> Vec<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    list(&Api::all_with(client.clone(), &resource)).await
}

async fn list<K: Clone + DeserializeOwned + std::fmt::Debug>(api: &Api<K>) -> Vec<K> {
    let list = api.list(&ListParams::default().match_any()).await;
    list.map(|list| list.items).unwrap_or_default()
}
