//! Whether the UDP port of BFD is another program's on this node: gobgpd that cannot have it says so in its log alone. The driver reads the
//! kernel's sockets; what follows from them is pure.
//!
//! Whose a socket is cannot be seen without more rights than the speaker has. But gobgpd has one only while it has a session with BFD: what is
//! there before is not its own.

use std::collections::BTreeSet;
use std::time::Duration;

use ferrolb_proto::Instant;

/// The kernel's sockets of this process' network namespace, which is the node's.
const TABLES: [&str; 2] = ["/proc/self/net/udp", "/proc/self/net/udp6"];
/// The port of single-hop BFD (RFC 5881 section 4), as the kernel writes it behind an address.
const PORT: &str = ":0EC8";
/// How long gobgpd may keep its socket after its last session with BFD: it closes it within a second.
const CLOSES_WITHIN: Duration = Duration::from_secs(3);

/// The sockets of the port, by their inodes; what cannot be read has none.
pub(super) fn sockets() -> BTreeSet<u64> {
    let tables = TABLES.iter().filter_map(|table| std::fs::read_to_string(table).ok());
    tables.flat_map(|table| inodes(&table)).collect()
}

/// Those of one table: of each line the second word is the socket's own address and port, the tenth its inode.
fn inodes(table: &str) -> Vec<u64> {
    let inode = |line: &str| {
        let mut words = line.split_whitespace();
        words.nth(1).filter(|own| own.ends_with(PORT))?;
        words.nth(7)?.parse().ok()
    };
    table.lines().filter_map(inode).collect()
}

/// What is known of the sockets that are not gobgpd's.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    sockets: BTreeSet<u64>,
    /// When gobgpd was last seen to have a session with BFD.
    own: Option<Instant>,
}

impl Strangers {
    /// Whether another program has the port, from the sockets that there are, and whether gobgpd has a session with BFD.
    pub(super) fn look(&mut self, sockets: &BTreeSet<u64>, own: bool, now: Instant) -> bool {
        if own {
            self.own = Some(now);
        }
        if self.own.is_none_or(|own| now.since(own) >= CLOSES_WITHIN) {
            self.sockets.clone_from(sockets);
        } else {
            self.sockets.retain(|inode| sockets.contains(inode));
        }
        // gobgpd has one socket for everything.
        !self.sockets.is_empty() || sockets.len() > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_tells_the_sockets_of_the_port_alone() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  289: 00000000:0EC8 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0
  290: 0100007F:C000 0200007F:0EC8 01 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 0
  291: 00000000:0EC9 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4713 2 0000000000000000 0
  292: 0.0:0EC8";
        assert_eq!(inodes(table), [4711]);
    }

    #[test]
    fn what_was_there_before_gobgpd_had_bfd_is_another_programs_as_long_as_it_stays() {
        let at = |seconds: u64| Instant::ZERO + Duration::from_secs(seconds);
        let mut strangers = Strangers::default();
        let mut taken =
            |seconds, own, sockets: &[u64]| strangers.look(&sockets.iter().copied().collect(), own, at(seconds));
        assert!(!taken(0, false, &[]));
        assert!(!taken(1, true, &[1]), "gobgpd's own");
        assert!(!taken(3, false, &[1]), "it is about to be closed");
        assert!(!taken(9, false, &[]));
        assert!(taken(10, false, &[2]), "before there is any BFD");
        assert!(taken(11, true, &[2]));
        assert!(!taken(12, true, &[3]), "the other program is gone, and gobgpd has its own");
        assert!(taken(13, true, &[3, 4]), "one beside gobgpd's");
        assert!(!taken(14, true, &[3]));
    }
}
