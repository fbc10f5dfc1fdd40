//! Other load balancers, by the labels, images and settings of their workloads. Pure.

use ferrolb_controller_core::other_load_balancers::KUBE_VIP;

/// Variable and argument of kube-vip that start its load balancer for Services.
pub const KUBE_VIP_SERVICES: [&str; 2] = ["svc_enable", "--services"];
/// Values of the label `app.kubernetes.io/name` in the charts of MetalLB and FRR-K8s.
const METALLB_CHARTS: [&str; 2] = ["metallb", FRR_K8S];
/// Name of FRR-K8s, and of its image.
const FRR_K8S: &str = "frr-k8s";

/// Returns whether a workload is a part of MetalLB or FRR-K8s, by a label or by an image. `label`
/// returns the value of a label. Manifests of MetalLB before 0.13 have the label `app`.
pub fn is_metallb<'a>(
    label: impl Fn(&str) -> Option<&'a str>,
    mut images: impl Iterator<Item = &'a str>,
) -> bool {
    label("app.kubernetes.io/name").is_some_and(|name| METALLB_CHARTS.contains(&name))
        || label("app") == Some("metallb")
        || images.any(is_metallb_image)
}

/// Returns whether a workload of MetalLB is its speaker.
pub fn is_metallb_speaker<'a>(
    label: impl Fn(&str) -> Option<&'a str>,
    mut images: impl Iterator<Item = &'a str>,
) -> bool {
    ["component", "app.kubernetes.io/component"].iter().any(|key| label(key) == Some("speaker"))
        || images.any(|image| matches!(names(image).next(), Some("speaker" | "metallb-speaker")))
}

/// Returns whether an image is kube-vip.
pub fn is_kube_vip(image: &str) -> bool {
    KUBE_VIP.image.is_some_and(|part| image.contains(part))
}

/// Returns whether an image is FRR-K8s, the BGP daemon of MetalLB's speakers.
pub fn is_frr_k8s(image: &str) -> bool {
    names(image).next() == Some(FRR_K8S)
}

/// Returns whether an image is one of MetalLB or FRR-K8s, also in a copy of their registry:
/// `quay.io/metallb/speaker`, `bitnami/metallb-speaker`.
fn is_metallb_image(image: &str) -> bool {
    let mut names = names(image);
    let last = names.next().unwrap_or_default();
    last.starts_with("metallb-") || last == FRR_K8S || names.next() == Some("metallb")
}

/// Returns the names in the path of an image without tags, the last one first.
fn names(image: &str) -> impl Iterator<Item = &str> {
    let path = image.split('@').next().unwrap_or_default();
    path.rsplit('/').map(|part| part.split(':').next().unwrap_or_default())
}
