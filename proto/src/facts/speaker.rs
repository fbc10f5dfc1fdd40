//! What we read of a SpeakerStatus: what one node's speaker says of itself.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::{Key, Node};
use crate::api::{self, BfdState, BgpSessionState, DataPathState, DataPathStatus, LinkTrouble};
use crate::range::Family;

/// The most of a check's or a session's words that is kept, in characters: conditions repeat it.
const SAID_MAX: usize = 160;

/// What we know of a node's speaker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Speaker {
    /// The node, which the object is named after.
    pub node: Box<str>,
    /// The links that it speaks on.
    pub links: Box<[SpeakerLink]>,
    /// The Services of which none of the node's own endpoints of a family passes its health check, ascending; those of many that it tells.
    pub failing: Box<[Failing]>,
    /// What is known of the node's data path; none: it does not say.
    pub data_path: Option<Box<DataPathStatus>>,
    /// The node hands its addresses over.
    pub draining: bool,
    /// The BGP sessions that it should have; none: it has no gobgpd.
    pub bgp: Option<Box<[SpeakerSession]>>,
    /// It has withdrawn by BGP what other nodes announce, because it drains.
    pub withdraws: bool,
    /// It may announce less by BGP than follows from the API, or more Services may fail on it than it tells.
    pub partial: bool,
}

/// A BGP session of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpeakerSession {
    /// The name of its BGPPeer.
    pub peer: Box<str>,
    /// Routes are announced over it.
    pub established: bool,
    /// It is established, and the BFD that should watch it is not up.
    pub unwatched: bool,
    /// Why it is not established, or not as its BGPPeer says, for a person; empty: there is nothing to say.
    pub message: Box<str>,
}

/// A Service none of whose endpoints of a family on a node passes its health check.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failing {
    /// Namespace and name.
    pub service: Key,
    /// The family, which is that of the endpoint.
    pub family: Family,
    /// One of the endpoints and what its check says, for a person: `10.1.2.3:8080: connection refused`.
    pub why: Box<str>,
}

/// One link of a node, as its speaker tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpeakerLink {
    /// Its name.
    pub name: Box<str>,
    /// It can carry frames.
    pub up: bool,
    /// It hears nothing: if another node has the same address, that one is reached.
    pub deaf: bool,
    /// Another link of the node is on the same network, and speaks there.
    pub muted: bool,
    /// The nodes whose speakers are heard on it, ascending.
    pub heard: Box<[Box<str>]>,
    /// The addresses that the node answers for on it, ascending.
    pub addresses: Box<[IpAddr]>,
    /// Addresses that somebody else answers for.
    pub troubles: Box<[LinkTrouble]>,
}

impl Speaker {
    /// The names of the links on which it answers for an address.
    pub fn links_with(&self, address: IpAddr) -> impl Iterator<Item = &SpeakerLink> {
        self.links.iter().filter(move |link| link.addresses.binary_search(&address).is_ok())
    }

    /// Whether it hears the speaker of a node, on any link.
    #[must_use]
    pub fn hears(&self, node: &str) -> bool {
        self.links.iter().any(|link| link.hears(node))
    }

    /// What it says of a Service none of whose endpoints on the node passes its health check, once for each family of which that is so.
    #[must_use]
    pub fn failing(&self, service: &Key) -> &[Failing] {
        let start = self.failing.partition_point(|failing| failing.service < *service);
        let length = self.failing[start..].partition_point(|failing| failing.service == *service);
        &self.failing[start..start + length]
    }

    /// Why the node's data path does not work, if that is what it says.
    #[must_use]
    pub fn broken(&self) -> Option<&str> {
        let broken = self.data_path.as_ref().filter(|path| path.state == DataPathState::Unhealthy);
        broken.map(|path| path.message.as_str())
    }
}

/// The nodes whose speakers do not count: the Node is gone or nobody has heard of it for long, or the speaker hears others and
/// none of them hears it. (Whom a living speaker hears lives too, even if its Node is not heard of: its kubelet is away.)
/// A deaf speaker hears nobody, so its silence about another one proves nothing.
pub fn void<'a>(
    speakers: impl Iterator<Item = &'a Speaker>,
    node: impl Fn(&str) -> Option<&'a Node>,
) -> BTreeSet<Box<str>> {
    let (there, gone): (Vec<_>, Vec<_>) = speakers.partition(|speaker| node(&speaker.node).is_some());
    let is_deaf = |speaker: &Speaker| speaker.links.iter().any(|link| link.deaf);
    let heard_back = |speaker: &Speaker| {
        let mut others = there.iter().filter(|other| other.node != speaker.node);
        others.any(|other| speaker.hears(&other.node) && (other.hears(&speaker.node) || is_deaf(other)))
    };
    let hears_any = |speaker: &Speaker| speaker.links.iter().any(|link| !link.heard.is_empty());
    let is_lost = |speaker: &Speaker| node(&speaker.node).is_some_and(|node| node.lost);
    let unheard = there.iter().filter(|speaker| is_lost(speaker) || hears_any(speaker) && !heard_back(speaker));
    gone.iter().chain(unheard).map(|speaker| speaker.node.clone()).collect()
}

impl SpeakerLink {
    /// Whether the speaker of a node is heard on it.
    #[must_use]
    pub fn hears(&self, node: &str) -> bool {
        self.heard.binary_search_by(|heard| (**heard).cmp(node)).is_ok()
    }
}

impl From<api::Speaker> for Speaker {
    fn from(object: api::Speaker) -> Self {
        let status = object.status.unwrap_or_default();
        let troubled = status.bgp.as_ref().is_some_and(|bgp| !bgp.message.is_empty());
        // Sorted already, as are the links' lists, but for what somebody wrote by hand.
        let mut failing: Vec<Failing> = status.failing.into_iter().filter_map(failing).collect();
        failing.sort();
        failing.dedup_by(|later, first| (&later.service, later.family) == (&first.service, first.family));
        let told = failing.iter().map(|failing| &failing.service).collect::<BTreeSet<_>>().len();
        let untold = status.failing_services > i64::try_from(told).unwrap_or(i64::MAX);
        let data_path = status.data_path.map(|path| DataPathStatus { message: said(&path.message), ..path });
        Self {
            node: object.metadata.name.unwrap_or_default().into(),
            links: status.links.into_iter().map(Into::into).collect(),
            failing: failing.into(),
            data_path: data_path.map(Box::new),
            draining: status.draining,
            withdraws: status.bgp.as_ref().is_some_and(|bgp| bgp.withdrawn > 0),
            partial: troubled || untold,
            bgp: status.bgp.map(|bgp| bgp.sessions.into_iter().map(Into::into).collect()),
        }
    }
}

impl From<api::BgpSessionStatus> for SpeakerSession {
    fn from(session: api::BgpSessionStatus) -> Self {
        Self {
            peer: session.peer.into(),
            established: session.state == BgpSessionState::Established,
            unwatched: session.bfd.is_some_and(|bfd| bfd != BfdState::Up),
            message: said(&session.message).into(),
        }
    }
}

/// None where the endpoint is no `address:port`, as somebody may have written by hand.
fn failing(failing: api::FailingService) -> Option<Failing> {
    let api::FailingService { namespace, name, endpoint, message } = failing;
    let endpoint: SocketAddr = endpoint.parse().ok()?;
    let why = said(&format!("{endpoint}: {message}")).into();
    Some(Failing { service: Key::new(&namespace, &name), family: Family::of(endpoint.ip()), why })
}

fn said(text: &str) -> String {
    text.chars().take(SAID_MAX).collect()
}

impl From<api::LinkStatus> for SpeakerLink {
    fn from(mut link: api::LinkStatus) -> Self {
        link.addresses.sort_unstable();
        link.heard.sort_unstable();
        Self {
            name: link.name.into(),
            up: link.up,
            deaf: link.deaf,
            muted: link.muted,
            heard: link.heard.into_iter().map(Into::into).collect(),
            addresses: link.addresses.into(),
            troubles: link.troubles.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_speaker_says_is_found_whatever_its_order_and_what_it_leaves_out_is_nothing() {
        let object = json!({"metadata": {"name": "node1"}, "status": {"links": [
            {"name": "eth0", "mac": "02:00:00:00:00:01", "up": true, "heard": ["node3", "node2"],
                "addresses": ["172.30.0.201", "172.30.0.200"]},
            {"name": "eth1", "mac": "02:00:00:00:00:02", "up": false},
        ]}});
        let speaker = Speaker::from(serde_json::from_value::<api::Speaker>(object).expect("speaker"));
        let names = |address: &str| {
            speaker.links_with(address.parse().expect("address")).map(|link| &*link.name).collect::<Vec<_>>()
        };
        assert_eq!((names("172.30.0.200"), names("172.30.0.9")), (vec!["eth0"], vec![]));
        assert!(speaker.hears("node2") && speaker.hears("node3") && !speaker.hears("node1"));
        let silent = serde_json::from_value::<api::Speaker>(json!({"metadata": {"name": "node2"}})).expect("speaker");
        assert_eq!(Speaker::from(silent), Speaker { node: "node2".into(), ..Speaker::default() });
    }

    #[test]
    fn the_sessions_of_a_node_are_read_where_it_has_a_gobgpd() {
        let speaker = |bgp: serde_json::Value| {
            let object = json!({"metadata": {"name": "node1"}, "status": {"bgp": bgp}});
            Speaker::from(serde_json::from_value::<api::Speaker>(object).expect("speaker")).bgp
        };
        assert_eq!((speaker(json!(null)), speaker(json!({}))), (None, Some(Box::default())));
        let both = json!([{"peer": "tor", "state": "Established"}, {"peer": "spine", "state": "OpenConfirm", "message": "no answer"},
            {"peer": "up", "state": "Established", "bfd": "Up"}, {"peer": "down", "state": "Established", "bfd": "Init"}]);
        let read = speaker(json!({"sessions": both})).unwrap_or_default();
        let told = read.iter().map(|session| (&*session.peer, session.established, &*session.message));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [("tor", true, ""), ("spine", false, "no answer"), ("up", true, ""), ("down", true, "")]
        );
        let unwatched = read.iter().filter(|session| session.unwatched).map(|session| &*session.peer);
        assert_eq!(unwatched.collect::<Vec<_>>(), ["down"]);
    }

    #[test]
    fn what_fails_is_found_and_said_in_few_words() {
        let long = "x".repeat(100_000);
        let at = |endpoint: &str, name: &str, message: &str| json!({"namespace": "default", "name": name, "endpoint": endpoint, "message": message});
        let fails = |name: &str, message: &str| at("10.1.2.3:80", name, message);
        let speaker = |state: &str| {
            let object = json!({"metadata": {"name": "node1"}, "status": {"links": [], "draining": true,
                "dataPath": {"state": state, "message": long},
                "failing": [fails("web", "connection refused"), fails("db", &long), fails("web", "timeout"),
                    at("[fd00::1]:80", "web", "it answers 503"), at("by hand", "mail", "nothing")]}});
            Speaker::from(serde_json::from_value::<api::Speaker>(object).expect("speaker"))
        };
        let ill = speaker("Unhealthy");
        let why = |name: &str| -> Vec<&str> {
            ill.failing(&Key::new("default", name)).iter().map(|failing| &*failing.why).collect()
        };
        assert_eq!(why("web"), ["10.1.2.3:80: connection refused", "[fd00::1]:80: it answers 503"], "once a family");
        assert_eq!((why("db").len(), why("db")[0].len(), why("mail").len()), (1, SAID_MAX, 0));
        assert_eq!((ill.broken().map(str::len), ill.draining, ill.failing.len()), (Some(SAID_MAX), true, 3));
        for state in ["Unknown", "Healthy", "NotChecked"] {
            assert_eq!(speaker(state).broken(), None, "{state}");
        }
    }
}
