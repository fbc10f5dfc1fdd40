//! Change from kube-proxy to Cilium's replacement and back while FerroLB runs. The order is that of
//! Cilium's guide: kube-proxy and its rules are removed first.

use super::{condition, configure};
use crate::client::{PROBE_INTERVAL, PROBE_TIME_MAX, run_without_loss};
use crate::restart::named;
use crate::scenario::{print_measured, step};
use crate::steps;
use crate::workload::Servers;
use anyhow::{Result, ensure};
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Lab, host_state, wait};
use ferrolb_proto::api::NAMESPACE;
use std::time::Duration;

/// Value of the chart that turns the replacement on.
pub(super) const VALUE: &str = "kubeProxyReplacement=true";
/// Longest time after which no condition is about kube-proxy.
const CLEAN_MAX: Duration = Duration::from_secs(180);
/// Time for which each Service replies without an error once the new service proxy knows it, and
/// the programs of the pods are built.
const REPLIES: Duration = Duration::from_secs(10);
/// Longest time until then, on a busy machine.
const REPLY_MAX: Duration = Duration::from_secs(120);
/// Objects of kube-proxy that Cilium's guide deletes.
const OBJECTS: [&str; 2] = ["daemonset/kube-proxy", "configmap/kube-proxy"];
/// kube-proxy's rules in nftables mode.
const TABLES: [&str; 2] = ["ip", "ip6"];

/// Replaces kube-proxy.
pub(super) fn replace(lab: &Lab, servers: &Servers) -> Result<()> {
    step("Cilium replaces kube-proxy", || {
        change(lab, servers, "to Cilium", || {
            for object in OBJECTS {
                lab.kubectl(&["-n", "kube-system", "delete", object, "--wait"])?;
            }
            for node in lab.nodes() {
                for family in TABLES {
                    lab.exec(&node, &["nft", "delete", "table", family, "kube-proxy"])?;
                }
            }
            configure(lab, &[VALUE])
        })?;
        host_state::check_own_programs(lab)
    })
}

/// Installs kube-proxy again by kubeadm, and turns the replacement off.
pub(super) fn give_back(lab: &Lab, servers: &Servers) -> Result<()> {
    step("kube-proxy replaces Cilium's replacement", || {
        change(lab, servers, "to kube-proxy", || {
            let addon = ["kubeadm", "init", "phase", "addon", "kube-proxy"];
            let config = ["--config", "/etc/kubeadm.yaml"];
            lab.exec("node1", &[&addon[..], &config].concat())?;
            let daemon_set = ["rollout", "status", OBJECTS[0], super::ROLLOUT_MAX];
            lab.kubectl(&[&["-n", "kube-system"], &daemon_set[..]].concat())?;
            configure(lab, &[])
        })
    })
}

/// Runs the change, and checks the pages and the state of FerroLB from its end on.
fn change(
    lab: &Lab,
    servers: &Servers,
    name: &str,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let speakers = speakers(lab)?;
    let named = named(servers);
    // Cilium's agents are ready before their programs know all Services.
    measured(lab, &format!("change {name}"), servers, || {
        work()?;
        named.iter().try_for_each(|(service, server)| {
            wait::until(&format!("{service} replies for {REPLIES:?}"), REPLY_MAX, || {
                wait::during(REPLIES, || lab.http_get(CLIENT, *server, "/").map(drop))?;
                Ok(Some(()))
            })
        })
    })?;
    run_without_loss(
        lab,
        &format!("after the change {name}, until check is clean"),
        &named,
        || steps::check_clean(lab),
    )?;
    let start = wait::now();
    wait::until("no condition is about kube-proxy", CLEAN_MAX, || {
        for service in ["open", "local"] {
            let found = condition(lab, service, "Announced")?;
            ensure!(found.starts_with("True ") && !found.contains("kube-proxy"), "{found}");
        }
        Ok(Some(()))
    })?;
    let after = start.elapsed().as_secs_f64();
    print_measured(&format!("    conditions are right {after:.1} s after check"));
    let now = self::speakers(lab)?;
    ensure!(speakers == now, "the speakers have restarted: {speakers}, {now}");
    Ok(())
}

/// Runs `work` while a client connects to each address, and prints the lost connections. They have
/// no limit, because the order of Cilium's guide leaves no service proxy for as long as the machine
/// takes to start the new one.
fn measured<T>(
    lab: &Lab,
    name: &str,
    servers: &Servers,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let probe = |(name, server)| (name, lab.start_probe(server, PROBE_TIME_MAX, PROBE_INTERVAL));
    let probes = named(servers).map(probe);
    let start = wait::now();
    let result = work();
    print_measured(&format!("{name}, {:.1} s:", start.elapsed().as_secs_f64()));
    for (service, probe) in probes {
        let report = probe.stop()?;
        print_measured(&format!(
            "    {service}: {} of {} connections lost, longest gap {:.0} ms",
            report.lost, report.sent, report.longest_gap_ms
        ));
    }
    result
}

/// Returns the speakers' pods, and how often their containers have restarted.
fn speakers(lab: &Lab) -> Result<String> {
    let label = "app.kubernetes.io/component=speaker";
    let path = "jsonpath={range .items[*]}{.metadata.name} \
                {.status.containerStatuses[0].restartCount} {end}";
    lab.kubectl(&["-n", NAMESPACE, "get", "pods", "-l", label, "-o", path])
}
