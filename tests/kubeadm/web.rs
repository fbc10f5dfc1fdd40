//! Deployments behind Services, as users have them: their pods have readiness probes.

use crate::scenario::print_measured;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::apply;
use ferrolb_lab::setup::kubeadm::PodImage;
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Lab, setup, wait};
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use serde_json::{Value, json};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Maximum time until a client gets a page, on a busy machine.
pub(crate) const PAGE_MAX: Duration = Duration::from_secs(60);
/// Maximum time until pods are ready, on a busy machine, as a flag of kubectl.
pub(crate) const ROLLOUT_MAX: &str = "--timeout=120s";

/// Returns a Deployment of two pods that the Service in `examples/service.yaml` selects.
pub(crate) fn deployment() -> Value {
    let mut deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                "containers": [{
                    "name": "web", "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
                }],
            }},
        },
    });
    set_image(&mut deployment);
    deployment
}

/// Sets the lab's web server image in the first container of a Deployment.
fn set_image(deployment: &mut Value) {
    let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
    container["image"] = json!(PodImage::NAME);
    container["imagePullPolicy"] = json!("Never");
    container["args"] = json!(["serve", "$(NAME)", "8080"]);
    container["env"] =
        json!([{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
}

/// Returns a workload whose pods do nothing for other pods, in place of one of another program.
pub(crate) fn stand_in(kind: &str, namespace: &str, name: &str) -> Value {
    let labels = json!({"component": name});
    let mut workload = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "containers": [{"name": name}], "terminationGracePeriodSeconds": 1,
            }},
        },
    });
    set_image(&mut workload);
    workload
}

/// Returns the objects of an example file.
fn example(name: &str) -> Result<Vec<Value>> {
    apply::objects(&fs::read_to_string(setup::repository().join("examples").join(name))?)
}

/// Applies `examples/first-pool.yaml`.
pub(crate) fn apply_pool(lab: &Lab) -> Result<()> {
    lab.apply_objects(&example("first-pool.yaml")?)
}

/// Applies `examples/service.yaml`, and the Deployment that its Service selects.
pub(crate) fn apply_service(lab: &Lab) -> Result<()> {
    apply_service_of(lab, deployment())
}

/// Applies `examples/service.yaml`, and this Deployment.
pub(crate) fn apply_service_of(lab: &Lab, deployment: Value) -> Result<()> {
    lab.apply_objects(&example("service.yaml")?)?;
    lab.apply_objects(&[deployment])
}

/// Applies `examples/service.yaml` and the Deployment of its pages, and prints the time until a
/// client gets them. Returns the addresses of the Service, one of each family.
pub(crate) fn serve_both_families(lab: &Lab) -> Result<Vec<SocketAddr>> {
    let start = wait::now();
    apply_service(lab)?;
    let servers = wait_pages(lab, "web")?;
    print_measured(&format!(
        "from apply of Deployment and Service to a page: {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    ensure!(servers.len() == 2, "the dual-stack Service has the addresses {servers:?}");
    Ok(servers)
}

/// Applies that Deployment, and waits until its pods are ready.
pub(crate) fn run_deployment(lab: &Lab) -> Result<()> {
    lab.apply_objects(&[deployment()])?;
    lab.kubectl(&["rollout", "status", "deployment/web", ROLLOUT_MAX]).map(drop)
}

/// Creates a Service with policy `Cluster` for a Deployment.
pub(crate) fn expose(lab: &Lab, deployment: &str, service: &str) -> Result<()> {
    let (deployment, name) = (format!("deployment/{deployment}"), format!("--name={service}"));
    lab.kubectl(&[
        "expose",
        &deployment,
        &name,
        "--type=LoadBalancer",
        "--port=80",
        "--target-port=8080",
    ])
    .map(drop)
}

/// Applies `examples/drain.yaml`, whose Service has policy `Local`, and a second Service with
/// policy `Cluster`. Returns their addresses.
pub(crate) fn apply_drain_example(lab: &Lab) -> Result<[SocketAddr; 2]> {
    let mut objects = example("drain.yaml")?;
    objects.iter_mut().filter(|object| apply::kind(object) == "Deployment").for_each(set_image);
    lab.apply_objects(&objects)?;
    expose(lab, "steady", "open")?;
    lab.kubectl(&["rollout", "status", "deployment/steady", ROLLOUT_MAX])?;
    let [local, cluster] = ["steady", "open"].map(|service| wait_pages(lab, service));
    let first =
        |servers: Vec<SocketAddr>| servers.first().copied().context("the Service has no address");
    Ok([first(local?)?, first(cluster?)?])
}

/// Waits until the client gets a page from each address of a Service, and returns the addresses.
pub(crate) fn wait_pages(lab: &Lab, service: &str) -> Result<Vec<SocketAddr>> {
    wait::until(&format!("the client gets the pages of {service}"), PAGE_MAX, || {
        let servers = addresses(lab, service)?;
        for server in &servers {
            let page = lab.http_get(CLIENT, *server, "/")?;
            ensure!(page.status == 200, "{server} returns status {}", page.status);
        }
        Ok((!servers.is_empty()).then_some(servers))
    })
}

/// Waits until a condition of a Service has this reason, and returns its message.
pub(crate) fn wait_reason(lab: &Lab, service: &str, kind: &str, reason: &str) -> Result<String> {
    let path = format!("/api/v1/namespaces/default/services/{service}");
    wait::until(&format!("{kind} of {service} has the reason {reason}"), PAGE_MAX, || {
        let object = lab.get(&path)?;
        let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        let found = conditions
            .find(|it| it["type"] == kind)
            .context("the Service has no such condition")?;
        ensure!(found["reason"] == reason, "the condition is {found}");
        Ok(found["message"].as_str().map(str::to_owned))
    })
}

/// Returns port 80 of each address of a Service.
pub(crate) fn addresses(lab: &Lab, service: &str) -> Result<Vec<SocketAddr>> {
    let service = lab.api(async |client| {
        let services: Api<Service> = Api::default_namespaced(client);
        services.get(service).await.context("cannot get the Service")
    })?;
    let ingress = service
        .status
        .and_then(|status| status.load_balancer)
        .and_then(|balancer| balancer.ingress);
    let addresses =
        ingress.into_iter().flatten().filter_map(|ingress| ingress.ip?.parse::<IpAddr>().ok());
    Ok(addresses.map(|address| SocketAddr::new(address, 80)).collect())
}
