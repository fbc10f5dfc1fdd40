//! Replaces the parts of an output that differ from cluster to cluster, and from run to run. Pure.

use std::net::Ipv4Addr;

/// Node ports that Kubernetes assigns by default.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;
/// Characters of the random suffixes of pod names (`k8s.io/apimachinery/pkg/util/rand`).
const POD_SUFFIX_CHARACTERS: &str = "bcdfghjklmnpqrstvwxz2456789";
const POD_SUFFIX_LENGTH: usize = 5;
/// Lengths of the hash of a ReplicaSet, the part of its pods' names before the suffix.
const TEMPLATE_HASH_LENGTHS: std::ops::RangeInclusive<usize> = 8..=10;

/// Returns the words of a line, separated by spaces, with placeholders for the parts that differ.
pub(super) fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(word).collect()
}

/// Replaces the parts of a word between other characters than letters, digits and `.:-_`.
fn word(word: &str) -> String {
    let mut result = String::new();
    let mut rest = word;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        let trimmed = part.trim_end_matches(['.', ':', '-']);
        result += &placeholder(trimmed).unwrap_or_else(|| trimmed.to_owned());
        result += &part[trimmed.len()..];
        let next = after.find(is_part).unwrap_or(after.len());
        result += &after[..next];
        rest = &after[next..];
    }
    result
}

fn is_part(c: char) -> bool {
    c.is_alphanumeric() || ".:-_".contains(c)
}

/// Returns a placeholder for a part that differs, or `None` for any other part.
fn placeholder(part: &str) -> Option<String> {
    let fixed = |holds: bool, placeholder: &str| holds.then(|| placeholder.to_owned());
    fixed(is_node(part), "NODE")
        .or_else(|| fixed(is_age(part), "AGE"))
        .or_else(|| fixed(is_mac(part), "MAC"))
        .or_else(|| fixed(is_time(part), "TIME"))
        .or_else(|| with_port(part))
        .or_else(|| fixed(is_cluster_address(part), "CLUSTER-ADDRESS"))
        .or_else(|| pod_name(part))
}

fn is_node(part: &str) -> bool {
    part.strip_prefix("node").is_some_and(|number| is_number(number) && number.len() <= 2)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns whether the part is an age as kubectl prints it: `12s`, `5m30s`, `3d4h`.
fn is_age(part: &str) -> bool {
    let mut digits = 0;
    let valid = part.chars().all(|c| {
        let follows_digits = digits > 0;
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        c.is_ascii_digit() || (follows_digits && "ydhms".contains(c))
    });
    valid && digits == 0 && !part.is_empty()
}

fn is_mac(part: &str) -> bool {
    let bytes: Vec<&str> = part.split(':').collect();
    let is_byte = |byte: &&str| byte.len() == 2 && byte.bytes().all(|b| b.is_ascii_hexdigit());
    bytes.len() == 6 && bytes.iter().all(is_byte)
}

/// Returns whether the part is a time of RFC 3339 in UTC, or a time of day or duration as routers
/// print it: `23:32:44.476`.
fn is_time(part: &str) -> bool {
    let shape: String = part.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let of_day = shape.strip_prefix("0000-00-00T").and_then(|rest| rest.strip_suffix('Z'));
    let fraction = of_day.unwrap_or(&shape).strip_prefix("00:00:00");
    fraction.is_some_and(|rest| rest.trim_matches(['.', '0']).is_empty())
}

/// Returns the placeholders of a node port (`80:31234`) or of a cluster address with a port.
fn with_port(part: &str) -> Option<String> {
    let (before, port) = part.split_once(':')?;
    let number: u16 = port.parse().ok()?;
    if is_number(before) && NODE_PORTS.contains(&number) {
        return Some(format!("{before}:NODE-PORT"));
    }
    is_cluster_address(before).then(|| format!("CLUSTER-ADDRESS:{port}"))
}

/// Returns whether the part is the address of a pod or a cluster IP.
fn is_cluster_address(part: &str) -> bool {
    part.parse::<Ipv4Addr>().is_ok_and(|address| address.octets()[0] == 10)
}

/// Returns the name of a pod with placeholders for the random parts.
fn pod_name(part: &str) -> Option<String> {
    let (owner, suffix) = part.rsplit_once('-')?;
    let random = |text: &str| text.chars().all(|c| POD_SUFFIX_CHARACTERS.contains(c));
    if suffix.len() != POD_SUFFIX_LENGTH || !random(suffix) {
        return None;
    }
    let hash = owner
        .rsplit_once('-')
        .filter(|(_, hash)| TEMPLATE_HASH_LENGTHS.contains(&hash.len()) && random(hash));
    Some(match hash {
        Some((deployment, _)) => format!("{deployment}-HASH-POD"),
        None => format!("{owner}-POD"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_differ_are_replaced() {
        for (line, expect) in [
            (
                "web   LoadBalancer  10.96.12.7  172.30.0.240  80:31234/TCP  12s",
                "web LoadBalancer CLUSTER-ADDRESS 172.30.0.240 80:NODE-PORT/TCP AGE",
            ),
            ("5m30s 3d4h 2y10d 0s (x2 over 7m)", "AGE AGE AGE AGE (x2 over AGE)"),
            (
                "node1, \"node2\" node3. speaker/node12 node= node123 anode1",
                "NODE, \"NODE\" NODE. speaker/NODE node= node123 anode1",
            ),
            ("02:fb:00:00:00:0b 02:FB:00:00:00:0C, 02:fb:00:00:00", "MAC MAC, 02:fb:00:00:00"),
            ("2026-01-02T03:04:05Z 2026-01-02T03:04:05.123456Z 2026-01-02", "TIME TIME 2026-01-02"),
            ("00:00:07 [dynbgp1 23:32:50.177] 00:00", "TIME [dynbgp1 TIME] 00:00"),
            (
                "10.244.1.2:8080 10.0.0.0/24 110.1.1.1",
                "CLUSTER-ADDRESS:8080 CLUSTER-ADDRESS/24 110.1.1.1",
            ),
            (
                "controller-6d4b75cb6d-hwbcn speaker-x7k2p metallb-first",
                "controller-HASH-POD speaker-POD metallb-first",
            ),
            ("80:8080/TCP 65000:30000 443", "80:8080/TCP 65000:NODE-PORT 443"),
            ("first  2  0/11 ... True", "first 2 0/11 ... True"),
            ("", ""),
        ] {
            assert_eq!(words(line).join(" "), expect, "{line}");
        }
    }
}
