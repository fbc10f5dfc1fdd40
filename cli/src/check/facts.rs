//! The facts of a check: plain values that [`read`](super::read) collects and the rules compare.

use std::collections::{BTreeMap, BTreeSet};

use ferrolb_controller_core::state::{PoolRow, ServiceRow};
use ferrolb_proto::api::ConditionStatus;
use ferrolb_proto::facts::{BgpPeer, Key, Node, Pool, Service, Speaker};
use ferrolb_proto::range::AddressRange;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::daemon_sets::LoadBalancer;
use super::finding::Category;
use super::plugins::CiliumConfig;
use super::rbac::Permission;
use super::traces::Traces;
use crate::installation::Installation;

/// Everything that the rules need. An empty list means that there are no such objects, or that the
/// user may not read them; `denied` has the messages about the latter.
#[derive(Clone, Debug, Default)]
pub struct ClusterFacts {
    /// True before an installation.
    pub before_installation: bool,
    /// Messages of the API server about lists and reads that it does not permit, each with the
    /// category that is incomplete without the objects.
    pub denied: BTreeSet<(Category, String)>,
    /// Version of the API server: major and minor number.
    pub kubernetes: Option<[u32; 2]>,
    /// Configuration of kube-proxy that kubeadm writes, unless kube-proxy does not run any more.
    pub kube_proxy: Option<KubeProxyConfig>,
    /// True if a network plugin has replaced kube-proxy.
    pub kube_proxy_replaced: bool,
    /// Names of the network plugins that run as DaemonSets.
    pub plugins: Vec<&'static str>,
    /// Settings of Cilium, if it runs.
    pub cilium: Option<CiliumConfig>,
    /// Load balancers that run as DaemonSets.
    pub load_balancers: Vec<LoadBalancer>,
    /// Objects that other load balancers leave in the API.
    pub traces: Traces,
    /// Webhooks for the objects of MetalLB and FRR-K8s.
    pub webhooks: Vec<Webhook>,
    /// Ranges of cluster IPs. Without ServiceCIDRs: the cluster IPs.
    pub service_ranges: Vec<AddressRange>,
    /// Copy of the objects that FerroLB reads; `None` if the user may not read them.
    pub objects: Option<Objects>,
    /// The installed CRDs, by name; `None` if the user may not read them.
    pub crds: Option<BTreeMap<String, CustomResourceDefinition>>,
    /// Conditions of custom resources.
    pub conditions: Vec<ResourceCondition>,
    /// Permissions that the components need, or with `before_installation` the user.
    pub permissions: Vec<Permission>,
}

/// The facts about other load balancers, for the explanation of a Service.
#[derive(Clone, Debug, Default)]
pub struct OtherLoadBalancers {
    /// Load balancers that run as DaemonSets.
    pub running: Vec<LoadBalancer>,
    /// Objects that other load balancers leave in the API.
    pub traces: Traces,
}

/// The objects that FerroLB reads, and the state that follows from them.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// The installation.
    pub installation: Installation,
    /// The Nodes.
    pub nodes: Vec<Node>,
    /// The SpeakerStatuses.
    pub speakers: Vec<Speaker>,
    /// Nodes whose SpeakerStatus is stale.
    pub stale: BTreeSet<Box<str>>,
    /// The Services.
    pub services: Vec<Service>,
    /// The IPAddressPools.
    pub pools: Vec<Pool>,
    /// The BGPPeers.
    pub peers: Vec<BgpPeer>,
    /// The Services of type LoadBalancer.
    pub rows: Vec<ServiceRow>,
    /// The pools, also those that do not exist any more and have Services.
    pub pool_rows: Vec<PoolRow>,
    /// The Services that another load balancer serves.
    pub served_by_others: BTreeSet<Key>,
    /// Ranges of pools that are in no subnet of the interfaces that announce the pools.
    pub ranges_outside: BTreeMap<Box<str>, Vec<AddressRange>>,
}

/// The settings of kube-proxy that affect layer 2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeProxyConfig {
    /// `mode`; empty for the default.
    pub mode: String,
    /// `ipvs.strictARP`.
    pub strict_arp: bool,
}

/// A webhook of a ValidatingWebhookConfiguration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Name of the ValidatingWebhookConfiguration.
    pub configuration: String,
    /// Namespace and name of the Service that receives the requests.
    pub service: Key,
    /// True if the Service has a ready endpoint.
    pub has_endpoint: bool,
}

/// A condition of a custom resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceCondition {
    /// Kind of the resource.
    pub kind: &'static str,
    /// Name of the resource.
    pub name: String,
    /// `type`.
    pub condition: String,
    /// `status`.
    pub status: ConditionStatus,
    /// `reason`.
    pub reason: String,
    /// `message`.
    pub message: String,
}

impl Objects {
    /// Returns the nodes that announce no address because of the exclude label. Speakers ignore the
    /// label if all nodes have it.
    #[must_use]
    pub fn excluded_nodes(&self) -> Vec<&str> {
        let excluded = self.nodes.iter().filter(|node| node.excluded);
        let names: Vec<_> = excluded.map(|node| &*node.name).collect();
        let is_ignored = self.installation.ignores_exclude_label || names.len() == self.nodes.len();
        if is_ignored { Vec::new() } else { names }
    }

    /// Returns the Services that FerroLB serves.
    #[must_use]
    pub fn served_services(&self) -> Vec<Service> {
        let rows = self.rows.iter().filter(|row| row.served);
        let served: BTreeSet<_> = rows.map(|row| &row.service).collect();
        self.services.iter().filter(|it| served.contains(&it.key)).cloned().collect()
    }

    /// Returns the speakers whose SpeakerStatus is not stale.
    pub fn live_speakers(&self) -> impl Iterator<Item = &Speaker> {
        self.speakers.iter().filter(|speaker| !self.stale.contains(&speaker.node))
    }
}
