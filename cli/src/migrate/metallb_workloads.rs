//! MetalLB's own Deployments and DaemonSets, and the commands that stop, start and delete exactly
//! these. Its namespace may have workloads of others: Helm installs into `default` without a flag.
//! Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;
use serde::Deserialize as _;
use serde_json::Value;

use super::Problem;
use super::shell::quoted;
use crate::objects::{APPS, Objects, list, name, namespace, text};
use crate::products;

/// Label of a node that no node has.
const STOPPED: &str = "\"stopped\"";

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
    DaemonSet,
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
        let sets = of_kind("DaemonSet").map(|it| Workload::new(it, Kind::DaemonSet));
        Self { namespace: metallb.to_owned(), all: deployments.chain(sets).collect() }
    }

    /// Returns the commands that stop a part, and wait until its pods have ended.
    #[must_use]
    pub fn stop(&self, part: Part) -> Vec<String> {
        let pods = self.of(part).filter_map(|it| it.pods.as_ref()).map(|selector| {
            self.kubectl(&format!("wait --for=delete pod -l {} --timeout=60s", quoted(selector)))
        });
        let stop = self.of(part).map(|it| match it.kind {
            Kind::Deployment { .. } => self.scale(it, 0),
            Kind::DaemonSet => self.select_nodes(it, STOPPED),
        });
        self.with_comment("stop", part, stop.chain(pods))
    }

    /// Returns the commands that start a part again, and wait until its pods are ready.
    #[must_use]
    pub fn start(&self, part: Part) -> Vec<String> {
        let start = self.of(part).map(|it| match it.kind {
            Kind::Deployment { replicas } => self.scale(it, replicas),
            Kind::DaemonSet => self.select_nodes(it, "null"),
        });
        let ready = self
            .of(part)
            .map(|it| self.kubectl(&format!("rollout status {} --timeout=120s", it.reference())));
        self.with_comment("start", part, start.chain(ready))
    }

    /// Returns the commands that delete the workloads.
    #[must_use]
    pub fn delete(&self) -> Vec<String> {
        let delete = |part| {
            let names: String = self.of(part).map(|it| format!(" {}", it.reference())).collect();
            let delete = (!names.is_empty()).then(|| self.kubectl(&format!("delete{names}")));
            self.with_comment("delete", part, delete.into_iter())
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

    /// Returns the workloads of a part.
    fn of(&self, part: Part) -> impl Iterator<Item = &Workload> {
        self.all.iter().filter(move |it| it.part == part)
    }

    /// Reports that a part has no workload, so that no command stops it.
    #[must_use]
    pub fn problem(&self) -> Option<Problem> {
        let text = format!(
            "no {} of MetalLB is found in the namespace {1}, so no command stops it. With --from, \
             add the output of kubectl -n {1} get deployments,daemonsets -o yaml",
            self.missing()?,
            self.namespace
        );
        Some(Problem::of("MetalLB", text))
    }

    /// Returns whether a part exists. Without a DaemonSet, there are no speakers.
    fn has(&self, part: Part) -> bool {
        let is_speaker = |it: &Workload| matches!(it.kind, Kind::DaemonSet);
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

    /// Returns the commands for a part; if it does not exist, first a comment with the action.
    fn with_comment(
        &self,
        action: &str,
        part: Part,
        commands: impl Iterator<Item = String>,
    ) -> Vec<String> {
        let kind = match part {
            Part::Controller => "Deployment",
            Part::Speakers => "DaemonSet",
        };
        let namespace = &self.namespace;
        let comment = (!self.has(part)).then(|| {
            format!("# {action} each {kind} of MetalLB in the namespace {namespace}, and no other")
        });
        comment.into_iter().chain(commands).collect()
    }

    fn scale(&self, workload: &Workload, replicas: u64) -> String {
        self.kubectl(&format!("scale {} --replicas={replicas}", workload.reference()))
    }

    /// Returns the command that sets a label in the node selector of a DaemonSet.
    fn select_nodes(&self, workload: &Workload, value: &str) -> String {
        let patch = format!(
            "{{\"spec\":{{\"template\":{{\"spec\":{{\"nodeSelector\":{{\"metallb\":{value}}}}}}}}}}}"
        );
        self.kubectl(&format!("patch {} --type=merge -p '{patch}'", workload.reference()))
    }

    fn kubectl(&self, words: &str) -> String {
        format!("kubectl -n {} {words}", quoted(&self.namespace))
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
            Kind::Deployment { .. } | Kind::DaemonSet => Part::Speakers,
        };
        Self { kind, name: name(object).to_owned(), part, pods, is_frr_k8s }
    }

    /// Returns kind and name for kubectl.
    fn reference(&self) -> String {
        let kind = match self.kind {
            Kind::Deployment { .. } => "deployment",
            Kind::DaemonSet => "daemonset",
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
    use serde_json::json;

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
        let delete = "kubectl -n default delete";
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
                assert!(commands.iter().all(|it| it.starts_with('#')), "{commands:?}");
            }
        }
        assert!(workloads.problem().is_some());
    }

    #[test]
    fn a_missing_part_is_a_problem_and_a_comment() {
        let controller = workload("Deployment", "controller", "quay.io/metallb/controller:v0.16.1");
        let workloads = Workloads::find(&Objects::new([controller]), "default");
        assert!(workloads.problem().unwrap().text.starts_with("no DaemonSet of MetalLB"));
        let comment = "# stop each DaemonSet of MetalLB in the namespace default, and no other";
        assert_eq!(workloads.stop(Part::Speakers), [comment]);
        assert_eq!(workloads.stop(Part::Controller).len(), 2);
    }
}
