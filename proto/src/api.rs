//! The Kubernetes API that FerroLB defines: kinds, annotations, condition types and reasons (design: the kinds and spec
//! fields are MetalLB's, so that a manifest migrates by its group and namespace alone).
//!
//! The group is a run-time setting (`--api-group`), so objects are read and written as [`Pool`], [`L2`] and [`Speaker`] with
//! an [`ApiResource`] made by [`resource`]; the derived root types only generate the CRDs.

#[expect(unreachable_pub, reason = "the expansion of KubeSchema holds a copy of each struct inside a function")]
#[expect(clippy::duplicated_attributes, reason = "several print columns have one type")]
mod bfd_profile;
#[expect(unreachable_pub, reason = "the expansion of KubeSchema holds a copy of each struct inside a function")]
#[expect(clippy::duplicated_attributes, reason = "several print columns have one type")]
mod bgp_advertisement;
#[expect(unreachable_pub, reason = "the expansion of KubeSchema holds a copy of each struct inside a function")]
#[expect(clippy::duplicated_attributes, reason = "several print columns have one type")]
mod bgp_peer;
#[expect(unreachable_pub, reason = "the expansion of KubeSchema holds a copy of each struct inside a function")]
#[expect(clippy::duplicated_attributes, reason = "several print columns have one type")]
mod community;
#[expect(unreachable_pub, reason = "the expansion of KubeSchema holds a copy of each struct inside a function")]
#[expect(clippy::duplicated_attributes, reason = "several print columns have one type")]
mod l2_advertisement;
#[expect(unreachable_pub, reason = "the expansion of KubeSchema holds a copy of each struct inside a function")]
#[expect(clippy::duplicated_attributes, reason = "several print columns have one type")]
mod pool;
mod selectors;
#[expect(unreachable_pub, reason = "the expansion of KubeSchema holds a copy of each struct inside a function")]
#[expect(clippy::duplicated_attributes, reason = "several print columns have one type")]
mod speaker_status;
mod status_fields;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::{ApiResource, CustomResourceExt, GroupVersionKind, Object};
use serde::Serialize;

pub use bfd_profile::{BFDProfile, BFDProfileSpec, BFDProfileStatus};
pub use bgp_advertisement::{BGPAdvertisement, BGPAdvertisementSpec, BGPAdvertisementStatus};
pub use bgp_peer::{BGPPeer, BGPPeerSpec, BGPPeerStatus, DynamicAsn, SecretReference};
pub use community::{Community, CommunityAlias, CommunitySpec, CommunityStatus};
pub use l2_advertisement::{L2Advertisement, L2AdvertisementSpec, L2AdvertisementStatus, PreferredNodes};
pub use pool::{IPAddressPool, IPAddressPoolSpec, IPAddressPoolStatus, IpMode, ServiceAllocation};
pub(crate) use selectors::{LABEL_PREFIX_MAX, LABEL_VALUE_MAX};

pub use speaker_status::{
    BfdState, BgpSessionState, BgpSessionStatus, BgpStatus, DataPathState, DataPathStatus, FailingService, LinkStatus,
    LinkTrouble, SpeakerStatus, SpeakerStatusSpec, SpeakerStatusStatus, TroubleReason,
};
pub use status_fields::{OpenApi, StatusFields};

/// The default API group; another one is the take-over mode.
pub const GROUP: &str = "ferrolb.io";
/// The default namespace of our own objects.
pub const NAMESPACE: &str = "ferrolb-system";
/// The default `Service.spec.loadBalancerClass` that is ours.
pub const LOAD_BALANCER_CLASS: &str = "ferrolb.io/ferrolb";
/// The version of every kind here but BGPPeer: see [`Kind::version`].
pub const VERSION: &str = "v1beta1";
/// The Secret in our namespace that holds the keys of the hello protocol. Each entry's name is a number, each value 32
/// bytes; the highest number is the newest key, and the two newest are accepted.
pub const HELLO_SECRET: &str = "ferrolb-hello";

/// Condition on a Service: whether it has its addresses, and why not.
pub const CONDITION_ADDRESS_ASSIGNED: &str = "ferrolb.io/AddressAssigned";
/// Condition on a Service: whether its addresses are announced, from where, and why not.
pub const CONDITION_ANNOUNCED: &str = "ferrolb.io/Announced";
/// Condition on every kind of ours: whether the object is in use as written, and why not.
pub const CONDITION_VALID: &str = "Valid";
/// Condition on a BGPPeer: whether all its nodes have their session with it, and which have not.
pub const CONDITION_ESTABLISHED: &str = "Established";

/// What a condition says of its type: `status` (meta/v1.Condition).
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Truth {
    /// `True`.
    True,
    /// `False`.
    False,
    /// `Unknown`, and whatever else somebody wrote.
    Unknown,
}

impl Truth {
    /// As written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }

    pub(crate) fn read(text: &str) -> Self {
        match text {
            "True" => Self::True,
            "False" => Self::False,
            _ => Self::Unknown,
        }
    }
}

impl From<bool> for Truth {
    fn from(is: bool) -> Self {
        if is { Self::True } else { Self::False }
    }
}

/// An IPAddressPool under any API group.
pub type Pool = Object<IPAddressPoolSpec, IPAddressPoolStatus>;
/// An L2Advertisement under any API group; `spec` is optional as in MetalLB: a bare one announces all pools.
pub type L2 = Object<Option<L2AdvertisementSpec>, L2AdvertisementStatus>;
/// A BGPPeer under any API group.
pub type Router = Object<BGPPeerSpec, BGPPeerStatus>;
/// A BGPAdvertisement under any API group; `spec` is optional as in MetalLB: a bare one announces all pools to all peers.
pub type Bgp = Object<Option<BGPAdvertisementSpec>, BGPAdvertisementStatus>;
/// A BFDProfile under any API group; `spec` is optional as in MetalLB.
pub type Bfd = Object<Option<BFDProfileSpec>, BFDProfileStatus>;
/// A Community under any API group; `spec` is optional as in MetalLB.
pub type Aliases = Object<Option<CommunitySpec>, CommunityStatus>;
/// A SpeakerStatus under any API group.
pub type Speaker = Object<Option<SpeakerStatusSpec>, SpeakerStatusStatus>;

/// A kind that we define.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Addresses to give out.
    IPAddressPool,
    /// Which pools are announced on the local network, from where.
    L2Advertisement,
    /// Which pools are announced by BGP, to whom, and how.
    BGPAdvertisement,
    /// A router that is announced to.
    BGPPeer,
    /// How routers are watched.
    BFDProfile,
    /// Names for BGP communities.
    Community,
    /// What one node's speaker sees and does.
    SpeakerStatus,
}

impl Kind {
    /// The kinds whose status the controller writes.
    pub const OF_CONTROLLER: [Self; 6] = [
        Self::IPAddressPool,
        Self::L2Advertisement,
        Self::BGPAdvertisement,
        Self::BGPPeer,
        Self::BFDProfile,
        Self::Community,
    ];

    /// The kind's name, as in `kind:`.
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

    /// The kind's plural, as in URLs and RBAC rules.
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

    /// The version of the kind that is read and written.
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

/// Annotation that the controller writes on every Service it gave an address, under its API group: the pool's name.
#[must_use]
pub fn from_pool(group: &str) -> String {
    format!("{group}/ip-allocated-from-pool")
}

/// The resource of a kind under an API group, for typed access through [`Object`].
#[must_use]
pub fn resource(kind: Kind, group: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, kind.version(), kind.name()), kind.plural())
}

/// The CustomResourceDefinitions of all kinds, in the order in which `deploy/base/crds.yaml` lists them.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        IPAddressPool::crd(),
        without_spec(L2Advertisement::crd()),
        without_spec(BGPAdvertisement::crd()),
        BGPPeer::crd(),
        without_spec(BFDProfile::crd()),
        without_spec(Community::crd()),
        without_spec(SpeakerStatus::crd()),
    ]
}

/// The CRD with `spec` optional, which the derive cannot say.
fn without_spec(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let schemas =
        crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut());
    schemas.for_each(|root| root.required = None);
    crd
}
