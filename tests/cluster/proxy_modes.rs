//! kube-proxy modes that this kernel supports: the page is served, and the rules of that mode serve
//! it.

use crate::scenario::{run_scenario, step};
use crate::services::{self, http};
use crate::{pools, segment};
use anyhow::ensure;
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Options, wait};

#[test]
fn the_page_is_served_with_kube_proxy_in_nftables_mode() {
    served_in_mode("nftables", &["nft", "list", "ruleset"]);
}

#[test]
fn the_page_is_served_with_kube_proxy_in_iptables_mode() {
    served_in_mode("iptables", &["iptables-save"]);
}

/// Serves a page and looks for its address in the output of `rules`.
fn served_in_mode(mode: &str, rules: &[&str]) {
    let options = Options { proxy_mode: Some(mode.to_owned()), ..Options::named(mode) };
    run_scenario(&options, |lab| {
        lab.start_ferrolb()?;
        services::apply_pool_and_pod(lab, "node3")?;
        let address = services::serve(lab, "web")?;
        let owner = step("one node answers", || segment::wait_owner(lab, address))?;
        step("the client gets the page", || {
            wait::until("the page", pools::STATE_MAX, || {
                let page = lab.http_get(CLIENT, http(address), "/")?;
                ensure!(page.body.starts_with("web"), "{:?}", page.body);
                Ok(Some(()))
            })
        })?;
        step("the owner's kernel has the rules of this mode", || {
            let said = lab.exec(&owner, rules)?;
            ensure!(
                said.contains(&address.to_string()),
                "{rules:?} does not name {address}:\n{said}"
            );
            Ok(())
        })
    });
}
