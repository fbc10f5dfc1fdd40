//! Other load balancers that write the addresses of Services. Constant data: conditions and
//! `kubectl ferrolb check` name the load balancer and the change that stops it.
//!
//! Each field manager was read in the source that its comment names. A client that sets none has
//! the name of its program, because that name begins its user agent.

/// A load balancer that can write the status of FerroLB's Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherLoadBalancer {
    /// The name.
    pub name: &'static str,
    /// Field managers that write `status.loadBalancer` of Services. `*` at the beginning stands for
    /// any text.
    managers: &'static [&'static str],
    /// True if programs that are no load balancers use the same field manager, too.
    is_ambiguous: bool,
    /// A part of the image of its DaemonSet; `None` if it has none.
    pub image: Option<&'static str>,
    /// The change that keeps it from the Services of FerroLB.
    pub remedy: &'static str,
}

impl OtherLoadBalancer {
    /// Returns a load balancer without a DaemonSet whose field managers are its own.
    const fn new(
        name: &'static str,
        managers: &'static [&'static str],
        remedy: &'static str,
    ) -> Self {
        Self { name, managers, is_ambiguous: false, image: None, remedy }
    }

    const fn with_image(self, image: &'static str) -> Self {
        Self { image: Some(image), ..self }
    }

    /// Returns the load balancer with this field manager, if it is known.
    #[must_use]
    pub fn of_manager(manager: &str) -> Option<&'static Self> {
        let is_own = |own: &&str| match own.strip_prefix('*') {
            Some(end) => manager.ends_with(end),
            None => manager == *own,
        };
        ALL.iter().find(|it| it.managers.iter().any(is_own))
    }
}

/// Returns the words for a field manager, with the name of its load balancer if it is known.
#[must_use]
pub fn described(manager: &str) -> String {
    match OtherLoadBalancer::of_manager(manager) {
        Some(it) if it.is_ambiguous => format!("field manager {manager:?} (perhaps {})", it.name),
        Some(it) => format!("field manager {manager:?} ({})", it.name),
        None => format!("field manager {manager:?}"),
    }
}

/// Returns the change that keeps a field manager from the Services of FerroLB.
#[must_use]
pub fn remedy(manager: &str) -> &'static str {
    OtherLoadBalancer::of_manager(manager)
        .map_or("stop it, or set spec.loadBalancerClass of the Service", |it| it.remedy)
}

/// Cilium 1.20.2, `operator/pkg/lbipam/lbipam.go`.
pub const CILIUM_LB_IPAM: OtherLoadBalancer = OtherLoadBalancer::new(
    "Cilium LB IPAM",
    &["cilium-operator-lb-ipam"],
    "set Cilium's defaultLBServiceIPAM to none, or delete its CiliumLoadBalancerIPPools",
);
/// MetalLB 0.16.1, `internal/k8s/k8s.go` and `controller/Dockerfile`.
pub const METALLB: OtherLoadBalancer = OtherLoadBalancer {
    is_ambiguous: true,
    ..OtherLoadBalancer::new("MetalLB", &["controller"], "uninstall it")
};
/// k3s 1.31, `pkg/cloudprovider/servicelb.go`; RKE2 embeds it.
pub const SERVICE_LB: OtherLoadBalancer = OtherLoadBalancer::new(
    "ServiceLB",
    &["k3s", "rke2"],
    "start the servers of k3s or RKE2 with --disable=servicelb",
);
/// kube-vip 1.2.3, `pkg/services/services.go`. kube-vip-cloud-provider 0.0.12 runs the service
/// controller of `k8s.io/cloud-provider`.
pub const KUBE_VIP: OtherLoadBalancer = OtherLoadBalancer::new(
    "kube-vip",
    &["kube-vip", "kube-vip-cloud-provider"],
    "remove svc_enable from kube-vip, and its cloud provider",
)
.with_image("kube-vip/kube-vip");
/// kube-router 2.11.1, `pkg/controllers/lballoc/lballoc.go`.
pub const KUBE_ROUTER: OtherLoadBalancer = OtherLoadBalancer::new(
    "kube-router",
    &["kube-router"],
    "start kube-router without --run-loadbalancer",
)
.with_image("cloudnativelabs/kube-router");

/// All known load balancers.
pub const ALL: [OtherLoadBalancer; 18] = [
    CILIUM_LB_IPAM,
    // Cilium 1.20.2, `operator/pkg/nodeipam/nodesvclb.go`: node IPAM has the names of the programs.
    OtherLoadBalancer::new(
        "Cilium node IPAM",
        &[
            "cilium-operator",
            "cilium-operator-generic",
            "cilium-operator-aws",
            "cilium-operator-azure",
            "cilium-operator-alibabacloud",
        ],
        "set Cilium's defaultLBServiceIPAM to none",
    ),
    METALLB,
    SERVICE_LB,
    KUBE_VIP,
    KUBE_ROUTER,
    // PureLB 0.16.6, `internal/k8s/k8s.go` and `cmd/allocator`.
    OtherLoadBalancer {
        is_ambiguous: true,
        ..OtherLoadBalancer::new("PureLB", &["allocator"], "uninstall it")
            .with_image("purelb/lbnodeagent")
    },
    // OpenELB 0.6.0, `pkg/controllers/lb/controller.go`; 0.5.1 has the other name.
    OtherLoadBalancer::new("OpenELB", &["openelb-controller", "openelb-manager"], "uninstall it")
        .with_image("openelb"),
    // kube-loxilb 0.9.8.4, `pkg/agent/manager/loadbalancer/loadbalancer.go`.
    OtherLoadBalancer::new("LoxiLB", &["kube-loxilb"], "uninstall it").with_image("loxilb-io/"),
    // Calico 3.32.1, `kube-controllers/pkg/controllers/loadbalancer`; 3.33 has one program.
    OtherLoadBalancer::new(
        "Calico",
        &["kube-controllers", "calico"],
        "set loadBalancer.assignIPs of KubeControllersConfiguration default to \
         RequestedServicesOnly",
    ),
    // Antrea 2.7.0, `pkg/controller/serviceexternalip/controller.go`.
    OtherLoadBalancer::new(
        "Antrea",
        &["antrea-controller"],
        "remove the annotation service.antrea.io/external-ip-pool from the Service",
    ),
    // Kube-OVN 1.16.2, `pkg/controller/service.go`.
    OtherLoadBalancer::new(
        "Kube-OVN",
        &["kube-ovn-controller"],
        "start kube-ovn-controller without --enable-lb-svc",
    ),
    // Tailscale 1.102.3, `cmd/k8s-operator/svc.go` and `build_docker.sh`.
    OtherLoadBalancer {
        is_ambiguous: true,
        ..OtherLoadBalancer::new(
            "Tailscale's operator",
            &["operator"],
            "set OPERATOR_DEFAULT_LOAD_BALANCER of its Deployment to false",
        )
    },
    // inlets-operator 0.17.12, `controller.go`.
    OtherLoadBalancer::new(
        "inlets-operator",
        &["inlets-operator"],
        "start it with --annotated-only",
    ),
    // AKO, `internal/status/svc_status.go` and `Dockerfile.ako` of November 2025.
    OtherLoadBalancer::new(
        "Avi Kubernetes Operator",
        &["akc"],
        "set AKOSettings.layer7Only of its chart to true",
    ),
    // minikube 1.38.1, `pkg/minikube/tunnel/loadbalancer_patcher.go`.
    OtherLoadBalancer::new("minikube tunnel", &["minikube"], "stop it"),
    // cloud-provider-kind 0.11.1, `pkg/controller/controller.go`.
    OtherLoadBalancer::new("cloud-provider-kind", &["cloud-provider-kind"], "stop it"),
    // `k8s.io/cloud-provider` 0.37.0-alpha.1, `controllers/service/controller.go`. Its programs
    // have names such as `openstack-cloud-controller-manager`; that of Harvester 0.2.7 differs.
    OtherLoadBalancer::new(
        "cloud controller manager",
        &["*cloud-controller-manager", "harvester-cloud-provider"],
        "start it with --controllers=*,-service-lb-controller",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_field_manager_belongs_to_one_load_balancer() {
        let all: Vec<_> = ALL.iter().flat_map(|it| it.managers).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
        for it in &ALL {
            for manager in it.managers {
                let found = OtherLoadBalancer::of_manager(&manager.replace('*', "openstack-"));
                assert_eq!(found, Some(it), "{manager}");
            }
        }
        assert_eq!(OtherLoadBalancer::of_manager("kubectl"), None);
    }

    #[test]
    fn the_allocator_of_cilium_is_named_with_its_objects() {
        let manager = "cilium-operator-lb-ipam";
        assert_eq!(
            described(manager),
            "field manager \"cilium-operator-lb-ipam\" (Cilium LB IPAM)"
        );
        assert!(remedy(manager).contains("CiliumLoadBalancerIPPools"), "{}", remedy(manager));
        assert_eq!(described("controller"), "field manager \"controller\" (perhaps MetalLB)");
        assert_eq!(described("mine"), "field manager \"mine\"");
        assert!(remedy("mine").starts_with("stop it, or"), "{}", remedy("mine"));
    }
}
