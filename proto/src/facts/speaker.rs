//! The fact of a SpeakerStatus: the state of one node's speaker, as that speaker reports it.

use super::kind::custom_resource;
use std::net::{IpAddr, SocketAddr};

use super::Key;
use crate::api::{
    self, BfdState, BgpSessionState, InterfaceIssue, KubeProxyState, KubeProxyStatus, LateHellos,
    PASSWORD_UNAVAILABLE, UncheckedReason, WatchedNode, WatchedNodeState,
};
use crate::range::{AddressRange, Family};

/// The largest number of characters of a message that are stored. The number is small, because
/// conditions repeat the messages.
const MESSAGE_CHARS_MAX: usize = 160;
/// Detection time from which an operator should know of late hellos.
const SLOW_FAILOVER_MILLIS: u32 = 900;

/// The fact of a SpeakerStatus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Speaker {
    /// The name of the speaker's node, which is also the name of the object.
    pub node: Box<str>,
    /// The interfaces that the speaker uses.
    pub interfaces: Box<[SpeakerInterface]>,
    /// The failing health checks, ascending: one entry for each Service and address family whose
    /// endpoints on the node all fail. The speaker truncates a list that would be too long.
    pub failing: Box<[FailingHealthCheck]>,
    /// The Services with endpoints on the node that are not checked although the Service requests
    /// it, ascending: one entry for each Service and address family.
    pub unchecked: Box<[UncheckedHealthCheck]>,
    /// The health of kube-proxy on the node; `None` if not reported.
    pub kube_proxy: Option<Box<KubeProxyStatus>>,
    /// True if the node is in announcement drain: it hands over its addresses.
    pub draining: bool,
    /// The BGP sessions that the node should have; `None` if the node runs no gobgpd.
    pub bgp: Option<Box<[SpeakerSession]>>,
    /// The nodes that the node watches, to detect their failure.
    pub watched: Box<[WatchedNode]>,
    /// The addresses of the node's interfaces.
    pub host_addresses: Box<[IpAddr]>,
    /// The default gateways of the node.
    pub gateways: Box<[IpAddr]>,
}

/// A BGP session of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpeakerSession {
    /// The name of the session's BGPPeer.
    pub peer: Box<str>,
    /// True if the session is established and carries routes.
    pub established: bool,
    /// True if the session is established, but its BFD session is not up.
    pub bfd_down: bool,
    /// The reason why the session is not established, or differs from its BGPPeer. Empty while
    /// there is no issue.
    pub message: Box<str>,
    /// The reason why the Secret that the BGPPeer names holds no usable password, or `None`.
    pub password_unavailable: Option<Box<str>>,
}

/// A Service whose endpoints of one family on a node all fail their health check.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FailingHealthCheck {
    /// Namespace and name.
    pub service: Key,
    /// The address family of the endpoints.
    pub family: Family,
    /// One of the endpoints and the reason of its failure, for people, such as `10.1.2.3:8080:
    /// connection refused`.
    pub why: Box<str>,
}

/// A Service with endpoints of one family on a node that are not checked although the Service
/// requests it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UncheckedHealthCheck {
    /// Namespace and name.
    pub service: Key,
    /// One of the endpoints with this reason.
    pub address: IpAddr,
    /// The reason of at least one of the endpoints.
    pub reason: UncheckedReason,
    /// The number of endpoints that are not checked.
    pub unchecked: u64,
    /// The number of eligible endpoints.
    pub endpoints: u64,
}

/// An interface of a node, as its speaker reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpeakerInterface {
    /// The name of the interface.
    pub name: Box<str>,
    /// The hardware address of the interface, `aa:bb:cc:dd:ee:ff`.
    pub mac: Box<str>,
    /// True if the interface can carry frames.
    pub up: bool,
    /// True if the interface is isolated: it receives no frames. If another node also announces one
    /// of its addresses, the traffic goes to that other node.
    pub isolated: bool,
    /// True if another interface of the node is on the same segment and the node announces on that
    /// one.
    pub standby: bool,
    /// The nodes with whose speakers the interface is in contact, ascending.
    pub hello_senders: Box<[Box<str>]>,
    /// The nodes in `hello_senders` whose hellos do not arrive on the interface, ascending.
    pub unheard: Box<[Box<str>]>,
    /// The addresses that the node announces on the interface, ascending.
    pub addresses: Box<[IpAddr]>,
    /// The subnets of the interface, without link-local ones.
    pub subnets: Box<[AddressRange]>,
    /// True if the interface has no IPv6 address.
    pub ipv6_disabled: bool,
    /// Present if hellos of the node were late in the last minutes.
    pub late_hellos: Option<LateHellos>,
    /// Addresses for which another host replies, or for which requests may not arrive.
    pub issues: Box<[InterfaceIssue]>,
}

impl SpeakerInterface {
    /// Returns the late hellos of a node that announces addresses, if a failover takes so long for
    /// this reason that an operator should know.
    #[must_use]
    pub fn slow_failover(&self) -> Option<LateHellos> {
        let is_slow = |late: &LateHellos| late.detection_milliseconds >= SLOW_FAILOVER_MILLIS;
        self.late_hellos.filter(is_slow).filter(|_| !self.addresses.is_empty())
    }
}

impl Speaker {
    /// Returns whether the speaker reports an established BGP session.
    #[must_use]
    pub fn has_session(&self) -> bool {
        self.bgp.iter().flatten().any(|session| session.established)
    }

    /// Returns the interfaces on which the node announces an address.
    pub fn interfaces_with(&self, address: IpAddr) -> impl Iterator<Item = &SpeakerInterface> {
        self.interfaces.iter().filter(move |link| link.addresses.binary_search(&address).is_ok())
    }

    /// Returns whether all interfaces on which the node announces an address are isolated.
    #[must_use]
    pub fn is_isolated_at(&self, address: IpAddr) -> bool {
        self.interfaces_with(address).all(|interface| interface.isolated)
    }

    /// Returns whether `subnets` of an interface has all its subnets of a family. An IPv6 address
    /// by DHCPv6 has no subnet, so an address of the node in none of its subnets may be of this
    /// interface. A node without `hostAddresses` reports too little.
    #[must_use]
    pub fn knows_subnets(&self, interface: &SpeakerInterface, family: Family) -> bool {
        let is_of_family = |subnet: &&AddressRange| subnet.family() == family;
        let of_node = || self.interfaces.iter().flat_map(|it| &it.subnets).filter(is_of_family);
        let is_unexplained = |address: &IpAddr| {
            Family::of(*address) == family
                && !of_node().any(|subnet| family == Family::V4 || subnet.contains(*address))
        };
        interface.subnets.iter().any(|subnet| subnet.family() == family)
            || (!self.host_addresses.is_empty() && !self.host_addresses.iter().any(is_unexplained))
    }

    /// Returns whether the speaker receives the hellos of a node, on any interface.
    #[must_use]
    pub fn receives_hellos_of(&self, node: &str) -> bool {
        self.interfaces.iter().any(|link| link.receives_hellos_of(node))
    }

    /// Returns whether the speaker shows that the speaker of a node runs: it receives the hellos of
    /// that node, or its replies by UDP.
    #[must_use]
    pub fn confirms(&self, node: &str) -> bool {
        let replies = |it: &WatchedNode| it.node == node && it.state == WatchedNodeState::Replies;
        self.receives_hellos_of(node) || self.watched.iter().any(replies)
    }

    /// Returns the failing health checks of a Service: one for each failing family.
    #[must_use]
    pub fn failing(&self, service: &Key) -> &[FailingHealthCheck] {
        of_service(&self.failing, service, |failing| &failing.service)
    }

    /// Returns the unchecked endpoints of a Service: an entry for each family that has any.
    #[must_use]
    pub fn unchecked(&self, service: &Key) -> &[UncheckedHealthCheck] {
        of_service(&self.unchecked, service, |unchecked| &unchecked.service)
    }

    /// Returns the reason why kube-proxy is unhealthy on the node, or `None` if it is not.
    #[must_use]
    pub fn kube_proxy_issue(&self) -> Option<&str> {
        let unhealthy =
            self.kube_proxy.as_ref().filter(|path| path.state == KubeProxyState::Unhealthy);
        unhealthy.map(|path| path.message.as_str())
    }

    /// Returns the time at which kube-proxy was last healthy on the node, if none is expected any
    /// more because none is healthy on any node.
    #[must_use]
    pub fn kube_proxy_gone_since(&self) -> Option<&str> {
        let gone = self.kube_proxy.as_ref().filter(|it| it.state == KubeProxyState::NotChecked);
        gone.and_then(|path| path.last_healthy.as_deref())
    }
}

/// Returns the entries of a Service in a list that is sorted by Service.
fn of_service<'a, T>(sorted: &'a [T], service: &Key, key: impl Fn(&T) -> &Key) -> &'a [T] {
    let start = sorted.partition_point(|entry| key(entry) < service);
    let length = sorted[start..].partition_point(|entry| key(entry) == service);
    &sorted[start..start + length]
}

impl SpeakerInterface {
    /// Returns whether the interface receives the hellos of a node.
    #[must_use]
    pub fn receives_hellos_of(&self, node: &str) -> bool {
        self.hello_senders.binary_search_by(|sender| (**sender).cmp(node)).is_ok()
    }
}

impl From<api::SpeakerStatusObject> for Speaker {
    fn from(object: api::SpeakerStatusObject) -> Self {
        let status = object.status.unwrap_or_default().cut();
        // The speaker writes sorted lists. They are sorted again here, in case the object was
        // edited manually.
        let mut failing: Vec<FailingHealthCheck> =
            status.failing_health_checks.into_iter().filter_map(failing).collect();
        failing.sort();
        failing.dedup_by(|later, first| {
            (&later.service, later.family) == (&first.service, first.family)
        });
        let unchecked = status.unchecked_health_checks.into_iter();
        let mut unchecked: Vec<UncheckedHealthCheck> = unchecked.map(Into::into).collect();
        unchecked.sort();
        let kube_proxy = status
            .data_path
            .map(|path| KubeProxyStatus { message: truncated_message(&path.message), ..path });
        Self {
            node: object.metadata.name.unwrap_or_default().into(),
            interfaces: status.interfaces.into_iter().map(Into::into).collect(),
            failing: failing.into(),
            unchecked: unchecked.into(),
            kube_proxy: kube_proxy.map(Box::new),
            draining: status.draining,
            bgp: status.bgp.map(|bgp| bgp.sessions.into_iter().map(Into::into).collect()),
            watched: status.watched_nodes.into(),
            host_addresses: status.host_addresses.into(),
            gateways: status.gateways.into(),
        }
    }
}

impl From<api::BgpSessionStatus> for SpeakerSession {
    fn from(session: api::BgpSessionStatus) -> Self {
        let password = session.issues.iter().find(|issue| issue.reason == PASSWORD_UNAVAILABLE);
        Self {
            peer: session.peer.into(),
            established: session.state == BgpSessionState::Established,
            bfd_down: session.bfd.is_some_and(|bfd| bfd != BfdState::Up),
            message: session
                .issues
                .first()
                .map(|issue| truncated_message(&issue.message).into())
                .unwrap_or_default(),
            password_unavailable: password.map(|issue| truncated_message(&issue.message).into()),
        }
    }
}

impl From<api::UncheckedService> for UncheckedHealthCheck {
    fn from(it: api::UncheckedService) -> Self {
        let count = |number: i64| u64::try_from(number).unwrap_or_default();
        Self {
            service: Key::new(&it.namespace, &it.name),
            address: it.address,
            reason: it.reason,
            unchecked: count(it.unchecked),
            endpoints: count(it.endpoints),
        }
    }
}

/// Decodes an entry of the list of failing health checks. Returns `None` if the endpoint is not
/// `address:port`, which happens only after a manual edit.
fn failing(failing: api::FailingService) -> Option<FailingHealthCheck> {
    let api::FailingService { namespace, name, endpoint, message } = failing;
    let endpoint: SocketAddr = endpoint.parse().ok()?;
    let why = truncated_message(&format!("{endpoint}: {message}")).into();
    Some(FailingHealthCheck {
        service: Key::new(&namespace, &name),
        family: Family::of(endpoint.ip()),
        why,
    })
}

fn truncated_message(text: &str) -> String {
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}

impl From<api::InterfaceStatus> for SpeakerInterface {
    fn from(mut link: api::InterfaceStatus) -> Self {
        link.addresses.sort_unstable();
        link.heard.sort_unstable();
        link.unheard.sort_unstable();
        Self {
            name: link.name.into(),
            mac: link.mac.into(),
            up: link.up,
            isolated: link.isolated,
            standby: link.standby,
            hello_senders: link.heard.into_iter().map(Into::into).collect(),
            unheard: link.unheard.into_iter().map(Into::into).collect(),
            addresses: link.addresses.into(),
            subnets: link.subnets.iter().filter_map(|text| text.parse().ok()).collect(),
            ipv6_disabled: link.ipv6_disabled,
            late_hellos: link.late_hellos,
            issues: link.issues.into(),
        }
    }
}

custom_resource!(Speaker.node: SpeakerStatusObject, SpeakerStatus, "SpeakerStatuses");

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_decoded_in_any_order_and_fields_may_be_absent() {
        let object = json!({"metadata": {"name": "node1"}, "status": {"interfaces": [
            {"name": "eth0", "mac": "02:00:00:00:00:01", "up": true, "heard": ["node3", "node2"],
                "unheard": ["node3"], "addresses": ["172.30.0.201", "172.30.0.200"],
                "subnets": ["172.30.0.0/24", "edited"], "ipv6Disabled": true},
            {"name": "eth1", "mac": "02:00:00:00:00:02", "up": false},
        ]}});
        let speaker = Speaker::from(
            serde_json::from_value::<api::SpeakerStatusObject>(object).expect("speaker"),
        );
        let names = |address: &str| {
            speaker
                .interfaces_with(address.parse().expect("address"))
                .map(|link| &*link.name)
                .collect::<Vec<_>>()
        };
        assert_eq!((names("172.30.0.200"), names("172.30.0.9")), (vec!["eth0"], vec![]));
        assert!(
            speaker.receives_hellos_of("node2")
                && speaker.receives_hellos_of("node3")
                && !speaker.receives_hellos_of("node1")
        );
        let unheard = speaker.interfaces.iter().map(|link| link.unheard.concat());
        assert_eq!(unheard.collect::<Vec<_>>(), ["node3", ""]);
        let without_status = serde_json::from_value::<api::SpeakerStatusObject>(
            json!({"metadata": {"name": "node2"}}),
        )
        .expect("speaker");
        assert_eq!(
            Speaker::from(without_status),
            Speaker { node: "node2".into(), ..Speaker::default() }
        );
    }

    #[test]
    fn a_status_of_megabytes_becomes_a_small_fact() {
        let long = "x".repeat(1_000_000);
        let names: Vec<_> = (0..100_000).map(|n| format!("n{n}")).collect();
        let issue =
            json!({"address": "10.0.0.1", "reason": "AddressConflict", "mac": long, "node": long});
        let interface = json!({"name": long, "mac": long, "up": true, "heard": names,
            "unheard": names, "issues": vec![issue; 3], "subnets": [long]});
        let session = json!({"peer": long, "state": "Idle",
            "issues": [{"reason": long, "message": long}]});
        let object = json!({"metadata": {"name": "node1"}, "status": {
            "interfaces": [interface],
            "failingHealthChecks": [{"namespace": long, "name": long, "endpoint": "10.0.0.1:80",
                "message": long}],
            "uncheckedHealthChecks": [{"namespace": long, "name": long, "address": "10.0.0.1",
                "reason": "Off", "unchecked": 1, "endpoints": 1}],
            "dataPath": {"state": "Healthy", "message": long},
            "bgp": {"established": long, "sessions": [session]},
            "watchedNodes": [{"node": long, "state": "Silent"}],
        }});
        let object: api::SpeakerStatusObject = serde_json::from_value(object).expect("speaker");
        let speaker = Speaker::from(object);
        let [link] = &*speaker.interfaces else { panic!("one interface") };
        assert_eq!((link.name.len(), link.mac.len()), (15, 17));
        assert_eq!((link.hello_senders.len(), link.unheard.len()), (2_048, 2_048));
        assert!(link.issues.iter().all(|issue| issue.mac.len() == 17));
        // Without the two lists of nodes, the texts take some kilobytes.
        let lists = 2 * 2_048 * "\"n10000\", ".len();
        assert!(format!("{speaker:?}").len() < lists + 10_000);
    }

    #[test]
    fn the_sessions_of_a_node_with_gobgpd_are_decoded() {
        let speaker = |bgp: serde_json::Value| {
            let object = json!({"metadata": {"name": "node1"}, "status": {"bgp": bgp}});
            Speaker::from(
                serde_json::from_value::<api::SpeakerStatusObject>(object).expect("speaker"),
            )
            .bgp
        };
        assert_eq!((speaker(json!(null)), speaker(json!({}))), (None, Some(Box::default())));
        let both = json!([{"peer": "tor", "state": "Established"}, {"peer": "spine", "state": "OpenConfirm",
                "issues": [{"reason": "NoOpen", "message": "no reply"}, {"reason": "PasswordUnavailable", "message": "no Secret"}]},
            {"peer": "up", "state": "Established", "bfd": "Up"}, {"peer": "down", "state": "Established", "bfd": "Init"}]);
        let read = speaker(json!({"sessions": both})).unwrap_or_default();
        let decoded =
            read.iter().map(|session| (&*session.peer, session.established, &*session.message));
        assert_eq!(
            decoded.collect::<Vec<_>>(),
            [("tor", true, ""), ("spine", false, "no reply"), ("up", true, ""), ("down", true, "")]
        );
        let passwords: Vec<_> =
            read.iter().map(|session| session.password_unavailable.as_deref()).collect();
        assert_eq!(
            passwords,
            [None, Some("no Secret"), None, None],
            "an issue of the password is found even after another issue"
        );
        let bfd_down = read.iter().filter(|session| session.bfd_down).map(|session| &*session.peer);
        assert_eq!(bfd_down.collect::<Vec<_>>(), ["down"]);
    }

    #[test]
    fn failing_services_are_found_and_messages_are_truncated() {
        let long = "x".repeat(100_000);
        let at = |endpoint: &str, name: &str, message: &str| json!({"namespace": "default", "name": name, "endpoint": endpoint, "message": message});
        let fails = |name: &str, message: &str| at("10.1.2.3:80", name, message);
        let speaker = |state: &str| {
            let object = json!({"metadata": {"name": "node1"}, "status": {"interfaces": [], "draining": true,
                "dataPath": {"state": state, "message": long},
                "failingHealthChecks": [fails("web", "connection refused"), fails("db", &long), fails("web", "timeout"),
                    at("[fd00::1]:80", "web", "status 503"), at("not an endpoint", "mail", "nothing")]}});
            Speaker::from(
                serde_json::from_value::<api::SpeakerStatusObject>(object).expect("speaker"),
            )
        };
        let unhealthy = speaker("Unhealthy");
        let why = |name: &str| -> Vec<&str> {
            unhealthy
                .failing(&Key::new("default", name))
                .iter()
                .map(|failing| &*failing.why)
                .collect()
        };
        assert_eq!(
            why("web"),
            ["10.1.2.3:80: connection refused", "[fd00::1]:80: status 503"],
            "each family has one entry"
        );
        assert_eq!(
            (why("db").len(), why("db")[0].len(), why("mail").len()),
            (1, MESSAGE_CHARS_MAX, 0)
        );
        assert_eq!(
            (
                unhealthy.kube_proxy_issue().map(str::len),
                unhealthy.draining,
                unhealthy.failing.len()
            ),
            (Some(MESSAGE_CHARS_MAX), true, 3)
        );
        for state in ["Unknown", "Healthy", "NotChecked"] {
            assert_eq!(speaker(state).kube_proxy_issue(), None, "the state is {state}");
        }
    }

    #[test]
    fn unchecked_services_are_found_and_no_number_is_negative() {
        let entry = |name: &str, address: &str, reason: &str, unchecked: i64| {
            json!({"namespace": "default", "name": name, "address": address, "reason": reason,
                "unchecked": unchecked, "endpoints": 4})
        };
        let object = json!({"metadata": {"name": "node1"}, "status": {"uncheckedHealthChecks": [
            entry("web", "fd00::9", "OutsideRanges", -1), entry("db", "10.0.0.8", "Off", 1),
            entry("web", "10.0.0.9", "NoPort", 2),
        ]}});
        let object = serde_json::from_value::<api::SpeakerStatusObject>(object).expect("speaker");
        let speaker = Speaker::from(object);
        let found = |name| speaker.unchecked(&Key::new("default", name)).iter();
        let web: Vec<_> =
            found("web").map(|it| (it.reason, it.unchecked, it.endpoints, it.address)).collect();
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(
            web,
            [
                (UncheckedReason::NoPort, 2, 4, address("10.0.0.9")),
                (UncheckedReason::OutsideRanges, 0, 4, address("fd00::9")),
            ]
        );
        assert_eq!((found("db").count(), found("mail").count()), (1, 0));
    }
}
