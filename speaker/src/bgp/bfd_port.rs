//! Sockets on the UDP port of BFD in the node's network namespace, from the kernel's tables. The
//! driver reads them for the machine, which detects another program that uses the port.

use std::collections::BTreeSet;

/// The kernel's tables of UDP sockets in the network namespace of this process, which is the
/// node's.
const SOCKET_TABLES: [&str; 2] = ["/proc/self/net/udp", "/proc/self/net/udp6"];
/// The port of single-hop BFD (RFC 5881 section 4), as the kernel prints it after an address.
const PORT_SUFFIX: &str = ":0EC8";

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
}
