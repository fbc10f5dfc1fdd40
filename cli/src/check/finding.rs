//! Findings and their codes. Plain values; `docs/reference/checks.md` explains each code.

use std::fmt;

use serde::{Serialize, Serializer};

/// Page of this version that explains the codes.
pub const PAGE: &str = concat!(
    "https://github.com/ferrolb/ferrolb/blob/v",
    env!("CARGO_PKG_VERSION"),
    "/docs/reference/checks.md"
);

/// Directory with the manifests of this version.
pub const MANIFESTS: &str = concat!(
    "https://raw.githubusercontent.com/ferrolb/ferrolb/v",
    env!("CARGO_PKG_VERSION"),
    "/deploy"
);

/// Effect of a finding on the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// A part of FerroLB does not work.
    Problem,
    /// FerroLB works, but a change is advisable. Only `--strict` changes the exit code.
    Warning,
}

/// Subject of a group of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Category {
    /// Controllers, speakers and custom resources.
    Installation,
    /// Kubernetes, its nodes and kube-proxy.
    Cluster,
    /// Load balancers that run side by side with FerroLB.
    LoadBalancers,
    /// IPAddressPools.
    Pools,
    /// Contact between speakers.
    Layer2,
    /// BGPPeers and their sessions.
    Bgp,
    /// Permissions of the components and of the user.
    Permissions,
    /// Services of type LoadBalancer.
    Services,
}

impl Category {
    /// All categories, in the order of the output.
    pub const ALL: [Self; 8] = [
        Self::Installation,
        Self::Cluster,
        Self::LoadBalancers,
        Self::Pools,
        Self::Layer2,
        Self::Bgp,
        Self::Permissions,
        Self::Services,
    ];
    /// The categories of `--pre`.
    pub const PRE: [Self; 3] = [Self::Cluster, Self::LoadBalancers, Self::Permissions];

    /// Returns the name in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Installation => "installation",
            Self::Cluster => "cluster",
            Self::LoadBalancers => "load balancers",
            Self::Pools => "pools",
            Self::Layer2 => "layer 2",
            Self::Bgp => "BGP",
            Self::Permissions => "permissions",
            Self::Services => "Services",
        }
    }
}

/// Defines [`Code`]: for each code a variant, its number, its category and its severity.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $category:ident, $severity:ident;)*) => {
        /// Code of a finding.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// All codes, ascending.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the code as written: `FLB` and three digits.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Returns the category.
            #[must_use]
            pub const fn category(self) -> Category {
                match self { $(Self::$variant => Category::$category,)* }
            }

            /// Returns the severity.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }
        }
    };
}

codes! {
    /// The namespace contains no FerroLB.
    NotInstalled = "FLB001", Installation, Problem;
    /// No controller is the active leader.
    NoLeader = "FLB002", Installation, Problem;
    /// Fewer controllers are ready than the Deployment requests.
    ControllerNotReady = "FLB003", Installation, Warning;
    /// No Node has a speaker.
    NoSpeaker = "FLB004", Installation, Problem;
    /// Some Nodes have no speaker.
    NodeWithoutSpeaker = "FLB005", Installation, Warning;
    /// A CRD is missing, or does not serve the required version.
    CrdMissing = "FLB006", Installation, Problem;
    /// A CRD lacks fields.
    CrdOld = "FLB007", Installation, Problem;
    /// The condition `Valid` of a custom resource is `False`.
    InvalidResource = "FLB008", Installation, Problem;
    /// Speakers have stopped, or their nodes have failed.
    StaleSpeaker = "FLB009", Installation, Problem;
    /// The Kubernetes version is not supported.
    KubernetesOld = "FLB011", Cluster, Problem;
    /// kube-proxy is in IPVS mode without `strictARP`.
    StrictArpOff = "FLB012", Cluster, Problem;
    /// Only one node has no exclude label.
    NodeExcluded = "FLB013", Cluster, Warning;
    /// Speakers report an unhealthy kube-proxy.
    KubeProxyUnhealthy = "FLB014", Cluster, Problem;
    /// kube-proxy has stopped on each node, or a network plugin has replaced it.
    KubeProxyGone = "FLB015", Cluster, Warning;
    /// Speakers of MetalLB serve the same Services.
    MetalLb = "FLB021", LoadBalancers, Warning;
    /// Webhooks of MetalLB or FRR-K8s have no running pod.
    LeftoverWebhook = "FLB022", LoadBalancers, Warning;
    /// ServiceLB of k3s runs.
    ServiceLb = "FLB023", LoadBalancers, Warning;
    /// Another client writes the statuses of Services, such as `minikube tunnel`.
    StatusWriter = "FLB024", LoadBalancers, Warning;
    /// Another known load balancer runs.
    OtherLoadBalancer = "FLB025", LoadBalancers, Warning;
    /// Another load balancer serves Services that FerroLB would serve.
    ServedByOther = "FLB026", LoadBalancers, Warning;
    /// A pool overlaps the range of cluster IPs.
    PoolInServiceRange = "FLB031", Pools, Problem;
    /// A pool overlaps a range of pod addresses.
    PoolInPodRange = "FLB032", Pools, Problem;
    /// Addresses of a pool are in no subnet of an interface that announces it.
    PoolOutsideSubnets = "FLB033", Pools, Warning;
    /// Addresses of a pool belong to Nodes.
    NodeAddressInPool = "FLB034", Pools, Warning;
    /// An entry of a pool is a CIDR that begins with another address than its network.
    WidenedCidr = "FLB035", Pools, Warning;
    /// A pool does not exist, and Services still have its addresses.
    PoolMissing = "FLB036", Pools, Problem;
    /// A node lists another one as a contact, but not the other way round.
    OneWayContact = "FLB041", Layer2, Problem;
    /// Hellos of a running speaker do not arrive.
    HellosFiltered = "FLB042", Layer2, Problem;
    /// An interface is in contact with no node, although others use the same subnet.
    NoContact = "FLB043", Layer2, Problem;
    /// A speaker reports issues of addresses.
    InterfaceIssues = "FLB044", Layer2, Problem;
    /// Hellos of a busy node are late.
    LateHellos = "FLB045", Layer2, Warning;
    /// A BGPPeer selects nodes without gobgpd.
    NoGobgpd = "FLB051", Bgp, Problem;
    /// Sessions of a BGPPeer are not established.
    NotEstablished = "FLB052", Bgp, Problem;
    /// A component lacks permissions.
    ComponentPermission = "FLB061", Permissions, Problem;
    /// The user lacks permissions for the installation.
    InstallPermission = "FLB062", Permissions, Problem;
    /// The user lacks the permission that a check needs.
    NotChecked = "FLB063", Permissions, Warning;
    /// Services are not announced.
    NotAnnounced = "FLB071", Services, Problem;
    /// Announced Services have warnings.
    ServiceWarning = "FLB072", Services, Warning;
    /// Endpoints are not checked, although their Services have a health check.
    EndpointsUnchecked = "FLB073", Services, Warning;
}

impl Code {
    /// Returns the anchor of the code's section in [`PAGE`].
    #[must_use]
    pub fn anchor(self) -> String {
        self.name().to_lowercase()
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// An object of a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Object {
    /// The kind.
    pub kind: String,
    /// The namespace; `None` for objects without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl Object {
    /// Returns an object without a namespace.
    #[must_use]
    pub fn cluster(kind: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), namespace: None, name: name.to_owned() }
    }

    /// Returns an object in a namespace.
    #[must_use]
    pub fn namespaced(kind: &str, namespace: &str, name: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..Self::cluster(kind, name) }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// A result of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The code.
    pub code: Code,
    /// The severity of the code.
    pub severity: Severity,
    /// The category of the code.
    pub category: Category,
    /// The objects that the finding is about.
    pub objects: Vec<Object>,
    /// The fact, and the change or the command that helps.
    pub text: String,
    /// Address of the explanation.
    pub anchor: String,
}

impl Finding {
    /// Returns a finding.
    #[must_use]
    pub fn new(code: Code, objects: Vec<Object>, text: String) -> Self {
        Self {
            code,
            severity: code.severity(),
            category: code.category(),
            objects,
            text,
            anchor: format!("{PAGE}#{}", code.anchor()),
        }
    }
}
