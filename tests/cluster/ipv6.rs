//! An IPv6 address is answered for as an IPv4 one is: by the same node, heard by all that may have to, and by another one soon after
//! that loses power.

use crate::node_death::{PROBE_LENGTH, all_forward_to, probed, serve_elsewhere, within_budget};
use crate::services::{self, WEB};
use crate::stage::{play, step};
use crate::{client_wire, pools};
use anyhow::{Context, Result, ensure};
use ferrolb_tests::topology::CLIENT;
use ferrolb_tests::{Lab, Options, wait};
use serde_json::json;
use std::net::Ipv6Addr;

const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x200);
/// The group that questions for it are sent to (RFC 4291 section 2.7.1).
const GROUP: &str = "ff02::1:ff00:200";

#[test]
fn both_addresses_of_a_service_are_answered_for_by_one_node_and_by_another_when_it_loses_power() {
    play(&Options::named("ipv6"), |lab| {
        lab.start_ferrolb()?;
        let (v4, owner) = step("a Service is served over IPv4", || serve_elsewhere(lab))?;
        step("it gets an IPv6 address, too, and its page is served there", || {
            let dual = json!({"spec": {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]}});
            services::patch(lab, "web", &dual)?;
            services::wait_addresses(lab, "web", &[&v4.to_string(), &ADDRESS.to_string()])?;
            all_forward_to(lab, &pod(lab)?, |host| host.v6().into())?;
            wait::until("the page over IPv6", pools::BRINGING_MAX, || {
                let page = lab.http_get(CLIENT, services::http(ADDRESS), "/")?;
                ensure!(page.status == 200, "{page:?}");
                Ok(Some(()))
            })
        })?;
        step("one node answers for both", || client_wire::wait_known(lab, ADDRESS.into(), &owner))?;
        step("its condition names that node for both", || {
            let expect = format!("{v4} and {ADDRESS} from {owner} (eth0)");
            services::wait_announced(lab, "web", "Announced", &expect)
        })?;
        step("every node hears the questions for it", || {
            lab.nodes().iter().try_for_each(|node| {
                wait::until(&format!("{node} is in {GROUP}"), pools::BRINGING_MAX, || {
                    let groups = lab.exec(node, &["ip", "-6", "maddress", "show", "dev", "eth0"])?;
                    Ok(groups.contains(GROUP).then_some(()))
                })
            })
        })?;
        step("the owner loses power", || {
            let off = || lab.power_off(&owner);
            within_budget(&probed(lab, ADDRESS, "owner powered off, over IPv6", PROBE_LENGTH, off)?)
        })?;
        step("another node is the one owner of both", || {
            let now = client_wire::wait_owner(lab, v4)?;
            ensure!(now != owner, "{owner} is off and answers");
            client_wire::wait_known(lab, ADDRESS.into(), &now)
        })
    });
}

/// The one pod that the page is served from.
fn pod(lab: &Lab) -> Result<String> {
    let page = lab.http_get(CLIENT, services::http([172, 30, 0, 200]), "/")?;
    page.body.split_whitespace().next().map(str::to_owned).with_context(|| format!("{:?} of {WEB:?}", page.body))
}
