//! Configuration of gobgpd for one session, with a mark that identifies it.

use crate::plan::SessionConfig;
use ferrolb_proto::facts::{BfdTimers, PeerAsn, PeerLocation, SessionParameters};
use ferrolb_proto::range::Family;
use gobgp_proto as api;
use prost::Message;

use super::content_hash::{ContentHash, NAME_PREFIX};

/// TTL of packets to an external router that is more than one hop away.
const MULTIHOP_TTL: u32 = 255;
/// Time for which routers keep this node's routes while gobgpd is down, if graceful restart is on
/// (RFC 4724 section 3), in seconds.
pub(super) const RESTART_TIME_S: u32 = 120;
/// Time in seconds for which a restarted gobgpd waits for the sessions with all its routers before
/// it sends routes. 1 is GoBGP's minimum. The wait is useless here, because gobgpd's routes do not
/// come from routers. With GoBGP's default, one router that is down would delay all routes by 360
/// s.
const DEFERRAL_TIME_S: u32 = 1;
/// Time for which a session stays in the state Idle after a reset, in seconds.
const IDLE_HOLD_S: u64 = 5;
/// UDP port of single-hop BFD (RFC 5881 section 4).
const BFD_PORT: u32 = 3784;

/// Configuration of one session in gobgpd.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerConfig {
    /// Name of the BGPPeer.
    pub(super) name: Box<str>,
    /// gobgpd's peer configuration. Its description holds the name and the mark. The mark does not
    /// cover BFD, because the speaker enables BFD only while the session is established.
    pub(super) peer: api::Peer,
}

impl PeerConfig {
    pub(super) fn new(session: &SessionConfig) -> Self {
        let peer_config = api_peer(&session.parameters, session.password.as_deref());
        let mark = ContentHash::of(&peer_config.encode_to_vec());
        let description = format!("{NAME_PREFIX}{mark} {}", session.name);
        let conf = peer_config.conf.map(|conf| api::PeerConf { description, ..conf });
        Self {
            name: session.name.clone(),
            peer: api::Peer { conf, bfd: session.bfd.map(bfd), ..peer_config },
        }
    }

    /// Returns the description that gobgpd stores with the session. Two sessions with the same
    /// description have the same parameters except BFD.
    pub(super) fn description(&self) -> &str {
        self.peer.conf.as_ref().map_or("", |conf| &conf.description)
    }

    /// Returns gobgpd's peer configuration: with the configured BFD if `on` is true, otherwise
    /// without BFD.
    pub fn with_bfd(&self, on: bool) -> api::Peer {
        api::Peer { bfd: self.peer.bfd.filter(|_| on), ..self.peer.clone() }
    }
}

fn api_peer(session: &SessionParameters, password: Option<&str>) -> api::Peer {
    let (address, interface) = match &session.location {
        PeerLocation::Address(address) => (address.to_string(), String::new()),
        PeerLocation::Interface(name) => (String::new(), name.to_string()),
    };
    let peer_asn = match session.peer_asn {
        PeerAsn::Number(asn) => asn,
        PeerAsn::External => 0,
    };
    let enabled = session.graceful_restart;
    let families =
        [Family::V4, Family::V6].into_iter().filter(|family| session.carries_family(*family));
    let hops = session.ttl_security_hops.map(|hops| u32::from(u8::MAX) + 1 - u32::from(hops));
    api::Peer {
        conf: Some(api::PeerConf {
            auth_password: password.unwrap_or_default().to_owned(),
            local_asn: session.local_asn.unwrap_or(0),
            neighbor_address: address,
            peer_asn,
            neighbor_interface: interface,
            ..api::PeerConf::default()
        }),
        ebgp_multihop: session
            .multi_hop
            .then_some(api::EbgpMultihop { enabled: true, multihop_ttl: MULTIHOP_TTL }),
        ttl_security: hops.map(|ttl_min| api::TtlSecurity { enabled: true, ttl_min }),
        timers: Some(api::Timers {
            config: Some(api::TimersConfig {
                connect_retry: session.connect.as_secs(),
                hold_time: session.hold.as_secs(),
                keepalive_interval: session.keepalive.as_secs(),
                idle_hold_time_after_reset: IDLE_HOLD_S,
            }),
            state: None,
        }),
        transport: Some(api::Transport {
            local_address: session.source.map(|source| source.to_string()).unwrap_or_default(),
            remote_port: session.port.into(),
        }),
        graceful_restart: enabled.then_some(api::GracefulRestart {
            enabled,
            restart_time: RESTART_TIME_S,
            deferral_time: DEFERRAL_TIME_S,
            // The kernel forwards packets whether or not gobgpd runs. Without this flag, routers
            // drop their retained routes at the first OPEN.
            local_restarting: true,
        }),
        afi_safis: families.map(|of| afi_safi(of, enabled)).collect(),
        bfd: None,
        state: None,
    }
}

/// Converts a family to gobgpd's API.
pub const fn family(family: Family) -> api::Family {
    let afi = match family {
        Family::V4 => api::family::Afi::Ip,
        Family::V6 => api::family::Afi::Ip6,
    };
    api::Family { afi: afi as i32, safi: api::family::Safi::Unicast as i32 }
}

fn afi_safi(of: Family, enabled: bool) -> api::AfiSafi {
    let graceful =
        api::MpGracefulRestart { config: Some(api::MpGracefulRestartConfig { enabled }) };
    api::AfiSafi {
        mp_graceful_restart: enabled.then_some(graceful),
        config: Some(api::AfiSafiConfig { family: Some(family(of)), enabled: true }),
        state: None,
    }
}

fn bfd(timers: BfdTimers) -> api::BfdPeerConfig {
    // Each timer is at most one minute, so the conversion to microseconds cannot overflow.
    let micros = |time: std::time::Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    api::BfdPeerConfig {
        enabled: true,
        port: BFD_PORT,
        desired_minimum_tx_interval: micros(timers.transmit),
        required_minimum_receive: micros(timers.receive),
        detection_multiplier: timers.multiplier.into(),
    }
}

#[cfg(test)]
mod tests;
