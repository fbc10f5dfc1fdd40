//! Bytes that a node's speaker receives from the API server.
//!
//! # Method
//!
//! `ss -tinHO` prints the kernel's `tcp_info` of each connection in the node's network namespace.
//! Its `bytes_received` counts the payload of TCP, so TLS is included, and the headers of IP and
//! TCP are not. In a lab without kube-proxies, the speaker is the only client of the API server in
//! this namespace. Its watches reuse their connections. A connection that ends between two readings
//! does not count.

use crate::Lab;
use crate::cluster::control_plane::API_PORT;
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// Received bytes of each connection, by its local address and port.
pub(super) type Connections = BTreeMap<String, u64>;

/// Reads the counters of a node's connections to the API server.
pub(super) fn connections(lab: &Lab, node: &str) -> Result<Connections> {
    let filter = format!("dport = :{API_PORT}");
    let output = lab.exec(node, &["ss", "-tinHO", "state", "established", &filter])?;
    output
        .lines()
        .map(|line| {
            connection(line).with_context(|| format!("ss printed an unexpected line: {line}"))
        })
        .collect()
}

/// Parses a line of `ss -tinHO state STATE`: the lengths of both queues, the local address, the
/// address of the peer, and the options and values of `tcp_info`. A counter of zero is missing.
fn connection(line: &str) -> Option<(String, u64)> {
    let mut words = line.split_whitespace();
    let local = words.nth(2)?;
    let received = words.find_map(|word| word.strip_prefix("bytes_received:"));
    Some((local.to_owned(), received.map_or(Some(0), |bytes| bytes.parse().ok())?))
}

/// Returns the bytes received between two readings. A new connection counts from zero.
pub(super) fn bytes_since(before: &Connections, after: &Connections) -> u64 {
    let earlier = |local: &String| before.get(local).copied().unwrap_or_default();
    after.iter().map(|(local, bytes)| bytes.saturating_sub(earlier(local))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line of iproute2 6.1, without a part of its values.
    const LINE: &str = "0      0      172.30.0.11:58660 172.30.0.1:6443 bbr wscale:10,10 rto:204 \
                        bytes_sent:1 bytes_acked:2 bytes_received:4711 segs_out:3 app_limited";

    #[test]
    fn a_line_has_the_local_address_and_the_received_bytes() {
        for (line, expect) in [
            (LINE.to_owned(), Some(4711)),
            (LINE.replace("bytes_received:4711 ", ""), Some(0)),
            (LINE.replace("4711", "many"), None),
            ("0 0".to_owned(), None),
        ] {
            let expect = expect.map(|bytes| ("172.30.0.11:58660".to_owned(), bytes));
            assert_eq!(connection(&line), expect, "{line}");
        }
    }

    #[test]
    fn new_connections_count_from_zero_and_ended_ones_do_not_count() {
        let connections = |all: &[(&str, u64)]| -> Connections {
            all.iter().map(|(local, bytes)| ((*local).to_owned(), *bytes)).collect()
        };
        let before = connections(&[("a", 100), ("b", 50)]);
        assert_eq!(bytes_since(&before, &connections(&[("a", 130), ("c", 7)])), 37);
    }
}
