//! BGP peers of kube-vip, which become BGPPeers. Pure.
//!
//! The variable `bgp_peers` has entries with the parts ADDRESS:AS:PASSWORD:MULTIHOP:PORT, then
//! options of MP-BGP and of BFD. An IPv6 address is in brackets, and `unnumbered:INTERFACE` stands
//! for an address. Without this variable, `bgp_peeraddress` and others describe one peer.

use std::collections::BTreeMap;

use ferrolb_proto::api::CustomResourceKind;
use serde_json::{Map, Value, json};

use super::Problem;
use crate::objects::object;

/// The peers, as FerroLB's objects.
#[derive(Default)]
pub struct Peers {
    /// BGPPeers, BFDProfiles and a BGPAdvertisement.
    pub manifests: Vec<Value>,
    /// The Secrets with the passwords.
    pub secrets: Vec<Secret>,
    /// Settings without an equivalent.
    pub problems: Vec<Problem>,
}

/// A Secret that the migration creates.
pub struct Secret {
    /// Number of the peer.
    pub number: usize,
    /// Name of the Secret.
    pub name: String,
    /// The router.
    pub router: String,
}

/// An entry of `bgp_peers`, in parts.
struct Entry<'a> {
    address: &'a str,
    interface: &'a str,
    parts: Vec<&'a str>,
}

impl Peers {
    /// Reads the variables of kube-vip's container.
    #[must_use]
    pub fn read(env: &BTreeMap<&str, &str>, ferrolb: &str) -> Self {
        let mut peers = Self::default();
        let value = |name: &str| env.get(name).copied().unwrap_or_default();
        let list = value("bgp_peers");
        if list.is_empty() {
            let multi_hop = value("bgp_multihop");
            let parts = vec![value("bgp_peeras"), value("bgp_peerpass"), multi_hop];
            let entry = Entry { address: value("bgp_peeraddress"), interface: "", parts };
            if entry.address.is_empty() {
                let text = "no peer in bgp_peers or bgp_peeraddress: create BGPPeers";
                peers.problems.push(Problem::of("kube-vip", text));
            } else {
                peers.add(1, &entry, env, ferrolb);
            }
        } else {
            for (index, text) in list.split(',').filter(|it| !it.is_empty()).enumerate() {
                peers.add(index + 1, &Entry::parse(text), env, ferrolb);
            }
        }
        for name in ["bgp_sourceif", "bgp_routerinterface", "mpbgp_nexthop", "zebra_enable"] {
            if !matches!(value(name), "" | "false") {
                let text = format!("{name}: no equivalent, not copied");
                peers.problems.push(Problem::note("kube-vip", text));
            }
        }
        let kind = CustomResourceKind::BGPAdvertisement;
        peers.manifests.push(object(kind, "kube-vip", ferrolb, json!({})));
        peers
    }

    fn add(&mut self, number: usize, entry: &Entry<'_>, env: &BTreeMap<&str, &str>, ferrolb: &str) {
        let name = format!("kube-vip-{number}");
        let value = |name: &str| env.get(name).copied().unwrap_or_default();
        let part = |index: usize| entry.parts.get(index).copied().unwrap_or_default();
        let mut spec = Map::new();
        let mut set = |field: &str, value: Value| _ = spec.insert(field.to_owned(), value);
        let number_of = |text: &str| text.parse::<u64>().map_or(Value::Null, Value::from);
        set("myASN", number_of(value("bgp_as")));
        if part(0).is_empty() && !entry.interface.is_empty() {
            set("dynamicASN", "external".into());
        } else {
            set("peerASN", number_of(part(0)));
        }
        if entry.interface.is_empty() {
            set("peerAddress", entry.address.into());
        } else {
            set("interface", entry.interface.into());
        }
        if !part(1).is_empty() {
            set("passwordSecret", json!({"name": name}));
            let router = if entry.interface.is_empty() { entry.address } else { entry.interface };
            let router = router.to_owned();
            self.secrets.push(Secret { number, name: name.clone(), router });
        }
        if part(2) == "true" {
            set("ebgpMultiHop", true.into());
        }
        if !matches!(part(3), "" | "0") {
            set("peerPort", number_of(part(3)));
        }
        // The router ID is no copy: with one for all nodes, a router would accept one session only.
        for (variable, field) in
            [("bgp_hold_time", "holdTime"), ("bgp_keepalive_interval", "keepaliveTime")]
        {
            if !value(variable).is_empty() {
                set(field, format!("{}s", value(variable)).into());
            }
        }
        if !value("bgp_sourceip").is_empty() {
            set("sourceAddress", value("bgp_sourceip").into());
        }
        let label = format!("BGPPeer {name}");
        if !part(4).is_empty() {
            let text = "MP-BGP options: no equivalent, not copied";
            self.problems.push(Problem::note(&*label, text));
        }
        let bfd: Vec<&str> = part(5).split(';').collect();
        if let ["true", receive, transmit, multiplier, ..] = bfd.as_slice() {
            set("bfdProfile", name.as_str().into());
            let profile = json!({"receiveInterval": number_of(receive),
                "transmitInterval": number_of(transmit), "detectMultiplier": number_of(multiplier)});
            let kind = CustomResourceKind::BFDProfile;
            self.manifests.push(object(kind, &name, ferrolb, profile));
            if part(2) == "true" {
                let text = "multihop with BFD: the session runs without BFD";
                self.problems.push(Problem::of(label, text));
            }
        }
        self.manifests.push(object(CustomResourceKind::BGPPeer, &name, ferrolb, spec.into()));
    }
}

impl<'a> Entry<'a> {
    /// Splits an entry. The parts begin with the AS number.
    fn parse(text: &'a str) -> Self {
        if let Some((address, rest)) = text.strip_prefix('[').and_then(|it| it.split_once(']')) {
            let parts = rest.trim_start_matches(':').split(':').collect();
            return Self { address, interface: "", parts };
        }
        if let Some(rest) = text.strip_prefix("unnumbered:") {
            let (interface, rest) = rest.split_once(':').unwrap_or((rest, ""));
            return Self { address: "", interface, parts: rest.split(':').collect() };
        }
        let (address, rest) = text.split_once(':').unwrap_or((text, ""));
        Self { address, interface: "", parts: rest.split(':').collect() }
    }
}
