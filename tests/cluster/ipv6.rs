//! IPv6 addresses: the same node announces both addresses of a Service, every candidate receives
//! the solicitations, and another node takes over soon after the owner loses power.

use crate::node_failure::{
    PROBE_TIME, check_longest_gap, probe_during, serve_from_other_node, wait_all_forward_to,
};
use crate::scenario::{run_scenario, step};
use crate::services::{self, WEB};
use crate::{pools, segment};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Lab, Options, wait};
use serde_json::json;
use std::net::Ipv6Addr;

const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x200);
/// The solicited-node multicast group of the address (RFC 4291 section 2.7.1).
const GROUP: &str = "ff02::1:ff00:200";

#[test]
fn one_node_announces_both_addresses_also_after_a_failover() {
    run_scenario(&Options::named("ipv6"), |lab| {
        lab.start_ferrolb()?;
        let (v4, owner) = step("a Service is served over IPv4", || serve_from_other_node(lab))?;
        step("the Service gets an IPv6 address and is served over IPv6", || {
            let dual = json!({"spec": {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]}});
            services::patch(lab, "web", &dual)?;
            services::wait_addresses(lab, "web", &[&v4.to_string(), &ADDRESS.to_string()])?;
            wait_all_forward_to(lab, &pod(lab)?, |host| host.v6().into())?;
            wait::until("the client gets the page over IPv6", pools::STATE_MAX, || {
                let page = lab.http_get(CLIENT, services::http(ADDRESS), "/")?;
                ensure!(page.status == 200, "the client gets {page:?}");
                Ok(Some(()))
            })
        })?;
        step("one node announces both addresses", || {
            segment::wait_neighbor_entry(lab, ADDRESS.into(), &owner)
        })?;
        step("the condition names that node for both addresses", || {
            let expect = format!("{v4} and {ADDRESS} from {owner} (eth0)");
            services::wait_announced(lab, "web", "Announced", &expect)
        })?;
        step("every node joins the solicited-node group", || {
            lab.nodes().iter().try_for_each(|node| {
                wait::until(&format!("{node} is in {GROUP}"), pools::STATE_MAX, || {
                    let groups =
                        lab.exec(node, &["ip", "-6", "maddress", "show", "dev", "eth0"])?;
                    Ok(groups.contains(GROUP).then_some(()))
                })
            })
        })?;
        step("the owner loses power", || {
            let off = || lab.power_off(&owner);
            check_longest_gap(&probe_during(
                lab,
                ADDRESS,
                "owner powered off, over IPv6",
                PROBE_TIME,
                off,
            )?)
        })?;
        step("another node owns both addresses", || {
            let now = segment::wait_owner(lab, v4)?;
            ensure!(now != owner, "{owner} is powered off and still owns the address");
            segment::wait_neighbor_entry(lab, ADDRESS.into(), &now)
        })
    });
}

/// Returns the name of the pod that serves the page over IPv4.
fn pod(lab: &Lab) -> Result<String> {
    let page = lab.http_get(CLIENT, services::http([172, 30, 0, 200]), "/")?;
    page.body
        .split_whitespace()
        .next()
        .map(str::to_owned)
        .with_context(|| format!("the page {:?} names no pod with the label {WEB:?}", page.body))
}
