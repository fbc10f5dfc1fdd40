//! Rules about load balancers that run side by side with FerroLB. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ferrolb_controller_core::other_load_balancers::{
    CILIUM_LB_IPAM, METALLB, OtherLoadBalancer, SERVICE_LB, described, remedy,
};
use ferrolb_controller_core::state::{AddressExplanation, Explanation};
use ferrolb_proto::api::ADOPT_ANNOTATION;
use ferrolb_proto::facts::{Key, Service};

use super::announcements::Announcement;
use super::daemon_sets::LoadBalancer;
use super::facts::{ClusterFacts, OtherLoadBalancers};
use super::finding::{Code, Finding, Object};
use crate::table::first_names;

/// Address that `minikube tunnel` writes if it runs over SSH. Otherwise it writes the cluster IP.
const TUNNEL_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Reasons of an address for which another host replies.
const CONFLICTS: [&str; 2] = ["AddressConflict", "KernelAnswers"];

/// Reason of a Service whose addresses FerroLB only assigns: another product can announce them.
const ONLY_ASSIGNED: &str = "NoAdvertisement";

/// Returns the findings.
#[must_use]
pub fn findings(facts: &ClusterFacts) -> Vec<Finding> {
    let default_implementation = facts.before_installation
        || facts.objects.as_ref().is_none_or(|it| it.installation.config.default_implementation);
    // A FerroLB that serves only its class runs side by side with every other load balancer.
    let shared = |finding: Finding| default_implementation.then_some(finding);
    let running = daemon_set_findings(&facts.load_balancers);
    let pools = facts.traces.assigned_by_cilium(None).map(other);
    let webhooks = leftover_webhooks(facts);
    let rows = facts.objects.iter().flat_map(|objects| &objects.rows);
    let only_assigned: BTreeSet<_> =
        rows.filter(|row| row.reason == ONLY_ASSIGNED).map(|row| &row.service).collect();
    let counts = |it: &Announcement| {
        let service = it.service.as_ref();
        service.map_or(default_implementation, |key| !only_assigned.contains(key))
    };
    let announced = facts.traces.announced(counts).into_iter().map(other);
    let advertised = facts.traces.advertised_by_cilium(|key| !only_assigned.contains(key));
    running
        .into_iter()
        .chain(pools)
        .filter_map(shared)
        .chain(announced)
        .chain(advertised.map(other))
        .chain(webhooks)
        .chain(tunnel(facts))
        .chain(contested(facts))
        .chain(served_by_others(facts))
        .collect()
}

/// Returns the line without findings.
#[must_use]
pub fn summary(_: &ClusterFacts) -> String {
    "no other load balancer serves the same Services".to_owned()
}

fn daemon_set_object(it: &LoadBalancer) -> Object {
    Object::namespaced("DaemonSet", it.daemon_set.namespace(), it.daemon_set.name())
}

fn other((text, objects): (String, Vec<Object>)) -> Finding {
    Finding::new(Code::OtherLoadBalancer, objects, text)
}

/// Returns the findings about load balancers that run as DaemonSets.
fn daemon_set_findings(all: &[LoadBalancer]) -> Vec<Finding> {
    let (service_lb, others): (Vec<_>, Vec<_>) =
        all.iter().partition(|it| *it.product == SERVICE_LB);
    let names: Vec<_> = service_lb.iter().map(|it| &it.daemon_set).collect();
    let service_lb = (!service_lb.is_empty()).then(|| {
        let text = format!(
            "ServiceLB of k3s serves Services without a class, too, and replaces their addresses \
             (DaemonSets {}): start the k3s servers with --disable=servicelb",
            first_names(&names)
        );
        let objects = service_lb.iter().map(|it| daemon_set_object(it));
        Finding::new(Code::ServiceLb, objects.collect(), text)
    });
    others.into_iter().map(running).chain(service_lb).collect()
}

fn running(it: &LoadBalancer) -> Finding {
    let code = if *it.product == METALLB { Code::MetalLb } else { Code::OtherLoadBalancer };
    let version = if it.version.is_empty() { String::new() } else { format!(" {}", it.version) };
    let object = daemon_set_object(it);
    let text = format!(
        "{}{version} runs ({object}), and both serve Services without a class: {}, or run FerroLB \
         with --default-implementation=false",
        it.product.name, it.product.remedy
    );
    Finding::new(code, vec![object], text)
}

fn leftover_webhooks(facts: &ClusterFacts) -> impl Iterator<Item = Finding> {
    let mut leftover: BTreeMap<&str, BTreeSet<&Key>> = BTreeMap::new();
    for webhook in facts.webhooks.iter().filter(|it| !it.has_endpoint) {
        leftover.entry(&webhook.configuration).or_default().insert(&webhook.service);
    }
    leftover.into_iter().map(|(name, services)| {
        let services: Vec<_> = services.into_iter().collect();
        let text = format!(
            "webhooks of {name} have no running pod (Service {}), so the API server rejects \
             changes of MetalLB's objects: if MetalLB is removed, `kubectl delete \
             validatingwebhookconfiguration {name}`",
            first_names(&services)
        );
        let object = Object::cluster("ValidatingWebhookConfiguration", name);
        Finding::new(Code::LeftoverWebhook, vec![object], text)
    })
}

/// Returns whether `minikube tunnel` has written the address of a Service.
fn is_tunneled(service: &Service) -> bool {
    let is_tunnel = |address: IpAddr| {
        address == TUNNEL_ADDRESS || service.demand.cluster_ips.contains(&address)
    };
    service.load_balancer && service.assigned.iter().any(|it| is_tunnel(it.address))
}

fn service_objects<'a>(keys: impl Iterator<Item = &'a Key>) -> Vec<Object> {
    keys.map(|key| Object::namespaced("Service", key.namespace(), key.name())).collect()
}

/// Returns the finding about Services with an address of `minikube tunnel`, which may have ended.
fn tunnel(facts: &ClusterFacts) -> Option<Finding> {
    let services = facts.objects.iter().flat_map(|objects| &objects.services);
    let keys: Vec<_> = services.filter(|it| is_tunneled(it)).map(|it| &it.key).collect();
    let first = keys.first()?;
    let text = format!(
        "minikube tunnel has written its own address into the status of {}: stop it with Ctrl+C. If \
         it has ended, `kubectl -n {} annotate service {} {ADOPT_ANNOTATION}=true`",
        first_names(&keys),
        first.namespace(),
        first.name()
    );
    Some(Finding::new(Code::StatusWriter, service_objects(keys.iter().copied()), text))
}

/// Returns the finding about Services whose status another client changes. Kubernetes stores the
/// field manager of the addresses until FerroLB has restored them. That of other parts of the
/// status counts only if it is a known load balancer.
fn contested(facts: &ClusterFacts) -> Option<Finding> {
    let objects = facts.objects.as_ref()?;
    let rows = objects.rows.iter().filter(|row| row.contested);
    let names: Vec<_> = rows.map(|row| &row.service).collect();
    let first = names.first()?;
    let mut services = objects.services.iter().filter(|it| names.contains(&&it.key));
    let is_known = |manager: &&str| OtherLoadBalancer::of_manager(manager).is_some();
    let manager = services.find_map(|it| {
        it.ingress_manager.as_deref().or(it.status_manager.as_deref().filter(is_known))
    });
    let mut found = service_objects(names.iter().copied());
    let text = match manager {
        Some(manager) => format!(
            "{} changes the addresses in the status of {}: {}",
            described(manager),
            first_names(&names),
            remedy(manager)
        ),
        None => format!(
            "another client repeatedly changes the status of {}: `kubectl ferrolb why {first}` has \
             its name, if Kubernetes stores it, and the remedy",
            first_names(&names)
        ),
    };
    let product = manager.and_then(OtherLoadBalancer::of_manager);
    if product.is_some_and(|it| *it == CILIUM_LB_IPAM) {
        found.extend(facts.traces.pools_for(|key| names.contains(&key)));
    }
    Some(Finding::new(Code::StatusWriter, found, text))
}

fn served_by_others(facts: &ClusterFacts) -> Option<Finding> {
    let objects = facts.objects.as_ref()?;
    let tunneled: BTreeSet<_> =
        objects.services.iter().filter(|it| is_tunneled(it)).map(|it| &it.key).collect();
    let keys: Vec<_> =
        objects.served_by_others.iter().filter(|key| !tunneled.contains(key)).collect();
    let first = keys.first()?;
    let next = if facts.before_installation {
        "FerroLB would not change it".to_owned()
    } else {
        format!("FerroLB does not change it, see `kubectl ferrolb why {first}`")
    };
    let text =
        format!("another load balancer has assigned the address of {}: {next}", first_names(&keys));
    Some(Finding::new(Code::ServedByOther, service_objects(keys.iter().copied()), text))
}

/// Returns texts about other load balancers that announce a Service, or write its status. Those of
/// which only a DaemonSet is known are among them if another host replies for an address of the
/// Service, or another client writes its status.
#[must_use]
pub fn others_of(explanation: &Explanation, others: &OtherLoadBalancers) -> Vec<String> {
    let row = &explanation.row;
    if !row.served {
        return Vec::new();
    }
    let announces = row.reason != ONLY_ASSIGNED;
    let announced = others.traces.announced(|it| announces && it.is_of(&row.service));
    let advertised = others.traces.advertised_by_cilium(|key| announces && *key == row.service);
    let pools = others.traces.assigned_by_cilium(Some(&row.service)).filter(|_| row.contested);
    let is_conflict = |it: &AddressExplanation| CONFLICTS.contains(&it.reason);
    let is_suspected = row.contested || explanation.explained.iter().any(is_conflict);
    let running = daemon_set_findings(&others.running).into_iter().filter(|_| is_suspected);
    let texts = announced.into_iter().chain(advertised).chain(pools).map(|(text, _)| text);
    texts.chain(running.map(|it| it.text)).collect()
}
