//! Steps of the migration from MetalLB node by node. Pure. docs/migrate-bgp-from-metallb.md
//! explains the order.
//!
//! On layer 2, a Service moves when MetalLB's annotation is removed: FerroLB then announces it from
//! the same node as MetalLB. MetalLB's speakers go on replying until all Services have moved,
//! because a speaker that ends makes another one take over its addresses. With BGP, a node moves by
//! a label: MetalLB's DaemonSets exclude it, and FerroLB's BGPPeers select it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::groups::{Group, Groups};
use super::metallb::PEERS;
use super::metallb_steps::{
    Settings, announced_layer2, clean_up, copy, default_implementation, delete_webhooks, install,
    save, stop_speakers, verify,
};
use super::metallb_workloads::Part;
use super::shell::{
    self, APPLY, DELETE, DRY_RUN, GET, WAIT, delete_file, file, quoted, speakers, unchanged,
};
use super::{Action, Command, Step};
use crate::objects::list;

/// Label of moved nodes, and its value.
pub const LABEL: (&str, &str) = ("ferrolb.io/migration", "bgp");
/// File with the BGPPeers that select moved nodes only.
pub const MOVED_PEERS: &str = "peers-moved.yaml";
/// File with MetalLB's L2Advertisements.
pub const METALLB_LAYER2: &str = "metallb-layer2.yaml";

/// Minutes for the commands of a stage, and for observing a group of nodes after it.
const COMMANDS: usize = 1;
const OBSERVATION: usize = 5;

/// Facts that decide the steps, besides [`Settings`].
pub struct Plan {
    /// The groups of nodes, with their Services.
    pub groups: Groups,
    /// The number of BGP sessions of each node.
    pub sessions: BTreeMap<String, usize>,
    /// Names of MetalLB's L2Advertisements.
    pub advertisements: Vec<String>,
}

impl Plan {
    /// Returns the steps. Layer 2 is first: a speaker of MetalLB that leaves a node would make
    /// another one take over its addresses.
    #[must_use]
    pub fn steps(&self, settings: &Settings) -> Vec<Step> {
        let groups = if settings.has_peers { &*self.groups.all } else { &[] };
        let (first, rest) = groups.split_first().unzip();
        self.begin(settings)
            .into_iter()
            .chain([stop_controller(settings)])
            .chain(self.layer2(settings))
            .chain(first.map(|_| prepare(settings)))
            .chain(first.map(|group| self.first_nodes(settings, group)))
            .chain(self.others(settings))
            .chain(rest.into_iter().flatten().map(|group| self.nodes(settings, group)))
            .chain(end(settings))
            .collect()
    }

    /// Returns the steps that change nothing for Services of MetalLB.
    fn begin(&self, settings: &Settings) -> Vec<Step> {
        let default = default_implementation(settings, &settings.installation());
        [save(settings)]
            .into_iter()
            .chain(settings.installed.is_none().then(|| install(settings)))
            .chain([copy(settings)])
            .chain(default)
            .collect()
    }

    /// Returns the step in which the first nodes leave MetalLB. FerroLB has sessions there, but no
    /// routes: no Service has moved.
    fn first_nodes(&self, settings: &Settings, group: &Group) -> Step {
        let effect = "the routers lose the routes through these nodes until the Services move, and \
            use those through all other nodes. Connections through these nodes are reset. Local \
            Services with endpoints on these nodes only are not reachable meanwhile";
        self.move_nodes(settings, group, "first-nodes", effect)
    }

    fn nodes(&self, settings: &Settings, group: &Group) -> Step {
        let effect = "the routers have no routes through these nodes for about 7 s (estimate: 2 s \
            until MetalLB's pods end, 5 s until FerroLB's sessions exist), and use those through all \
            other nodes. Connections are reset when their next hop changes, twice. Local Services \
            with endpoints on these nodes only are not reachable meanwhile";
        self.move_nodes(settings, group, "nodes", effect)
    }

    /// Returns the step that moves the sessions of a group of nodes.
    fn move_nodes(
        &self,
        settings: &Settings,
        group: &Group,
        id: &'static str,
        effect: &str,
    ) -> Step {
        let (label, value) = LABEL;
        let nodes = words(&group.nodes);
        let title = format!("Move the BGP sessions of {}", described(group));
        Step::new(id, title, effect)
            .check(unchanged(&settings.directory))
            .check(speakers(&settings.ferrolb))
            .run(shell::LABEL.run(format_args!("--overwrite node {nodes} {label}={value}")))
            .run_all(self.wait_sessions(settings, group))
            .undo(shell::LABEL.run(format_args!("node {nodes} {label}-")))
            .undo_all(settings.workloads.show_speakers())
            .undo(Action::ByHand(
                "Check on the routers that MetalLB's sessions with these nodes are established."
                    .into(),
            ))
    }

    /// Returns the commands that wait until FerroLB has all sessions of these nodes. At their
    /// limit, they print the BGPPeers, which name the routers without a session.
    fn wait_sessions(&self, settings: &Settings, group: &Group) -> Vec<Command> {
        let mut counts: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for node in &group.nodes {
            let count = self.sessions.get(node).copied().unwrap_or_default();
            counts.entry(count).or_default().push(node.clone());
        }
        let wait = |(count, nodes): (usize, Vec<String>)| {
            let condition = format!("jsonpath={{.status.bgp.established}}={count}/{count}");
            let (condition, nodes) = (quoted(&condition), words(&nodes));
            let list = GET.run_in(&settings.ferrolb, "bgppeers.ferrolb.io").command;
            let words = format!(
                "--for={condition} --timeout=120s speakerstatuses.ferrolb.io {nodes} || {{ {list}; \
                 false; }}"
            );
            WAIT.run_in(&settings.ferrolb, words)
        };
        counts.into_iter().filter(|(count, _)| *count > 0).map(wait).collect()
    }

    /// Returns the steps that move the Services on layer 2, and the one in which MetalLB's speakers
    /// stop replying for them.
    fn layer2(&self, settings: &Settings) -> Vec<Step> {
        let mut steps: Vec<_> =
            self.groups.on_layer2().map(|group| layer2_of(settings, group)).collect();
        if !self.advertisements.is_empty() {
            steps.push(self.end_layer2(settings));
        }
        steps
    }

    fn end_layer2(&self, settings: &Settings) -> Step {
        let kind = "l2advertisements.metallb.io";
        let delete = format!("{kind} --ignore-not-found {}", words(&self.advertisements));
        let effect = "none: FerroLB replies for the addresses already, from the same nodes. Where \
            the nodes differ, connections are reset";
        Step::new("layer2-end", "Delete MetalLB's L2Advertisements", effect)
            .check(unchanged(&settings.directory))
            .check(announced_layer2(settings))
            .run(DELETE.run_in(&settings.metallb, delete))
            .undo(APPLY.on_file(&file(&settings.directory, METALLB_LAYER2)))
    }

    /// Returns the step that moves the Services that are not on layer 2.
    fn others(&self, settings: &Settings) -> Option<Step> {
        let services = &self.groups.others;
        let effect = if settings.has_peers {
            "the routers get the routes through the first nodes back. Connections are reset when \
             their next hop changes"
        } else {
            "none: MetalLB does not announce these Services"
        };
        let title = format!("Let FerroLB serve {} outside of layer 2", services.counted());
        let step = Step::new("services", title, effect)
            .check(unchanged(&settings.directory))
            .run_all(services.release())
            .undo_all(services.restore());
        (!services.is_empty()).then_some(step)
    }

    /// Returns the estimated duration of the steps as a fact.
    #[must_use]
    pub fn duration(&self, steps: &[Step]) -> String {
        let observed = ["layer2", "first-nodes", "nodes", "services"];
        let groups = steps.iter().filter(|step| observed.contains(&step.id)).count();
        let minutes = steps.len() * COMMANDS + groups * OBSERVATION;
        format!(
            "estimated duration: {} h {} min for {} groups of nodes: {COMMANDS} min of commands for \
             each of {} stages, and {OBSERVATION} min of observation after {groups} of them",
            minutes / 60,
            minutes % 60,
            self.groups.all.len(),
            steps.len()
        )
    }
}

/// Returns the BGPPeers that select moved nodes only. Entries of `nodeSelectors` are alternatives,
/// so each one gets the label.
#[must_use]
pub fn moved_peers(peers: &[Value]) -> Vec<Value> {
    let (label, value) = LABEL;
    let mut peers = peers.to_vec();
    for peer in &mut peers {
        let mut selectors = list(peer, "/spec/nodeSelectors").to_vec();
        if selectors.is_empty() {
            selectors.push(json!({}));
        }
        for selector in selectors.iter_mut().filter_map(Value::as_object_mut) {
            let labels = selector.entry("matchLabels").or_insert_with(|| json!({}));
            if let Some(labels) = labels.as_object_mut() {
                labels.insert(label.to_owned(), value.into());
            }
        }
        if let Some(spec) = peer.get_mut("spec").and_then(Value::as_object_mut) {
            spec.insert("nodeSelectors".to_owned(), selectors.into());
        }
    }
    peers
}

/// Returns the step after which MetalLB leaves nodes that get the label.
fn prepare(settings: &Settings) -> Step {
    let peers = file(&settings.directory, MOVED_PEERS);
    let effect = "none: no node has the label, and no pod restarts. MetalLB serves new nodes until \
        the last groups have moved. On the way back, Kubernetes replaces MetalLB's speakers of \
        nodes that have moved and returned, one after the other, and the sessions of each end \
        meanwhile";
    let title = format!("Prepare the move of nodes by the label {}={}", LABEL.0, LABEL.1);
    Step::new("prepare", title, effect)
        .check(DRY_RUN.on_file(&peers))
        .run(APPLY.on_file(&peers))
        .run_all(settings.workloads.exclude_nodes(LABEL))
        .undo_all(settings.workloads.include_nodes())
        .undo(delete_file(&peers))
}

/// Returns the step that stops MetalLB's controller, which would restore the annotation of the
/// Services that move.
fn stop_controller(settings: &Settings) -> Step {
    let saved = file(&settings.directory, "webhooks.yaml");
    let effect = "none: MetalLB's speakers continue, and FerroLB assigns the addresses of new \
        Services. MetalLB's webhook is deleted, because its controller serves it";
    Step::new("controller", "Stop MetalLB's controller", effect)
        .check(unchanged(&settings.directory))
        .run_all(settings.workloads.stop(Part::Controller))
        .run(delete_webhooks(settings.workloads.own_webhook()))
        .undo_all(settings.workloads.start(Part::Controller))
        .undo_all(settings.served.wait_restored())
        .undo(Command::new(
            format!("test ! -s {saved} || kubectl replace --force -f {saved}"),
            "`deleted` or `replaced` for each object, no output without a webhook",
        ))
}

/// Returns the step in which FerroLB begins to announce Services from the nodes of a group.
fn layer2_of(settings: &Settings, group: &Group) -> Step {
    let effect = "none for an address whose node is healthy: FerroLB announces it from the same \
        node as MetalLB, with the same MAC. Otherwise two nodes reply for the address until \
        MetalLB's L2Advertisements are deleted, and a connection whose node changes is reset";
    let title = format!("Announce {} on layer 2 from {}", group.layer2.counted(), described(group));
    Step::new("layer2", title, effect)
        .check(unchanged(&settings.directory))
        .check(announced_layer2(settings))
        .run_all(group.layer2.release())
        .undo_all(group.layer2.restore())
}

/// Returns the last steps: MetalLB's remaining speakers end, and the label is removed.
fn end(settings: &Settings) -> impl Iterator<Item = Step> {
    let manifests = "none. Remove MetalLB's annotation also from stored manifests of Services: \
        FerroLB leaves a Service that gets it again to MetalLB";
    [finish(settings), verify(settings), clean_up(settings, manifests)].into_iter()
}

/// Returns the step after which MetalLB has no speakers. The order of the commands keeps all
/// sessions: MetalLB starts on no node, then FerroLB's BGPPeers select all nodes without the label.
fn finish(settings: &Settings) -> Step {
    let (label, value) = LABEL;
    let [peers, moved] = [PEERS, MOVED_PEERS].map(|name| file(&settings.directory, name));
    let step =
        Step::new("stop", "Stop MetalLB's remaining speakers", "none: they announce nothing")
            .check(unchanged(&settings.directory))
            .check(speakers(&settings.ferrolb))
            .run_all(stop_speakers(settings));
    if !settings.has_peers {
        return step.undo_all(settings.workloads.start(Part::Speakers));
    }
    step.run(APPLY.on_file(&peers))
        .run(shell::LABEL.run(format_args!("node --all {label}-")))
        .undo(shell::LABEL.run(format_args!("--overwrite node --all {label}={value}")))
        .undo(APPLY.on_file(&moved))
        .undo_all(settings.workloads.start_without_wait(Part::Speakers))
}

fn described(group: &Group) -> String {
    match group.nodes.as_slice() {
        [node] if *node == group.name => node.clone(),
        nodes => format!("{}: {}", group.name, nodes.join(", ")),
    }
}

fn words(names: &[String]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(" ")
}
