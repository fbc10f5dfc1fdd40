//! The Kubernetes API that FerroLB defines: custom resources, annotations, condition types and
//! status values. The kinds and their spec fields are those of MetalLB, so that a manifest migrates
//! by a change of its `apiVersion` and namespace alone.
//!
//! The group is a run-time setting (`--api-group`). Programs therefore read and write objects as
//! [`IPAddressPoolObject`], [`L2AdvertisementObject`], [`SpeakerStatusObject`] and the like, with
//! an [`ApiResource`] made by [`resource`]. The root types that the derive macro makes, such as
//! [`IPAddressPool`], only generate the CRDs.

#[expect(
    unreachable_pub,
    reason = "the expansion of KubeSchema holds a copy of each struct inside a function"
)]
#[expect(clippy::duplicated_attributes, reason = "several print columns have one type")]
mod bfd_profile;
#[expect(
    unreachable_pub,
    reason = "the expansion of KubeSchema holds a copy of each struct inside a function"
)]
#[expect(clippy::duplicated_attributes, reason = "several print columns have one type")]
mod bgp_advertisement;
#[expect(
    unreachable_pub,
    reason = "the expansion of KubeSchema holds a copy of each struct inside a function"
)]
#[expect(clippy::duplicated_attributes, reason = "several print columns have one type")]
mod bgp_peer;
#[expect(
    unreachable_pub,
    reason = "the expansion of KubeSchema holds a copy of each struct inside a function"
)]
#[expect(clippy::duplicated_attributes, reason = "several print columns have one type")]
mod community;
mod condition_message;
#[expect(
    unreachable_pub,
    reason = "the expansion of KubeSchema holds a copy of each struct inside a function"
)]
#[expect(clippy::duplicated_attributes, reason = "several print columns have one type")]
mod l2_advertisement;
#[expect(
    unreachable_pub,
    reason = "the expansion of KubeSchema holds a copy of each struct inside a function"
)]
#[expect(clippy::duplicated_attributes, reason = "several print columns have one type")]
mod pool;
mod selectors;
mod speaker_limits;
#[expect(
    unreachable_pub,
    reason = "the expansion of KubeSchema holds a copy of each struct inside a function"
)]
#[expect(clippy::duplicated_attributes, reason = "several print columns have one type")]
mod speaker_status;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::core::{ApiResource, CustomResourceExt, GroupVersionKind, Object};
use serde::Serialize;

pub use bfd_profile::{BFDProfile, BFDProfileSpec, BFDProfileStatus};
pub use bgp_advertisement::{BGPAdvertisement, BGPAdvertisementSpec, BGPAdvertisementStatus};
pub use bgp_peer::{BGPPeer, BGPPeerSpec, BGPPeerStatus, DynamicAsn, SecretReference};
pub use community::{Community, CommunityAlias, CommunitySpec, CommunityStatus};
pub use l2_advertisement::{
    L2Advertisement, L2AdvertisementSpec, L2AdvertisementStatus, PreferredNodes,
};
pub use pool::{IPAddressPool, IPAddressPoolSpec, IPAddressPoolStatus, IpMode, ServiceAllocation};
pub(crate) use selectors::{LABEL_PREFIX_MAX, LABEL_VALUE_MAX};

pub use condition_message::{ConditionMessage, MESSAGE_LENGTH_MAX};
pub use speaker_limits::{GATEWAYS_MAX, HOST_ADDRESSES_MAX, SUBNETS_MAX};
pub use speaker_status::{
    BfdState, BgpSessionState, BgpSessionStatus, BgpStatus, FailingService, InterfaceIssue,
    InterfaceIssueReason, InterfaceStatus, KubeProxyState, KubeProxyStatus, LateHellos,
    PASSWORD_UNAVAILABLE, SpeakerIssue, SpeakerStatus, SpeakerStatusSpec, SpeakerStatusStatus,
    UncheckedReason, UncheckedService, WatchedNode, WatchedNodeState,
};

/// The default API group. With another one (`metallb.io`), FerroLB reads an existing MetalLB
/// configuration (in-place migration).
pub const GROUP: &str = "ferrolb.io";
/// The default namespace of FerroLB's own objects.
pub const NAMESPACE: &str = "ferrolb-system";
/// The default `Service.spec.loadBalancerClass` that FerroLB serves.
pub const LOAD_BALANCER_CLASS: &str = "ferrolb.io/ferrolb";
/// The API version of every kind here except BGPPeer; see [`CustomResourceKind::version`].
pub const VERSION: &str = "v1beta1";
/// Begins the field manager of every FerroLB controller (`metadata.managedFields[].manager`).
pub(crate) const FIELD_MANAGER_PREFIX: &str = "ferrolb-controller";

/// Returns the field manager of the controller of an installation. It names the installation's
/// namespace, so that each controller can tell its own fields from those of others.
#[must_use]
pub fn field_manager(namespace: &str) -> String {
    format!("{FIELD_MANAGER_PREFIX}.{namespace}")
}

/// The Secret in FerroLB's namespace that holds the keys of the hello protocol. The name of each
/// entry is a number, and its value has 32 bytes. The highest number is the newest key; receivers
/// accept the two newest.
pub const HELLO_SECRET: &str = "ferrolb-hello";

/// The ConfigMap in FerroLB's namespace with the addresses of deleted Services. Each entry is a
/// Service: its name is `NAMESPACE.NAME`, and its value is JSON with `addresses`, `releasedAt` and
/// `expiresAt`.
pub const ADDRESS_MEMORY: &str = "ferrolb-address-memory";

/// Maximum number of Services in the ConfigMap [`ADDRESS_MEMORY`].
pub const REMEMBERED_SERVICES_MAX: usize = 1_024;

/// The Lease in FerroLB's namespace that the active leader of the controllers holds.
pub const LEASE: &str = "ferrolb-controller";

/// Condition on a Service: whether the Service has its addresses, and why not.
pub const CONDITION_ADDRESS_ASSIGNED: &str = "ferrolb.io/AddressAssigned";
/// Condition on a Service: whether its addresses are announced, from which nodes, and why not.
pub const CONDITION_ANNOUNCED: &str = "ferrolb.io/Announced";
/// Condition on every FerroLB custom resource: whether the object is in use as written, and why
/// not.
pub const CONDITION_VALID: &str = "Valid";
/// Condition on a BGPPeer: whether every selected node has its session, and which nodes do not.
pub const CONDITION_ESTABLISHED: &str = "Established";

/// Reason of the condition `Ready` of a pod that is marked as not Ready because its node failed,
/// and of the Event about the Node.
pub const NODE_SILENT: &str = "NodeSilent";

/// `status` of a condition (meta/v1.Condition).
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    /// `True`.
    True,
    /// `False`.
    False,
    /// `Unknown`. Any other text is also decoded as this value.
    Unknown,
}

impl ConditionStatus {
    /// Returns the value as written in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "True" => Self::True,
            "False" => Self::False,
            _ => Self::Unknown,
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(is: bool) -> Self {
        if is { Self::True } else { Self::False }
    }
}

/// An IPAddressPool under any API group.
pub type IPAddressPoolObject = Object<IPAddressPoolSpec, IPAddressPoolStatus>;
/// An L2Advertisement under any API group. `spec` is optional as in MetalLB: without it, the object
/// announces all pools.
pub type L2AdvertisementObject = Object<Option<L2AdvertisementSpec>, L2AdvertisementStatus>;
/// A BGPPeer under any API group.
pub type BgpPeerObject = Object<BGPPeerSpec, BGPPeerStatus>;
/// A BGPAdvertisement under any API group. `spec` is optional as in MetalLB: without it, the object
/// announces all pools to all peers.
pub type BgpAdvertisementObject = Object<Option<BGPAdvertisementSpec>, BGPAdvertisementStatus>;
/// A BFDProfile under any API group; `spec` is optional as in MetalLB.
pub type BfdProfileObject = Object<Option<BFDProfileSpec>, BFDProfileStatus>;
/// A Community under any API group; `spec` is optional as in MetalLB.
pub type CommunityObject = Object<Option<CommunitySpec>, CommunityStatus>;
/// A SpeakerStatus under any API group.
pub type SpeakerStatusObject = Object<Option<SpeakerStatusSpec>, SpeakerStatusStatus>;

/// A custom resource that FerroLB defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum CustomResourceKind {
    /// Addresses for Services.
    IPAddressPool,
    /// Selects the pools that nodes announce by ARP and NDP, and the nodes and interfaces.
    L2Advertisement,
    /// Selects the pools that nodes advertise by BGP, the peers, and the attributes of the routes.
    BGPAdvertisement,
    /// A router to which nodes advertise routes.
    BGPPeer,
    /// The timers of BFD sessions.
    BFDProfile,
    /// Names for BGP communities.
    Community,
    /// The state of one node's speaker.
    SpeakerStatus,
}

impl CustomResourceKind {
    /// The kinds whose status the controller writes. MetalLB has them, too.
    pub const WITH_CONTROLLER_STATUS: [Self; 6] = [
        Self::IPAddressPool,
        Self::L2Advertisement,
        Self::BFDProfile,
        Self::Community,
        Self::BGPAdvertisement,
        Self::BGPPeer,
    ];

    /// Returns the name of the kind, as in `kind:`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IPAddressPool => "IPAddressPool",
            Self::L2Advertisement => "L2Advertisement",
            Self::BGPAdvertisement => "BGPAdvertisement",
            Self::BGPPeer => "BGPPeer",
            Self::BFDProfile => "BFDProfile",
            Self::Community => "Community",
            Self::SpeakerStatus => "SpeakerStatus",
        }
    }

    /// Returns the plural of the kind, as in URLs and RBAC rules.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::IPAddressPool => "ipaddresspools",
            Self::L2Advertisement => "l2advertisements",
            Self::BGPAdvertisement => "bgpadvertisements",
            Self::BGPPeer => "bgppeers",
            Self::BFDProfile => "bfdprofiles",
            Self::Community => "communities",
            Self::SpeakerStatus => "speakerstatuses",
        }
    }

    /// Returns the API version under which FerroLB reads and writes objects of the kind.
    #[must_use]
    pub const fn version(self) -> &'static str {
        match self {
            Self::BGPPeer => "v1beta2",
            Self::IPAddressPool
            | Self::L2Advertisement
            | Self::BGPAdvertisement
            | Self::BFDProfile
            | Self::Community
            | Self::SpeakerStatus => VERSION,
        }
    }
}

/// Returns the name of the annotation in which the controller records the pool of a Service's
/// addresses. The prefix of the name is the API group.
#[must_use]
pub fn pool_annotation(group: &str) -> String {
    format!("{group}/ip-allocated-from-pool")
}

/// Annotation of a Service whose address another load balancer has assigned, with the value `true`:
/// FerroLB replaces the address by one of its pools.
pub const ADOPT_ANNOTATION: &str = "ferrolb.io/adopt";

/// Annotation in which the controller records the addresses of a Service, see
/// [`crate::facts::AddressRecord`].
pub const ASSIGNED_ANNOTATION: &str = "ferrolb.io/assigned";

/// Returns the resource of a kind under an API group, for typed access through [`Object`].
#[must_use]
pub fn resource(kind: CustomResourceKind, group: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(group, kind.version(), kind.name()),
        kind.plural(),
    )
}

/// Returns the CustomResourceDefinitions of all kinds, in the order of `deploy/base/crds.yaml`.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    let crds = vec![
        IPAddressPool::crd(),
        with_optional_spec(L2Advertisement::crd()),
        with_optional_spec(BGPAdvertisement::crd()),
        BGPPeer::crd(),
        with_optional_spec(BFDProfile::crd()),
        with_optional_spec(Community::crd()),
        with_optional_spec(SpeakerStatus::crd()),
    ];
    crds.into_iter().map(without_spec_defaults).map(without_unknown_formats).collect()
}

/// Removes the formats of unsigned numbers. They are not part of OpenAPI: the API server does not
/// check them, and prints a warning for each.
fn without_unknown_formats(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let schemas = crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
    schemas.filter_map(|schema| schema.open_api_v3_schema.as_mut()).for_each(remove_formats);
    crd
}

fn remove_formats(schema: &mut JSONSchemaProps) {
    schema.format.take_if(|format| format.starts_with("uint"));
    children(schema).for_each(remove_formats);
}

/// Removes the defaults of `spec`, which decoders apply as well. The API server would write them
/// into each object, and tools that compare objects with their source would report a difference.
fn without_spec_defaults(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let schemas = crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
    let roots = schemas.filter_map(|schema| schema.open_api_v3_schema.as_mut());
    let properties = roots.filter_map(|root| root.properties.as_mut()?.get_mut("spec"));
    properties.for_each(remove_defaults);
    crd
}

fn remove_defaults(schema: &mut JSONSchemaProps) {
    schema.default = None;
    children(schema).for_each(remove_defaults);
}

/// Returns the schemas of the items of an array, and of the properties of an object.
fn children(schema: &mut JSONSchemaProps) -> impl Iterator<Item = &mut JSONSchemaProps> {
    let items = match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => Some(&mut **items),
        Some(JSONSchemaPropsOrArray::Schemas(_)) | None => None,
    };
    let properties = schema.properties.iter_mut().flatten().map(|(_, property)| property);
    items.into_iter().chain(properties)
}

/// Makes `spec` optional in a CRD, because the derive macro cannot.
fn with_optional_spec(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let schemas = crd
        .spec
        .versions
        .iter_mut()
        .filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut());
    schemas.for_each(|root| root.required = None);
    crd
}
