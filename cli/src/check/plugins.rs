//! Network plugins among the DaemonSets of a cluster, and their settings that affect FerroLB. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};

/// Names of the plugins' DaemonSets in their manifests and charts, and the names of the plugins.
const PLUGINS: [(&str, &str); 5] = [
    ("antrea-agent", "Antrea"),
    ("calico-node", "Calico"),
    (CILIUM, "Cilium"),
    ("kube-flannel-ds", "Flannel"),
    ("kube-router", "kube-router"),
];
/// Name of Cilium's DaemonSet.
const CILIUM: &str = "cilium";
/// Key of the ConfigMap `cilium-config`: the load balancer of Services without a class.
const LB_IPAM: &str = "default-lb-service-ipam";
/// Namespace and name of kubeadm's DaemonSet of kube-proxy.
const KUBE_PROXY: [&str; 2] = ["kube-system", "kube-proxy"];

/// The settings of Cilium that affect FerroLB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CiliumConfig {
    /// `hostFirewall.enabled` of the chart.
    pub host_firewall: bool,
    /// `kubeProxyReplacement` of the chart.
    pub replaces_kube_proxy: bool,
    /// True if LB IPAM serves Services without a class: `defaultLBServiceIPAM` of the chart is
    /// `lbipam`, its default.
    pub assigns_without_class: bool,
    /// `bgpControlPlane.enabled` of the chart.
    pub has_bgp: bool,
}

impl CiliumConfig {
    /// Reads the settings from the data of the ConfigMap `cilium-config`.
    #[must_use]
    pub fn of(data: &BTreeMap<String, String>) -> Self {
        let is_one_of = |key: &str, values: &[&str]| {
            data.get(key).is_some_and(|value| values.contains(&value.as_str()))
        };
        Self {
            host_firewall: is_one_of("enable-host-firewall", &["true"]),
            // Before version 1.14, the value was `strict`.
            replaces_kube_proxy: is_one_of("kube-proxy-replacement", &["true", "strict"]),
            has_bgp: is_one_of("enable-bgp-control-plane", &["true"]),
            assigns_without_class: data.get(LB_IPAM).is_none_or(|value| value == "lbipam"),
        }
    }
}

/// Returns the names of the network plugins, ascending.
#[must_use]
pub fn plugins(daemon_sets: &[DaemonSet]) -> Vec<&'static str> {
    let runs = |name: &str| daemon_sets.iter().any(|it| it.metadata.name.as_deref() == Some(name));
    PLUGINS.into_iter().filter(|(name, _)| runs(name)).map(|(_, plugin)| plugin).collect()
}

/// Returns the namespace of Cilium; `None` if Cilium does not run.
#[must_use]
pub fn cilium_namespace(daemon_sets: &[DaemonSet]) -> Option<&str> {
    let cilium = daemon_sets.iter().find(|it| it.metadata.name.as_deref() == Some(CILIUM));
    cilium.and_then(|it| it.metadata.namespace.as_deref())
}

/// Returns whether kubeadm's kube-proxy does not run: its ConfigMap outlives its DaemonSet. Without
/// a list of the DaemonSets, which is empty, nothing shows that.
#[must_use]
pub fn is_kube_proxy_absent(daemon_sets: &[DaemonSet]) -> bool {
    let pods = kube_proxy(daemon_sets).map(|it| it.status.as_ref());
    let is_emptied = |status: &DaemonSetStatus| status.desired_number_scheduled == 0;
    !daemon_sets.is_empty() && pods.is_none_or(|status| status.is_some_and(is_emptied))
}

/// Returns whether something replaces kube-proxy, which does not run: Cilium, or Calico's eBPF
/// mode, which keeps the DaemonSet and gives it a selector that selects no node.
#[must_use]
pub fn is_kube_proxy_replaced(cilium: Option<CiliumConfig>, daemon_sets: &[DaemonSet]) -> bool {
    let by_cilium = cilium.is_some_and(|it| it.replaces_kube_proxy);
    is_kube_proxy_absent(daemon_sets) && (by_cilium || kube_proxy(daemon_sets).is_some())
}

fn kube_proxy(daemon_sets: &[DaemonSet]) -> Option<&DaemonSet> {
    daemon_sets.iter().find(|it| {
        let name = [&it.metadata.namespace, &it.metadata.name];
        name.map(Option::as_deref) == KUBE_PROXY.map(Some)
    })
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use serde_json::json;

    use super::*;

    /// Cilium, DaemonSets; whether kube-proxy is absent, and whether it is replaced; and why.
    type Case<'a> = (Option<CiliumConfig>, &'a [DaemonSet], [bool; 2], &'a str);

    fn daemon_set(namespace: &str, name: &str, pods: Option<i32>) -> DaemonSet {
        let status = pods.map(|pods| {
            json!({"desiredNumberScheduled": pods, "currentNumberScheduled": pods,
                "numberMisscheduled": 0, "numberReady": 0})
        });
        let metadata = json!({"namespace": namespace, "name": name});
        serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
    }

    #[test]
    fn plugins_are_named_by_their_daemon_sets() {
        let all = ["kube-router", "cilium", "calico-node", "kube-flannel-ds", "antrea-agent", "a"];
        let all = all.map(|name| daemon_set("kube-system", name, None));
        assert_eq!(plugins(&all), ["Antrea", "Calico", "Cilium", "Flannel", "kube-router"]);
        assert_eq!(cilium_namespace(&all), Some("kube-system"));
        assert_eq!((plugins(&all[5..]).len(), cilium_namespace(&all[5..])), (0, None));
    }

    #[test]
    fn the_settings_of_cilium_are_read() {
        let config =
            |key: &str, value: &str| CiliumConfig::of(&[(key.to_owned(), value.to_owned())].into());
        assert!(config("enable-host-firewall", "true").host_firewall);
        assert!(!config("enable-host-firewall", "false").host_firewall);
        assert!(config("enable-bgp-control-plane", "true").has_bgp);
        assert!(!config("enable-host-firewall", "true").has_bgp);
        for (value, expect) in
            [("true", true), ("strict", true), ("false", false), ("probe", false)]
        {
            let found = config("kube-proxy-replacement", value);
            assert_eq!((found.host_firewall, found.replaces_kube_proxy), (false, expect));
        }
        for (key, value, expect) in
            [(LB_IPAM, "lbipam", true), (LB_IPAM, "none", false), ("other", "none", true)]
        {
            assert_eq!(config(key, value).assigns_without_class, expect, "{value}");
        }
    }

    #[test]
    fn kube_proxy_is_replaced_if_its_daemon_set_has_gone_or_selects_no_node() {
        let proxy = |pods| daemon_set("kube-system", "kube-proxy", pods);
        let other = daemon_set("kube-system", "cilium", Some(3));
        let replacing = Some(CiliumConfig { replaces_kube_proxy: true, ..CiliumConfig::default() });
        let without_proxy = from_ref(&other);
        let cases: [Case<'_>; 7] = [
            (None, &[proxy(Some(3)), other.clone()], [false; 2], "kube-proxy runs"),
            (None, &[proxy(None)], [false; 2], "its controller has not counted its nodes yet"),
            (None, &[proxy(Some(0))], [true; 2], "Calico has emptied the DaemonSet"),
            (None, without_proxy, [true, false], "it is deleted, or k3s runs it"),
            (replacing, without_proxy, [true; 2], "Cilium's guide, to its end"),
            (replacing, &[proxy(Some(3)), other.clone()], [false; 2], "it still runs"),
            (replacing, &[], [false; 2], "the user may not list DaemonSets"),
        ];
        for (cilium, daemon_sets, expect, why) in cases {
            let found =
                [is_kube_proxy_absent(daemon_sets), is_kube_proxy_replaced(cilium, daemon_sets)];
            assert_eq!(found, expect, "{why}");
        }
    }
}
