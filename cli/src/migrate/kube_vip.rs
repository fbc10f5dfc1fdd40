//! Migration from kube-vip as a load balancer of Services: its pools and peers become FerroLB's
//! objects, and the Services keep their addresses. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ferrolb_controller_core::state::{Config, Names};
use ferrolb_proto::api;
use ferrolb_proto::facts::Key;
use serde_json::Value;

use super::change::{Annotations, shared};
use super::installed::Installed;
use super::kube_vip_bgp::{Peers, Secret};
use super::kube_vip_pools::Pools;
use super::kube_vip_steps::Settings;
use super::merge::{Merged, addresses_of_other_pools, password_secret};
use super::predict::{Expected, predict};
use super::{ManifestFile, Migration, Problem};
use crate::objects::{
    self, APPS, CORE, Objects, annotation, key, list, name, namespace, text, texts,
};
use crate::products::{KUBE_VIP_SERVICES, is_kube_vip};

/// Namespace of the ConfigMap of kube-vip's cloud provider.
const NAMESPACE: &str = "kube-system";
/// File with all objects.
pub(super) const FILE: &str = "ferrolb.yaml";
/// Default of kube-vip's class.
const CLASS: &str = "kube-vip.io/kube-vip-class";
/// Prefix of the names of pools and L2Advertisements that this migration creates.
const POOL_PREFIX: &str = "kube-vip";
/// Prefix of kube-vip's annotations.
const PREFIX: &str = "kube-vip.io/";
/// Annotations for which FerroLB has no equivalent, and the effect.
const UNSUPPORTED: [(&str, &str); 4] = [
    ("kube-vip.io/egress", "outgoing connections get the address of the node"),
    ("kube-vip.io/loadbalancerHostname", "the status has addresses only"),
    ("kube-vip.io/forwardUPNP", "forward the ports in the router by hand"),
    ("kube-vip.io/hwaddr", "FerroLB has no addresses by DHCP"),
];

/// A container of kube-vip, and how it runs.
pub(super) struct KubeVip<'a> {
    env: BTreeMap<&'a str, &'a str>,
    /// The DaemonSet; `None`: static pods, which are in `kube-system`.
    pub(super) daemonset: Option<Key>,
}

/// Plans the migration. `ferrolb` is FerroLB's namespace.
#[must_use]
pub fn plan(objects: &Objects, directory: &str, ferrolb: &str) -> Migration {
    let found = KubeVip::find(objects);
    let is = |variable: &str| found.iter().any(|it| it.is(variable));
    let class = found.iter().find_map(KubeVip::class);
    let services: Vec<&Value> =
        objects.load_balancers().filter(|it| is_served(it, class)).collect();
    let in_use: Vec<IpAddr> = services.iter().flat_map(|it| objects::addresses(it)).collect();
    let shared = shared(in_use.iter());
    let keep = |service: &&'_ Value| (key(service), objects::addresses(service));
    let changes: Vec<Annotations<'_>> = services
        .iter()
        .map(|service| Annotations::keep(service, &objects::addresses(service), &shared))
        .collect();
    let mut config = objects.of(CORE, "ConfigMap").filter(|it| namespace(it) == NAMESPACE);
    let is_own = |name: &str| name.starts_with(POOL_PREFIX);
    let others = addresses_of_other_pools(objects, is_own);
    let pools = Pools::read(config.find(|it| name(it) == "kubevip"), &services, &others);
    let bgp = found.iter().find(|it| it.is("bgp_enable"));
    let peers = bgp.map(|it| Peers::read(&it.env, ferrolb)).unwrap_or_default();
    let mut manifests = pools.manifests(ferrolb, is("vip_arp"));
    manifests.extend(peers.manifests);
    let mut problems = pools.problems;
    problems.extend(peers.problems);
    problems.extend(limits(&found));
    problems.extend(services.iter().flat_map(|service| service_limits(service)));
    let installed = Installed::find(objects, ferrolb);
    if let Some(installed) = &installed {
        problems.extend(installed.lost(objects, class));
        problems.extend(bgp.and_then(|_| installed.without_bgp(objects)));
    }
    let merged = Merged::of(objects, manifests, is_own);
    problems.extend(merged.problems.iter().cloned());
    let after = merged.applied_to(changed(objects, &changes));
    let names = Names { namespace: ferrolb.to_owned(), group: api::GROUP.to_owned() };
    let classes = Installed::classes_after(installed.as_ref(), class);
    let config =
        Config { classes, default_implementation: class.is_none(), names, ..Config::default() };
    let expected = services.iter().map(keep).map(|(key, addresses)| Expected { key, addresses });
    let prediction = predict(config, objects, &after, expected.collect());
    problems.extend(prediction.invalid);
    problems.sort();
    // A peer that exists has its Secret already.
    let is_new = |secret: &Secret| merged.new.iter().any(|it| password_secret(it) == secret.name);
    let secrets: Vec<_> = peers.secrets.into_iter().filter(is_new).collect();
    let settings = Settings {
        found: &found,
        class,
        secrets: &secrets,
        directory,
        ferrolb,
        installed: installed.as_ref(),
        has_bgp: bgp.is_some(),
        merged: &merged,
    };
    let steps = settings.steps(objects, &services, &changes);
    let mut files = merged.changed_files();
    files.extend(ManifestFile::unless_empty(FILE, merged.new));
    let migration = Migration {
        title: "Migration from kube-vip".to_owned(),
        facts: facts(&found, services.len()),
        services: prediction.outcomes,
        problems,
        files,
        ..Migration::default()
    };
    migration.with_steps(steps)
}

/// Returns whether kube-vip serves a Service. `only` is the class that it serves, if it serves only
/// one.
fn is_served(service: &Value, only: Option<&str>) -> bool {
    let annotations = service.pointer("/metadata/annotations").and_then(Value::as_object);
    let is_annotated =
        annotations.is_some_and(|all| all.keys().any(|name| name.starts_with(PREFIX)));
    let is_labeled = text(service, "/metadata/labels/implementation") == "kube-vip";
    let requests = !text(service, "/spec/loadBalancerIP").is_empty();
    let class = text(service, "/spec/loadBalancerClass");
    annotation(service, "kube-vip.io/ignore") != "true"
        && only.map_or(class.is_empty() || class.starts_with(PREFIX), |only| class == only)
        && (is_annotated || is_labeled || requests)
}

/// Returns the objects after the Services have their annotations.
fn changed(objects: &Objects, changes: &[Annotations<'_>]) -> Objects {
    let changed: BTreeMap<_, _> =
        changes.iter().map(|it| (key(it.service), it.applied())).collect();
    objects.map_services(|service| {
        if let Some(after) = changed.get(&key(service)) {
            *service = after.clone();
        }
    })
}

impl<'a> KubeVip<'a> {
    /// Finds the containers of kube-vip: in DaemonSets, and in static pods.
    fn find(objects: &'a Objects) -> Vec<Self> {
        let sets = objects.of(APPS, "DaemonSet").filter_map(|set| {
            let env = environment(list(set, "/spec/template/spec/containers"))?;
            Some(Self { env, daemonset: Some(key(set)) })
        });
        let pods = objects.of(CORE, "Pod").filter_map(|pod| {
            let mut owners = list(pod, "/metadata/ownerReferences").iter();
            let is_static = owners.any(|owner| text(owner, "/kind") == "Node");
            let env = environment(list(pod, "/spec/containers")).filter(|_| is_static)?;
            Some(Self { env, daemonset: None })
        });
        sets.chain(pods).filter(|it| it.is(KUBE_VIP_SERVICES[0])).collect()
    }

    /// Returns whether a variable is `true`.
    pub(super) fn is(&self, variable: &str) -> bool {
        self.env.get(variable).is_some_and(|value| *value == "true")
    }

    /// Returns the class of the Services, if kube-vip serves only those.
    fn class(&self) -> Option<&'a str> {
        let class = self.env.get("lb_class_name").copied().filter(|it| !it.is_empty());
        self.is("lb_class_only").then(|| class.unwrap_or(CLASS))
    }
}

/// Returns the variables of the container of kube-vip. The argument for Services counts as the
/// variable.
fn environment(containers: &[Value]) -> Option<BTreeMap<&str, &str>> {
    let container = containers.iter().find(|it| is_kube_vip(text(it, "/image")))?;
    let [services, argument] = KUBE_VIP_SERVICES;
    let has_argument = texts(container, "/args").any(|it| it == argument);
    let env = list(container, "/env").iter();
    let env = env.map(|it| (text(it, "/name"), text(it, "/value")));
    Some(env.chain(has_argument.then_some((services, "true"))).collect())
}

fn facts(found: &[KubeVip<'_>], services: usize) -> Vec<String> {
    let is = |variable: &str| found.iter().any(|it| it.is(variable));
    let modes = [("vip_arp", "ARP"), ("bgp_enable", "BGP"), ("vip_routingtable", "routing table")];
    let modes: Vec<_> =
        modes.into_iter().filter(|(name, _)| is(name)).map(|(_, mode)| mode).collect();
    let sets: Vec<_> =
        found.iter().filter_map(|it| it.daemonset.as_ref()).map(Key::to_string).collect();
    let by = if sets.is_empty() { "static pods".to_owned() } else { sets.join(", ") };
    if found.is_empty() {
        return vec![format!("kube-vip with svc_enable is not found; Services: {services}")];
    }
    vec![format!("kube-vip ({by}), mode {}; Services: {services}", modes.join(" and "))]
}

/// Returns settings of kube-vip without an equivalent.
fn limits(found: &[KubeVip<'_>]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let is = |variable: &str| found.iter().any(|it| it.is(variable));
    if found.is_empty() {
        let text = "no DaemonSet or static pod with svc_enable=true: the mode is not known, so the \
            files have no advertisement";
        problems.push(Problem::of("kube-vip", text));
    }
    if is("vip_routingtable") || is("vip_wireguard") {
        let text =
            "the modes of routing tables and WireGuard have no equivalent: use BGP or layer 2";
        problems.push(Problem::of("kube-vip", text));
    }
    if is("cp_enable") {
        let text = "kube-vip continues to serve the address of the control plane (cp_enable)";
        problems.push(Problem::note("kube-vip", text));
    }
    if found.iter().any(|it| it.env.get("vip_servicesinterface").is_some_and(|it| !it.is_empty())) {
        let text = "vip_servicesinterface: FerroLB announces on the interfaces with a subnet of the \
            address";
        problems.push(Problem::note("kube-vip", text));
    }
    problems
}

/// Returns settings of a Service without an equivalent.
fn service_limits(service: &Value) -> Vec<Problem> {
    let label = objects::label(service);
    let mut problems = Vec::new();
    for (name, effect) in UNSUPPORTED {
        if !matches!(annotation(service, name), "" | "false") {
            problems.push(Problem::of(&*label, format!("{name} has no equivalent: {effect}")));
        }
    }
    let requested =
        [text(service, "/spec/loadBalancerIP"), annotation(service, "kube-vip.io/loadbalancerIPs")];
    if requested.contains(&"0.0.0.0") {
        let text = "the address is from DHCP, which may assign it to another host: exclude it from \
            the range of the DHCP server";
        problems.push(Problem::of(&*label, text));
    }
    if !annotation(service, "kube-vip.io/serviceInterface").is_empty() {
        let text = "kube-vip.io/serviceInterface: name the interface in an L2Advertisement";
        problems.push(Problem::note(&*label, text));
    }
    let host = annotation(service, "kube-vip.io/vipHost");
    if !host.is_empty() {
        let text = format!("{host} has the address now; FerroLB may choose another node");
        problems.push(Problem::note(label, text));
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_argument_for_services_counts_as_the_variable() {
        let serves = |container: Value| {
            let mut container = container;
            container["image"] = json!("ghcr.io/kube-vip/kube-vip:v1.0.0");
            let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
                "metadata": {"name": "a", "namespace": "b"},
                "spec": {"template": {"spec": {"containers": [container]}}}});
            !KubeVip::find(&Objects::new([set])).is_empty()
        };
        assert!(serves(json!({"args": ["manager", "--services"]})));
        assert!(serves(json!({"env": [{"name": "svc_enable", "value": "true"}]})));
        assert!(!serves(json!({"args": ["manager"]})));
    }
}
