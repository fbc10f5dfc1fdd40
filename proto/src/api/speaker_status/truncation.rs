//! Cuts a SpeakerStatus to its limits.

use super::{
    ADDRESSES_MAX, BGP_ISSUES_MAX, BgpStatus, ENDPOINT_LENGTH_MAX, FAILING_MAX, GATEWAYS_MAX,
    HOST_ADDRESSES_MAX, INTERFACE_ISSUES_MAX, INTERFACE_NAME_MAX, INTERFACES_MAX, InterfaceStatus,
    MAC_LENGTH, MESSAGE_MAX, NAME_MAX, NODES_MAX, SESSIONS_MAX, SUBNET_LENGTH_MAX, SUBNETS_MAX,
    SpeakerStatusStatus, WATCHED_MAX, WORD_MAX,
};

impl SpeakerStatusStatus {
    /// Cuts lists and texts to the limits of the CRD.
    #[must_use]
    pub fn cut(mut self) -> Self {
        cut(&mut self.version, WORD_MAX);
        self.interfaces.truncate(INTERFACES_MAX);
        self.interfaces.iter_mut().for_each(InterfaceStatus::cut);
        if let Some(path) = &mut self.data_path {
            cut(&mut path.message, MESSAGE_MAX);
        }
        self.failing_health_checks.truncate(FAILING_MAX);
        for failing in &mut self.failing_health_checks {
            cut(&mut failing.namespace, NAME_MAX);
            cut(&mut failing.name, NAME_MAX);
            cut(&mut failing.endpoint, ENDPOINT_LENGTH_MAX);
            cut(&mut failing.message, MESSAGE_MAX);
        }
        self.unchecked_health_checks.truncate(FAILING_MAX);
        for unchecked in &mut self.unchecked_health_checks {
            cut(&mut unchecked.namespace, NAME_MAX);
            cut(&mut unchecked.name, NAME_MAX);
        }
        if let Some(bgp) = &mut self.bgp {
            bgp.cut();
        }
        self.watched_nodes.truncate(WATCHED_MAX);
        self.watched_nodes.iter_mut().for_each(|watched| cut(&mut watched.node, NAME_MAX));
        self.host_addresses.truncate(HOST_ADDRESSES_MAX);
        self.gateways.truncate(GATEWAYS_MAX);
        self
    }
}

impl InterfaceStatus {
    fn cut(&mut self) {
        cut(&mut self.name, INTERFACE_NAME_MAX);
        cut(&mut self.mac, MAC_LENGTH);
        for nodes in [&mut self.heard, &mut self.unheard] {
            nodes.truncate(NODES_MAX);
            nodes.iter_mut().for_each(|node| cut(node, NAME_MAX));
        }
        self.addresses.truncate(ADDRESSES_MAX);
        self.subnets.truncate(SUBNETS_MAX);
        self.subnets.iter_mut().for_each(|subnet| cut(subnet, SUBNET_LENGTH_MAX));
        self.issues.truncate(INTERFACE_ISSUES_MAX);
        for issue in &mut self.issues {
            cut(&mut issue.mac, MAC_LENGTH);
            if let Some(node) = &mut issue.node {
                cut(node, NAME_MAX);
            }
        }
    }
}

impl BgpStatus {
    fn cut(&mut self) {
        cut(&mut self.established, WORD_MAX);
        self.sessions.truncate(SESSIONS_MAX);
        for session in &mut self.sessions {
            cut(&mut session.peer, NAME_MAX);
            if let Some(since) = &mut session.since {
                cut(since, WORD_MAX);
            }
        }
        let of_sessions = self.sessions.iter_mut().map(|session| &mut session.issues);
        for issues in of_sessions.chain([&mut self.issues]) {
            issues.truncate(BGP_ISSUES_MAX);
            for issue in issues {
                cut(&mut issue.reason, WORD_MAX);
                cut(&mut issue.message, MESSAGE_MAX);
            }
        }
    }
}

/// Cuts a text to a number of characters.
fn cut(text: &mut String, characters_max: usize) {
    if let Some((end, _)) = text.char_indices().nth(characters_max) {
        text.truncate(end);
    }
}
