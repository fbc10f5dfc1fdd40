//! Detection of another program on this node that uses the UDP port of BFD. A gobgpd that cannot
//! bind the port reports this only in its log.
//!
//! The kernel shows the owner of a socket only to processes with more permissions than the speaker
//! has. However, gobgpd has a socket on the BFD port only while it has a session with BFD, so a
//! socket that existed before belongs to another program.

use std::collections::BTreeSet;
use std::time::Duration;

use ferrolb_proto::Instant;

/// Time after the end of gobgpd's last BFD session for which a socket on the BFD port may still be
/// gobgpd's. gobgpd closes its socket within a second.
const CLOSE_DELAY_MAX: Duration = Duration::from_secs(3);

/// Sockets on the BFD port that are not gobgpd's.
#[derive(Debug, Default)]
pub(super) struct BfdPortWatch {
    foreign_sockets: BTreeSet<u64>,
    /// Most recent time at which gobgpd had a BFD session.
    bfd_seen_at: Option<Instant>,
}

impl BfdPortWatch {
    /// Returns whether another program uses the port. `sockets` are the current sockets on the
    /// port, and `has_bfd` is true if gobgpd has a session with BFD.
    pub(super) fn is_taken(
        &mut self,
        sockets: &BTreeSet<u64>,
        has_bfd: bool,
        now: Instant,
    ) -> bool {
        if has_bfd {
            self.bfd_seen_at = Some(now);
        }
        if self.bfd_seen_at.is_none_or(|at| now.since(at) >= CLOSE_DELAY_MAX) {
            self.foreign_sockets.clone_from(sockets);
        } else {
            self.foreign_sockets.retain(|inode| sockets.contains(inode));
        }
        // gobgpd uses one socket for all sessions.
        !self.foreign_sockets.is_empty() || sockets.len() > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_older_than_gobgpds_bfd_is_foreign() {
        let at = |seconds: u64| Instant::ZERO + Duration::from_secs(seconds);
        let mut watch = BfdPortWatch::default();
        let mut taken = |seconds, has_bfd, sockets: &[u64]| {
            watch.is_taken(&sockets.iter().copied().collect(), has_bfd, at(seconds))
        };
        assert!(!taken(0, false, &[]));
        assert!(!taken(1, true, &[1]), "the socket is gobgpd's");
        assert!(!taken(3, false, &[1]), "gobgpd has not closed its socket yet");
        assert!(!taken(9, false, &[]));
        assert!(taken(10, false, &[2]), "gobgpd has no BFD session");
        assert!(taken(11, true, &[2]));
        assert!(!taken(12, true, &[3]), "the other program has closed its socket");
        assert!(taken(13, true, &[3, 4]), "the second socket is not gobgpd's");
        assert!(!taken(14, true, &[3]));
    }
}
