//! Detection of another program on this node that uses the UDP port of BFD. A gobgpd that cannot
//! bind the port reports this only in its log. The driver reads the kernel's tables of sockets; the
//! code that evaluates them is pure.
//!
//! The kernel shows the owner of a socket only to processes with more permissions than the speaker
//! has. However, gobgpd has a socket on the BFD port only while it has a session with BFD, so a
//! socket that existed before belongs to another program.

use std::collections::BTreeSet;
use std::time::Duration;

use ferrolb_proto::Instant;

/// The kernel's tables of UDP sockets in the network namespace of this process, which is the
/// node's.
const SOCKET_TABLES: [&str; 2] = ["/proc/self/net/udp", "/proc/self/net/udp6"];
/// The port of single-hop BFD (RFC 5881 section 4), as the kernel prints it after an address.
const PORT_SUFFIX: &str = ":0EC8";
/// Time after the end of gobgpd's last BFD session for which a socket on the BFD port may still be
/// gobgpd's. gobgpd closes its socket within a second.
const CLOSE_DELAY_MAX: Duration = Duration::from_secs(3);

/// Returns the inodes of the sockets on the BFD port. An unreadable table counts as empty.
pub(super) fn sockets() -> BTreeSet<u64> {
    let tables = SOCKET_TABLES.iter().filter_map(|table| std::fs::read_to_string(table).ok());
    tables.flat_map(|table| inodes(&table)).collect()
}

/// Returns the inodes of the sockets on the BFD port in one table. In each line, the second word is
/// the socket's own address and port, and the tenth is its inode.
fn inodes(table: &str) -> Vec<u64> {
    let inode = |line: &str| {
        let mut words = line.split_whitespace();
        words.nth(1).filter(|address| address.ends_with(PORT_SUFFIX))?;
        words.nth(7)?.parse().ok()
    };
    table.lines().filter_map(inode).collect()
}

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
    fn only_sockets_on_the_bfd_port_are_read() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  289: 00000000:0EC8 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0
  290: 0100007F:C000 0200007F:0EC8 01 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 0
  291: 00000000:0EC9 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4713 2 0000000000000000 0
  292: 0.0:0EC8";
        assert_eq!(inodes(table), [4711]);
    }

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
