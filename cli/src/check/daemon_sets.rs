//! Load balancers among the DaemonSets of a cluster: by labels, images and settings. Pure.

use ferrolb_controller_core::other_load_balancers::{
    ALL, KUBE_ROUTER, KUBE_VIP, METALLB, OtherLoadBalancer, SERVICE_LB,
};
use ferrolb_proto::facts::Key;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Container;

use crate::installation::flag_of;
use crate::products::{KUBE_VIP_SERVICES, is_metallb, is_metallb_speaker};

/// Label of the DaemonSets of ServiceLB. Its value is the name of a Service.
const SERVICE_LB_LABEL: &str = "svccontroller.k3s.cattle.io/svcname";
/// Flag of kube-router that starts its load balancer for Services.
const KUBE_ROUTER_FLAG: &str = "--run-loadbalancer";

/// A load balancer that runs as a DaemonSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// The product.
    pub product: &'static OtherLoadBalancer,
    /// Namespace and name of the DaemonSet.
    pub daemon_set: Key,
    /// Tag of the image of the first container; empty without one.
    pub version: String,
}

/// Returns the load balancer that a DaemonSet runs, or `None`.
#[must_use]
pub fn load_balancer(daemon_set: &DaemonSet) -> Option<LoadBalancer> {
    let pod = daemon_set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let containers = pod.map(|pod| &*pod.containers).unwrap_or_default();
    let product = product(daemon_set, containers)?;
    let image = containers.first().and_then(|it| it.image.as_deref()).unwrap_or_default();
    let without_digest = image.split('@').next().unwrap_or_default();
    let name = without_digest.rsplit('/').next().unwrap_or_default();
    let version = name.split_once(':').map_or("", |(_, tag)| tag).to_owned();
    Some(LoadBalancer { product, daemon_set: Key::of(&daemon_set.metadata), version })
}

fn product(daemon_set: &DaemonSet, containers: &[Container]) -> Option<&'static OtherLoadBalancer> {
    let label = |key: &str| daemon_set.metadata.labels.as_ref()?.get(key).map(String::as_str);
    let images = || containers.iter().filter_map(|it| it.image.as_deref());
    if is_metallb(label, images()) && is_metallb_speaker(label, images()) {
        // With a class, MetalLB serves no Service without one.
        let has_class = containers.iter().any(|it| flag_of(it, &["lb-class"]).is_some());
        return (!has_class).then_some(&METALLB);
    }
    if label(SERVICE_LB_LABEL).is_some() {
        return Some(&SERVICE_LB);
    }
    let has_image = |it: &&OtherLoadBalancer| {
        it.image.is_some_and(|part| images().any(|image| image.contains(part)))
    };
    ALL.iter().find(has_image).filter(|it| containers.iter().any(|own| serves_services(it, own)))
}

/// Returns whether a container serves Services. kube-vip may serve the API server only, and
/// kube-router routes only.
fn serves_services(product: &OtherLoadBalancer, container: &Container) -> bool {
    let has_argument = |argument: &str| {
        let arguments = container.command.iter().chain(&container.args).flatten();
        arguments.map(|it| it.strip_suffix("=true").unwrap_or(it)).any(|it| it == argument)
    };
    if *product == KUBE_VIP {
        let [variable, argument] = KUBE_VIP_SERVICES;
        let mut variables = container.env.iter().flatten();
        return has_argument(argument)
            || variables.any(|it| it.name == variable && it.value.as_deref() == Some("true"));
    }
    *product != KUBE_ROUTER || has_argument(KUBE_ROUTER_FLAG)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(labels: Value, container: Value) -> Option<(&'static str, String)> {
        let object = json!({
            "metadata": {"namespace": "a", "name": "b", "labels": labels},
            "spec": {"selector": {}, "template": {"spec": {"containers": [container]}}},
        });
        let daemon_set: DaemonSet = serde_json::from_value(object).unwrap();
        load_balancer(&daemon_set).map(|it| (it.product.name, it.version))
    }

    fn image(image: &str) -> Value {
        json!({"name": "c", "image": image})
    }

    #[test]
    fn metallb_is_found_by_labels_or_image() {
        let metallb = |version: &str| Some(("MetalLB", version.to_owned()));
        let old = json!({"app": "metallb", "component": "speaker"});
        assert_eq!(found(old, image("registry:5000/mirror/speaker:v0.9.6")), metallb("v0.9.6"));
        assert_eq!(found(json!({}), image("quay.io/metallb/speaker:v0.15.2")), metallb("v0.15.2"));
        assert_eq!(
            found(json!({}), image("docker.io/bitnami/metallb-speaker@sha256:1")),
            metallb("")
        );
        let chart = json!({
            "app.kubernetes.io/name": "metallb", "app.kubernetes.io/component": "speaker",
        });
        assert_eq!(found(chart, image("a/b")), metallb(""));
        let mut with_class = image("quay.io/metallb/speaker:v0.16.1");
        with_class["args"] = json!(["--port=7472", "--lb-class=a"]);
        assert_eq!(found(json!({}), with_class), None);
    }

    #[test]
    fn ferrolb_and_other_daemon_sets_are_no_load_balancer() {
        let own =
            json!({"app.kubernetes.io/name": "ferrolb", "app.kubernetes.io/component": "speaker"});
        assert_eq!(found(own, image("ferrolb/speaker:v1")), None);
        assert_eq!(found(json!({"app": "metallb"}), image("metallb/frr:v1")), None);
        assert_eq!(found(json!({}), image("kube-proxy:v1")), None);
    }

    #[test]
    fn kube_vip_counts_only_if_it_serves_services() {
        let vip = |container: Value| {
            let mut container = container;
            container["name"] = json!("c");
            container["image"] = json!("ghcr.io/kube-vip/kube-vip:v1.0.0");
            found(json!({}), container).is_some()
        };
        assert!(!vip(json!({"env": [{"name": "svc_enable", "value": "false"}]})));
        assert!(vip(json!({"env": [{"name": "svc_enable", "value": "true"}]})));
        assert!(vip(json!({"args": ["manager", "--services"]})));
        let service_lb = json!({SERVICE_LB_LABEL: "web"});
        assert_eq!(found(service_lb, image("a")), Some(("ServiceLB", String::new())));
    }

    #[test]
    fn kube_router_counts_only_with_its_load_balancer() {
        let router = |args: Value| {
            let image = "docker.io/cloudnativelabs/kube-router:v2.11.1";
            found(json!({}), json!({"name": "c", "image": image, "args": args}))
        };
        let version = "v2.11.1".to_owned();
        assert_eq!(router(json!(["--run-router=true", "--advertise-loadbalancer-ip=true"])), None);
        for flag in ["--run-loadbalancer", "--run-loadbalancer=true"] {
            assert_eq!(router(json!([flag])), Some(("kube-router", version.clone())));
        }
    }
}
