//! Migration from MetalLB: problems of the cluster, the objects after the migration, and the
//! prediction. Pure; [`metallb_steps`](super::metallb_steps) has the steps.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use ferrolb_controller_core::state::{Config, Names};
use ferrolb_proto::api::{self, CustomResourceKind};
use k8s_openapi::api::apps::v1::Deployment;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::groups::{self, Groups};
use super::installed::Installed;
use super::merge::{Merged, password_secret};
use super::metallb_nodes::{self, METALLB_LAYER2, MOVED_PEERS, Plan};
use super::metallb_steps::{self, Settings};
use super::metallb_workloads::{Workloads, is_metallb};
use super::predict::{Expected, Prediction, predict};
use super::served::Served;
use super::translate::{KINDS, METALLB, Translation, translate};
use super::{ManifestFile, Migration, Problem, change};
use crate::installation;
use crate::objects::{self, APPS, Objects, annotation, name, namespace, text};

/// Annotations by which MetalLB records that it serves a Service.
pub const SERVED: [&str; 2] =
    ["metallb.io/ip-allocated-from-pool", "metallb.universe.tf/ip-allocated-from-pool"];
/// File with all objects except the peers.
pub const OBJECTS: &str = "ferrolb.yaml";
/// File with the BGPPeers, whose sessions begin when they are applied.
pub const PEERS: &str = "peers.yaml";
/// API group of FRR-K8s.
pub const FRR_K8S: &str = "frrk8s.metallb.io";

/// A cluster with MetalLB.
pub struct MetalLb<'a> {
    objects: &'a Objects,
    /// MetalLB's namespace.
    namespace: String,
    /// FerroLB's namespace.
    ferrolb: &'a str,
    /// FerroLB, if it exists already.
    installed: Option<Installed>,
    /// Class of the Services that MetalLB serves; `None`: Services without a class.
    class: Option<String>,
}

impl<'a> MetalLb<'a> {
    /// Finds MetalLB in a cluster. `ferrolb` is FerroLB's namespace.
    ///
    /// # Errors
    /// The namespace of MetalLB is not known, or is also FerroLB's.
    pub fn find(objects: &'a Objects, metallb: Option<&str>, ferrolb: &'a str) -> Result<Self> {
        let namespace = match metallb {
            Some(namespace) => namespace.to_owned(),
            None => find_namespace(objects)?,
        };
        if namespace == ferrolb {
            bail!(
                "the namespace of MetalLB, {namespace}, is also the one of FerroLB: install FerroLB \
                 in another namespace, and name that one with --installation"
            );
        }
        let class = class(objects, &namespace);
        let installed = Installed::find(objects, ferrolb);
        Ok(Self { objects, namespace, ferrolb, installed, class })
    }

    /// Plans the migration to FerroLB's own objects. The files are written to `directory`.
    #[must_use]
    pub fn own_group(&self, directory: &str) -> Migration {
        let (migration, settings) = self.copies(directory);
        if self.has_no_steps() {
            return migration;
        }
        migration.with_steps(metallb_steps::own_group(&settings))
    }

    /// Plans the same migration group of nodes by group of nodes. The nodes with equal values of
    /// the label `by` are a group; `None`: each node.
    ///
    /// # Errors
    /// There is no Node, or none has the label.
    pub fn node_by_node(&self, directory: &str, by: Option<&str>) -> Result<Migration> {
        let groups = Groups::find(self.objects, &self.namespace, by)?;
        let (mut migration, settings) = self.copies(directory);
        migration.title += ", node by node";
        let obstacles = self.obstacles(&settings, &groups);
        if self.has_no_steps() || !obstacles.is_empty() {
            migration.problems.extend(obstacles);
            migration.problems.sort();
            return Ok(migration);
        }
        let peers = migration.files.iter().find(|it| it.name == PEERS);
        let peers = peers.map(|it| it.objects.clone()).unwrap_or_default();
        let layer2: Vec<_> = self.of(CustomResourceKind::L2Advertisement).map(manifest).collect();
        let plan = Plan {
            groups,
            sessions: groups::sessions(self.objects, &peers),
            advertisements: layer2.iter().map(|it| name(it).to_owned()).collect(),
        };
        let moved = metallb_nodes::moved_peers(&peers);
        migration.files.extend(ManifestFile::unless_empty(MOVED_PEERS, moved));
        migration.files.extend(ManifestFile::unless_empty(METALLB_LAYER2, layer2));
        let steps = plan.steps(&settings);
        migration.facts.push(plan.duration(&steps));
        Ok(migration.with_steps(steps))
    }

    /// Reports facts that prevent a migration node by node.
    fn obstacles(&self, settings: &Settings, groups: &Groups) -> Vec<Problem> {
        let is_one = settings.has_peers && groups.all.len() == 1;
        let group = is_one.then(|| {
            let text = "all are one group, so no other nodes keep the routes: choose another label, \
                or migrate with --own-group";
            Problem::of("Nodes", text)
        });
        let class = self.class.as_ref().map(|class| {
            let text = format!(
                "it serves the class {class}, and FerroLB begins to serve all Services of a class \
                 at once: migrate with --own-group"
            );
            Problem::of("MetalLB", text)
        });
        let frr_k8s = settings.frr_configurations.first().map(|(namespace, _)| {
            let text = format!(
                "FRR-K8s in the namespace {namespace} has MetalLB's sessions, and does not leave \
                 single nodes: migrate with --own-group"
            );
            Problem::of("MetalLB", text)
        });
        class.into_iter().chain(frr_k8s).chain(group).collect()
    }

    /// Returns whether no step is possible: FerroLB uses MetalLB's objects already, or MetalLB's
    /// workloads are not known.
    fn has_no_steps(&self) -> bool {
        self.installed.as_ref().is_some_and(Installed::is_in_place)
            || self.workloads().problem().is_some()
    }

    /// Returns the migration to copies of MetalLB's objects without steps, and facts for the steps.
    fn copies(&self, directory: &str) -> (Migration, Settings) {
        let Translation { manifests, mut secrets, mut problems } =
            translate(self.objects, &self.namespace, self.ferrolb);
        let merged = Merged::of(self.objects, manifests, |_| false);
        problems.extend(merged.problems.iter().cloned());
        // A peer that exists has its Secret already.
        secrets.retain(|(_, name)| merged.new.iter().any(|it| password_secret(it) == *name));
        let prediction = self.predict_own_group(&merged);
        let is_peer = |object: &Value| text(object, "/kind") == CustomResourceKind::BGPPeer.name();
        problems.extend(self.installation_problems());
        let (peers, others): (Vec<_>, Vec<_>) = merged.new.into_iter().partition(is_peer);
        let settings = Settings {
            secrets,
            has_objects: !others.is_empty(),
            has_peers: !peers.is_empty(),
            ..self.settings(directory)
        };
        let mut files = ManifestFile::unless_empty(OBJECTS, others);
        files.extend(ManifestFile::unless_empty(PEERS, peers));
        let migration = Migration {
            title: format!("Migration from MetalLB to objects of {}", api::GROUP),
            files,
            ..self.migration(prediction, problems)
        };
        (migration, settings)
    }

    /// Plans the in-place migration.
    #[must_use]
    pub fn in_place(&self, directory: &str) -> Migration {
        let names = Names { namespace: self.namespace.clone(), group: METALLB.to_owned() };
        let prediction = predict(self.config(names), self.objects, self.objects, self.expected());
        let mut problems = Vec::new();
        problems.extend(self.stored_versions());
        if self.installed.is_some() {
            let text = "it is installed already, and would serve none of its own pools any more: \
                migrate with --own-group, or uninstall it first (docs/install/uninstall.md)";
            problems.push(Problem::of("FerroLB", text));
        }
        let migration = Migration {
            title: "In-place migration from MetalLB".to_owned(),
            ..self.migration(prediction, problems)
        };
        if self.installed.is_some() || self.has_no_steps() {
            return migration;
        }
        migration.with_steps(metallb_steps::in_place(&self.settings(directory)))
    }

    /// Reports facts of the existing FerroLB that prevent a migration to its own objects.
    fn installation_problems(&self) -> Vec<Problem> {
        let Some(installed) = &self.installed else { return Vec::new() };
        let mut problems = Vec::new();
        if installed.is_in_place() {
            let text = "it uses MetalLB's objects already: \
                docs/migrate-in-place-from-metallb.md#change-to-ferrolbs-own-objects";
            problems.push(Problem::of("FerroLB", text));
        }
        problems.extend(installed.lost(self.objects, self.class.as_deref()));
        if self.of(CustomResourceKind::BGPPeer).next().is_some() {
            problems.extend(installed.without_bgp(self.objects));
        }
        problems
    }

    fn settings(&self, directory: &str) -> Settings {
        Settings {
            metallb: self.namespace.clone(),
            workloads: self.workloads(),
            ferrolb: self.ferrolb.to_owned(),
            directory: directory.to_owned(),
            class: self.class.clone(),
            installed: self.installed.clone(),
            has_bgp: self.of(CustomResourceKind::BGPPeer).next().is_some(),
            has_layer2: self.of(CustomResourceKind::L2Advertisement).next().is_some(),
            has_objects: false,
            has_peers: false,
            frr_configurations: self.own_frr_configurations(),
            served: self.served(),
            secrets: BTreeSet::new(),
        }
    }

    fn workloads(&self) -> Workloads {
        Workloads::find(self.objects, &self.namespace)
    }

    /// Returns MetalLB's objects of a kind.
    fn of(&self, kind: CustomResourceKind) -> impl Iterator<Item = &Value> {
        let all = self.objects.of(METALLB, kind.name());
        all.filter(|object| namespace(object) == self.namespace)
    }

    fn migration(&self, prediction: Prediction, mut problems: Vec<Problem>) -> Migration {
        problems.extend(prediction.invalid);
        problems.extend(self.workloads().problem());
        problems.extend(self.other_frr_configurations());
        problems.extend(self.unserved());
        problems.extend(self.namespace_note());
        problems.sort();
        problems.dedup();
        Migration {
            facts: self.facts(),
            services: prediction.outcomes,
            problems,
            ..Migration::default()
        }
    }

    fn facts(&self) -> Vec<String> {
        let count = |kind: CustomResourceKind| {
            let count = self.of(kind).count();
            (count > 0).then(|| format!("{count} {}", kind.name()))
        };
        let counts: Vec<_> = KINDS.into_iter().filter_map(count).collect();
        let class = self.class.as_deref().unwrap_or("none");
        vec![
            format!("MetalLB in the namespace {}: {}", self.namespace, counts.join(", ")),
            format!("class of its Services: {class}"),
        ]
    }

    /// Returns the Services that MetalLB serves, or would serve.
    fn services(&self) -> impl Iterator<Item = &Value> {
        let class = self.class.as_deref().unwrap_or_default();
        self.objects.load_balancers().filter(move |it| text(it, "/spec/loadBalancerClass") == class)
    }

    /// Returns the Services of [`Self::services`] that MetalLB serves.
    fn served(&self) -> Served {
        let mut served = Served::default();
        self.services().for_each(|service| _ = served.add(service));
        served
    }

    fn expected(&self) -> Vec<Expected> {
        let expected = |service: &Value| Expected {
            key: objects::key(service),
            addresses: objects::addresses(service),
        };
        self.services().map(expected).collect()
    }

    fn config(&self, names: Names) -> Config {
        Config {
            classes: Installed::classes_after(self.installed.as_ref(), self.class.as_deref()),
            default_implementation: self.class.is_none(),
            names,
            ..Config::default()
        }
    }

    fn predict_own_group(&self, merged: &Merged) -> Prediction {
        let names = Names { namespace: self.ferrolb.to_owned(), group: api::GROUP.to_owned() };
        let after = self.objects.map_services(|service| {
            SERVED.iter().for_each(|name| change::set_annotation(service, name, None));
        });
        predict(self.config(names), self.objects, &merged.applied_to(after), self.expected())
    }

    /// Returns the FRRConfigurations that MetalLB has created in other namespaces.
    fn own_frr_configurations(&self) -> BTreeSet<(String, String)> {
        let all = self.objects.of(FRR_K8S, "FRRConfiguration");
        let own = all.filter(|it| self.is_own_frr(it) && namespace(it) != self.namespace);
        own.map(|it| (namespace(it).to_owned(), name(it).to_owned())).collect()
    }

    /// Returns whether MetalLB has created an FRRConfiguration: one for each Node, with its name.
    fn is_own_frr(&self, configuration: &Value) -> bool {
        let node = name(configuration).strip_prefix("metallb-");
        node.is_some_and(|node| self.objects.of(objects::CORE, "Node").any(|it| name(it) == node))
    }

    /// Reports FRRConfigurations that are not MetalLB's own.
    fn other_frr_configurations(&self) -> Vec<Problem> {
        let all = self.objects.of(FRR_K8S, "FRRConfiguration");
        let others = all.filter(|it| !self.is_own_frr(it));
        let has_nodes = self.objects.of(objects::CORE, "Node").next().is_some();
        let problem = |object| {
            let text = match has_nodes || !name(object).starts_with("metallb-") {
                true => {
                    "FerroLB has no equivalent: configure its peers and routes in another BGP \
                     daemon, or in the router"
                }
                false => {
                    "MetalLB's own have the names of Nodes: with --from, add the output of kubectl \
                     get nodes -o yaml"
                }
            };
            Problem::of(objects::label(object), text)
        };
        others.map(problem).collect()
    }

    /// Reports BGPPeers that the API server may store as `v1beta1`: only MetalLB's webhook converts
    /// them, and the migration stops MetalLB.
    fn stored_versions(&self) -> Option<Problem> {
        let crds = self.objects.of("apiextensions.k8s.io", "CustomResourceDefinition");
        let mut crds = crds.filter(|crd| name(crd) == "bgppeers.metallb.io");
        let is_stored = crds.any(|crd| {
            objects::texts(crd, "/status/storedVersions").any(|version| version == "v1beta1")
        });
        let mut peers = self.of(CustomResourceKind::BGPPeer).peekable();
        peers.peek()?;
        let is_written = peers.any(|peer| text(peer, "/apiVersion").ends_with("/v1beta1"));
        let text = format!(
            "the cluster may store BGPPeers as v1beta1, which only MetalLB converts. While MetalLB \
             runs, store them again: kubectl -n {} get bgppeers.v1beta2.metallb.io -o yaml | kubectl \
             replace -f - && kubectl patch crd bgppeers.metallb.io --subresource=status --type=merge \
             -p '{{\"status\":{{\"storedVersions\":[\"v1beta2\"]}}}}'",
            self.namespace
        );
        (is_stored || is_written)
            .then(|| Problem::of("CustomResourceDefinition bgppeers.metallb.io", text))
    }

    /// Reports Services that FerroLB will serve, although MetalLB does not.
    fn unserved(&self) -> Vec<Problem> {
        let is_served = |it: &&Value| SERVED.iter().any(|name| !annotation(it, name).is_empty());
        let services = self.services().filter(|_| self.class.is_none());
        let without_address = services.filter(|service| objects::addresses(service).is_empty());
        let unserved = without_address.filter(|service| !is_served(service));
        let note = |service| {
            let text = "MetalLB does not serve it, and FerroLB will: give it another class, or \
                delete it, if it must get no address";
            Problem::note(objects::label(service), text)
        };
        unserved.map(note).collect()
    }

    /// Reports that pools select namespaces by labels that the input does not have.
    fn namespace_note(&self) -> Option<Problem> {
        let selectors = "/spec/serviceAllocation/namespaceSelectors";
        let mut pools = self.of(CustomResourceKind::IPAddressPool);
        let selects = pools.any(|pool| !objects::list(pool, selectors).is_empty());
        let text = "none is in the files, so namespaceSelectors of pools select none: add the output \
            of kubectl get namespaces -o yaml";
        let has_none = self.objects.of(objects::CORE, "Namespace").next().is_none();
        (selects && has_none).then(|| Problem::of("Namespaces", text))
    }
}

/// Returns the manifest with which kubectl creates an object again.
fn manifest(object: &Value) -> Value {
    let field = |name: &str| object["metadata"][name].clone();
    let mut manifest = json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"],
        "metadata": {"name": field("name"), "namespace": field("namespace"),
            "labels": field("labels")},
        "spec": object["spec"],
    });
    if manifest["metadata"]["labels"].is_null() {
        manifest["metadata"].as_object_mut().map(|it| it.remove("labels"));
    }
    manifest
}

/// Returns MetalLB's namespace: the one of its pools, or of its DaemonSet if there are pools in
/// several namespaces, because MetalLB reads its own namespace only.
fn find_namespace(objects: &Objects) -> Result<String> {
    let pools: BTreeSet<&str> = objects.of(METALLB, "IPAddressPool").map(namespace).collect();
    let sets = objects.of(APPS, "DaemonSet").filter(|set| is_metallb(set));
    let sets: BTreeSet<&str> = sets.map(namespace).collect();
    let both: Vec<&str> = match pools.len() {
        0 => sets.into_iter().collect(),
        1 => pools.into_iter().collect(),
        _ => pools.intersection(&sets).copied().collect(),
    };
    match both.as_slice() {
        [namespace] => Ok((*namespace).to_owned()),
        [] => bail!("MetalLB is not found: name its namespace with --metallb-namespace"),
        several => bail!(
            "MetalLB may be in {}: name its namespace with --metallb-namespace",
            several.join(" or ")
        ),
    }
}

/// Returns the value of MetalLB's flag `--lb-class`.
fn class(objects: &Objects, metallb: &str) -> Option<String> {
    let all = objects.of(APPS, "Deployment").filter(|it| namespace(it) == metallb);
    let mut deployments = all.filter_map(|it| Deployment::deserialize(it).ok());
    deployments.find_map(|deployment| {
        let containers = deployment.spec?.template.spec?.containers;
        containers.iter().find_map(|container| installation::flag_of(container, &["lb-class"]))
    })
}
