//! A Deployment with a pod on each worker, and Services with both policies: `open` has the policy
//! Cluster, and `local` has Local and a health check.

use anyhow::{Context, Result, ensure};
use ferrolb_lab::setup::kubeadm::PodImage;
use ferrolb_lab::setup::repository;
use ferrolb_lab::topology::{CLIENT, Host};
use ferrolb_lab::{Lab, wait};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Number of pages that a client gets from each address.
const PAGES: usize = 20;
/// Maximum time until a client gets a page, on a busy machine.
const PAGE_MAX: Duration = Duration::from_secs(60);
const ROLLOUT_MAX: &str = "--timeout=120s";
/// Fields of the Services.
const SERVICES: &str = "\
apiVersion: v1
kind: Service
metadata: {name: open, namespace: default}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata:
  name: local
  namespace: default
  annotations: {ferrolb.io/health-check: 'http:8080/;interval=1s;timeout=800ms;fall=3;rise=2'}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
";

/// Addresses of the Services, IPv4 and IPv6.
pub(crate) struct Servers {
    pub(crate) open: [SocketAddr; 2],
    pub(crate) local: [SocketAddr; 2],
}

/// Creates the pool, the pods and the Services, and checks the pages from each address.
pub(crate) fn serve(lab: &Lab) -> Result<Servers> {
    lab.apply_file(&repository().join("examples/first-pool.yaml"))?;
    lab.apply_objects(&[deployment()])?;
    lab.apply(SERVICES)?;
    lab.kubectl(&["rollout", "status", "deployment/web", ROLLOUT_MAX])?;
    let servers = Servers { open: addresses(lab, "open")?, local: addresses(lab, "local")? };
    check_pages(lab, &servers)?;
    Ok(servers)
}

/// Waits until each address replies, and checks the pages from it.
pub(crate) fn check_pages(lab: &Lab, servers: &Servers) -> Result<()> {
    let Servers { open, local } = servers;
    for server in open.iter().chain(local) {
        wait::until(&format!("{server} replies"), PAGE_MAX, || {
            lab.http_get(CLIENT, *server, "/").map(Some)
        })?;
        let is_local = local.contains(server);
        (0..PAGES).try_for_each(|_| check_page(lab, *server, is_local))?;
    }
    Ok(())
}

/// Returns a Deployment with one pod on each worker. The kubelet does not check the pods, so only
/// FerroLB detects one that does not reply.
fn deployment() -> serde_json::Value {
    let name = json!({"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
    let labels = json!({"app": "web"});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "terminationGracePeriodSeconds": 1,
                "topologySpreadConstraints": [{
                    "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
                    "nodeTaintsPolicy": "Honor", "labelSelector": {"matchLabels": labels},
                }],
                "containers": [{
                    "name": "web", "image": PodImage::NAME, "imagePullPolicy": "Never",
                    "args": ["serve", "$(NAME)", "8080"], "env": [name],
                }],
            }},
        },
    })
}

/// Waits for the addresses of a Service, and returns them.
fn addresses(lab: &Lab, service: &str) -> Result<[SocketAddr; 2]> {
    let path = format!("/api/v1/namespaces/default/services/{service}");
    wait::until(&format!("{service} has two addresses"), PAGE_MAX, || {
        let object = lab.get(&path)?;
        let ingress = object["status"]["loadBalancer"]["ingress"].as_array();
        let address = |index: usize| -> Result<SocketAddr> {
            let ip = ingress.and_then(|it| it.get(index)?["ip"].as_str());
            Ok(SocketAddr::new(ip.context("the address is missing")?.parse()?, 80))
        };
        Ok(Some([address(0)?, address(1)?]))
    })
}

/// Fetches a page. With the policy Local, the pod receives the client's own address.
fn check_page(lab: &Lab, server: SocketAddr, is_local: bool) -> Result<()> {
    let page = lab.http_get(CLIENT, server, "/")?;
    let (pod, client) = page.body.trim().split_once(' ').context("the page has two words")?;
    ensure!(page.status == 200 && pod.starts_with("web-"), "{server} returns {page:?}");
    let [v4, v6] = Host::client().addresses();
    let own = if server.is_ipv4() { v4 } else { v6 };
    let kept = client.parse::<IpAddr>()? == own;
    ensure!(kept || !is_local, "the pod receives {client} instead of {own}");
    Ok(())
}
