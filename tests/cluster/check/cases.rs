//! The causes of findings: the commands that create each of them, and those that remove it.

use super::commands::{MAKE_NODE, MAKE_PEER, MAKE_USER, UNDO_NODE, UNDO_PEER};
use ferrolb_cli::check::finding::Code;

/// A finding and its cause.
pub(super) struct Case {
    pub(super) code: Code,
    /// The object of the finding, as `KIND NAMESPACE/NAME`; empty if the finding has none.
    pub(super) object: &'static str,
    /// Arguments of the check.
    pub(super) arguments: &'static str,
    /// Commands that create the cause.
    pub(super) make: &'static str,
    /// Commands that remove the cause.
    pub(super) undo: &'static str,
}

/// Commands of a case whose cause are the arguments.
pub(super) const NOTHING: &str = "true";

const fn case(code: Code, object: &'static str, make: &'static str, undo: &'static str) -> Case {
    Case { code, object, arguments: "", make, undo }
}

/// All cases. A Node without a machine has a SpeakerStatus that no speaker changes. Two of them
/// that list each other as contacts count as running speakers.
pub(super) const CASES: &[Case] = &[
    Case {
        arguments: "--installation default",
        ..case(Code::NotInstalled, "Namespace default", NOTHING, NOTHING)
    },
    case(
        Code::ControllerNotReady,
        "Deployment ferrolb-system/controller",
        "kubectl -n ferrolb-system create deployment controller --image=none --replicas=2",
        "kubectl -n ferrolb-system delete deployment controller",
    ),
    Case {
        arguments: "--installation other",
        ..case(
            Code::NoSpeaker,
            "Node node1",
            "kubectl create namespace other
kubectl -n other create deployment controller --image=none",
            "kubectl delete namespace other --wait=false; kubectl -n other delete deployment controller",
        )
    },
    case(
        Code::NodeWithoutSpeaker,
        "Node node8",
        "echo '{apiVersion: v1, kind: Node, metadata: {name: node8}}' | kubectl apply -f -",
        "kubectl delete node node8",
    ),
    case(
        Code::CrdMissing,
        "CustomResourceDefinition communities.ferrolb.io",
        "kubectl delete crd communities.ferrolb.io",
        "kubectl apply --server-side --force-conflicts -f deploy/base/crds.yaml",
    ),
    case(
        Code::CrdOld,
        "CustomResourceDefinition ipaddresspools.ferrolb.io",
        r#"kubectl patch crd ipaddresspools.ferrolb.io --type=json -p '[{"op": "remove",
"path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/avoidBuggyIPs"}]'"#,
        "kubectl apply --server-side --force-conflicts -f deploy/base/crds.yaml",
    ),
    case(
        Code::InvalidResource,
        "IPAddressPool ferrolb-system/backwards",
        "kubectl apply -f - <<'EOF'
apiVersion: ferrolb.io/v1beta1
kind: IPAddressPool
metadata: {name: backwards, namespace: ferrolb-system}
spec: {addresses: [172.30.8.9-172.30.8.1]}
EOF",
        "kubectl -n ferrolb-system delete fpool backwards",
    ),
    case(
        Code::StaleSpeaker,
        "Node node9",
        r#"kubectl apply -f - <<'EOF'
apiVersion: v1
kind: Node
metadata: {name: node9}
---
apiVersion: ferrolb.io/v1beta1
kind: SpeakerStatus
metadata: {name: node9, namespace: ferrolb-system}
EOF
kubectl -n ferrolb-system patch fspeaker node9 --subresource=status --type=merge -p '{"status": {
"interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:09", "up": true, "heard": ["node1"]}]}}'"#,
        "kubectl delete node node9; kubectl -n ferrolb-system delete fspeaker node9",
    ),
    case(
        Code::StrictArpOff,
        "ConfigMap kube-system/kube-proxy",
        "kubectl -n kube-system create configmap kube-proxy --from-literal=config.conf='mode: ipvs'",
        "kubectl -n kube-system delete configmap kube-proxy",
    ),
    case(
        Code::NodeExcluded,
        "Node node3",
        "kubectl label node node2 node3 node.kubernetes.io/exclude-from-external-load-balancers=",
        "kubectl label node node2 node3 node.kubernetes.io/exclude-from-external-load-balancers-",
    ),
    case(
        Code::MetalLb,
        "DaemonSet metallb-system/speaker",
        "kubectl apply -f - <<'EOF'
apiVersion: v1
kind: Namespace
metadata: {name: metallb-system}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: speaker, namespace: metallb-system, labels: {app: metallb, component: speaker}}
spec:
  selector: {matchLabels: {app: metallb}}
  template:
    metadata: {labels: {app: metallb}}
    spec: {containers: [{name: speaker, image: 'mirror/speaker:v0.9.6'}]}
EOF",
        "kubectl -n metallb-system delete daemonset speaker",
    ),
    case(
        Code::LeftoverWebhook,
        "ValidatingWebhookConfiguration metallb-webhook-configuration",
        "kubectl apply -f - <<'EOF'
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: metallb-webhook-configuration}
webhooks:
  - name: ipaddresspoolvalidationwebhook.metallb.io
    admissionReviewVersions: [v1]
    sideEffects: None
    clientConfig: {service: {name: metallb-webhook-service, namespace: metallb-system}}
    rules:
      - {apiGroups: [metallb.io], apiVersions: [v1beta1], operations: [CREATE], resources: [ipaddresspools]}
EOF",
        "kubectl delete validatingwebhookconfiguration metallb-webhook-configuration",
    ),
    case(
        Code::ServiceLb,
        "DaemonSet kube-system/svclb-web",
        "kubectl apply -f - <<'EOF'
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: svclb-web, namespace: kube-system, labels: {svccontroller.k3s.cattle.io/svcname: web}}
spec:
  selector: {matchLabels: {app: svclb-web}}
  template:
    metadata: {labels: {app: svclb-web}}
    spec: {containers: [{name: lb-tcp-80, image: 'rancher/klipper-lb:v0.4.13'}]}
EOF",
        "kubectl -n kube-system delete daemonset svclb-web",
    ),
    case(
        Code::StatusWriter,
        "Service default/tunneled",
        r#"kubectl apply -f - <<'EOF'
apiVersion: v1
kind: Service
metadata: {name: tunneled}
spec: {type: LoadBalancer, loadBalancerClass: example.com/none, ports: [{port: 80}]}
EOF
kubectl patch service tunneled --subresource=status --type=json -p \
'[{"op": "add", "path": "/status/loadBalancer/ingress", "value": [{"ip": "'"$(kubectl get service tunneled -o jsonpath='{.spec.clusterIP}')"'"}]}]'"#,
        "kubectl delete service tunneled",
    ),
    // After three changes, the status counts as contested.
    case(
        Code::StatusWriter,
        "Service default/replaced",
        r#"kubectl apply -f - <<'EOF'
apiVersion: ferrolb.io/v1beta1
kind: IPAddressPool
metadata: {name: replaced, namespace: ferrolb-system}
spec: {addresses: [172.30.9.1/32]}
---
apiVersion: v1
kind: Service
metadata: {name: replaced, annotations: {ferrolb.io/address-pool: replaced}}
spec: {type: LoadBalancer, ports: [{port: 80}]}
EOF
kubectl wait service replaced --for=condition=ferrolb.io/AddressAssigned
for change in 1 2 3 4; do
kubectl patch service replaced --subresource=status --field-manager=cilium-operator-lb-ipam \
-p '{"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}}}'
kubectl wait service replaced --for=jsonpath='{.status.loadBalancer.ingress[0].ip}'=172.30.9.1
done
kubectl wait service replaced --for=condition=ferrolb.io/AddressAssigned=false"#,
        "kubectl delete service replaced; kubectl -n ferrolb-system delete fpool replaced",
    ),
    case(
        Code::OtherLoadBalancer,
        "Lease kube-system/cilium-l2announce-default-leased",
        r#"kubectl apply -f - <<EOF
apiVersion: v1
kind: Service
metadata: {name: leased}
spec: {type: LoadBalancer, ports: [{port: 80}]}
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: cilium-l2announce-default-leased, namespace: kube-system}
spec: {holderIdentity: node1, leaseDurationSeconds: 3600, renewTime: '$(date -u +%FT%T.000000Z)'}
EOF"#,
        "kubectl delete service leased
kubectl -n kube-system delete lease cilium-l2announce-default-leased",
    ),
    case(
        Code::OtherLoadBalancer,
        "CiliumLoadBalancerIPPool second",
        "kubectl apply -f - <<'EOF'
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ciliumloadbalancerippools.cilium.io}
spec:
  group: cilium.io
  names: {kind: CiliumLoadBalancerIPPool, plural: ciliumloadbalancerippools}
  scope: Cluster
  versions:
    - name: v2
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
EOF
kubectl wait crd ciliumloadbalancerippools.cilium.io --for=condition=Established
kubectl apply -f - <<'EOF'
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {name: second}
spec: {blocks: [{cidr: 192.0.2.0/24}]}
EOF",
        "kubectl delete crd ciliumloadbalancerippools.cilium.io",
    ),
    case(
        Code::OtherLoadBalancer,
        "DaemonSet kube-system/kube-vip",
        "kubectl apply -f - <<'EOF'
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: kube-vip, namespace: kube-system}
spec:
  selector: {matchLabels: {app: kube-vip}}
  template:
    metadata: {labels: {app: kube-vip}}
    spec:
      containers:
        - name: kube-vip
          image: ghcr.io/kube-vip/kube-vip:v1.0.0
          env: [{name: svc_enable, value: 'true'}]
EOF",
        "kubectl -n kube-system delete daemonset kube-vip",
    ),
    case(
        Code::ServedByOther,
        "Service default/other",
        "kubectl apply -f - <<'EOF'
apiVersion: v1
kind: Service
metadata: {name: other, annotations: {metallb.io/ip-allocated-from-pool: lan}}
spec: {type: LoadBalancer, ports: [{port: 80}]}
EOF",
        "kubectl delete service other",
    ),
    case(
        Code::PoolInServiceRange,
        "IPAddressPool ferrolb-system/services",
        "kubectl apply -f - <<'EOF'
apiVersion: ferrolb.io/v1beta1
kind: IPAddressPool
metadata: {name: services, namespace: ferrolb-system}
spec: {addresses: [10.96.200.0/28]}
EOF",
        "kubectl -n ferrolb-system delete fpool services",
    ),
    case(
        Code::PoolInPodRange,
        "IPAddressPool ferrolb-system/pods",
        "kubectl apply -f - <<'EOF'
apiVersion: v1
kind: Node
metadata: {name: node8}
spec: {podCIDR: 10.244.8.0/24, podCIDRs: [10.244.8.0/24]}
---
apiVersion: ferrolb.io/v1beta1
kind: IPAddressPool
metadata: {name: pods, namespace: ferrolb-system}
spec: {addresses: [10.244.8.64/28]}
EOF",
        "kubectl -n ferrolb-system delete fpool pods; kubectl delete node node8",
    ),
    case(
        Code::PoolOutsideSubnets,
        "IPAddressPool ferrolb-system/outside",
        "kubectl apply -f - <<'EOF'
apiVersion: ferrolb.io/v1beta1
kind: IPAddressPool
metadata: {name: outside, namespace: ferrolb-system}
spec: {addresses: [192.0.2.0/28]}
---
apiVersion: ferrolb.io/v1beta1
kind: L2Advertisement
metadata: {name: outside, namespace: ferrolb-system}
EOF",
        "kubectl -n ferrolb-system delete fpool/outside fl2/outside",
    ),
    case(
        Code::NodeAddressInPool,
        "IPAddressPool ferrolb-system/nodes",
        "kubectl apply -f - <<'EOF'
apiVersion: ferrolb.io/v1beta1
kind: IPAddressPool
metadata: {name: nodes, namespace: ferrolb-system}
spec: {addresses: [172.30.0.11-172.30.0.12]}
EOF",
        "kubectl -n ferrolb-system delete fpool nodes",
    ),
    case(
        Code::WidenedCidr,
        "IPAddressPool ferrolb-system/wide",
        "kubectl apply -f - <<'EOF'
apiVersion: ferrolb.io/v1beta1
kind: IPAddressPool
metadata: {name: wide, namespace: ferrolb-system}
spec: {addresses: [172.30.0.130/30]}
EOF",
        "kubectl -n ferrolb-system delete fpool wide",
    ),
    case(
        Code::PoolMissing,
        "IPAddressPool ferrolb-system/gone",
        "kubectl apply -f - <<'EOF'
apiVersion: ferrolb.io/v1beta1
kind: IPAddressPool
metadata: {name: gone, namespace: ferrolb-system}
spec: {addresses: [172.30.0.140/32]}
---
apiVersion: v1
kind: Service
metadata: {name: gone, annotations: {ferrolb.io/address-pool: gone}}
spec: {type: LoadBalancer, ports: [{port: 80}]}
EOF
kubectl wait service gone --for=jsonpath='{.status.loadBalancer.ingress[0].ip}'=172.30.0.140
kubectl -n ferrolb-system delete fpool gone",
        "kubectl delete service gone",
    ),
    case(Code::KubeProxyUnhealthy, "Node node9", MAKE_NODE, UNDO_NODE),
    case(Code::KubeProxyGone, "Node node8", MAKE_NODE, UNDO_NODE),
    case(Code::OneWayContact, "SpeakerStatus node9", MAKE_NODE, UNDO_NODE),
    case(Code::HellosFiltered, "SpeakerStatus node9", MAKE_NODE, UNDO_NODE),
    case(Code::NoContact, "SpeakerStatus node9", MAKE_NODE, UNDO_NODE),
    case(Code::InterfaceIssues, "SpeakerStatus node9", MAKE_NODE, UNDO_NODE),
    case(Code::LateHellos, "SpeakerStatus node9", MAKE_NODE, UNDO_NODE),
    case(Code::NoGobgpd, "BGPPeer ferrolb-system/tor", MAKE_PEER, UNDO_PEER),
    case(Code::NotEstablished, "BGPPeer ferrolb-system/tor", MAKE_PEER, UNDO_PEER),
    case(
        Code::ComponentPermission,
        "ServiceAccount ferrolb-system/speaker",
        "kubectl -n ferrolb-system delete rolebinding speaker",
        "kubectl apply -f deploy/base/rbac.yaml",
    ),
    Case {
        arguments: "--pre --kubeconfig $HELM_DATA_HOME.kubeconfig",
        ..case(Code::InstallPermission, "", MAKE_USER, NOTHING)
    },
    Case {
        arguments: "--kubeconfig $HELM_DATA_HOME.kubeconfig",
        ..case(Code::NotChecked, "", MAKE_USER, NOTHING)
    },
    case(
        Code::NotAnnounced,
        "Service default/web",
        "kubectl apply -f - <<'EOF'
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}
EOF",
        "kubectl delete service web",
    ),
    case(
        Code::ServiceWarning,
        "Service default/warned",
        "kubectl apply -f - <<'EOF'
apiVersion: ferrolb.io/v1beta1
kind: IPAddressPool
metadata: {name: warned, namespace: ferrolb-system}
spec: {addresses: [172.30.0.141/32]}
---
apiVersion: ferrolb.io/v1beta1
kind: L2Advertisement
metadata: {name: warned, namespace: ferrolb-system}
spec: {ipAddressPools: [warned]}
---
apiVersion: v1
kind: Service
metadata:
  name: warned
  annotations: {ferrolb.io/address-pool: warned, ferrolb.io/endpoint-condition: Ready}
spec: {type: LoadBalancer, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: warned-1, labels: {kubernetes.io/service-name: warned}}
addressType: IPv4
endpoints: [{addresses: [172.30.0.100], nodeName: node1, conditions: {ready: true}}]
ports: [{port: 80}]
EOF",
        "kubectl delete service/warned endpointslice/warned-1
kubectl -n ferrolb-system delete fpool/warned fl2/warned",
    ),
    case(
        Code::EndpointsUnchecked,
        "Service default/unchecked",
        "kubectl apply -f - <<'EOF'
apiVersion: ferrolb.io/v1beta1
kind: IPAddressPool
metadata: {name: unchecked, namespace: ferrolb-system}
spec: {addresses: [172.30.0.142/32]}
---
apiVersion: ferrolb.io/v1beta1
kind: L2Advertisement
metadata: {name: unchecked, namespace: ferrolb-system}
spec: {ipAddressPools: [unchecked]}
---
apiVersion: v1
kind: Service
metadata:
  name: unchecked
  annotations: {ferrolb.io/address-pool: unchecked, ferrolb.io/health-check: tcp}
spec: {type: LoadBalancer, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: unchecked-1, labels: {kubernetes.io/service-name: unchecked}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.122], nodeName: node1, conditions: {ready: true}}]
ports: [{port: 80}]
EOF",
        "kubectl delete service/unchecked endpointslice/unchecked-1
kubectl -n ferrolb-system delete fpool/unchecked fl2/unchecked",
    ),
];
