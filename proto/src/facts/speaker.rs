//! What we read of a SpeakerStatus: what one node's speaker says of itself.

use std::net::IpAddr;

use crate::api::{self, LinkTrouble};

/// What we know of a node's speaker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Speaker {
    /// The node, which the object is named after.
    pub node: Box<str>,
    /// The links that it speaks on.
    pub links: Box<[SpeakerLink]>,
}

/// One link of a node, as its speaker tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpeakerLink {
    /// Its name.
    pub name: Box<str>,
    /// It can carry frames.
    pub up: bool,
    /// It hears nothing, and so answers for nothing.
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
        let links = object.status.unwrap_or_default().links.into_iter().map(Into::into).collect();
        Self { node: object.metadata.name.unwrap_or_default().into(), links }
    }
}

impl From<api::LinkStatus> for SpeakerLink {
    fn from(mut link: api::LinkStatus) -> Self {
        // Sorted already, but for what somebody wrote by hand.
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
}
