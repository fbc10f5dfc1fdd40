//! kube-proxy in iptables and nftables mode: a Service is served by the rules of that mode.

use crate::scenario::{run_scenario, step};
use crate::services::{self, http};
use crate::{pools, segment};
use anyhow::ensure;
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Options, wait};

#[test]
fn a_service_is_served_with_kube_proxy_in_nftables_mode() {
    check_mode("nftables", &["nft", "list", "ruleset"]);
}

#[test]
fn a_service_is_served_with_kube_proxy_in_iptables_mode() {
    check_mode("iptables", &["iptables-save"]);
}

/// Checks that a Service is served with this kube-proxy mode, and that the command `rules`, which
/// prints the kernel's rules of that mode, prints the Service's address.
fn check_mode(mode: &str, rules: &[&str]) {
    let options = Options { proxy_mode: Some(mode.to_owned()), ..Options::named(mode) };
    run_scenario(&options, |lab| {
        lab.start_ferrolb()?;
        services::apply_pool_and_pod(lab, "node3")?;
        let address = services::serve(lab, "web")?;
        let owner = step("one node announces the address", || segment::wait_owner(lab, address))?;
        step("the client gets the page", || {
            wait::until("the client gets the page of the Service", pools::STATE_MAX, || {
                let page = lab.http_get(CLIENT, http(address), "/")?;
                ensure!(page.body.starts_with("web"), "the page is {:?}", page.body);
                Ok(Some(()))
            })
        })?;
        step("the owner's kernel has the rules of this mode", || {
            let output = lab.exec(&owner, rules)?;
            ensure!(
                output.contains(&address.to_string()),
                "{rules:?} does not name {address}:\n{output}"
            );
            Ok(())
        })
    });
}
