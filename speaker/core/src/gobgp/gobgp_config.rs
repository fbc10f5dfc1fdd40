//! Desired configuration of gobgpd in the terms of its API, translated from the plan's
//! [`BgpConfig`]. The machine owns the one [`Translation`].

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::plan::{BgpConfig, BgpIdentity, RouteReceivers, export_groups};
use ferrolb_core::bgp::{Prefix, RouteClass, Routes};
use ferrolb_core::shared_map::{Difference, SharedMap};
use ferrolb_proto::facts::PeerLocation;
use ferrolb_proto::range::Family;

use super::content_hash::ContentHash;
use super::peer_config::PeerConfig;
use super::policy_config::PolicyConfig;

/// Paths by prefix, each with the mark of its class. None: the path carries no mark of FerroLB, so
/// it is in gobgpd but not desired.
pub type Paths = SharedMap<Prefix, Option<ContentHash>>;

/// Desired configuration of gobgpd.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct GobgpConfig {
    /// BGP identity of the node. None: the node has no session, so gobgpd needs no identity.
    pub(super) identity: Option<BgpIdentity>,
    /// Sessions, by the address or interface of the router.
    pub(super) peers: BTreeMap<PeerLocation, Arc<PeerConfig>>,
    /// Policies for the classes of routes.
    pub(super) policies: BTreeMap<ContentHash, Arc<PolicyConfig>>,
    /// Paths, each with the mark of its class.
    pub(super) paths: Paths,
    /// Reason for which a new gobgpd possibly does not start soon after the present one stops. If
    /// set, routers should not keep the routes of the stopped gobgpd.
    pub(super) no_restart_reason: Option<&'static str>,
}

impl GobgpConfig {
    /// Returns whether a session has BFD.
    pub(super) fn has_bfd(&self) -> bool {
        self.peers.values().any(|config| config.peer.bfd.is_some())
    }
}

/// Translation of the latest [`BgpConfig`]. If the next one has a different route, only the path of
/// that route is translated again.
#[derive(Debug, Default)]
pub(super) struct Translation {
    source: BgpConfig,
    /// Classes of all routes of `source`.
    classes: BTreeMap<(Family, Arc<RouteClass>), TranslatedClass>,
    config: GobgpConfig,
}

/// Class of routes with its policy.
#[derive(Debug)]
struct TranslatedClass {
    policy: Arc<PolicyConfig>,
    /// Number of prefixes of the class.
    prefixes: usize,
}

impl Translation {
    pub(super) const fn config(&self) -> &GobgpConfig {
        &self.config
    }

    /// Replaces the translated configuration by `source`. Reuses the results for sessions that are
    /// equal to previous ones, and for classes with equal receivers.
    pub(super) fn update(&mut self, source: BgpConfig) {
        let peers = source.sessions.iter().map(|(location, session)| {
            let is_unchanged = self.source.sessions.get(location) == Some(session);
            let known = self.config.peers.get(location).filter(|_| is_unchanged);
            let peer = known.cloned().unwrap_or_else(|| Arc::new(PeerConfig::new(session)));
            (location.clone(), peer)
        });
        self.config.peers = peers.collect();
        (self.config.identity, self.config.no_restart_reason) =
            (source.identity, source.no_restart_reason);
        let before = std::mem::replace(&mut self.source, source);
        let routes = if before.receivers == self.source.receivers {
            before.routes
        } else {
            self.classes.clear();
            self.config.paths = Paths::default();
            Routes::default()
        };
        self.update_routes(&routes);
    }

    /// Translates the routes of the source that differ from `before`, the translated ones.
    fn update_routes(&mut self, before: &Routes) {
        let after = self.source.routes.clone();
        for Difference { key: prefix, before: old, now: new } in after.differences(before) {
            let key = |class: &Arc<RouteClass>| (prefix.family(), Arc::clone(class));
            if let Some(class) = old.and_then(|old| self.classes.get_mut(&key(old))) {
                class.prefixes -= 1;
            }
            let Some(new) = new else {
                self.config.paths.remove(prefix);
                continue;
            };
            let receivers = self.source.receivers.get(&prefix.family());
            let class = self.classes.entry(key(new)).or_insert_with(|| {
                let groups = export_groups(new, receivers.unwrap_or(&RouteReceivers::new()));
                TranslatedClass { policy: Arc::new(PolicyConfig::new(&groups)), prefixes: 0 }
            });
            class.prefixes += 1;
            self.config.paths.insert(*prefix, Some(class.policy.hash));
        }
        self.classes.retain(|_, class| class.prefixes > 0);
        let policies = self.classes.values().map(|class| &class.policy);
        self.config.policies = policies.map(|policy| (policy.hash, Arc::clone(policy))).collect();
    }
}

#[cfg(test)]
mod tests;
