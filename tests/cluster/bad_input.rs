//! Wrong input on a real API server. It refuses a wrong object and names the field. A contradiction
//! between objects sets a condition on the wrong one, and all others continue to work.

use crate::pools::{self, pool};
use crate::scenario::{one_node, run_scenario, step};
use crate::services::{self, ADDRESS_ASSIGNED, service};
use crate::{bgp_refusals, refusals};
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, wait};
use serde_json::{Value, json};

#[test]
fn invalid_fields_are_refused_by_name() {
    run_scenario(&one_node("refused"), |lab| {
        lab.install_ferrolb()?;
        let elsewhere = |namespace: &str| {
            let mut object = pool("elsewhere", &["172.30.0.200"]);
            object["metadata"]["namespace"] = json!(namespace);
            object
        };
        let with = |field: &str, value: Value| {
            let mut object = pool("bad", &["172.30.0.200"]);
            object["spec"][field] = value;
            object
        };
        let cases: [refusals::RefusalCase; 9] = [
            ("a bad CIDR", pool("bad", &["172.30.0.0/33"]), &["spec.addresses"]),
            ("a bad address", pool("bad", &["172.30.0.300"]), &["spec.addresses"]),
            ("one bad entry of two", pool("bad", &["172.30.0.200", "lan"]), &["spec.addresses"]),
            (
                "a range of two families",
                pool("bad", &["172.30.0.200-fd30::1"]),
                &["spec.addresses"],
            ),
            ("no addresses", pool("bad", &[]), &["spec.addresses"]),
            ("addresses left out", with("addresses", Value::Null), &["spec.addresses"]),
            (
                "a bad exclusion",
                with("excludeAddresses", json!(["172.30.0.300"])),
                &["spec.excludeAddresses"],
            ),
            ("a word for a switch", with("autoAssign", json!("maybe")), &["spec.autoAssign"]),
            ("an unknown field", with("adresses", json!(["172.30.0.200"])), &["adresses"]),
        ];
        for (what, object, named) in
            cases.into_iter().chain(refusals::cases()).chain(bgp_refusals::cases())
        {
            step(what, || refused(lab, object, named))?;
        }
        step("a pool in another namespace is refused", || {
            // The API server needs a moment to enforce a policy that was just applied.
            wait::until("the policy is in force", pools::STATE_MAX, || {
                let refused =
                    refused(lab, elsewhere("default"), &["ferrolb-system", "instead of default"]);
                if lab.kubectl(&["delete", "ipaddresspools", "elsewhere"]).is_ok() {
                    return Ok(None);
                }
                refused.map(Some)
            })
        })?;
        step("a pool in our namespace is taken", || {
            lab.apply_objects(&[elsewhere("ferrolb-system")])
        })?;
        step("objects of BGP as MetalLB's users have them are taken", || {
            lab.apply_objects(&bgp_refusals::accepted())
        })
    });
}

/// Checks that the API server refuses the object, and that the error contains all of `named`.
fn refused(lab: &Lab, object: Value, named: &[&str]) -> Result<()> {
    let Err(error) = lab.apply_objects(&[object]) else { anyhow::bail!("the object was accepted") };
    let said = format!("{error:#}");
    ensure!(
        named.iter().all(|word| said.contains(word)),
        "the error does not contain {named:?}: {said}"
    );
    Ok(())
}

#[test]
fn an_invalid_or_overlapping_pool_reports_it_and_the_others_serve() {
    run_scenario(&one_node("contradiction"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        step("a range that runs backwards is invalid, and named", || {
            lab.apply_objects(&[pool("backwards", &["172.30.0.209-172.30.0.200"])])?;
            reports(lab, "backwards", &["172.30.0.209-172.30.0.200"])
        })?;
        step("a second pool with addresses of the first is invalid, and both are named", || {
            lab.apply_objects(&[pool("lan", &["172.30.0.200-172.30.0.209"])])?;
            pools::wait_valid(lab, "lan", true)?;
            lab.apply_objects(&[pool("overlap", &["172.30.0.205-172.30.0.219"])])?;
            reports(lab, "overlap", &["lan", "172.30.0.205"])
        })?;
        step("the first stays valid and serves", || {
            pools::wait_valid(lab, "lan", true)?;
            let given = services::serve(lab, "web")?;
            ensure!(given.octets() == [172, 30, 0, 200], "the Service has {given}");
            Ok(())
        })?;
        step("put right, both are valid and serve", || {
            lab.apply_objects(&[pool("backwards", &["172.30.0.198-172.30.0.199"])])?;
            lab.apply_objects(&[pool("overlap", &["172.30.0.210-172.30.0.219"])])?;
            pools::wait_valid(lab, "backwards", true)?;
            pools::wait_valid(lab, "overlap", true)?;
            // Pools are used in the order of their names.
            let given = services::serve(lab, "next")?;
            ensure!(given.octets() == [172, 30, 0, 198], "the Service has {given}");
            Ok(())
        })
    });
}

/// Checks that the pool is invalid, and that its message contains all of `named`.
fn reports(lab: &Lab, name: &str, named: &[&str]) -> Result<()> {
    let condition = pools::wait_valid(lab, name, false)?;
    let told =
        named.iter().all(|word| condition.message.contains(word)) && !condition.reason.is_empty();
    ensure!(told, "the message does not contain {named:?}: {condition:?}");
    Ok(())
}

#[test]
fn a_service_reports_exhausted_pools_and_gets_the_next_free_address() {
    run_scenario(&one_node("exhausted"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        lab.apply_objects(&[pool("lan", &["172.30.0.200", "fd30::200/127"])])?;
        let first = services::serve(lab, "first")?;
        step("the second one says that there is nothing left, by condition and event", || {
            lab.apply_objects(&[service("second", json!({}))])?;
            services::wait_for(lab, "second", "PoolExhausted", |service| {
                let condition = services::condition(service, ADDRESS_ASSIGNED)?;
                let told = condition.status == "False" && condition.reason == "PoolExhausted";
                (told && !condition.message.is_empty()).then_some(())
            })?;
            wait::until("an event", pools::STATE_MAX, || {
                let events = services::events(lab, "second")?;
                let told = |reason: Option<&str>, kind: Option<&str>| {
                    reason == Some("PoolExhausted") && kind == Some("Warning")
                };
                Ok(events
                    .iter()
                    .any(|event| told(event.reason.as_deref(), event.type_.as_deref()))
                    .then_some(()))
            })
        })?;
        step("one that wants IPv6 is served all the same", || {
            lab.apply_objects(&[service("other", json!({"ipFamilies": ["IPv6"]}))])?;
            services::wait_for(lab, "other", "an address", |service| {
                services::addresses(service).first().copied()
            })
        })?;
        step("as soon as the first one goes, the second has its address and says so", || {
            services::delete(lab, "first")?;
            let given = services::address(lab, "second")?;
            ensure!(given == first, "the Service has {given}");
            services::wait_for(lab, "second", "AddressAssigned", |service| {
                services::condition(service, ADDRESS_ASSIGNED)
                    .filter(|condition| condition.status == "True")
                    .map(drop)
            })
        })?;
        step("a new pool serves one that waits, too", || {
            lab.apply_objects(&[service("third", json!({}))])?;
            services::wait_for(lab, "third", "a condition", |service| {
                services::condition(service, ADDRESS_ASSIGNED).map(drop)
            })?;
            lab.apply_objects(&[pool("more", &["172.30.0.201"])])?;
            services::address(lab, "third").map(drop)
        })
    });
}
