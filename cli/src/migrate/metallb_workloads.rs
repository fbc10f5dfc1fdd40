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

/// MetalLB's workloads in a namespace.
pub struct Workloads {
    namespace: String,
    all: Vec<Workload>,
}

struct Workload {
    kind: Kind,
    name: String,
    /// Selector of its pods, for the option `-l`.
    pods: Option<String>,
}

enum Kind {
    Deployment { replicas: u64 },
    DaemonSet,
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

    /// Returns the commands that stop the workloads, and wait until their pods have ended.
    #[must_use]
    pub fn stop(&self) -> Vec<String> {
        let pods = self.all.iter().filter_map(|it| it.pods.as_ref()).map(|selector| {
            self.kubectl(&format!("wait --for=delete pod -l {} --timeout=60s", quoted(selector)))
        });
        let stop = self.all.iter().map(|it| match it.kind {
            Kind::Deployment { .. } => self.scale(it, 0),
            Kind::DaemonSet => self.select_nodes(it, STOPPED),
        });
        self.with_comment("stop", stop.chain(pods))
    }

    /// Returns the commands that start the workloads again.
    #[must_use]
    pub fn start(&self) -> Vec<String> {
        let start = self.all.iter().rev().map(|it| match it.kind {
            Kind::Deployment { replicas } => self.scale(it, replicas),
            Kind::DaemonSet => self.select_nodes(it, "null"),
        });
        self.with_comment("start", start)
    }

    /// Returns the command that deletes the workloads.
    #[must_use]
    pub fn delete(&self) -> Vec<String> {
        let names: String = self.all.iter().map(|it| format!(" {}", it.reference())).collect();
        let delete = (!names.is_empty()).then(|| self.kubectl(&format!("delete{names}")));
        self.with_comment("delete", delete.into_iter())
    }

    /// Reports that a kind of workload is missing, so that no command stops it.
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

    /// Returns the kinds of which there is no workload.
    fn missing(&self) -> Option<&'static str> {
        let is_set = |it: &Workload| matches!(it.kind, Kind::DaemonSet);
        match (self.all.iter().any(|it| !is_set(it)), self.all.iter().any(is_set)) {
            (true, true) => None,
            (true, false) => Some("DaemonSet"),
            (false, true) => Some("Deployment"),
            (false, false) => Some("Deployment or DaemonSet"),
        }
    }

    /// Returns the commands, after a comment with the action if a kind of workload is missing.
    fn with_comment(&self, action: &str, commands: impl Iterator<Item = String>) -> Vec<String> {
        let namespace = &self.namespace;
        let comment = self.missing().map(|kind| {
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
        Self { kind, name: name(object).to_owned(), pods }
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
    let containers = list(object, "/spec/template/spec/containers").iter();
    products::is_metallb(label, containers.map(|it| text(it, "/image")))
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
        assert_eq!(
            workloads.stop(),
            [
                "kubectl -n default scale deployment/controller --replicas=0".to_owned(),
                format!("kubectl -n default patch daemonset/speaker {stop}"),
                format!("kubectl -n default patch daemonset/frr {stop}"),
                "kubectl -n default wait --for=delete pod -l app=controller --timeout=60s".into(),
                "kubectl -n default wait --for=delete pod -l app=speaker --timeout=60s".into(),
                "kubectl -n default wait --for=delete pod -l app=frr --timeout=60s".into(),
            ]
        );
        assert_eq!(
            workloads.start(),
            [
                format!("kubectl -n default patch daemonset/frr {start}"),
                format!("kubectl -n default patch daemonset/speaker {start}"),
                "kubectl -n default scale deployment/controller --replicas=2".into(),
            ]
        );
        let delete =
            "kubectl -n default delete deployment/controller daemonset/speaker daemonset/frr";
        assert_eq!(workloads.delete(), [delete]);
        assert_eq!(workloads.problem(), None);
    }

    #[test]
    fn without_workloads_no_command_selects_all() {
        let objects = Objects::new([workload("Deployment", "shop", "example.com/shop:1")]);
        let workloads = Workloads::find(&objects, "default");
        for commands in [workloads.stop(), workloads.start(), workloads.delete()] {
            assert!(commands.iter().all(|it| it.starts_with('#')), "{commands:?}");
        }
        assert!(workloads.problem().is_some());
    }

    #[test]
    fn a_missing_kind_is_a_problem_and_a_comment() {
        let controller = workload("Deployment", "controller", "quay.io/metallb/controller:v0.16.1");
        let workloads = Workloads::find(&Objects::new([controller]), "default");
        assert!(workloads.problem().unwrap().text.starts_with("no DaemonSet of MetalLB"));
        let comment = "# stop each DaemonSet of MetalLB in the namespace default, and no other";
        assert_eq!(workloads.stop().first().unwrap(), comment);
        assert_eq!(workloads.stop().len(), 3);
    }
}
