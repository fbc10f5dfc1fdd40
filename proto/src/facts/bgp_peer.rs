//! A BGPPeer, decoded for decisions: a session's terms instead of texts, its problems instead of errors.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use kube::core::{Duration as GoDuration, Selector};

use super::selectors::{any, read as read_selectors};
use crate::api::{self, BGPPeerSpec, DynamicAsn};

/// How long a session without a word lives where nobody says (RFC 4271 section 10).
const HOLD_TIME: Duration = Duration::from_secs(90);
/// The shortest hold time that is one (RFC 4271 section 4.2).
const HOLD_TIME_MIN: Duration = Duration::from_secs(3);
/// Timers are whole seconds, of 16 bits.
const SECONDS_MAX: u64 = 65_535;
/// How long to wait before a session that could not be opened is tried again.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// The longest password that TCP-MD5 has room for (`TCP_MD5SIG_MAXKEYLEN`), in bytes.
pub const PASSWORD_MAX: usize = 80;
/// The most digits that a number of a duration may have: what is longer is no time that anybody means.
const DIGITS_MAX: usize = 9;

/// Something that is wrong with a BGPPeer by itself. It has no sessions then; all others do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BgpPeerProblem {
    /// `myASN` is 0.
    #[error("spec.myASN is 0: write the AS number of the nodes")]
    MyAsn,
    /// None or both of the ways to say whose router it is.
    #[error("write one of spec.peerASN and spec.dynamicASN")]
    PeerAsn,
    /// None or both of the ways to say where it is.
    #[error("write one of spec.peerAddress and spec.interface")]
    Place,
    /// What is written is no address.
    #[error("spec.{field} is {text:?}: write an {what} address")]
    Address {
        /// The field.
        field: &'static str,
        /// What stands there.
        text: Box<str>,
        /// Of which family, or `IP`.
        what: &'static str,
    },
    /// The session comes from an address of another family than it goes to.
    #[error("spec.sourceAddress and spec.peerAddress are of different families")]
    SourceFamily,
    /// A timer cannot be had.
    #[error("spec.{field} is {text:?}: write whole seconds from {min}s to {SECONDS_MAX}s")]
    Time {
        /// The field.
        field: &'static str,
        /// What stands there.
        text: Box<str>,
        /// The least that can be had, in seconds.
        min: u64,
    },
    /// The session would end before it is kept alive.
    #[error("spec.keepaliveTime is longer than spec.holdTime")]
    Keepalive,
    /// Multihop towards ourselves.
    #[error("spec.ebgpMultiHop is for external peers, and spec.peerASN is spec.myASN: remove it")]
    MultiHop,
    /// Two ways to look at hops.
    #[error("spec.ebgpMultiHop and spec.ttlSecurityHops exclude each other: remove one")]
    Hops,
    /// Two passwords.
    #[error("write one of spec.password and spec.passwordSecret")]
    Passwords,
    /// A password that TCP-MD5 has no room for.
    #[error("spec.password is longer than 80 bytes")]
    Password,
    /// A Secret of another namespace.
    #[error("spec.passwordSecret.namespace is {0:?}: the Secret must be in FerroLB's own namespace")]
    SecretNamespace(Box<str>),
    /// MetalLB's field that GoBGP cannot serve.
    #[error("spec.vrf: GoBGP has no sessions in a VRF of the node: remove it")]
    Vrf,
    /// A selector that means nothing.
    #[error("{0}")]
    Selector(Box<str>),
    /// The object does not have the shape of the kind.
    #[error("the object cannot be read: {0}")]
    Unreadable(Box<str>),
}

/// Whose router it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAsn {
    /// This AS.
    Number(u32),
    /// Any but ours: the router tells.
    External,
}

/// Where the router is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerPlace {
    /// At this address.
    Address(IpAddr),
    /// At the other end of the link of this name.
    Interface(Box<str>),
}

impl PeerPlace {
    /// The address, where it has one.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Interface(_) => None,
        }
    }

    /// The link's name, where it has no address.
    #[must_use]
    pub fn interface(&self) -> Option<&str> {
        match self {
            Self::Address(_) => None,
            Self::Interface(name) => Some(name),
        }
    }
}

/// What opens the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// This one.
    Plain(Box<str>),
    /// That of the Secret of this name.
    Secret(Box<str>),
}

/// The terms of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// `spec.myASN`.
    pub my_asn: u32,
    /// `spec.peerASN`; `dynamicASN: internal` is our own.
    pub peer_asn: PeerAsn,
    /// `spec.localASN`.
    pub local_asn: Option<u32>,
    /// `spec.peerAddress` or `spec.interface`.
    pub place: PeerPlace,
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
    pub password: Option<Password>,
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

/// What we know of a BGPPeer.
#[derive(Clone, Debug)]
pub struct BgpPeer {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp` in seconds since 1970: of two that exclude each other, the older one is in use.
    pub created: i64,
    node_selectors: Vec<Selector>,
    /// The terms, or what is wrong with it.
    pub session: Result<Session, BgpPeerProblem>,
    /// The status it has.
    pub status: api::BGPPeerStatus,
}

impl BgpPeer {
    /// Whether a node with these labels speaks with it.
    #[must_use]
    pub fn selects_node(&self, labels: &BTreeMap<String, String>) -> bool {
        self.node_selectors.is_empty() || any(&self.node_selectors, labels)
    }

    /// One whose object does not have the shape of the kind.
    #[must_use]
    pub fn unreadable(name: Box<str>, why: &str) -> Self {
        let session = Err(BgpPeerProblem::Unreadable(why.into()));
        Self {
            name,
            generation: 0,
            created: 0,
            node_selectors: Vec::new(),
            session,
            status: api::BGPPeerStatus::default(),
        }
    }
}

impl From<api::Router> for BgpPeer {
    fn from(object: api::Router) -> Self {
        let selectors = read_selectors("nodeSelectors", object.spec.node_selectors.clone());
        let (node_selectors, session) = match selectors {
            Ok(selectors) => {
                (selectors, session(&object.spec, object.metadata.namespace.as_deref().unwrap_or_default()))
            }
            Err(why) => (Vec::new(), Err(BgpPeerProblem::Selector(why))),
        };
        Self {
            name: object.metadata.name.unwrap_or_default().into(),
            generation: object.metadata.generation.unwrap_or(0),
            created: object.metadata.creation_timestamp.map_or(0, |created| created.0.as_second()),
            node_selectors,
            session,
            status: object.status.unwrap_or_default(),
        }
    }
}

fn session(spec: &BGPPeerSpec, namespace: &str) -> Result<Session, BgpPeerProblem> {
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
        return Err(BgpPeerProblem::Hops);
    }
    let place = place(spec)?;
    let source: Option<IpAddr> = address("sourceAddress", &spec.source_address, "IP")?;
    if let (PeerPlace::Address(peer), Some(source)) = (&place, source)
        && peer.is_ipv4() != source.is_ipv4()
    {
        return Err(BgpPeerProblem::SourceFamily);
    }
    let (hold, keepalive) = timers(spec)?;
    Ok(Session {
        my_asn: spec.my_asn,
        peer_asn,
        local_asn: spec.local_asn.filter(|asn| *asn != 0),
        place,
        source,
        port: spec.peer_port,
        hold,
        keepalive,
        connect: time("connectTime", spec.connect_time.as_deref(), 1)?.unwrap_or(CONNECT_TIME),
        router_id: address("routerID", &spec.router_id, "IPv4")?,
        password: password(spec, namespace)?,
        bfd_profile: Some(spec.bfd_profile.as_str()).filter(|name| !name.is_empty()).map(Into::into),
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

fn place(spec: &BGPPeerSpec) -> Result<PeerPlace, BgpPeerProblem> {
    match (address("peerAddress", &spec.peer_address, "IP")?, spec.interface.as_str()) {
        (Some(address), "") => Ok(PeerPlace::Address(address)),
        (None, interface) if !interface.is_empty() => Ok(PeerPlace::Interface(interface.into())),
        (Some(_) | None, _) => Err(BgpPeerProblem::Place),
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

/// Hold time and keepalive time: where one is not written, the other says it.
fn timers(spec: &BGPPeerSpec) -> Result<(Duration, Duration), BgpPeerProblem> {
    let hold = time("holdTime", spec.hold_time.as_deref(), HOLD_TIME_MIN.as_secs())?;
    let keepalive = time("keepaliveTime", spec.keepalive_time.as_deref(), 1)?;
    let hold = hold.or(keepalive.map(|keepalive| (keepalive * 3).max(HOLD_TIME_MIN))).unwrap_or(HOLD_TIME);
    let keepalive = keepalive.unwrap_or(Duration::from_secs(hold.as_secs() / 3));
    if keepalive > hold {
        return Err(BgpPeerProblem::Keepalive);
    }
    Ok((hold, keepalive))
}

fn time(field: &'static str, text: Option<&str>, min: u64) -> Result<Option<Duration>, BgpPeerProblem> {
    let Some(text) = text else { return Ok(None) };
    let seconds = seconds(text).filter(|seconds| (min..=SECONDS_MAX).contains(seconds));
    let seconds = seconds.ok_or_else(|| BgpPeerProblem::Time { field, text: text.into(), min })?;
    Ok(Some(Duration::from_secs(seconds)))
}

/// Go's notation in seconds, rounded as MetalLB rounds. The parser of it takes any number, and panics at those that are no duration of Rust's:
/// so no signs, and no numbers that nobody means.
fn seconds(text: &str) -> Option<u64> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '.';
    let longest = text.split(|c: char| !c.is_ascii_digit()).map(str::len).max();
    if text.is_empty() || !text.chars().all(is_plain) || longest > Some(DIGITS_MAX) {
        return None;
    }
    let duration = Duration::from(text.parse::<GoDuration>().ok()?);
    (duration + Duration::from_millis(500)).as_secs().into()
}

fn password(spec: &BGPPeerSpec, namespace: &str) -> Result<Option<Password>, BgpPeerProblem> {
    let secret = spec.password_secret.as_ref().filter(|secret| !secret.name.is_empty());
    match (spec.password.as_str(), secret) {
        ("", None) => Ok(None),
        ("", Some(secret)) if !secret.namespace.is_empty() && secret.namespace != namespace => {
            Err(BgpPeerProblem::SecretNamespace(secret.namespace.as_str().into()))
        }
        ("", Some(secret)) => Ok(Some(Password::Secret(secret.name.as_str().into()))),
        (plain, None) if plain.len() > PASSWORD_MAX => Err(BgpPeerProblem::Password),
        (plain, None) => Ok(Some(Password::Plain(plain.into()))),
        (_, Some(_)) => Err(BgpPeerProblem::Passwords),
    }
}

#[cfg(test)]
mod tests;
