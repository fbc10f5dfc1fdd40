//! A running MetalLB: its published CustomResourceDefinitions, and its controller and speakers,
//! built from its Go module. MetalLB runs as processes of the lab. Its workloads and pods are
//! objects in the API only, so a test stops the processes when a command stops the workloads.

use crate::{segment, services};
use anyhow::{Result, ensure};
use ferrolb_lab::process::{self, Launch};
use ferrolb_lab::setup::metallb;
use ferrolb_lab::topology::{CONTROL_PLANE, node_name};
use ferrolb_lab::{Lab, Signal, wait};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const NAMESPACE: &str = "metallb-system";
/// Annotation that MetalLB sets on a Service with an address.
const ASSIGNED_ANNOTATION: &str = "metallb.io/ip-allocated-from-pool";
/// Names of the components, and of their workloads.
const CONTROLLER: &str = "controller";
const SPEAKER: &str = "speaker";
/// Port of the metrics. FerroLB uses other ports.
const METRICS_PORT: &str = "9121";
/// Grace period of the pods in MetalLB's manifests.
const GRACE_PERIOD: Duration = Duration::from_secs(2);
/// Maximum time until MetalLB serves a Service.
const SERVED_MAX: Duration = Duration::from_secs(30);
/// Maximum time until a speaker of MetalLB announces an address. Between attempts, MetalLB waits up
/// to twice as long each time.
const ANNOUNCED_MAX: Duration = Duration::from_secs(60);

/// MetalLB in a lab.
pub(crate) struct MetalLb<'a> {
    lab: &'a Lab,
    programs: PathBuf,
}

impl<'a> MetalLb<'a> {
    /// Creates the CustomResourceDefinitions, the namespace, the workloads, and their pods. No
    /// process runs yet.
    pub(crate) fn install(lab: &'a Lab) -> Result<Self> {
        for file in fs::read_dir(metallb::crds()?)? {
            lab.apply_file(&file?.path())?;
        }
        let nodes = lab.nodes();
        let speakers = nodes.iter().map(|node| pod(&speaker(node), SPEAKER, node));
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        let mut objects = vec![
            namespace,
            workload("Deployment", CONTROLLER),
            workload("DaemonSet", SPEAKER),
            pod(CONTROLLER, CONTROLLER, &node_name(1)),
        ];
        objects.extend(speakers);
        lab.apply_objects(&objects)?;
        Ok(Self { lab, programs: metallb::build()? })
    }

    /// Starts the controller.
    pub(crate) fn start_controller(&self) -> Result<()> {
        let args = ["--webhook-mode", "disabled", "--disable-cert-rotation"];
        self.start(CONTROLLER, CONTROL_PLANE, CONTROLLER, &args)
    }

    /// Starts a speaker on every node.
    pub(crate) fn start_speakers(&self) -> Result<()> {
        self.lab.nodes().iter().try_for_each(|node| self.start_speaker(node))
    }

    /// Starts the speaker of a node.
    pub(crate) fn start_speaker(&self, node: &str) -> Result<()> {
        self.start(SPEAKER, node, &speaker(node), &["--node-name", node])
    }

    /// Stops the controller.
    pub(crate) fn stop_controller(&self) -> Result<()> {
        self.stop(&[process_name(CONTROLLER)])
    }

    /// Stops all speakers.
    pub(crate) fn stop_speakers(&self) -> Result<()> {
        self.stop_speakers_on(&self.lab.nodes())
    }

    /// Stops the speakers of these nodes together.
    pub(crate) fn stop_speakers_on<'n>(
        &self,
        nodes: impl IntoIterator<Item = &'n String>,
    ) -> Result<()> {
        let names = nodes.into_iter().map(|node| process_name(&speaker(node)));
        self.stop(&names.collect::<Vec<_>>())
    }

    /// Ends processes as a kubelet does: those that still run after the grace period are killed.
    fn stop(&self, names: &[String]) -> Result<()> {
        names.iter().try_for_each(|name| self.lab.signal(name, Signal::TERM))?;
        let is_alive = |name: &&String| {
            process::find(self.lab.state(), name).is_some_and(|record| record.is_alive())
        };
        // An error means that a process still runs.
        let _ = wait::until("the processes end", GRACE_PERIOD, || {
            Ok((!names.iter().any(|name| is_alive(&name))).then_some(()))
        });
        names.iter().filter(is_alive).try_for_each(|name| self.lab.stop(name, Signal::KILL))
    }

    /// Waits until MetalLB's controller has written its annotation to a Service with an address.
    pub(crate) fn wait_served(&self, name: &str) -> Result<()> {
        wait::until(&format!("MetalLB serves {name}"), SERVED_MAX, || {
            let service = services::get(self.lab, name)?;
            let is_annotated = service.annotations().contains_key(ASSIGNED_ANNOTATION);
            ensure!(is_annotated, "the Service lacks the annotation");
            Ok((!services::addresses(&service).is_empty()).then_some(()))
        })
    }

    /// Waits until exactly one node replies for an address, and returns the node.
    pub(crate) fn wait_announced(&self, address: Ipv4Addr) -> Result<String> {
        wait::until_heard(&format!("MetalLB announces {address}"), ANNOUNCED_MAX, || {
            segment::owner(self.lab, address).map(Some)
        })
    }

    fn start(&self, program: &str, host: &str, pod: &str, args: &[&str]) -> Result<()> {
        let common = ["--namespace", NAMESPACE, "--pod-name", pod, "--port", METRICS_PORT];
        let state = self.lab.state();
        let launch = Launch {
            name: process_name(pod),
            host: host.to_owned(),
            node: None,
            program: self.programs.join(program),
            args: common.iter().chain(args).map(|arg| (*arg).to_owned()).collect(),
            env: [("KUBECONFIG".to_owned(), state.kubeconfig().display().to_string())].into(),
            low_priority: false,
        };
        process::start(state, launch).map(drop)
    }
}

/// Returns the name of the pod of a node's speaker.
fn speaker(node: &str) -> String {
    format!("{SPEAKER}-{node}")
}

/// Returns the name of the process of a pod. FerroLB's processes have other names.
fn process_name(pod: &str) -> String {
    format!("metallb-{pod}")
}

fn containers(component: &str) -> Value {
    let image = format!("quay.io/metallb/{component}:{}", metallb::VERSION);
    json!([{"name": component, "image": image}])
}

/// Returns a pod. Without the labels of the workload, no command waits for its deletion.
fn pod(name: &str, component: &str, node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"nodeName": node, "containers": containers(component)}})
}

fn workload(kind: &str, component: &str) -> Value {
    let labels = json!({"app": "metallb", "component": component});
    json!({"apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": component, "namespace": NAMESPACE, "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": containers(component)}}}})
}
