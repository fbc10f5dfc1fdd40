//! Files on a machine before it starts: its host name, and the settings of containerd, the pod
//! network and kubeadm. Pure functions.

use crate::cluster::{audit, registry};
use crate::setup::kubeadm::KubeadmParts;
use crate::setup::kubernetes;
use crate::state::LabFacts;
use crate::topology::{self, Families, Host, SERVICE_RANGES, node_name};
use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Path of kubeadm's configuration file on each machine.
pub const KUBEADM_FILE: &str = "/etc/kubeadm.yaml";
/// Token with which a machine joins. The API server is reachable only from inside its lab.
const JOIN_TOKEN: &str = "lab000.0123456789abcdef";
/// Port of the API server.
pub const API_PORT: u16 = 6443;
/// Directory of containerd's settings for each registry.
const REGISTRIES: &str = "/etc/containerd/certs.d";
const CONTAINERD_SOCKET: &str = "unix:///run/containerd/containerd.sock";

/// Returns the files of machine `index`: path from its root, and text.
///
/// # Errors
/// If the version of Kubernetes is unknown.
pub fn files(facts: &LabFacts, parts: &KubeadmParts, index: u8) -> Result<Vec<(String, String)>> {
    let name = node_name(index);
    let hosts: String = (1..=facts.nodes)
        .map(|other| {
            format!(
                "{} {}\n",
                facts.families.first(Host::node(other).addresses()),
                node_name(other)
            )
        })
        .collect();
    let kubeadm = if index == 1 {
        init(facts, &kubernetes::KubernetesVersion::Newest.name()?)?
    } else {
        join(facts, index)
    };
    let files = [
        ("etc/hostname", format!("{name}\n")),
        ("etc/hosts", format!("127.0.0.1 localhost\n{hosts}")),
        // No name server replies at this address, so names outside of the cluster do not resolve.
        (
            "etc/resolv.conf",
            format!("nameserver {}\n", facts.families.first(Host::client().addresses())),
        ),
        ("etc/machine-id", format!("{index:032x}\n")),
        ("etc/containerd/config.toml", containerd(&parts.pause)),
        (&KUBEADM_FILE[1..], kubeadm),
        (&audit::MACHINE_POLICY[1..], audit::policy(facts.audit)),
    ];
    let files = files.map(|(path, text)| (path.to_owned(), text));
    let registry = facts.registry.then(|| registry(&registry::name(facts)));
    let network = facts.network_plugin.is_none().then(|| {
        let file = "etc/cni/net.d/10-lab.conflist".to_owned();
        (file, network(index, facts.families).to_string())
    });
    Ok(files.into_iter().chain(registry).chain(network).collect())
}

/// Returns containerd's settings. The machine lacks CAP_SYS_RESOURCE, so it cannot lower the OOM
/// score of a container.
fn containerd(pause: &str) -> String {
    format!(
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nrestrict_oom_score_adj = true\nsandbox_image = \"{pause}\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"{REGISTRIES}\"\n"
    )
}

/// Returns containerd's settings of the lab's registry, which serves HTTP without encryption
/// (containerd, hosts.toml), and their path.
fn registry(name: &str) -> (String, String) {
    let path = format!("{}/{name}/hosts.toml", &REGISTRIES[1..]);
    (path, format!("[host.\"http://{name}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"))
}

/// Returns the CNI configuration of a node's pod network: a bridge with the pod range of the node,
/// to which the lab's routes lead.
fn network(index: u8, families: Families) -> Value {
    let ranges: Vec<Value> = families
        .of(topology::pod_ranges(index))
        .into_iter()
        .map(|subnet| json!([{"subnet": subnet}]))
        .collect();
    let default_routes: Vec<Value> =
        families.of(["0.0.0.0/0", "::/0"]).into_iter().map(|range| json!({"dst": range})).collect();
    json!({"cniVersion": "0.4.0", "name": "lab", "plugins": [{
        "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
        "ipam": {"type": "host-local", "ranges": ranges, "routes": default_routes},
    }]})
}

fn init(facts: &LabFacts, version: &str) -> Result<String> {
    let mode = facts.proxy_mode.as_deref().context("a kubeadm lab has a kube-proxy")?;
    let pod_ranges = facts.families.of(facts.pod_ranges()).join(",");
    let mut networking = json!({"serviceSubnet": facts.families.of(SERVICE_RANGES).join(",")});
    if facts.network_plugin.is_some() {
        networking["podSubnet"] = json!(pod_ranges);
    }
    let address = facts.families.first(Host::node(1).addresses());
    Ok(documents(&[
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "InitConfiguration",
            "localAPIEndpoint": {"advertiseAddress": address, "bindPort": API_PORT},
            "bootstrapTokens": [{"token": JOIN_TOKEN}],
            "nodeRegistration": registration(facts, 1),
        }),
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration",
            "kubernetesVersion": version,
            "networking": networking,
            "apiServer": {
                "extraArgs": audit::flags(audit::on_machine).map(|(name, value)| json!({"name": name, "value": value})),
                "extraVolumes": [{"name": "audit", "hostPath": audit::FOLDER, "mountPath": audit::FOLDER, "pathType": "Directory"}],
            },
            "etcd": {"local": {"extraArgs": [{"name": "unsafe-no-fsync", "value": "true"}]}},
        }),
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "failCgroupV1": false, "cgroupDriver": "cgroupfs", "failSwapOn": false,
            // The disk is the host's, and its usage does not concern the cluster.
            "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
            "evictionHard": {
                "memory.available": "1%", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%",
            },
        }),
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "healthzBindAddress": if facts.loopback_health { "127.0.0.1:10256" } else { "0.0.0.0:10256" },
            "mode": mode, "clusterCIDR": pod_ranges,
            // The lab must not change the host's own connection tracking limits.
            "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }),
    ]))
}

fn join(facts: &LabFacts, index: u8) -> String {
    let server =
        std::net::SocketAddr::new(facts.families.first(Host::node(1).addresses()), API_PORT);
    documents(&[json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "JoinConfiguration",
        "discovery": {"bootstrapToken": {
            "token": JOIN_TOKEN, "apiServerEndpoint": server.to_string(), "unsafeSkipCAVerification": true,
        }},
        "nodeRegistration": registration(facts, index),
    })])
}

fn registration(facts: &LabFacts, index: u8) -> Value {
    let addresses: Vec<String> =
        facts.families.of(Host::node(index).addresses()).iter().map(ToString::to_string).collect();
    json!({
        "name": node_name(index), "criSocket": CONTAINERD_SOCKET,
        "kubeletExtraArgs": [{"name": "node-ip", "value": addresses.join(",")}],
        // This preflight check requires version 2 of control groups.
        "ignorePreflightErrors": ["SystemVerification"],
    })
}

/// Formats YAML documents; each is JSON, which is valid YAML.
fn documents(documents: &[Value]) -> String {
    documents.iter().map(|document| format!("---\n{document}\n")).collect()
}
