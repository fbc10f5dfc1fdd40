//! Cilium's L2 announcements of addresses that FerroLB announces. Each Service has a policy for all
//! nodes but FerroLB's owner, so two hosts always reply for an address.

use super::{clean, condition, configure, replacement};
use crate::scenario::{print_measured, step};
use crate::workload::Servers;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::{Lab, wait};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

const KIND: &str = "CiliumL2AnnouncementPolicy";
const ON: &str = "l2announcements.enabled=true";
/// Beginning of the names of Cilium's Leases.
const LEASE: &str = "cilium-l2announce-default-";
/// Longest time until the Leases have holders, and until a conflict is reported.
const REPORTED_MAX: Duration = Duration::from_secs(60);

/// Creates a policy for each Service, and deletes it.
pub(super) fn check(lab: &Lab, servers: &Servers) -> Result<()> {
    step("a policy of Cilium that announces the same addresses is named", || {
        configure(lab, &[replacement::VALUE, ON])?;
        let named = [("open", servers.open[0]), ("local", servers.local[0])];
        let owner = |(service, server): (&'static str, SocketAddr)| {
            let owner = lab.owner_of(server.ip())?.context("no host replies")?;
            Ok((service, owner))
        };
        let owners = named.into_iter().map(owner).collect::<Result<Vec<_>>>()?;
        let policies = owners.iter().map(|(service, owner)| policy(service, owner));
        lab.apply_objects(&policies.collect::<Vec<_>>())?;
        owners.iter().try_for_each(|(service, owner)| check_conflict(lab, service, owner))?;
        for (service, _) in owners {
            check_named(lab, service)?;
        }
        lab.kubectl(&["delete", KIND, "--all"])?;
        clean(lab, "deletion of the policies")?;
        configure(lab, &[replacement::VALUE])
    })
}

/// Returns a policy that announces one Service from another node than `owner`.
fn policy(service: &str, owner: &str) -> Value {
    let other = json!({"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [owner]});
    json!({
        "apiVersion": "cilium.io/v2alpha1", "kind": KIND, "metadata": {"name": name(service)},
        "spec": {
            "loadBalancerIPs": true, "interfaces": ["eth0"],
            "serviceSelector": {"matchLabels": {"io.kubernetes.service.name": service}},
            "nodeSelector": {"matchExpressions": [other]},
        },
    })
}

fn name(service: &str) -> String {
    format!("second-{service}")
}

/// Waits until Cilium announces a Service from another node than FerroLB's owner, and until its
/// condition says so.
fn check_conflict(lab: &Lab, service: &str, owner: &str) -> Result<()> {
    let holder =
        wait::until("Cilium announces the Service", REPORTED_MAX, || holder(lab, service))?;
    ensure!(holder != owner, "Cilium announces {service} from FerroLB's owner, {owner}");
    let start = wait::now();
    wait::until("the conflict is reported", REPORTED_MAX, || {
        let found = condition(lab, service, "Announced")?;
        let is_named = found.starts_with("False ") && found.contains("Cilium");
        ensure!(is_named, "{found}");
        Ok(Some(()))
    })?;
    let after = start.elapsed().as_secs_f64();
    print_measured(&format!("{service}: conflict reported after {after:.1} s"));
    Ok(())
}

/// Checks that `check` and `why` name the node and the policy of a Service, and that `why` names no
/// policy of another Service.
fn check_named(lab: &Lab, service: &str) -> Result<()> {
    let holder = holder(lab, service)?.context("Cilium announces the Service")?;
    let (place, policy) = (format!("default/{service} from {holder}"), name(service));
    let why = lab.kubectl_ferrolb(&["why", service])?;
    for text in [&lab.kubectl_ferrolb(&["check"])?, &why] {
        let is_named = [&place, &policy, KIND].iter().all(|part| text.contains(*part));
        ensure!(is_named, "{place} or {KIND} {policy} is missing: {text}");
    }
    ensure!(why.matches(&name("")).count() == 1, "why names more policies: {why}");
    Ok(())
}

/// Returns the node that announces a Service by Cilium.
fn holder(lab: &Lab, service: &str) -> Result<Option<String>> {
    let lease = format!("{LEASE}{service}");
    let path = "jsonpath={.spec.holderIdentity}";
    let holder = lab.kubectl(&["-n", "kube-system", "get", "lease", &lease, "-o", path])?;
    Ok((!holder.is_empty()).then_some(holder))
}
