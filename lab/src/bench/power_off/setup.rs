//! Installed FerroLB with one Service that has a pod on each machine of a kubeadm cluster, and the
//! machine of the active leader.

use super::super::settle::SETTLE_MAX;
use crate::cluster::ferrolb::NAMESPACE;
use crate::setup::kubeadm::PodImage;
use crate::{Lab, wait};
use anyhow::{Result, ensure};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Interval of the client's connections.
pub(super) const PROBE_INTERVAL: Duration = Duration::from_millis(10);
/// Time for which the client connects before a failure, and to check that all pods reply.
pub(super) const PROBE_BEFORE: Duration = Duration::from_secs(1);
/// Maximum time of a rollout of the controller.
const ROLLOUT_MAX: &str = "--timeout=120s";
const SERVER: ([u8; 4], u16) = ([172, 30, 0, 210], 80);
const YAML: &str = "\
apiVersion: ferrolb.io/v1beta1
kind: IPAddressPool
metadata: {name: power, namespace: ferrolb-system}
spec: {addresses: [172.30.0.210/32]}
---
apiVersion: ferrolb.io/v1beta1
kind: L2Advertisement
metadata: {name: power, namespace: ferrolb-system}
---
apiVersion: v1
kind: Service
metadata: {name: power, namespace: default}
spec: {type: LoadBalancer, selector: {app: power}, ports: [{port: 80, targetPort: 8080}]}
";

/// Creates a Service with a pod on each machine and returns its socket address.
///
/// # Errors
/// If not all pods reply.
pub fn create_service(lab: &Lab) -> Result<SocketAddr> {
    let server = SocketAddr::new(IpAddr::from(SERVER.0), SERVER.1);
    lab.apply(YAML)?;
    lab.apply_objects(&[pods()])?;
    wait_served(lab, server)?;
    Ok(server)
}

/// Waits until the pods on all machines reply.
///
/// # Errors
/// If they do not.
pub fn wait_served(lab: &Lab, server: SocketAddr) -> Result<()> {
    wait::until("all pods reply", SETTLE_MAX, || {
        let report = lab.start_probe(server, PROBE_BEFORE, PROBE_INTERVAL).finish()?;
        ensure!(report.lost == 0 && report.pods.len() == lab.nodes().len(), "{report:?}");
        Ok(Some(()))
    })
}

/// Returns a DaemonSet with a pod on each machine, including the control plane.
fn pods() -> serde_json::Value {
    let name = json!({"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "power", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "power"}},
            "template": {"metadata": {"labels": {"app": "power"}}, "spec": {
                "tolerations": [{"operator": "Exists"}], "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "power", "image": PodImage::NAME, "imagePullPolicy": "Never", "args": ["serve", "$(NAME)", "8080"], "env": [name],
                    "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
                }],
            }},
        },
    })
}

/// Sets `externalTrafficPolicy` of the Service.
///
/// # Errors
/// If the API server rejects it.
pub fn set_policy(lab: &Lab, policy: &str) -> Result<()> {
    let patch = json!({"spec": {"externalTrafficPolicy": policy}}).to_string();
    lab.kubectl(&["patch", "service", "power", "-p", &patch]).map(drop)
}

/// Sets the flag `--node-failure-endpoints` of the controller, and waits for the new leader.
///
/// # Errors
/// If the rollout does not end.
pub fn set_node_failure_endpoints(lab: &Lab, scope: &str) -> Result<()> {
    let variable = format!("FERROLB_NODE_FAILURE_ENDPOINTS={scope}");
    lab.kubectl(&["-n", NAMESPACE, "set", "env", "deployment/controller", &variable])?;
    lab.kubectl(&["-n", NAMESPACE, "rollout", "status", "deployment/controller", ROLLOUT_MAX])?;
    wait::until("a controller is the leader", SETTLE_MAX, || leader_machine(lab)).map(drop)
}

/// Returns the machine of the active leader, or `None` if no running pod leads.
///
/// # Errors
/// If `kubectl` fails.
pub fn leader_machine(lab: &Lab) -> Result<Option<String>> {
    let holder = lab.kubectl(&[
        "-n",
        NAMESPACE,
        "get",
        "lease",
        "ferrolb-controller",
        "-o",
        "jsonpath={.spec.holderIdentity}",
    ])?;
    let Some((pod, _)) = holder.trim().rsplit_once('_') else { return Ok(None) };
    let pods = lab.kubectl(&[
        "-n",
        NAMESPACE,
        "get",
        "pods",
        "-o",
        r#"jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{"\n"}{end}"#,
    ])?;
    let machine = pods.lines().find_map(|line| line.strip_prefix(pod)?.strip_prefix(' '));
    Ok(machine.map(ToOwned::to_owned))
}

/// Moves the active leader to a machine other than `machine`.
///
/// # Errors
/// If no other controller becomes the leader.
pub fn move_leader_from(lab: &Lab, machine: &str) -> Result<()> {
    let selector = "app.kubernetes.io/component=controller";
    wait::until("the leader runs on another machine", SETTLE_MAX, || {
        let leader = leader_machine(lab)?;
        if leader.as_deref().is_some_and(|leader| leader != machine) {
            return Ok(Some(()));
        }
        let on_machine = format!("spec.nodeName={machine}");
        let delete =
            ["-n", NAMESPACE, "delete", "pod", "-l", selector, "--field-selector", &on_machine];
        lab.kubectl(&delete)?;
        Ok(None)
    })
}

/// Returns the detection time that a node states because of late hellos, in milliseconds; 0: none.
///
/// # Errors
/// If `kubectl` fails.
pub fn stated_detection_ms(lab: &Lab, node: &str) -> Result<f64> {
    let path = "jsonpath={.status.interfaces[*].lateHellos.detectionMilliseconds}";
    let times = lab.kubectl(&["-n", NAMESPACE, "get", "fspeaker", node, "-o", path])?;
    let times = times.split_whitespace().map(str::parse::<f64>).collect::<Result<Vec<_>, _>>()?;
    Ok(times.into_iter().fold(0.0, f64::max))
}
