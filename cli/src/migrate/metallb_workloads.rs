//! MetalLB's own Deployments and DaemonSets, and the commands that stop, start and delete exactly
//! these. Its namespace may have workloads of others: Helm installs into `default` without a flag.
//! Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::shell::{DELETE, GET, PATCH, ROLLOUT_STATUS, SCALE, WAIT_DELETED, quoted};
use super::{Command, Problem};
use crate::objects::{APPS, Objects, list, name, namespace, text};
use crate::products;

/// Label of a node that no node has.
const STOPPED: &str = "stopped";

/// Field of a node affinity, and the path from the affinity to its terms.
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const NODE_TERMS: &str =
    "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";

/// ValidatingWebhookConfigurations of MetalLB, and of the FRR-K8s that is installed with it.
const METALLB_WEBHOOK: &str = "metallb-webhook-configuration";
const FRR_K8S_WEBHOOK: &str = "frr-k8s-validating-webhook-configuration";

/// MetalLB's workloads in a namespace.
pub struct Workloads {
    namespace: String,
    all: Vec<Workload>,
}

struct Workload {
    kind: Kind,
    name: String,
    part: Part,
    /// Selector of its pods, for the option `-l`.
    pods: Option<String>,
    is_frr_k8s: bool,
}

enum Kind {
    Deployment { replicas: u64 },
    DaemonSet(Placement),
}

/// The fields of a DaemonSet that decide where its pods run, and when they are replaced.
struct Placement {
    affinity: Value,
    strategy: Value,
}

/// A part of MetalLB that is stopped and started as a whole.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The controller, which assigns addresses.
    Controller,
    /// The speakers, which announce addresses, and FRR-K8s, which serves them.
    Speakers,
}

impl Workloads {
    /// Finds the workloads of MetalLB, and of FRR-K8s, in MetalLB's namespace.
    #[must_use]
    pub fn find(objects: &Objects, metallb: &str) -> Self {
        let of_kind =
            |kind| objects.of(APPS, kind).filter(|it| namespace(it) == metallb && is_metallb(it));
        let deployments = of_kind("Deployment").map(|it| {
            let replicas = it.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
            Workload::new(it, Kind::Deployment { replicas })
        });
        let sets = of_kind("DaemonSet").map(|it| {
            let field = |path| it.pointer(path).cloned().unwrap_or_default();
            let affinity = field("/spec/template/spec/affinity");
            let strategy = field("/spec/updateStrategy");
            Workload::new(it, Kind::DaemonSet(Placement { affinity, strategy }))
        });
        Self { namespace: metallb.to_owned(), all: deployments.chain(sets).collect() }
    }

    /// Returns the commands that stop a part, and wait until its pods have ended.
    #[must_use]
    pub fn stop(&self, part: Part) -> Vec<Command> {
        let pods = self.of(part).filter_map(|it| it.pods.as_ref()).map(|selector| {
            let words = format!("pod -l {} --timeout=60s", quoted(selector));
            WAIT_DELETED.run_in(&self.namespace, words)
        });
        let stop = self.of(part).map(|it| match it.kind {
            Kind::Deployment { .. } => self.scale(it, 0),
            Kind::DaemonSet(_) => self.select_nodes(it, Some(STOPPED)),
        });
        stop.chain(pods).collect()
    }

    /// Returns the commands that start a part again, and wait until its pods are ready.
    #[must_use]
    pub fn start(&self, part: Part) -> Vec<Command> {
        let ready = self.of(part).map(|it| {
            let words = format!("{} --timeout=120s", it.reference());
            ROLLOUT_STATUS.run_in(&self.namespace, words)
        });
        self.start_without_wait(part).into_iter().chain(ready).collect()
    }

    /// Returns the commands that start a part again. kubectl cannot wait for the pods of a
    /// DaemonSet with the strategy `OnDelete`.
    #[must_use]
    pub fn start_without_wait(&self, part: Part) -> Vec<Command> {
        let start = self.of(part).map(|it| match it.kind {
            Kind::Deployment { replicas } => self.scale(it, replicas),
            Kind::DaemonSet(_) => self.select_nodes(it, None),
        });
        start.collect()
    }

    /// Returns the commands after which the DaemonSets have no pod on nodes with a label. With the
    /// strategy `OnDelete`, no other pod is replaced.
    #[must_use]
    pub fn exclude_nodes(&self, (label, value): (&str, &str)) -> Vec<Command> {
        let is_moved = json!({"key": label, "operator": "NotIn", "values": [value]});
        self.patch_sets(|placement| {
            let mut terms = list(&placement.affinity, NODE_TERMS).to_vec();
            // Terms are alternatives.
            if terms.is_empty() {
                terms.push(json!({}));
            }
            for term in terms.iter_mut().filter_map(Value::as_object_mut) {
                let expressions = term.entry("matchExpressions").or_insert_with(|| json!([]));
                if let Some(expressions) = expressions.as_array_mut() {
                    expressions.push(is_moved.clone());
                }
            }
            let required = json!({"nodeSelectorTerms": terms});
            Placement {
                affinity: json!({"nodeAffinity": {REQUIRED: required}}),
                strategy: json!({"type": "OnDelete", "rollingUpdate": null}),
            }
        })
    }

    /// Returns the commands that undo [`Self::exclude_nodes`]. The pod templates are the former
    /// ones, so that Kubernetes replaces only the pods that have started in between.
    #[must_use]
    pub fn include_nodes(&self) -> Vec<Command> {
        self.patch_sets(|Placement { affinity, strategy }| {
            // A merge patch removes a field by null.
            let affinity = match affinity.get("nodeAffinity") {
                None if affinity.is_null() => Value::Null,
                None => json!({"nodeAffinity": null}),
                Some(node) => json!({"nodeAffinity": {REQUIRED: node.get(REQUIRED)}}),
            };
            let strategy = if strategy.is_null() {
                json!({"type": "RollingUpdate"})
            } else {
                strategy.clone()
            };
            Placement { affinity, strategy }
        })
    }

    /// Returns the commands that patch all DaemonSets.
    fn patch_sets(&self, changed: impl Fn(&Placement) -> Placement) -> Vec<Command> {
        let patch = |it: &Workload| {
            let Kind::DaemonSet(placement) = &it.kind else { return None };
            let Placement { affinity, strategy } = changed(placement);
            let patch = json!({"spec": {"updateStrategy": strategy,
                "template": {"spec": {"affinity": affinity}}}});
            Some(self.patch(it, &patch))
        };
        self.all.iter().filter_map(patch).collect()
    }

    /// Returns the commands that delete the workloads.
    #[must_use]
    pub fn delete(&self) -> Vec<Command> {
        let delete = |part| {
            let names: String = self.of(part).map(|it| format!(" {}", it.reference())).collect();
            let words = format!("--ignore-not-found{names}");
            (!names.is_empty()).then(|| DELETE.run_in(&self.namespace, words))
        };
        [Part::Controller, Part::Speakers].into_iter().flat_map(delete).collect()
    }

    /// Returns the names of MetalLB's ValidatingWebhookConfigurations, for kubectl. That of an
    /// FRR-K8s in another namespace is not MetalLB's.
    #[must_use]
    pub fn webhooks(&self) -> String {
        let has_frr_k8s = self.all.iter().any(|it| it.is_frr_k8s);
        let frr_k8s = has_frr_k8s.then_some(FRR_K8S_WEBHOOK);
        [METALLB_WEBHOOK].into_iter().chain(frr_k8s).collect::<Vec<_>>().join(" ")
    }

    /// Returns the name of the ValidatingWebhookConfiguration that MetalLB's controller serves.
    #[must_use]
    pub const fn own_webhook(&self) -> &'static str {
        METALLB_WEBHOOK
    }

    /// Returns the commands that show the pods of the DaemonSets, and their nodes.
    #[must_use]
    pub fn show_speakers(&self) -> Vec<Command> {
        let sets = self.all.iter().filter(|it| matches!(it.kind, Kind::DaemonSet(_)));
        let show = |selector: &String| {
            let words = format!("pods -o wide -l {}", quoted(selector));
            GET.run_in(&self.namespace, words).expecting(
                "`Running` for a pod on each node of this stage; repeat the command until then",
            )
        };
        sets.filter_map(|it| it.pods.as_ref()).map(show).collect()
    }

    /// Returns the workloads of a part.
    fn of(&self, part: Part) -> impl Iterator<Item = &Workload> {
        self.all.iter().filter(move |it| it.part == part)
    }

    /// Reports that a part has no workload, so that no command stops it.
    #[must_use]
    pub fn problem(&self) -> Option<Problem> {
        let text = format!(
            "no {} of MetalLB is found in the namespace {1}, so the plan has no steps. With --from, \
             add the output of kubectl -n {1} get deployments,daemonsets -o yaml",
            self.missing()?,
            self.namespace
        );
        Some(Problem::of("MetalLB", text))
    }

    /// Returns whether a part exists. Without a DaemonSet, there are no speakers.
    fn has(&self, part: Part) -> bool {
        let is_speaker = |it: &Workload| matches!(it.kind, Kind::DaemonSet(_));
        self.of(part).any(|it| part == Part::Controller || is_speaker(it))
    }

    /// Returns the kinds of workloads that are missing.
    fn missing(&self) -> Option<&'static str> {
        match (self.has(Part::Controller), self.has(Part::Speakers)) {
            (true, true) => None,
            (true, false) => Some("DaemonSet"),
            (false, true) => Some("Deployment"),
            (false, false) => Some("Deployment or DaemonSet"),
        }
    }

    fn scale(&self, workload: &Workload, replicas: u64) -> Command {
        let words = format!("{} --replicas={replicas}", workload.reference());
        SCALE.run_in(&self.namespace, words)
    }

    /// Returns the command that sets a label in the node selector of a DaemonSet.
    fn select_nodes(&self, workload: &Workload, value: Option<&str>) -> Command {
        let selector = json!({"metallb": value});
        self.patch(workload, &json!({"spec": {"template": {"spec": {"nodeSelector": selector}}}}))
    }

    fn patch(&self, workload: &Workload, patch: &Value) -> Command {
        let patch = quoted(&patch.to_string());
        let words = format!("{} --type=merge -p {patch}", workload.reference());
        PATCH.run_in(&self.namespace, words)
    }
}

impl Workload {
    fn new(object: &Value, kind: Kind) -> Self {
        let selector = object.pointer("/spec/selector");
        let selector = selector.and_then(|it| LabelSelector::deserialize(it).ok());
        let selector = selector.and_then(|it| Selector::try_from(it).ok());
        // An empty selector would select all pods.
        let pods = selector.map(|it| it.to_string()).filter(|it| !it.is_empty());
        let is_frr_k8s = images(object).any(products::is_frr_k8s);
        let part = match kind {
            Kind::Deployment { .. } if !is_frr_k8s => Part::Controller,
            Kind::Deployment { .. } | Kind::DaemonSet(_) => Part::Speakers,
        };
        Self { kind, name: name(object).to_owned(), part, pods, is_frr_k8s }
    }

    /// Returns kind and name for kubectl.
    fn reference(&self) -> String {
        let kind = match self.kind {
            Kind::Deployment { .. } => "deployment",
            Kind::DaemonSet(_) => "daemonset",
        };
        quoted(&format!("{kind}/{}", self.name))
    }
}

/// Returns whether a Deployment or DaemonSet is a part of MetalLB or FRR-K8s.
#[must_use]
pub fn is_metallb(object: &Value) -> bool {
    let labels = object.pointer("/metadata/labels");
    let label = |name: &str| labels?.get(name)?.as_str();
    products::is_metallb(label, images(object))
}

/// Returns the images of a Deployment or DaemonSet.
fn images(object: &Value) -> impl Iterator<Item = &str> {
    list(object, "/spec/template/spec/containers").iter().map(|it| text(it, "/image"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(kind: &str, name: &str, image: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": kind,
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}},
                "template": {"spec": {"containers": [{"name": "a", "image": image}]}}}})
    }

    #[test]
    fn only_workloads_of_metallb_are_stopped_started_and_deleted() {
        let objects = Objects::new([
            workload("Deployment", "controller", "quay.io/metallb/controller:v0.16.1"),
            workload("Deployment", "shop", "example.com/shop:1"),
            workload("DaemonSet", "speaker", "reg:5000/copy/metallb-speaker@sha256:0"),
            workload("DaemonSet", "frr", "quay.io/copy/frr-k8s:v1"),
            workload("Deployment", "webhook", "quay.io/copy/frr-k8s:v1"),
            workload("DaemonSet", "logs", "example.com/metallb/logs/agent:1"),
        ]);
        let workloads = Workloads::find(&objects, "default");
        let patch = |value: &str| {
            format!(
                "--type=merge -p '{}'",
                json!({"spec": {"template": {"spec": {"nodeSelector": {"metallb": "V"}}}}})
            )
            .replace("\"V\"", value)
        };
        let (stop, start) = (patch("\"stopped\""), patch("null"));
        let wait = |name: &str| {
            format!("kubectl -n default wait --for=delete pod -l app={name} --timeout=60s")
        };
        let scale = |name: &str, replicas: u64| {
            format!("kubectl -n default scale deployment/{name} --replicas={replicas}")
        };
        let on_set =
            |name: &str, patch: &str| format!("kubectl -n default patch daemonset/{name} {patch}");
        assert_eq!(workloads.stop(Part::Controller), [scale("controller", 0), wait("controller")]);
        assert_eq!(
            workloads.stop(Part::Speakers),
            [
                scale("webhook", 0),
                on_set("speaker", &stop),
                on_set("frr", &stop),
                wait("webhook"),
                wait("speaker"),
                wait("frr"),
            ]
        );
        let ready = |reference: &str| {
            format!("kubectl -n default rollout status {reference} --timeout=120s")
        };
        assert_eq!(
            workloads.start(Part::Controller),
            [scale("controller", 2), ready("deployment/controller")]
        );
        assert_eq!(
            workloads.start(Part::Speakers),
            [
                scale("webhook", 2),
                on_set("speaker", &start),
                on_set("frr", &start),
                ready("deployment/webhook"),
                ready("daemonset/speaker"),
                ready("daemonset/frr"),
            ]
        );
        let delete = "kubectl -n default delete --ignore-not-found";
        assert_eq!(
            workloads.delete(),
            [
                format!("{delete} deployment/controller"),
                format!("{delete} deployment/webhook daemonset/speaker daemonset/frr"),
            ]
        );
        assert_eq!(workloads.problem(), None);
        let both = "metallb-webhook-configuration frr-k8s-validating-webhook-configuration";
        assert_eq!(workloads.webhooks(), both);
        let elsewhere = Workloads::find(&objects, "other");
        assert_eq!(elsewhere.webhooks(), "metallb-webhook-configuration");
    }

    #[test]
    fn without_workloads_no_command_selects_all() {
        let objects = Objects::new([workload("Deployment", "shop", "example.com/shop:1")]);
        let workloads = Workloads::find(&objects, "default");
        for part in [Part::Controller, Part::Speakers] {
            for commands in [workloads.stop(part), workloads.start(part), workloads.delete()] {
                assert_eq!(commands, [""; 0]);
            }
        }
        assert!(workloads.problem().is_some());
    }

    #[test]
    fn a_missing_part_is_a_problem() {
        let controller = workload("Deployment", "controller", "quay.io/metallb/controller:v0.16.1");
        let workloads = Workloads::find(&Objects::new([controller]), "default");
        assert!(workloads.problem().unwrap().text.starts_with("no DaemonSet of MetalLB"));
        assert_eq!(workloads.stop(Part::Speakers), [""; 0]);
        assert_eq!(workloads.stop(Part::Controller).len(), 2);
    }

    #[test]
    fn daemonsets_leave_labeled_nodes_and_get_back_their_fields() {
        let set = |affinity: Value, strategy: Value| {
            let mut set = workload("DaemonSet", "speaker", "quay.io/metallb/speaker:v0.16.1");
            set["spec"]["template"]["spec"]["affinity"] = affinity;
            set["spec"]["updateStrategy"] = strategy;
            let workloads = Workloads::find(&Objects::new([set]), "default");
            let patch = |commands: Vec<Command>| {
                let [command] = commands.as_slice() else { panic!("{commands:?}") };
                let (_, patch) = command.command.split_once(" -p ").unwrap();
                let patch: Value = serde_json::from_str(patch.trim_matches('\'')).unwrap();
                let affinity = patch["spec"]["template"]["spec"]["affinity"].clone();
                (affinity, patch["spec"]["updateStrategy"].clone())
            };
            (patch(workloads.exclude_nodes(("moved", "yes"))), patch(workloads.include_nodes()))
        };
        let excluded = json!({"key": "moved", "operator": "NotIn", "values": ["yes"]});
        let with = |terms: Value| json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": terms}}});
        let on_delete = json!({"type": "OnDelete", "rollingUpdate": null});
        let (exclude, include) = set(Value::Null, Value::Null);
        assert_eq!(exclude, (with(json!([{"matchExpressions": [excluded]}])), on_delete));
        assert_eq!(include, (Value::Null, json!({"type": "RollingUpdate"})));
        let linux = json!({"key": "os", "operator": "In", "values": ["linux"]});
        let terms = json!([{"matchExpressions": [linux]}, {"matchFields": []}]);
        let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}});
        let (exclude, include) = set(with(terms.clone()), rolling.clone());
        let changed = json!([{"matchExpressions": [linux, excluded]},
            {"matchFields": [], "matchExpressions": [excluded]}]);
        assert_eq!(exclude.0, with(changed));
        assert_eq!(include, (with(terms), rolling));
        let pods = json!({"podAntiAffinity": {}});
        assert_eq!(set(pods, Value::Null).1.0, json!({"nodeAffinity": null}));
    }
}
