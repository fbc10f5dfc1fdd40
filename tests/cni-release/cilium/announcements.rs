//! Cilium's L2 announcements of addresses that FerroLB announces: two hosts reply for an address.

use super::{clean, condition, configure, replacement};
use crate::scenario::{print_measured, step};
use crate::workload::Servers;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::{Lab, wait};
use std::time::Duration;

const POLICY: &str = "\
apiVersion: cilium.io/v2alpha1
kind: CiliumL2AnnouncementPolicy
metadata: {name: second}
spec: {loadBalancerIPs: true, externalIPs: true, interfaces: [eth0]}
";
const KIND: &str = "CiliumL2AnnouncementPolicy";
const ON: &str = "l2announcements.enabled=true";
/// Beginning of the names of Cilium's Leases.
const LEASE: &str = "cilium-l2announce-default-";
/// Longest time until the Leases have holders, and until a conflict is reported.
const REPORTED_MAX: Duration = Duration::from_secs(60);

/// Creates the policy, and deletes it.
pub(super) fn check(lab: &Lab, servers: &Servers) -> Result<()> {
    step("a policy of Cilium that announces the same addresses is named", || {
        configure(lab, &[replacement::VALUE, ON])?;
        lab.apply(POLICY)?;
        reported(lab, servers)?;
        lab.kubectl(&["delete", KIND, "second"])?;
        clean(lab, "deletion of the policy")?;
        configure(lab, &[replacement::VALUE])
    })
}

fn reported(lab: &Lab, servers: &Servers) -> Result<()> {
    for (service, server) in [("open", servers.open[0]), ("local", servers.local[0])] {
        let holder =
            wait::until("Cilium announces the Service", REPORTED_MAX, || holder(lab, service))?;
        let owner = lab.owner_of(server.ip())?.context("no host replies")?;
        let start = wait::now();
        if owner == holder {
            print_measured(&format!("{service}: Cilium has chosen the owner, {owner}"));
        } else {
            wait::until("the conflict is reported", REPORTED_MAX, || {
                let found = condition(lab, service, "Announced")?;
                let is_named = found.starts_with("False ") && found.contains("Cilium");
                ensure!(is_named, "{found}");
                Ok(Some(()))
            })?;
            let after = start.elapsed().as_secs_f64();
            print_measured(&format!("{service}: conflict reported after {after:.1} s"));
        }
        let (place, policy) =
            (format!("default/{service} from {holder}"), format!("{KIND} second"));
        let found = [lab.kubectl_ferrolb(&["check"])?, lab.kubectl_ferrolb(&["why", service])?];
        for text in found {
            let is_named = text.contains(&place) && text.contains(&policy);
            ensure!(is_named, "{place} or {policy} is missing: {text}");
        }
    }
    Ok(())
}

/// Returns the node that announces a Service by Cilium.
fn holder(lab: &Lab, service: &str) -> Result<Option<String>> {
    let lease = format!("{LEASE}{service}");
    let path = "jsonpath={.spec.holderIdentity}";
    let holder = lab.kubectl(&["-n", "kube-system", "get", "lease", &lease, "-o", path])?;
    Ok((!holder.is_empty()).then_some(holder))
}
