//! The state's other objects as their watches tell them: Nodes, Namespaces, and our own kinds. They decide nothing here: what
//! concerns every Service is only marked, and decided once at the end of the pass.

use ferrolb_proto::Instant;
use ferrolb_proto::facts::{Advertisement, Community, CommunityProblem, Key, Namespace, Node, Pool, PoolProblem};
use ferrolb_runtime::watch::Change;

use super::agenda::{Agenda, Draft};
use super::inventory::Inventory;
use super::{Own, State, bare};

impl State {
    pub(super) fn node(&mut self, change: Change<Node>) {
        self.all_in_doubt |= match change {
            Change::ResyncStarted => {
                self.nodes.resync_started();
                false
            }
            Change::Apply(node) => {
                let before = self.nodes.put(bare(&node.name), node.clone()).unwrap_or_default();
                if before != node {
                    self.doubt_announcing();
                }
                self.bgp.in_doubt |= (&before.labels, before.lost) != (&node.labels, node.lost);
                before.addresses != node.addresses
            }
            Change::Unreadable { key, .. } => {
                self.nodes.touch(&bare(&key.name));
                false
            }
            Change::Delete(key) => self.nodes.remove(&bare(&key.name)).is_some(),
            Change::ResyncDone => !self.nodes.resync_done().is_empty(),
        };
    }

    /// Labels of Namespaces matter only where a pool asks for them. A Namespace that is gone has no Services either.
    pub(super) fn namespace(&mut self, change: Change<Namespace>) {
        match change {
            Change::ResyncStarted => self.namespaces.resync_started(),
            Change::Apply(Namespace { name, labels }) => {
                let before = self.namespaces.put(bare(&name), labels.clone());
                // A Service may be seen before its Namespace, and wait for it.
                let matters = before.map_or_else(|| self.has_services(&name), |before| before != labels);
                self.all_in_doubt |= matters && self.pools_select_namespaces();
            }
            Change::Unreadable { key, .. } => self.namespaces.touch(&bare(&key.name)),
            Change::Delete(key) => drop(self.namespaces.remove(&bare(&key.name))),
            Change::ResyncDone => drop(self.namespaces.resync_done()),
        }
    }

    fn has_services(&self, namespace: &str) -> bool {
        self.services.after(&Key::new(namespace, "")).next().is_some_and(|key| *key.namespace == *namespace)
    }

    pub(super) fn pool(&mut self, change: Change<Pool>, now: Instant) {
        let matters = |is: &Pool, was: &Pool| {
            let plain = |pool: &Pool| (pool.auto_assign, pool.avoid_buggy, pool.mode, pool.created);
            plain(is) != plain(was)
                || is.ranges != was.ranges
                || is.excluded != was.excluded
                || is.allocation != was.allocation
                || is.problem != was.problem
                || is.labels != was.labels
        };
        let before = |name: &Key| self.pools.get(&bare(&name.name)).map(|own| own.object.clone());
        let pool = match change {
            Change::ResyncStarted => return self.pools.resync_started(),
            Change::Delete(_) | Change::ResyncDone => {
                self.all_in_doubt |= gone(&mut self.pools, &mut self.agenda, &change);
                return;
            }
            Change::Apply(pool) => pool,
            Change::Unreadable { key, why } => {
                // What was written to it last is all that can be known of its status.
                let Pool { generation, created, status, .. } = before(&key).unwrap_or_default();
                let problem = Some(PoolProblem::Unreadable(why.into()));
                Pool { name: key.name, generation, created, status, problem, ..Pool::default() }
            }
        };
        let name = pool.name.clone();
        if put(&mut self.pools, bare(&name), pool, matters) {
            self.all_in_doubt = true;
        } else {
            self.settle_pool(&name, now);
        }
    }

    pub(super) fn advertisement(&mut self, change: Change<Advertisement>, now: Instant) {
        let ad = match change {
            Change::ResyncStarted => return self.advertisements.resync_started(),
            Change::Delete(_) | Change::ResyncDone => {
                if gone(&mut self.advertisements, &mut self.agenda, &change) {
                    self.doubt_announcing();
                }
                return;
            }
            Change::Apply(ad) => ad,
            Change::Unreadable { key, why } => {
                let before = self.advertisements.get(&bare(&key.name)).map(|own| own.object.clone());
                let mut ad = before.unwrap_or_default();
                (ad.name, ad.problem) = (key.name, Some(format!("the object cannot be read: {why}").into()));
                ad
            }
        };
        let name = ad.name.clone();
        let matters = |is: &Advertisement, was: &Advertisement| {
            (is.generation, &is.problem, &is.created) != (was.generation, &was.problem, &was.created)
        };
        if put(&mut self.advertisements, bare(&name), ad, matters) {
            self.doubt_announcing();
        }
        self.settle_advertisement(&name, now);
    }

    /// A name belongs to the first Community by name that gives it, so that one change may concern all others.
    pub(super) fn community(&mut self, change: Change<Community>, now: Instant) {
        let matters = |is: &Community, was: &Community| is.aliases != was.aliases;
        let names_changed = match change {
            Change::ResyncStarted => return self.communities.resync_started(),
            Change::Delete(_) | Change::ResyncDone => gone(&mut self.communities, &mut self.agenda, &change),
            Change::Apply(community) => put(&mut self.communities, bare(&community.name.clone()), community, matters),
            Change::Unreadable { key, why } => {
                let before = self.communities.get(&bare(&key.name)).map(|own| own.object.clone());
                let problem = Some(CommunityProblem::Unreadable(why.into()));
                let community = Community { name: key.name, problem, ..before.unwrap_or_default() };
                put(&mut self.communities, bare(&community.name.clone()), community, matters)
            }
        };
        if names_changed {
            self.doubt_announcing();
        }
        self.bgp.in_doubt = true;
        if self.communities.is_complete() {
            self.settle_communities(now);
        }
    }
}

/// Puts an object in the place of the one before; the answer is whether `differs` from that one, or there was none.
pub(super) fn put<F, S>(
    inventory: &mut Inventory<Own<F, S>>,
    key: Key,
    object: F,
    differs: impl FnOnce(&F, &F) -> bool,
) -> bool {
    let Some(own) = inventory.get_mut(&key) else {
        inventory.put(key, Own { object, draft: Draft::default(), quiet_until: Instant::ZERO });
        return true;
    };
    let differs = differs(&object, &own.object);
    own.object = object;
    inventory.touch(&key);
    differs
}

/// Takes out what a deletion or the end of a list says is gone; the answer is whether there was any.
pub(super) fn gone<F, S>(inventory: &mut Inventory<Own<F, S>>, agenda: &mut Agenda, change: &Change<F>) -> bool {
    let mut gone: Vec<_> = match change {
        Change::Delete(key) => inventory.remove(&bare(&key.name)).into_iter().collect(),
        Change::ResyncDone => inventory.resync_done().into_iter().map(|(_, own)| own).collect(),
        Change::ResyncStarted | Change::Apply(_) | Change::Unreadable { .. } => Vec::new(),
    };
    gone.iter_mut().for_each(|own| agenda.withdraw(&mut own.draft));
    !gone.is_empty()
}
