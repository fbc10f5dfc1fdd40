//! The fact of a BGPPeer: the parameters of its sessions, or the reason why it is invalid.

use super::kind::custom_resource;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use kube::core::Selector;

use super::ObservedStatus;
use super::selectors::{any_matches, decode as read_selectors};
use crate::api::{self, BGPPeerSpec, DynamicAsn};
use crate::duration::parse_go_seconds;
use crate::range::Family;

/// The default hold time, which RFC 4271 section 10 suggests.
const HOLD_TIME: Duration = Duration::from_secs(90);
/// The shortest valid hold time (RFC 4271 section 4.2).
const HOLD_TIME_MIN: Duration = Duration::from_secs(3);
/// The longest timer, in seconds: BGP stores timers as whole seconds in 16 bits.
const SECONDS_MAX: u64 = 65_535;
/// The default time between two attempts to open a BGP session.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// The longest password of TCP-MD5 (`TCP_MD5SIG_MAXKEYLEN`), in bytes.
pub const PASSWORD_MAX: usize = 80;

/// The reason why a BGPPeer by itself is invalid, independent of other objects. An invalid BGPPeer
/// has no sessions and does not affect the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BgpPeerProblem {
    /// `spec.myASN` is 0.
    ///
    /// Action: Write the AS number of the nodes.
    #[error("spec.myASN is 0: write the AS number of the nodes")]
    MyAsn,
    /// None or both of `spec.peerASN` and `spec.dynamicASN` are set.
    ///
    /// Action: Write one of them.
    #[error("none or both of spec.peerASN and spec.dynamicASN are set: write one of them")]
    PeerAsn,
    /// None or both of `spec.peerAddress` and `spec.interface` are set.
    ///
    /// Action: Write one of them.
    #[error("none or both of spec.peerAddress and spec.interface are set: write one of them")]
    Location,
    /// The value of a field is not an address of the expected family.
    ///
    /// Action: Write the address that the message describes.
    #[error("spec.{field} is {text:?}: write an {what} address")]
    Address {
        /// The name of the field in `spec`.
        field: &'static str,
        /// The invalid value.
        text: Box<str>,
        /// The expected family, or `IP` if both families are valid.
        what: &'static str,
    },
    /// `spec.sourceAddress` and `spec.peerAddress` are of different families.
    ///
    /// Action: Write two of the same family.
    #[error(
        "spec.sourceAddress and spec.peerAddress are of different families: write two of the same \
         family"
    )]
    SourceFamily,
    /// A time is not in whole seconds, or is out of bounds.
    ///
    /// Action: Follow the message.
    #[error("spec.{field} is {text:?}: write whole seconds from {min}s to {SECONDS_MAX}s")]
    Duration {
        /// The name of the field in `spec`.
        field: &'static str,
        /// The invalid value.
        text: Box<str>,
        /// The lowest valid value, in seconds.
        min: u64,
    },
    /// `spec.keepaliveTime` is longer than `spec.holdTime`.
    ///
    /// The session would end between two messages.
    ///
    /// Action: Write a shorter one.
    #[error("spec.keepaliveTime is longer than spec.holdTime: write a shorter one")]
    Keepalive,
    /// `spec.ebgpMultiHop` is set for a router of the same AS.
    ///
    /// Action: Remove the field.
    #[error("spec.ebgpMultiHop is for external peers, and spec.peerASN is spec.myASN: remove it")]
    MultiHop,
    /// `spec.ebgpMultiHop` and `spec.ttlSecurityHops` are both set.
    ///
    /// Action: Remove one of them.
    #[error("spec.ebgpMultiHop and spec.ttlSecurityHops are both set: remove one of them")]
    MultiHopWithTtlSecurity,
    /// `spec.password` and `spec.passwordSecret` are both set.
    ///
    /// Action: Remove one of them.
    #[error("spec.password and spec.passwordSecret are both set: remove one of them")]
    TwoPasswords,
    /// `spec.password` is longer than 80 bytes.
    ///
    /// TCP-MD5 allows no longer one.
    ///
    /// Action: Write a shorter one.
    #[error("spec.password is longer than 80 bytes: write a shorter one")]
    PasswordTooLong,
    /// `spec.passwordSecret` is in another namespace than FerroLB's own.
    ///
    /// Action: Move the Secret, and remove the field.
    #[error(
        "spec.passwordSecret.namespace is {0:?}, and FerroLB reads Secrets of its own namespace \
         only: move the Secret, and remove the field"
    )]
    SecretNamespace(Box<str>),
    /// GoBGP does not support `spec.vrf`, a field of MetalLB.
    ///
    /// Action: Remove the field.
    #[error("spec.vrf: GoBGP does not support sessions in a VRF: remove it")]
    Vrf,
    /// A selector is invalid.
    #[error("{0}")]
    Selector(Box<str>),
    /// The object does not match the schema of its kind.
    #[error("the object cannot be read: {0}. Apply the CRDs of this version")]
    Unreadable(Box<str>),
}

/// The AS of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAsn {
    /// The AS that has this number.
    Number(u32),
    /// Any AS except that of the nodes. The router sends its AS number when the session opens.
    External,
}

/// The location of a router.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerLocation {
    /// The router has this address.
    Address(IpAddr),
    /// The router is the neighbor on the interface of this name.
    Interface(Box<str>),
}

impl PeerLocation {
    /// Returns the address of the router, if the BGPPeer configures one.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Interface(_) => None,
        }
    }

    /// Returns the name of the interface, if the session is unnumbered.
    #[must_use]
    pub fn interface(&self) -> Option<&str> {
        match self {
            Self::Address(_) => None,
            Self::Interface(name) => Some(name),
        }
    }
}

/// The source of a session's password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// The BGPPeer contains the password.
    Plain(Box<str>),
    /// A Secret of this name contains the password.
    Secret(Box<str>),
}

/// The parameters of the BGP sessions with a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionParameters {
    /// `spec.myASN`.
    pub my_asn: u32,
    /// `spec.peerASN`; with `dynamicASN: internal`, the value of `spec.myASN`.
    pub peer_asn: PeerAsn,
    /// `spec.localASN`.
    pub local_asn: Option<u32>,
    /// `spec.peerAddress` or `spec.interface`.
    pub location: PeerLocation,
    /// `spec.sourceAddress`.
    pub source: Option<IpAddr>,
    /// `spec.peerPort`.
    pub port: u16,
    /// `spec.holdTime`, whole seconds.
    pub hold: Duration,
    /// `spec.keepaliveTime`, whole seconds.
    pub keepalive: Duration,
    /// `spec.connectTime`, whole seconds.
    pub connect: Duration,
    /// `spec.routerID`.
    pub router_id: Option<Ipv4Addr>,
    /// `spec.password` or `spec.passwordSecret`.
    pub password: Option<PasswordSource>,
    /// `spec.bfdProfile`.
    pub bfd_profile: Option<Box<str>>,
    /// `spec.enableGracefulRestart`.
    pub graceful_restart: bool,
    /// `spec.ebgpMultiHop`.
    pub multi_hop: bool,
    /// `spec.ttlSecurityHops`.
    pub ttl_security_hops: Option<u8>,
    /// `spec.dualStackAddressFamily`.
    pub dual_stack: bool,
}

impl SessionParameters {
    /// Returns the AS number that the router receives in the node's OPEN message.
    #[must_use]
    pub fn own_asn(&self) -> u32 {
        self.local_asn.unwrap_or(self.my_asn)
    }

    /// Returns whether the router is in the nodes' own AS (RFC 4271 section 1.1).
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.peer_asn == PeerAsn::Number(self.own_asn())
    }

    /// Returns whether the session carries prefixes of a family: the family of its own address, and
    /// both families if the BGPPeer requests it or the session is unnumbered.
    #[must_use]
    pub fn carries_family(&self, family: Family) -> bool {
        match &self.location {
            PeerLocation::Address(address) => self.dual_stack || Family::of(*address) == family,
            PeerLocation::Interface(_) => true,
        }
    }
}

/// The fact of a BGPPeer.
#[derive(Clone, Debug, PartialEq)]
pub struct BgpPeer {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp` in seconds since 1970. Of two peers that conflict with each
    /// other, the older one is in use.
    pub created: i64,
    node_selectors: Vec<Selector>,
    /// The parameters of the peer's sessions, or why the BGPPeer is invalid.
    pub session: Result<SessionParameters, BgpPeerProblem>,
    /// The status as read from the API server.
    pub status: ObservedStatus<api::BGPPeerStatus>,
}

impl BgpPeer {
    /// Returns whether a node with these labels has a session with the peer.
    #[must_use]
    pub fn selects_node(&self, labels: &BTreeMap<String, String>) -> bool {
        self.node_selectors.is_empty() || any_matches(&self.node_selectors, labels)
    }

    /// Returns the fact of an object that does not match the schema of its kind.
    #[must_use]
    pub fn unreadable(name: Box<str>, why: &str) -> Self {
        let session = Err(BgpPeerProblem::Unreadable(why.into()));
        Self {
            name,
            generation: 0,
            created: 0,
            node_selectors: Vec::new(),
            session,
            status: ObservedStatus::default(),
        }
    }
}

impl From<api::BgpPeerObject> for BgpPeer {
    fn from(object: api::BgpPeerObject) -> Self {
        let selectors = read_selectors("nodeSelectors", object.spec.node_selectors.clone());
        let (node_selectors, session) = match selectors {
            Ok(selectors) => (
                selectors,
                session(&object.spec, object.metadata.namespace.as_deref().unwrap_or_default()),
            ),
            Err(why) => (Vec::new(), Err(BgpPeerProblem::Selector(why))),
        };
        Self {
            name: object.metadata.name.unwrap_or_default().into(),
            generation: object.metadata.generation.unwrap_or(0),
            created: object.metadata.creation_timestamp.map_or(0, |created| created.0.as_second()),
            node_selectors,
            session,
            status: ObservedStatus(object.status.unwrap_or_default()),
        }
    }
}

fn session(spec: &BGPPeerSpec, namespace: &str) -> Result<SessionParameters, BgpPeerProblem> {
    if spec.my_asn == 0 {
        return Err(BgpPeerProblem::MyAsn);
    }
    if !spec.vrf.is_empty() {
        return Err(BgpPeerProblem::Vrf);
    }
    let peer_asn = peer_asn(spec)?;
    if spec.ebgp_multi_hop && peer_asn == PeerAsn::Number(spec.my_asn) {
        return Err(BgpPeerProblem::MultiHop);
    }
    if spec.ebgp_multi_hop && spec.ttl_security_hops.is_some() {
        return Err(BgpPeerProblem::MultiHopWithTtlSecurity);
    }
    let location = location(spec)?;
    let source: Option<IpAddr> = address("sourceAddress", &spec.source_address, "IP")?;
    if let (PeerLocation::Address(peer), Some(source)) = (&location, source)
        && peer.is_ipv4() != source.is_ipv4()
    {
        return Err(BgpPeerProblem::SourceFamily);
    }
    let (hold, keepalive) = timers(spec)?;
    Ok(SessionParameters {
        my_asn: spec.my_asn,
        peer_asn,
        local_asn: spec.local_asn.filter(|asn| *asn != 0),
        location,
        source,
        port: spec.peer_port,
        hold,
        keepalive,
        connect: time("connectTime", spec.connect_time.as_deref(), 1)?.unwrap_or(CONNECT_TIME),
        router_id: address("routerID", &spec.router_id, "IPv4")?,
        password: password(spec, namespace)?,
        bfd_profile: Some(spec.bfd_profile.as_str())
            .filter(|name| !name.is_empty())
            .map(Into::into),
        graceful_restart: spec.enable_graceful_restart,
        multi_hop: spec.ebgp_multi_hop,
        ttl_security_hops: spec.ttl_security_hops,
        dual_stack: spec.dual_stack_address_family,
    })
}

fn peer_asn(spec: &BGPPeerSpec) -> Result<PeerAsn, BgpPeerProblem> {
    match (spec.peer_asn.filter(|asn| *asn != 0), spec.dynamic_asn) {
        (Some(asn), None) => Ok(PeerAsn::Number(asn)),
        (None, Some(DynamicAsn::Internal)) => Ok(PeerAsn::Number(spec.my_asn)),
        (None, Some(DynamicAsn::External)) => Ok(PeerAsn::External),
        (Some(_), Some(_)) | (None, None) => Err(BgpPeerProblem::PeerAsn),
    }
}

fn location(spec: &BGPPeerSpec) -> Result<PeerLocation, BgpPeerProblem> {
    match (address("peerAddress", &spec.peer_address, "IP")?, spec.interface.as_str()) {
        (Some(address), "") => Ok(PeerLocation::Address(address)),
        (None, interface) if !interface.is_empty() => Ok(PeerLocation::Interface(interface.into())),
        (Some(_) | None, _) => Err(BgpPeerProblem::Location),
    }
}

fn address<A: std::str::FromStr>(
    field: &'static str,
    text: &str,
    what: &'static str,
) -> Result<Option<A>, BgpPeerProblem> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| BgpPeerProblem::Address { field, text: text.into(), what })
}

/// Returns the hold time and the keepalive time. If only one of them is set, the other is derived
/// from it, in the ratio 3 to 1.
fn timers(spec: &BGPPeerSpec) -> Result<(Duration, Duration), BgpPeerProblem> {
    let hold = time("holdTime", spec.hold_time.as_deref(), HOLD_TIME_MIN.as_secs())?;
    let keepalive = time("keepaliveTime", spec.keepalive_time.as_deref(), 1)?;
    let hold =
        hold.or(keepalive.map(|keepalive| (keepalive * 3).max(HOLD_TIME_MIN))).unwrap_or(HOLD_TIME);
    let keepalive = keepalive.unwrap_or(Duration::from_secs(hold.as_secs() / 3));
    if keepalive > hold {
        return Err(BgpPeerProblem::Keepalive);
    }
    Ok((hold, keepalive))
}

fn time(
    field: &'static str,
    text: Option<&str>,
    min: u64,
) -> Result<Option<Duration>, BgpPeerProblem> {
    let Some(text) = text else { return Ok(None) };
    let seconds = parse_go_seconds(text).filter(|seconds| (min..=SECONDS_MAX).contains(seconds));
    let seconds =
        seconds.ok_or_else(|| BgpPeerProblem::Duration { field, text: text.into(), min })?;
    Ok(Some(Duration::from_secs(seconds)))
}

fn password(spec: &BGPPeerSpec, namespace: &str) -> Result<Option<PasswordSource>, BgpPeerProblem> {
    let secret = spec.password_secret.as_ref().filter(|secret| !secret.name.is_empty());
    match (spec.password.as_str(), secret) {
        ("", None) => Ok(None),
        ("", Some(secret)) if !secret.namespace.is_empty() && secret.namespace != namespace => {
            Err(BgpPeerProblem::SecretNamespace(secret.namespace.as_str().into()))
        }
        ("", Some(secret)) => Ok(Some(PasswordSource::Secret(secret.name.as_str().into()))),
        (plain, None) if plain.len() > PASSWORD_MAX => Err(BgpPeerProblem::PasswordTooLong),
        (plain, None) => Ok(Some(PasswordSource::Plain(plain.into()))),
        (_, Some(_)) => Err(BgpPeerProblem::TwoPasswords),
    }
}

custom_resource!(BgpPeer.name: BgpPeerObject, BGPPeer, "BGPPeers");

#[cfg(test)]
mod tests;
