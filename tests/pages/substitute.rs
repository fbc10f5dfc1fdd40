//! Replaces the addresses of the pages' examples with addresses of the lab. Pure.

use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::{ROUTERS, hosts};

/// Prefixes of the examples' network, and of the lab's LAN.
const PREFIXES: [(&str, &str); 2] = [("192.168.1.", "172.30.0."), ("fd00:1::", "fd30::")];
/// Router of the examples, which is the first router of the lab.
const ROUTER: &str = "192.168.1.1";

/// Returns commands, YAML or an output of a page for the lab's network.
pub fn to_lab(text: &str) -> String {
    let router = hosts().into_iter().find(|host| host.name == ROUTERS[0]);
    let router = router.as_ref().map(Host::v4).map(|address| address.to_string());
    let text = replace_address(text, ROUTER, router.as_deref().unwrap_or(ROUTER));
    PREFIXES.iter().fold(text, |text, (from, to)| text.replace(from, to))
}

/// Replaces an address, but no longer address that begins or ends with it.
fn replace_address(text: &str, from: &str, to: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let (before, after) = (&rest[..at], &rest[at + from.len()..]);
        let digit_before = before.ends_with(|c: char| c.is_ascii_digit() || c == '.');
        let continues = after.trim_start_matches('.').starts_with(|c: char| c.is_ascii_digit());
        result += before;
        result += if digit_before || continues { from } else { to };
        rest = after;
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_examples_are_replaced() {
        for (text, expect) in [
            ("192.168.1.240-192.168.1.250", "172.30.0.240-172.30.0.250"),
            ("node1 at 192.168.1.11", "node1 at 172.30.0.11"),
            ("peerAddress: 192.168.1.1\n", "peerAddress: 172.30.0.101\n"),
            ("from 192.168.1.1.", "from 172.30.0.101."),
            ("192.168.1.100 192.168.1.1:179", "172.30.0.100 172.30.0.101:179"),
            ("192.168.1.0/24", "172.30.0.0/24"),
            ("fd00:1::240-fd00:1::250", "fd30::240-fd30::250"),
            ("10.0.0.1 203.0.113.10", "10.0.0.1 203.0.113.10"),
        ] {
            assert_eq!(to_lab(text), expect, "{text}");
        }
    }
}
