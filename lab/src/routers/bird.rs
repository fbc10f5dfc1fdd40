//! BIRD, as packaged by Debian. Its output is for people; this module parses it line by line.

use super::CONFIG_FILE;
use super::peering::{BFD_MULTIPLIER, PATHS_MAX, Peering};
use super::route::{BgpRoute, BgpSession, numbers, sorted};
use crate::process::Launch;
use anyhow::{Context, Result};
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

/// Name of the control socket in BIRD's directory.
const CONTROL_SOCKET: &str = "bird.ctl";

pub(super) fn launch(host: &str, folder: &Path) -> Launch {
    let file = |name: &str| folder.join(name).display().to_string();
    let args =
        ["-f", "-c", &file(CONFIG_FILE), "-s", &file(CONTROL_SOCKET), "-P", &file("bird.pid")];
    Launch {
        name: format!("bird-{host}"),
        host: host.to_owned(),
        node: None,
        program: "/usr/sbin/bird".into(),
        args: args.map(str::to_owned).into(),
        env: [].into(),
        low_priority: false,
    }
}

pub(super) fn command(folder: &Path, words: &[&str]) -> Command {
    let mut birdc = Command::new("birdc");
    birdc.arg("-s").arg(folder.join(CONTROL_SOCKET)).args(words);
    birdc
}

pub(super) fn config(peering: &Peering) -> String {
    let mut text =
        format!("log stderr all;\nrouter id {};\nprotocol device {{ }}\n", peering.router_id);
    for family in ["ipv4", "ipv6"] {
        text += &format!(
            "protocol kernel {{ {family} {{ import none; export where source = RTS_BGP; }}; merge paths on limit {PATHS_MAX}; }}\n"
        );
    }
    for (index, neighbor) in peering.neighbors.iter().enumerate() {
        let channels = neighbor
            .families()
            .into_iter()
            .map(|family| format!("{family} {{ import all; export none; }}; "));
        let password =
            neighbor.password.iter().map(|password| format!("password \"{password}\"; "));
        text += &format!(
            "protocol bgp peer{index} {{ local port {} as {}; neighbor {} as {}; {}hold time {}; keepalive time {}; \
             connect delay time 1; connect retry time 1; error wait time 1, 1; {}{}}}\n",
            peering.port,
            peering.own_as,
            neighbor.address,
            neighbor.asn,
            channels.chain(password).collect::<String>(),
            peering.hold,
            peering.keepalive(),
            if peering.graceful { "graceful restart on; " } else { "" },
            if peering.bfd.is_some() { "bfd on; " } else { "" }
        );
    }
    text.extend(peering.bfd.map(|interval| {
        format!("protocol bfd {{ interface \"*\" {{ interval {interval} ms; multiplier {BFD_MULTIPLIER}; }}; }}\n")
    }));
    text
}

/// Parses the BGP paths. A path begins with a line that is not indented by a tab. Of several paths
/// to a prefix, only the first contains the prefix.
pub(super) fn routes(text: &str) -> Result<Vec<BgpRoute>> {
    let (mut routes, mut prefix) = (Vec::<(BgpRoute, bool)>::new(), String::new());
    for line in text.lines() {
        let Some(detail) = line.strip_prefix('\t') else {
            let mut words = line.split_whitespace();
            if line.contains('[') && !line.starts_with(' ') {
                words.next().unwrap_or_default().clone_into(&mut prefix);
            }
            if line.contains('[') {
                routes.push((BgpRoute { prefix: prefix.clone(), ..BgpRoute::default() }, false));
            }
            continue;
        };
        if let (Some((route, of_bgp)), Some((name, value))) =
            (routes.last_mut(), detail.split_once(": "))
        {
            *of_bgp |= name == "Type" && value.starts_with("BGP ");
            parse_attribute(route, name, value).with_context(|| line.to_owned())?;
        }
    }
    Ok(routes.into_iter().filter(|(_, of_bgp)| *of_bgp).map(|(route, _)| route).collect())
}

fn parse_attribute(route: &mut BgpRoute, name: &str, value: &str) -> Result<()> {
    match name {
        "BGP.as_path" => route.as_path = numbers(value)?,
        // Over IPv6, a link-local next hop may follow.
        "BGP.next_hop" => {
            route.next_hop = value.split_whitespace().next().map(str::parse).transpose()?
        }
        "BGP.med" => route.med = Some(value.parse()?),
        "BGP.local_pref" => route.local_pref = Some(value.parse()?),
        "BGP.community" => route.communities = communities(value),
        "BGP.large_community" => route.large_communities = communities(value),
        _ => {}
    }
    Ok(())
}

/// Parses `(64512, 1, 2) (64512, 1, 3)`, with or without the inner spaces.
fn communities(value: &str) -> Vec<String> {
    let inside = value.split(['(', ')']).map(|part| part.replace(',', ":").replace(' ', ""));
    sorted(inside.filter(|part| !part.is_empty()))
}

/// Parses the state of each BGP protocol, and the neighbor on a later line.
pub(super) fn sessions(text: &str) -> Result<Vec<BgpSession>> {
    let (mut sessions, mut established) = (Vec::new(), false);
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        match name.trim() {
            "BGP state" => established = value.trim() == "Established",
            "Neighbor address" => {
                let address: IpAddr =
                    value.trim().parse().with_context(|| format!("{value} is not an address"))?;
                sessions.push(BgpSession { neighbor: address, established });
            }
            _ => {}
        }
    }
    Ok(sessions)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLES: &str = "BIRD 2.0.12 ready.
Table master4:
172.30.0.0/24        unicast [direct1 12:30:25.337] * (240)
\tdev eth0
\tType: device univ
172.30.0.200/32      unicast [peer0 12:30:27.095] * (100) [AS65002?]
\tvia 172.30.0.11 on eth0
\tType: BGP univ
\tBGP.origin: Incomplete
\tBGP.as_path: 64512 65002
\tBGP.next_hop: 172.30.0.11
\tBGP.med: 7
\tBGP.local_pref: 100
\tBGP.community: (65535,65281) (64512,100)
\tBGP.large_community: (64512, 1, 2) (64512, 1, 3)
                     unicast [peer2 12:32:25.707] (100) [AS64512?]
\tType: BGP univ
\tBGP.as_path: 64512
\tBGP.next_hop: fd30::12 fe80::1

Table master6:
";

    #[test]
    fn only_bgp_paths_are_parsed_and_all_of_a_prefix() {
        let routes = routes(TABLES).unwrap();
        let words =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let first = BgpRoute {
            prefix: "172.30.0.200/32".to_owned(),
            next_hop: Some([172, 30, 0, 11].into()),
            as_path: vec![64512, 65002],
            communities: words(&["64512:100", "65535:65281"]),
            large_communities: words(&["64512:1:2", "64512:1:3"]),
            local_pref: Some(100),
            med: Some(7),
        };
        let second = BgpRoute {
            prefix: first.prefix.clone(),
            next_hop: Some("fd30::12".parse().unwrap()),
            as_path: vec![64512],
            ..BgpRoute::default()
        };
        assert_eq!(routes, [first, second]);
    }

    #[test]
    fn a_session_is_parsed_with_its_neighbor() {
        let text = "device1 Device --- up\n  BGP state:          Established\n    Neighbor address: 172.30.0.11\n    Neighbor AS: 64512\n  \
                    BGP state:          Active\n    Neighbor address: fd30::11\n";
        let sessions = sessions(text).unwrap();
        let found: Vec<_> = sessions
            .iter()
            .map(|session| (session.neighbor.to_string(), session.established))
            .collect();
        assert_eq!(found, [("172.30.0.11".to_owned(), true), ("fd30::11".to_owned(), false)]);
    }
}
