//! Invalid input on a real API server. The API server refuses an invalid object and names the
//! field. For a conflict between objects, the controller sets a condition on the invalid object,
//! and all other objects continue to work.

use crate::pools::{self, pool};
use crate::scenario::{one_node, run_scenario, step};
use crate::services::{self, ADDRESS_ASSIGNED, service};
use crate::{bgp_refusals, refusals};
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::NAMESPACE;
use serde_json::{Value, json};

#[test]
fn the_api_server_names_each_invalid_field() {
    run_scenario(&one_node("refused"), |lab| {
        lab.install_ferrolb()?;
        let pool_in = |namespace: &str| {
            let mut object = pool("elsewhere", &["172.30.0.200"]);
            object["metadata"]["namespace"] = json!(namespace);
            object
        };
        let pool_with = |field: &str, value: Value| {
            let mut object = pool("bad", &["172.30.0.200"]);
            object["spec"][field] = value;
            object
        };
        let cases: [refusals::RefusalCase; 9] = [
            ("an invalid CIDR", pool("bad", &["172.30.0.0/33"]), &["spec.addresses"]),
            ("an invalid address", pool("bad", &["172.30.0.300"]), &["spec.addresses"]),
            ("an invalid second entry", pool("bad", &["172.30.0.200", "lan"]), &["spec.addresses"]),
            (
                "a range of two families",
                pool("bad", &["172.30.0.200-fd30::1"]),
                &["spec.addresses"],
            ),
            ("an empty list of addresses", pool("bad", &[]), &["spec.addresses"]),
            ("addresses is missing", pool_with("addresses", Value::Null), &["spec.addresses"]),
            (
                "an invalid address in excludeAddresses",
                pool_with("excludeAddresses", json!(["172.30.0.300"])),
                &["spec.excludeAddresses"],
            ),
            (
                "autoAssign is a string",
                pool_with("autoAssign", json!("maybe")),
                &["spec.autoAssign"],
            ),
            ("an unknown field", pool_with("adresses", json!(["172.30.0.200"])), &["adresses"]),
        ];
        for (what, object, named) in
            cases.into_iter().chain(refusals::cases()).chain(bgp_refusals::cases())
        {
            step(what, || check_refused(lab, object, named))?;
        }
        step("a pool in another namespace is refused", || {
            // The API server needs a moment to enforce a policy that was just applied.
            wait::until("the API server enforces the policy", pools::STATE_MAX, || {
                let result = check_refused(
                    lab,
                    pool_in("default"),
                    &["ferrolb-system", "instead of default"],
                );
                if lab.kubectl(&["delete", "ipaddresspools", "elsewhere"]).is_ok() {
                    return Ok(None);
                }
                result.map(Some)
            })
        })?;
        step("a pool in the namespace ferrolb-system is accepted", || {
            lab.apply_objects(&[pool_in("ferrolb-system")])
        })?;
        step("BGP objects with all fields that users of MetalLB set are accepted", || {
            lab.apply_objects(&bgp_refusals::accepted())
        })
    });
}

/// Checks that the API server refuses the object, and that the error contains all of `named`.
fn check_refused(lab: &Lab, object: Value, named: &[&str]) -> Result<()> {
    let Err(error) = lab.apply_objects(&[object]) else { anyhow::bail!("the object was accepted") };
    let message = format!("{error:#}");
    ensure!(
        named.iter().all(|word| message.contains(word)),
        "the error does not contain {named:?}: {message}"
    );
    Ok(())
}

#[test]
fn exhausted_invalid_and_overlapping_pools_report_it_and_others_work() {
    run_scenario(&one_node("invalid"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        contradictions(lab)?;
        step("all Services and pools are deleted", || {
            lab.kubectl(&["delete", "service", "web", "next"])?;
            lab.kubectl(&["-n", NAMESPACE, "delete", "ipaddresspools", "--all"]).map(drop)
        })?;
        exhausted(lab)
    });
}

fn contradictions(lab: &Lab) -> Result<()> {
    step("a pool with a descending range is invalid, and its condition names the range", || {
        lab.apply_objects(&[pool("backwards", &["172.30.0.209-172.30.0.200"])])?;
        wait_invalid(lab, "backwards", &["172.30.0.209-172.30.0.200"])
    })?;
    step(
        "an overlapping pool is invalid, and its condition names the other pool and the address",
        || {
            lab.apply_objects(&[pool("lan", &["172.30.0.200-172.30.0.209"])])?;
            pools::wait_valid(lab, "lan", true)?;
            lab.apply_objects(&[pool("overlap", &["172.30.0.205-172.30.0.219"])])?;
            wait_invalid(lab, "overlap", &["lan", "172.30.0.205"])
        },
    )?;
    step("the first pool stays valid and assigns addresses", || {
        pools::wait_valid(lab, "lan", true)?;
        let address = services::serve(lab, "web")?;
        ensure!(address.octets() == [172, 30, 0, 200], "the Service has {address}");
        Ok(())
    })?;
    step("after the corrections, both pools are valid and assign addresses", || {
        lab.apply_objects(&[pool("backwards", &["172.30.0.198-172.30.0.199"])])?;
        lab.apply_objects(&[pool("overlap", &["172.30.0.210-172.30.0.219"])])?;
        pools::wait_valid(lab, "backwards", true)?;
        pools::wait_valid(lab, "overlap", true)?;
        // Pools are used in the order of their names.
        let address = services::serve(lab, "next")?;
        ensure!(address.octets() == [172, 30, 0, 198], "the Service has {address}");
        Ok(())
    })
}

/// Waits until the condition `Valid` of a pool is False, and checks that the condition's message
/// contains all of `named`.
fn wait_invalid(lab: &Lab, name: &str, named: &[&str]) -> Result<()> {
    let condition = pools::wait_valid(lab, name, false)?;
    let complete =
        named.iter().all(|word| condition.message.contains(word)) && !condition.reason.is_empty();
    ensure!(complete, "the message does not contain {named:?}: {condition:?}");
    Ok(())
}

fn exhausted(lab: &Lab) -> Result<()> {
    lab.apply_objects(&[pool("lan", &["172.30.0.200", "fd30::200/127"])])?;
    let first = services::serve(lab, "first")?;
    step("a second Service reports PoolExhausted by condition and Event", || {
        lab.apply_objects(&[service("second", json!({}))])?;
        services::wait_for(lab, "second", "PoolExhausted", |service| {
            let condition = services::condition(service, ADDRESS_ASSIGNED)?;
            let exhausted = condition.status == "False" && condition.reason == "PoolExhausted";
            (exhausted && !condition.message.is_empty()).then_some(())
        })?;
        wait::until("a Warning Event reports it", pools::STATE_MAX, || {
            let events = services::events(lab, "second")?;
            let is_warning = |reason: Option<&str>, kind: Option<&str>| {
                reason == Some("PoolExhausted") && kind == Some("Warning")
            };
            Ok(events
                .iter()
                .any(|event| is_warning(event.reason.as_deref(), event.type_.as_deref()))
                .then_some(()))
        })
    })?;
    step("a Service that needs IPv6 only still gets an address", || {
        lab.apply_objects(&[service("other", json!({"ipFamilies": ["IPv6"]}))])?;
        services::wait_for(lab, "other", "an address", |service| {
            services::addresses(service).first().copied()
        })
    })?;
    step("the first Service is deleted, and the second gets its address and reports it", || {
        services::delete(lab, "first")?;
        let address = services::address(lab, "second")?;
        ensure!(address == first, "the Service has {address}");
        services::wait_for(lab, "second", "AddressAssigned", |service| {
            services::condition(service, ADDRESS_ASSIGNED)
                .filter(|condition| condition.status == "True")
                .map(drop)
        })
    })?;
    step("a waiting Service gets an address from a new pool", || {
        lab.apply_objects(&[service("third", json!({}))])?;
        services::wait_for(lab, "third", "a condition", |service| {
            services::condition(service, ADDRESS_ASSIGNED).map(drop)
        })?;
        lab.apply_objects(&[pool("more", &["172.30.0.201"])])?;
        services::address(lab, "third").map(drop)
    })
}
