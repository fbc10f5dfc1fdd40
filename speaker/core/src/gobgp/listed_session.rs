//! A session in the form in which gobgpd lists it.

use ferrolb_proto::facts::PeerLocation;
use gobgp_proto as api;

use super::steps::ObservedSession;

/// A session as gobgpd reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedSession {
    /// Address or interface of the router.
    pub location: PeerLocation,
    /// gobgpd's configuration and state of the session.
    pub peer: api::Peer,
}

impl ListedSession {
    /// Returns the session, or none if it has no valid location.
    #[must_use]
    pub fn read(peer: api::Peer) -> Option<Self> {
        let conf = peer.conf.as_ref()?;
        let location = if conf.neighbor_interface.is_empty() {
            PeerLocation::Address(conf.neighbor_address.parse().ok()?)
        } else {
            PeerLocation::Interface(conf.neighbor_interface.as_str().into())
        };
        Some(Self { location, peer })
    }

    /// Returns the properties that determine the next step.
    #[must_use]
    pub fn observed(&self) -> ObservedSession {
        let description = self.peer.conf.as_ref().map_or("", |conf| &conf.description).into();
        ObservedSession {
            description,
            established: self.state().session_state() == api::peer_state::SessionState::Established,
            bfd: self.peer.bfd.filter(|bfd| bfd.enabled),
            has_own_asn: false,
        }
    }

    /// Returns the state of the session.
    #[must_use]
    pub fn state(&self) -> api::PeerState {
        self.peer.state.clone().unwrap_or_default()
    }
}
