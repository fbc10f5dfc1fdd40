//! Counters of connection attempts to the BGP port of a host. The counters include attempts that
//! the host's router refuses, and work without a router.

use anyhow::{Context, Result};
use ferrolb_lab::{Lab, run};
use serde_json::Value;
use std::process::Command;

/// Rules that count connection attempts (SYN without ACK, RFC 9293 section 3.5) to the BGP port,
/// before the host's stack handles them.
const RULES: &str = "table inet connection_attempts {
    counter v4 { }
    counter v6 { }
    chain attempts {
        type filter hook prerouting priority raw; policy accept;
        tcp dport 179 tcp flags & (syn | ack) == syn meta nfproto ipv4 counter name v4
        tcp dport 179 tcp flags & (syn | ack) == syn meta nfproto ipv6 counter name v6
    }
}";

/// Starts the counters on a host. The counters include packets that the host forwards.
pub(crate) fn start(lab: &Lab, host: &str) -> Result<()> {
    lab.within(host, || run::run_with_input(Command::new("nft").args(["-f", "-"]), RULES))??;
    Ok(())
}

/// Returns the number of attempts since the start of the counters, over IPv4 and over IPv6.
pub(crate) fn counted(lab: &Lab, host: &str) -> Result<[u64; 2]> {
    let counters: Value =
        serde_json::from_str(&lab.exec(host, &["nft", "-j", "list", "counters"])?)?;
    let packets = |name: &str| {
        let all = counters["nftables"].as_array().into_iter().flatten();
        let found =
            all.filter_map(|entry| entry.get("counter")).find(|counter| counter["name"] == name);
        found
            .and_then(|counter| counter["packets"].as_u64())
            .with_context(|| format!("no counter {name}"))
    };
    Ok([packets("v4")?, packets("v6")?])
}
