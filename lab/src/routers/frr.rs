//! FRR, as packaged by Debian: zebra, which installs routes in the kernel, bgpd and bfdd.
//!
//! The daemons only use their router's directory: flags replace paths in /run/frr, and a private
//! mount replaces /var/tmp.

use super::CONFIG_FILE;
use super::peering::{BFD_MULTIPLIER, PATHS_MAX, Peering};
use super::route::{BgpRoute, BgpSession, community, numbers, sorted};
use crate::process::Launch;
use anyhow::{Context, Result};
use serde_json::{Map, Value};
use std::path::Path;
use std::process::Command;

/// Daemons in the order of their start, which is also the order of their names in the lab. zebra
/// must run before the others.
const DAEMONS: [&str; 3] = ["zebra", "bfdd", "bgpd"];
/// Text that FRR prints in place of an empty AS path.
const EMPTY_AS_PATH: &str = "Local";
/// Starts a daemon (`$0`) with all its writable files in a directory (`$1`) and the common
/// configuration file (`$2`), in which each daemon skips the others' lines. The BGP port (`$3`) can
/// be set by a flag only.
const DAEMON_SCRIPT: &str = r#"chown frr:frr "$1" && mount --bind "$1" /var/tmp || exit
[ "$0" = zebra ] || until [ -S "$1/zserv.api" ]; do sleep 0.1; done
case $0 in
bfdd) set -- "$1" "$2" --bfdctl "$1/bfdd.sock" ;;
bgpd) set -- "$1" "$2" -p "$3" ;;
*) set -- "$1" "$2" ;;
esac
folder=$1 config=$2; shift 2
exec "/usr/lib/frr/$0" -f "$config" -z "$folder/zserv.api" --vty_socket "$folder" -i "$folder/$0.pid" -P 0 --log stdout "$@""#;

pub(super) fn launches(host: &str, folder: &Path, port: u16) -> Vec<Launch> {
    let port = port.to_string();
    let launch = |(index, daemon): (usize, &&str)| {
        let (folder, config) =
            (folder.display().to_string(), folder.join(CONFIG_FILE).display().to_string());
        let args = ["--mount", "sh", "-c", DAEMON_SCRIPT, daemon, &folder, &config, &port];
        Launch {
            name: format!("frr-{host}-{index}-{daemon}"),
            host: host.to_owned(),
            node: None,
            program: "/usr/bin/unshare".into(),
            args: args.map(str::to_owned).into(),
            env: [].into(),
            low_priority: false,
        }
    };
    DAEMONS.iter().enumerate().map(launch).collect()
}

pub(super) fn command(folder: &Path, lines: &[&str]) -> Command {
    let mut vtysh = Command::new("vtysh");
    vtysh.arg("--vty_socket").arg(folder).args(lines.iter().flat_map(|line| ["-c", *line]));
    vtysh
}

pub(super) fn config(peering: &Peering) -> String {
    let mut text = format!(
        "router bgp {}\n bgp router-id {}\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n timers bgp {} {}\n",
        peering.own_as,
        peering.router_id,
        peering.keepalive(),
        peering.hold
    );
    if peering.graceful {
        text += " bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n";
    }
    for neighbor in &peering.neighbors {
        let address = neighbor.address;
        text += &format!(
            " neighbor {address} remote-as {}\n neighbor {address} timers connect 1\n",
            neighbor.asn
        );
        text.extend(peering.bfd.map(|_| format!(" neighbor {address} bfd profile lab\n")));
        text.extend(
            neighbor
                .password
                .iter()
                .map(|password| format!(" neighbor {address} password {password}\n")),
        );
    }
    for family in ["ipv4", "ipv6"] {
        text += &format!(" address-family {family} unicast\n  maximum-paths {PATHS_MAX}\n");
        let active =
            peering.neighbors.iter().filter(|neighbor| neighbor.families().contains(&family));
        text.extend(active.map(|neighbor| format!("  neighbor {} activate\n", neighbor.address)));
        text += " exit-address-family\n";
    }
    text.extend(peering.bfd.map(|interval| {
        format!(
            "bfd\n profile lab\n  detect-multiplier {BFD_MULTIPLIER}\n  receive-interval {interval}\n  transmit-interval {interval}\n exit\nexit\n"
        )
    }));
    text
}

pub(super) fn routes(run_command: impl Fn(&[&str]) -> Result<String>) -> Result<Vec<BgpRoute>> {
    let mut routes = Vec::new();
    for family in ["ipv4", "ipv6"] {
        routes.extend(table(&run_command(&[&format!("show bgp {family} unicast json detail")])?)?);
    }
    Ok(routes)
}

/// Parses the paths of one family: for each prefix a list, whose first entry is the prefix itself.
fn table(text: &str) -> Result<Vec<BgpRoute>> {
    let table: Value = serde_json::from_str(text).context("FRR printed no JSON")?;
    let prefixes = table["routes"].as_object().into_iter().flatten();
    let paths = prefixes.flat_map(|(prefix, paths)| {
        paths
            .as_array()
            .into_iter()
            .flatten()
            .filter(|path| path["aspath"].is_object())
            .map(move |path| (prefix, path))
    });
    paths.map(|(prefix, path)| route(prefix, path)).collect()
}

fn route(prefix: &str, path: &Value) -> Result<BgpRoute> {
    let words = |list: &Value| {
        list["string"]
            .as_str()
            .unwrap_or_default()
            .split_whitespace()
            .map(community)
            .collect::<Vec<_>>()
    };
    let number = |name: &str| path[name].as_u64().and_then(|number| u32::try_from(number).ok());
    // Over IPv6, a link-local next hop may follow; the global one comes first.
    let next_hop = path["nexthops"].as_array().and_then(|hops| hops.first()?["ip"].as_str());
    Ok(BgpRoute {
        prefix: prefix.to_owned(),
        next_hop: next_hop.map(str::parse).transpose()?,
        as_path: numbers(
            path["aspath"]["string"]
                .as_str()
                .filter(|path| *path != EMPTY_AS_PATH)
                .unwrap_or_default(),
        )?,
        communities: sorted(words(&path["community"])),
        large_communities: sorted(words(&path["largeCommunity"])),
        local_pref: number("locPrf"),
        med: number("metric"),
    })
}

pub(super) fn sessions(text: &str) -> Result<Vec<BgpSession>> {
    let neighbors: Map<String, Value> =
        serde_json::from_str(text).context("FRR printed no JSON")?;
    // FRR identifies an unnumbered neighbor by its interface, and has no address before it receives
    // a packet from the neighbor.
    let address = |name: &str, neighbor: &Value| {
        name.parse().ok().or_else(|| neighbor["bgpNeighborAddr"].as_str()?.parse().ok())
    };
    let session = |(name, neighbor): (String, Value)| {
        Some(BgpSession {
            neighbor: address(&name, &neighbor)?,
            established: neighbor["bgpState"] == "Established",
        })
    };
    Ok(neighbors.into_iter().filter_map(session).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_a_prefix_is_parsed() {
        let path = |hop: &str, more: &str| {
            format!(
                r#"{{"aspath":{{"string":"64512 65001"}},"metric":7,"valid":true,{more}"nexthops":[{{"ip":"{hop}"}},{{"ip":"fe80::1"}}]}}"#
            )
        };
        let more = r#""locPrf":0,"community":{"string":"64512:100 graceful-shutdown"},"largeCommunity":{"string":"64512:1:2"},"#;
        let paths = [path("172.30.0.11", more), path("172.30.0.12", "")].join(",");
        let text = format!(
            r#"{{"vrfId":0,"routes":{{"172.30.0.200/32":[{{"prefix":"172.30.0.200/32","version":1}},{paths}]}}}}"#
        );
        let second = BgpRoute {
            prefix: "172.30.0.200/32".to_owned(),
            next_hop: Some([172, 30, 0, 12].into()),
            as_path: vec![64512, 65001],
            med: Some(7),
            ..BgpRoute::default()
        };
        let first = BgpRoute {
            next_hop: Some([172, 30, 0, 11].into()),
            communities: vec!["64512:100".to_owned(), "65535:0".to_owned()],
            large_communities: vec!["64512:1:2".to_owned()],
            local_pref: Some(0),
            ..second.clone()
        };
        assert_eq!(table(&text).unwrap(), [first, second]);
    }

    #[test]
    fn a_router_without_neighbors_has_no_sessions() {
        assert!(sessions("{}").unwrap().is_empty());
        let one = sessions(r#"{"fd30::11":{"bgpState":"Active"}}"#).unwrap();
        assert_eq!(one, [BgpSession { neighbor: "fd30::11".parse().unwrap(), established: false }]);
    }

    #[test]
    fn an_unnumbered_neighbor_is_listed_once_it_has_an_address() {
        assert!(
            sessions(r#"{"up0":{"bgpNeighborAddr":"none","bgpState":"Idle"}}"#).unwrap().is_empty()
        );
        let one =
            sessions(r#"{"up0":{"bgpNeighborAddr":"fe80::1","bgpState":"Established"}}"#).unwrap();
        assert_eq!(one, [BgpSession { neighbor: "fe80::1".parse().unwrap(), established: true }]);
    }
}
