//! GoBGP as a router: a gobgpd with a configuration file. It installs no routes in the kernel, so
//! it does not forward.

use super::peering::{BFD_MULTIPLIER, Peering};
use super::route::{BgpRoute, BgpSession, sorted};
use crate::cluster::bgp;
use crate::process::Launch;
use crate::state::LabState;
use anyhow::{Context, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// Number of the state `Established` (gobgp.proto, PeerState.SessionState).
const ESTABLISHED: u64 = 6;
/// Restart time that GoBGP announces to its neighbors with graceful restart; GoBGP has no default.
const RESTART_SECONDS: u8 = 120;
/// Port of BFD (RFC 5881 section 4).
const BFD_PORT: u16 = 3784;
// Numbers of path attributes (the IANA registry of BGP parameters).
const AS_PATH: u64 = 2;
const NEXT_HOP: u64 = 3;
const MED: u64 = 4;
const LOCAL_PREF: u64 = 5;
const COMMUNITIES: u64 = 8;
const MP_REACH: u64 = 14;
const LARGE_COMMUNITIES: u64 = 32;

pub(super) fn launch(state: &LabState, host: &str, config: &Path) -> Result<Launch> {
    let gobgp = state.facts()?.gobgp.context("this lab has no BGP")?;
    Ok(bgp::router(state, &gobgp, host, config))
}

pub(super) fn config(peering: &Peering) -> String {
    let Peering { router_id, own_as, port, hold, neighbors, bfd, graceful } = peering;
    let mut text =
        format!("[global.config]\nas = {own_as}\nrouter-id = \"{router_id}\"\nport = {port}\n");
    for neighbor in neighbors {
        text += &format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = {}\nauth-password = \"{}\"\n\
             [neighbors.timers.config]\nconnect-retry = 1\nhold-time = {hold}\nkeepalive-interval = {}\n\
             idle-hold-time-after-reset = 1\n\
             [neighbors.graceful-restart.config]\nenabled = {graceful}\nrestart-time = {RESTART_SECONDS}\n",
            neighbor.address,
            neighbor.asn,
            neighbor.password.as_deref().unwrap_or_default(),
            peering.keepalive()
        );
        text.extend(bfd.map(|interval| {
            let micros = u32::from(interval) * 1000;
            format!(
                "[neighbors.bfd.config]\nenabled = true\nport = {BFD_PORT}\ndesired-minimum-tx-interval = {micros}\n\
                 required-minimum-receive = {micros}\ndetection-multiplier = {BFD_MULTIPLIER}\n"
            )
        }));
        text.extend(neighbor.families().into_iter().map(|family| {
            format!(
                "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{family}-unicast\"\n\
                 [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = {graceful}\n"
            )
        }));
    }
    text
}

pub(super) fn routes(run_command: impl Fn(&[&str]) -> Result<String>) -> Result<Vec<BgpRoute>> {
    let mut routes = Vec::new();
    for family in ["ipv4", "ipv6"] {
        routes.extend(table(&run_command(&["-j", "global", "rib", "-a", family])?)?);
    }
    Ok(routes)
}

fn table(text: &str) -> Result<Vec<BgpRoute>> {
    let table: Map<String, Value> = serde_json::from_str(text).context("GoBGP printed no JSON")?;
    let paths = table.iter().flat_map(|(prefix, paths)| {
        paths.as_array().into_iter().flatten().map(move |path| (prefix, path))
    });
    paths.map(|(prefix, path)| route(prefix, path)).collect()
}

fn route(prefix: &str, path: &Value) -> Result<BgpRoute> {
    let mut route = BgpRoute { prefix: prefix.to_owned(), ..BgpRoute::default() };
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    for attribute in path["attrs"].as_array().into_iter().flatten() {
        let list = |name: &str| attribute[name].as_array().into_iter().flatten();
        match attribute["type"].as_u64().unwrap_or_default() {
            AS_PATH => {
                let segments =
                    list("as_paths").filter_map(|segment| segment["asns"].as_array()).flatten();
                route.as_path = segments.filter_map(number).collect();
            }
            NEXT_HOP | MP_REACH => {
                route.next_hop = attribute["nexthop"].as_str().map(str::parse).transpose()?
            }
            MED => route.med = number(&attribute["metric"]),
            LOCAL_PREF => route.local_pref = number(&attribute["value"]),
            COMMUNITIES => {
                let pairs = list("communities").filter_map(number);
                route.communities =
                    sorted(pairs.map(|pair| format!("{}:{}", pair >> 16, pair & 0xffff)));
            }
            LARGE_COMMUNITIES => {
                let parts = |value: &Value| {
                    ["ASN", "LocalData1", "LocalData2"]
                        .map(|name| value[name].to_string())
                        .join(":")
                };
                route.large_communities = sorted(list("value").map(parts));
            }
            _ => {}
        }
    }
    Ok(route)
}

pub(super) fn sessions(text: &str) -> Result<Vec<BgpSession>> {
    let neighbors: Vec<Value> = serde_json::from_str(text).context("GoBGP printed no JSON")?;
    let session = |neighbor: &Value| {
        let (address, state) =
            (&neighbor["conf"]["neighbor_address"], &neighbor["state"]["session_state"]);
        let address = address.as_str().context("a neighbor has no address")?.parse()?;
        Ok(BgpSession { neighbor: address, established: state.as_u64() == Some(ESTABLISHED) })
    };
    neighbors.iter().map(session).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_attributes_are_parsed_by_number() {
        let text = r#"{"fd30::200/128":[{"attrs":[{"type":1,"value":2},{"type":2,"as_paths":[{"segment_type":2,"num":2,"asns":[64512,65001]}]},
            {"type":4,"metric":7},{"type":5,"value":300},{"type":8,"communities":[4227858532,4294901760]},
            {"type":32,"value":[{"ASN":64512,"LocalData1":1,"LocalData2":2}]},{"type":14,"nexthop":"fd30::11","afi":2}]}]}"#;
        let expect = BgpRoute {
            prefix: "fd30::200/128".to_owned(),
            next_hop: Some("fd30::11".parse().unwrap()),
            as_path: vec![64512, 65001],
            communities: vec!["64512:100".to_owned(), "65535:0".to_owned()],
            large_communities: vec!["64512:1:2".to_owned()],
            local_pref: Some(300),
            med: Some(7),
        };
        assert_eq!(table(text).unwrap(), [expect]);
        assert!(table("{}").unwrap().is_empty());
    }

    #[test]
    fn only_session_state_six_is_established() {
        let text = r#"[{"conf":{"neighbor_address":"172.30.0.11"},"state":{"session_state":6}},
            {"conf":{"neighbor_address":"fd30::11"},"state":{"session_state":3}},{"conf":{"neighbor_address":"fd30::12"},"state":{}}]"#;
        let established: Vec<bool> =
            sessions(text).unwrap().iter().map(|session| session.established).collect();
        assert_eq!(established, [true, false, false]);
    }
}
