//! Scenes of the demo: actions in the lab, and their descriptions.

use super::kubectl::{self, CHANGE_MAX, WatchedService, external_address};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Lab, wait};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

/// Name of the example's Service, and label value of the pods that it selects.
const SERVICE: &str = "web";
/// Service that requests an address outside of all pools.
const SHOP: &str = "shop";
const SHOP_YAML: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: shop
  namespace: default
  annotations:
    ferrolb.io/loadBalancerIPs: 192.0.2.80
spec:
  type: LoadBalancer
  allocateLoadBalancerNodePorts: false
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
";

/// Starts a web pod on each node.
pub(crate) fn run_pods(lab: &Lab) -> Result<()> {
    lab.nodes().iter().try_for_each(|node| run_pod(lab, node))
}

/// Starts the web pod of a node.
pub(crate) fn run_pod(lab: &Lab, node: &str) -> Result<()> {
    lab.pod(&pod_name(node), node, &[("app", SERVICE)])
}

/// Removes the web pod of a node, and waits until no kube-proxy has a rule for it.
pub(crate) fn move_pod_away(lab: &Lab, node: &str) -> Result<()> {
    let pod = pod_name(node);
    let ip = lab.kubectl(&["get", "pod", &pod, "-o", "jsonpath={.status.podIP}"])?;
    // An element of kube-proxy's maps.
    let endpoint = format!("{} . ", ip.trim());
    lab.remove_pod(&pod)?;
    wait::until("all kube-proxies have removed the pod", CHANGE_MAX, || {
        for node in lab.nodes() {
            let rules = lab.exec(&node, &["nft", "list", "ruleset"])?;
            ensure!(!rules.contains(&endpoint), "{node} has rules for {endpoint}");
        }
        Ok(Some(()))
    })
}

fn pod_name(node: &str) -> String {
    format!("{SERVICE}-{node}")
}

/// Creates the Service of a manifest, and returns kubectl's output until it has an address.
pub(crate) fn create_service(lab: &Lab, manifest: &Path) -> Result<WatchedService> {
    kubectl::watch_service(lab, SERVICE, || lab.apply_file(manifest))
}

/// Returns the state of all addresses, and the explanation of the Service, as `kubectl ferrolb`
/// prints them.
pub(crate) fn state(lab: &Lab) -> Result<String> {
    let status = kubectl::ferrolb_shown(lab, &["status"])?;
    Ok(format!("\n{status}\n{}", explanation(lab, SERVICE)?))
}

fn explanation(lab: &Lab, service: &str) -> Result<String> {
    kubectl::ferrolb_shown(lab, &["why", service])
}

/// Creates a Service that requests an address of no pool. Returns the Service and its explanation.
pub(crate) fn request_impossible_address(lab: &Lab) -> Result<String> {
    lab.apply(SHOP_YAML)?;
    let request = "jsonpath={.metadata.annotations.ferrolb\\.io/loadBalancerIPs}";
    let request = kubectl::shown(lab, &["get", "svc", SHOP, "-o", request])?;
    Ok(format!("\n{request}{}", shop(lab, "192.0.2.80 is in no")?))
}

/// Removes the request of that Service. Returns the command, the Service and its explanation.
pub(crate) fn remove_request(lab: &Lab) -> Result<String> {
    let annotate = kubectl::shown(lab, &["annotate", "svc", SHOP, "ferrolb.io/loadBalancerIPs-"])?;
    let shown = shop(lab, "announces: ")?;
    lab.kubectl(&["delete", "svc", SHOP])?;
    Ok(format!("\n{annotate}{shown}"))
}

/// Waits until the explanation of the Service `shop` contains `part`. Returns the Service and its
/// explanation.
fn shop(lab: &Lab, part: &str) -> Result<String> {
    let explanation = wait::until("the Service's explanation changes", CHANGE_MAX, || {
        let shown = explanation(lab, SHOP)?;
        ensure!(shown.contains(part), "kubectl ferrolb prints:\n{shown}");
        Ok(Some(shown))
    })?;
    Ok(format!("\n{}\n{explanation}", kubectl::shown(lab, &["get", "svc", SHOP])?))
}

/// A page that a client received over the network, and the owner of the address.
pub(crate) struct ServedPage {
    pub(crate) address: IpAddr,
    pub(crate) owner: String,
    curl: String,
}

impl fmt::Display for ServedPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, owner, curl } = self;
        write!(
            f,
            "\nclient$ curl http://{address}/\n{curl}\n{owner} owns {address}: it replies to ARP requests, and its kube-proxy selected the pod."
        )
    }
}

/// Fetches the page with curl on the client's host, and finds the owner of the address by an ARP
/// request.
pub(crate) fn fetch(lab: &Lab) -> Result<ServedPage> {
    let line = lab.kubectl(&["get", "svc", SERVICE, "--no-headers"])?;
    let address = external_address(&line).with_context(|| format!("no address in {line:?}"))?;
    let curl =
        wait::until("the client receives the page", CHANGE_MAX, || curl(lab, address).map(Some))?;
    let owner = lab.owner_of(address)?.with_context(|| format!("no node replies for {address}"))?;
    Ok(ServedPage { address, owner, curl })
}

fn curl(lab: &Lab, address: IpAddr) -> Result<String> {
    let page = lab.exec(
        CLIENT,
        &["curl", "--silent", "--show-error", "--max-time", "1", &format!("http://{address}/")],
    )?;
    Ok(page.trim_end().to_owned())
}
