//! The fact of an IPAddressPool: its address ranges, or the reason why it is invalid.

use super::kind::custom_resource;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use kube::core::Selector;

use super::ObservedStatus;
use super::selectors::{any_matches, decode as read_selectors};
use crate::api::{self, IpMode};
use crate::duration::parse_go_seconds;
use crate::range::{AddressRange, ParseRangeError};

/// The reason why a pool by itself is invalid, independent of other objects. An invalid pool is not
/// used and does not affect the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolProblem {
    /// `spec.addresses` is empty.
    ///
    /// Action: Write at least one entry.
    #[error("spec.addresses is empty: write at least one CIDR, range or address")]
    Empty,
    /// An entry is no CIDR, range or address, or ends before it starts.
    ///
    /// Action: Correct the entry.
    #[error("spec.addresses: {0}")]
    Addresses(ParseRangeError),
    /// An entry of `spec.excludeAddresses` is no CIDR, range or address.
    ///
    /// Action: Correct the entry.
    #[error("spec.excludeAddresses: {0}")]
    Exclude(ParseRangeError),
    /// Two entries of `spec.addresses` overlap.
    ///
    /// Action: Write each address once.
    #[error("spec.addresses: {0} and {1} overlap: write every address once")]
    Overlap(AddressRange, AddressRange),
    /// An entry contains loopback, link-local, multicast, broadcast or unspecified addresses.
    ///
    /// Action: Remove them.
    #[error(
        "spec.addresses: {0} overlaps {1}: remove loopback, link-local, multicast, broadcast and unspecified addresses"
    )]
    Special(AddressRange, AddressRange),
    /// A selector is invalid.
    #[error("{0}")]
    Selector(Box<str>),
    /// `spec.stickyFor` is no duration, or too long.
    ///
    /// Action: Write one from `0s` to `8760h`.
    #[error("spec.stickyFor: {0:?} is no duration from 0s to 8760h: write one such as 24h")]
    StickyFor(Box<str>),
    /// The object does not match the schema of its kind.
    #[error("the object cannot be read: {0}. Apply the CRDs of this version")]
    Unreadable(Box<str>),
}

/// `spec.serviceAllocation`: the Services that may get addresses of a pool. These Services get
/// addresses of this pool before addresses of unrestricted pools. Field of MetalLB.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceRestriction {
    /// `priority`: a lower number comes first; 0 and negative numbers come last.
    pub priority: i64,
    /// `namespaces`.
    pub namespaces: BTreeSet<Box<str>>,
    namespace_selectors: Vec<Selector>,
    service_selectors: Vec<Selector>,
}

impl ServiceRestriction {
    /// Returns whether a Service with these labels, in this namespace, may get addresses of the
    /// pool. The namespace must be named or selected, and the Service must be selected; a criterion
    /// that is not set always matches.
    pub fn allows(
        &self,
        namespace: &str,
        namespace_labels: &BTreeMap<String, String>,
        labels: impl FnOnce() -> BTreeMap<String, String>,
    ) -> bool {
        let any_namespace = self.namespaces.is_empty() && self.namespace_selectors.is_empty();
        (any_namespace
            || self.namespaces.contains(namespace)
            || any_matches(&self.namespace_selectors, namespace_labels))
            && (self.service_selectors.is_empty()
                || any_matches(&self.service_selectors, &labels()))
    }

    /// Returns the rank of the pool for a Service: lower comes first. 0 and negative priorities
    /// stand for no priority, which comes last.
    #[must_use]
    pub const fn rank(&self) -> i64 {
        if self.priority > 0 { self.priority } else { i64::MAX }
    }

    /// Returns whether [`allows`](Self::allows) depends on the labels of the namespace.
    #[must_use]
    pub fn selects_namespaces(&self) -> bool {
        !self.namespace_selectors.is_empty()
    }

    fn read(spec: &api::ServiceAllocation) -> Result<Self, PoolProblem> {
        let selectors = |field: &str, written: &[_]| {
            let field = format!("serviceAllocation.{field}");
            read_selectors(&field, written.to_vec()).map_err(PoolProblem::Selector)
        };
        Ok(Self {
            priority: spec.priority,
            namespaces: spec.namespaces.iter().map(|name| name.as_str().into()).collect(),
            namespace_selectors: selectors("namespaceSelectors", &spec.namespace_selectors)?,
            service_selectors: selectors("serviceSelectors", &spec.service_selectors)?,
        })
    }
}

/// A CIDR that begins with another address than its network, such as `192.168.1.200/28`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WidenedCidr {
    /// The text in the specification.
    pub text: Box<str>,
    /// The whole network.
    pub network: AddressRange,
}

/// Maximum number of [`Pool::widened`]: one more than a message lists.
const WIDENED_MAX: usize = 6;

impl WidenedCidr {
    fn read(text: &str) -> Option<Self> {
        let (address, _) = text.split_once('/')?;
        let network: AddressRange = text.parse().ok()?;
        let is_first = address.trim().parse() == Ok(network.first());
        (!is_first).then(|| Self { text: text.trim().into(), network })
    }
}

impl Display for WidenedCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} stands for {}", self.text, self.network)
    }
}

/// The fact of an IPAddressPool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pool {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp` in seconds since 1970. Of two pools that overlap, the older one
    /// is in use.
    pub created: i64,
    /// `metadata.labels`, for pool selectors.
    pub labels: BTreeMap<String, String>,
    /// `spec.addresses` in the order written; empty if the pool is invalid.
    pub ranges: Vec<AddressRange>,
    /// `spec.excludeAddresses`.
    pub excluded: Vec<AddressRange>,
    /// The first entries of `spec.addresses` and `spec.excludeAddresses` that are larger than they
    /// look.
    pub widened: Box<[WidenedCidr]>,
    /// `spec.autoAssign`.
    pub auto_assign: bool,
    /// `spec.avoidBuggyIPs`.
    pub avoid_buggy: bool,
    /// `spec.ipMode`.
    pub ip_mode: IpMode,
    /// `spec.serviceAllocation`; `None` if the pool is for all Services.
    pub allocation: Option<ServiceRestriction>,
    /// `spec.routed`.
    pub routed: bool,
    /// `spec.stickyFor`.
    pub sticky_for: Duration,
    /// The reason why the pool is invalid, or `None`.
    pub problem: Option<PoolProblem>,
    /// The status as read from the API server.
    pub status: ObservedStatus<api::IPAddressPoolStatus>,
}

impl From<api::IPAddressPoolObject> for Pool {
    fn from(object: api::IPAddressPoolObject) -> Self {
        let (ranges, excluded, allocation, problem) = match read(&object.spec) {
            Ok((ranges, excluded, allocation)) => (ranges, excluded, allocation, None),
            Err(problem) => (Vec::new(), Vec::new(), None, Some(problem)),
        };
        let sticky_for = sticky_for(&object.spec).unwrap_or(STICKY_FOR);
        let texts = object.spec.addresses.iter().chain(&object.spec.exclude_addresses);
        let widened = texts.filter_map(|text| WidenedCidr::read(text)).take(WIDENED_MAX).collect();
        Self {
            name: object.metadata.name.unwrap_or_default().into(),
            generation: object.metadata.generation.unwrap_or(0),
            created: object.metadata.creation_timestamp.map_or(0, |created| created.0.as_second()),
            labels: object.metadata.labels.unwrap_or_default(),
            ranges,
            excluded,
            widened,
            auto_assign: object.spec.auto_assign,
            avoid_buggy: object.spec.avoid_buggy_ips,
            ip_mode: object.spec.ip_mode,
            allocation,
            routed: object.spec.routed,
            sticky_for,
            problem,
            status: ObservedStatus(object.status.unwrap_or_default()),
        }
    }
}

/// Special-purpose networks (RFC 6890). No other host can reach a Service at an address in one of
/// them.
const SPECIAL_NETWORKS: [(IpAddr, u8); 8] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
    (IpAddr::V4(Ipv4Addr::BROADCAST), 32),
    // This prefix also contains the loopback address, `::1`.
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 127),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
];

/// Default of `spec.stickyFor`. The controller also uses it while a pool does not exist.
pub const STICKY_FOR: Duration = Duration::from_secs(24 * 3_600);
/// Maximum of `spec.stickyFor`.
const STICKY_FOR_MAX: Duration = Duration::from_secs(8_760 * 3_600);

fn sticky_for(spec: &api::IPAddressPoolSpec) -> Result<Duration, PoolProblem> {
    let Some(text) = &spec.sticky_for else { return Ok(STICKY_FOR) };
    let duration = parse_go_seconds(text).map(Duration::from_secs);
    duration
        .filter(|duration| *duration <= STICKY_FOR_MAX)
        .ok_or_else(|| PoolProblem::StickyFor(text.as_str().into()))
}

type PoolContents = (Vec<AddressRange>, Vec<AddressRange>, Option<ServiceRestriction>);

fn read(spec: &api::IPAddressPoolSpec) -> Result<PoolContents, PoolProblem> {
    if spec.addresses.is_empty() {
        return Err(PoolProblem::Empty);
    }
    let parse = |texts: &[String]| {
        texts.iter().map(|text| text.parse()).collect::<Result<Vec<AddressRange>, _>>()
    };
    let ranges = parse(&spec.addresses).map_err(PoolProblem::Addresses)?;
    let excluded = parse(&spec.exclude_addresses).map_err(PoolProblem::Exclude)?;
    for (i, range) in ranges.iter().enumerate() {
        let special = SPECIAL_NETWORKS
            .iter()
            .map(|(address, length)| AddressRange::network(*address, *length));
        if let Some(special) = special.into_iter().find(|special| special.overlaps(range)) {
            return Err(PoolProblem::Special(*range, special));
        }
        if let Some(other) = ranges[..i].iter().find(|other| other.overlaps(range)) {
            return Err(PoolProblem::Overlap(*other, *range));
        }
    }
    sticky_for(spec)?;
    Ok((
        ranges,
        excluded,
        spec.service_allocation.as_ref().map(ServiceRestriction::read).transpose()?,
    ))
}

custom_resource!(Pool.name: IPAddressPoolObject, IPAddressPool, "IPAddressPools");

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(addresses: &[&str], exclude: &[&str]) -> Pool {
        let strings = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
        let spec = api::IPAddressPoolSpec {
            addresses: strings(addresses),
            exclude_addresses: strings(exclude),
            ..Default::default()
        };
        api::IPAddressPoolObject::new(
            "p",
            &api::resource(api::CustomResourceKind::IPAddressPool, api::GROUP),
            spec,
        )
        .into()
    }

    #[test]
    fn an_invalid_pool_names_the_field_and_has_no_ranges() {
        let cases: [(&[&str], &[&str], &str); 5] = [
            (&[], &[], "spec.addresses is empty"),
            (&["10.0.0.0/40"], &[], "spec.addresses: \"10.0.0.0/40\""),
            (&["10.0.0.9-10.0.0.1"], &[], "ends before it starts"),
            (&["10.0.0.0/24"], &["x"], "spec.excludeAddresses"),
            (&["10.0.0.0/24", "10.0.0.7"], &[], "10.0.0.0-10.0.0.255 and 10.0.0.7 overlap"),
        ];
        for (addresses, exclude, reason) in cases {
            let pool = pool(addresses, exclude);
            assert!(
                pool.problem.as_ref().is_some_and(|p| p.to_string().contains(reason)),
                "the problem of {addresses:?} contains {reason:?}: {:?}",
                pool.problem
            );
            assert_eq!(pool.ranges, []);
        }
    }

    #[test]
    fn special_purpose_addresses_make_a_pool_invalid() {
        let special = [
            "127.0.0.0/8",
            "0.0.0.0/8",
            "0.0.0.0/0",
            "126.0.0.1-128.0.0.1",
            "169.254.9.9",
            "224.0.0.0/4",
            "239.1.1.1",
            "255.255.255.255",
            "::/0",
            "::",
            "::1",
            "fe80::/10",
            "fe80::1-fe80::9",
            "ff00::/8",
        ];
        for text in special {
            let problem = pool(&[text], &[]).problem;
            assert!(
                matches!(problem, Some(PoolProblem::Special(..))),
                "{text} contains unusable addresses: {problem:?}"
            );
        }
        let why = pool(&["127.0.0.5"], &[])
            .problem
            .map(|problem| problem.to_string())
            .unwrap_or_default();
        assert!(
            why.starts_with(
                "spec.addresses: 127.0.0.5 overlaps 127.0.0.0-127.255.255.255: remove "
            ),
            "the message names both ranges: {why}"
        );
        for text in [
            "1.0.0.0/8",
            "126.0.0.0/8",
            "223.255.255.255",
            "240.0.0.0/5",
            "2000::/3",
            "fd00::/8",
            "::2",
        ] {
            assert_eq!(pool(&[text], &[]).problem, None, "{text} is valid");
        }
    }

    #[test]
    fn a_cidr_with_host_bits_is_larger_than_it_looks() {
        let entries = ["10.0.0.0/28", "10.0.1.200/28", "10.0.2.5/32", "10.0.3.1-10.0.3.2"];
        let pool = pool(&entries, &["fd00::5/64", "fd01::/64"]);
        let texts: Vec<_> = pool.widened.iter().map(ToString::to_string).collect();
        let expect = [
            "10.0.1.200/28 stands for 10.0.1.192-10.0.1.207",
            "fd00::5/64 stands for fd00::-fd00::ffff:ffff:ffff:ffff",
        ];
        assert_eq!(texts, expect);
    }

    #[test]
    fn a_valid_pool_keeps_the_order_of_its_ranges() {
        let pool = pool(&["10.0.1.0/24", "10.0.0.0/24", "fd00::1"], &["10.0.1.0"]);
        assert_eq!(pool.problem, None);
        assert_eq!(
            pool.ranges.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.1.0-10.0.1.255", "10.0.0.0-10.0.0.255", "fd00::1"]
        );
    }

    fn allocation(json: serde_json::Value) -> Pool {
        let spec = json!({"addresses": ["10.0.0.1"], "serviceAllocation": json});
        let object = json!({"metadata": {"name": "p"}, "spec": spec});
        serde_json::from_value::<api::IPAddressPoolObject>(object).expect("pool").into()
    }

    #[test]
    fn namespaces_add_up_and_service_selectors_also_apply() {
        let labels = |text: &str| -> BTreeMap<String, String> {
            [("team".to_owned(), text.to_owned())].into()
        };
        let allows = |pool: &Pool, namespace: &str, team: &str, label: &str| {
            pool.allocation
                .as_ref()
                .expect("allocation")
                .allows(namespace, &labels(team), || labels(label))
        };
        let everyone = allocation(json!({"priority": 5}));
        assert!(allows(&everyone, "any", "a", "b"));
        let by_namespace = allocation(
            json!({"namespaces": ["x"], "namespaceSelectors": [{"matchLabels": {"team": "a"}}]}),
        );
        assert!(allows(&by_namespace, "x", "b", "") && allows(&by_namespace, "y", "a", ""));
        assert!(!allows(&by_namespace, "y", "b", ""));
        let none = allocation(json!({"namespaceSelectors": [{"matchLabels": {"team": "nobody"}}]}));
        assert!(
            !allows(&none, "y", "b", ""),
            "without a matching namespace, no Service is allowed"
        );
        let both = allocation(
            json!({"namespaces": ["x"], "serviceSelectors": [{"matchLabels": {"team": "s"}}, {"matchLabels": {"team": "t"}}]}),
        );
        assert!(
            allows(&both, "x", "", "t")
                && !allows(&both, "x", "", "u")
                && !allows(&both, "y", "", "s")
        );
    }

    #[test]
    fn sticky_for_has_a_default_and_a_maximum() {
        let read = |text: Option<&str>| {
            let spec = json!({"addresses": ["10.0.0.1"], "stickyFor": text});
            let object = json!({"metadata": {"name": "p"}, "spec": spec});
            let pool: Pool =
                serde_json::from_value::<api::IPAddressPoolObject>(object).expect("pool").into();
            (pool.sticky_for.as_secs(), pool.problem.map(|problem| problem.to_string()))
        };
        assert_eq!(read(None), (86_400, None));
        assert_eq!(read(Some("1h30m")), (5_400, None));
        assert_eq!(read(Some("0s")), (0, None));
        for text in ["8761h", "-1s", "1d", ""] {
            let (seconds, problem) = read(Some(text));
            assert_eq!(seconds, 86_400, "an invalid duration has no effect");
            let problem = problem.unwrap_or_default();
            assert!(problem.starts_with("spec.stickyFor: "), "{text:?}: {problem}");
        }
    }

    #[test]
    fn an_invalid_selector_makes_a_pool_invalid() {
        let bad =
            json!({"serviceSelectors": [{"matchExpressions": [{"key": "a", "operator": "Near"}]}]});
        let why = allocation(bad).problem.map(|problem| problem.to_string()).unwrap_or_default();
        assert!(
            why.starts_with("spec.serviceAllocation.serviceSelectors: "),
            "the message names the field: {why}"
        );
    }
}
