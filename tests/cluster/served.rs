//! The main feature: a Service gets its addresses, its condition reports them, and the client on
//! the segment gets its page.

use crate::scenario::{run_scenario, step};
use crate::services::{self, ADDRESS_ASSIGNED, WEB};
use crate::{pools, segment};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::apply;
use ferrolb_lab::topology::{CLIENT, Host};
use ferrolb_lab::traffic::page::Page;
use ferrolb_lab::traffic::probe::Transport;
use ferrolb_lab::{Lab, Options, Signal, setup, wait};
use serde_json::{Value, json};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Time for which the client waits for the reply to a datagram.
const DATAGRAM_TIMEOUT: Duration = Duration::from_millis(200);

#[test]
fn every_example_service_is_served_to_the_client() {
    run_scenario(&Options::named("examples"), |lab| {
        lab.start_ferrolb()?;
        let objects = step("every example file is applied unchanged", || apply_examples(lab))?;
        let is_load_balancer = |object: &&Value| {
            apply::kind(object) == "Service" && object["spec"]["type"] == "LoadBalancer"
        };
        let services: Vec<&Value> = objects.iter().filter(is_load_balancer).collect();
        ensure!(!services.is_empty(), "no example has a LoadBalancer Service");
        for (index, service) in services.into_iter().enumerate() {
            step("an example Service gets its addresses, and its pod replies", || {
                serve_example(lab, service, &lab.nodes()[index % lab.nodes().len()])
            })?;
        }
        Ok(())
    });
}

/// Applies the files of `examples/` in the order of their names, and returns their objects.
fn apply_examples(lab: &Lab) -> Result<Vec<Value>> {
    let mut files: Vec<_> = fs::read_dir(setup::repository().join("examples"))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut objects = Vec::new();
    for file in files {
        lab.apply_file(&file)?;
        objects.extend(apply::objects(&fs::read_to_string(&file)?)?);
    }
    Ok(objects)
}

/// Runs a pod that the Service of an example selects, and sends a request to each address of the
/// Service, with the protocol of the first port.
fn serve_example(lab: &Lab, service: &Value, node: &str) -> Result<()> {
    let name = service["metadata"]["name"].as_str().context("the Service has no name")?;
    let selector =
        service["spec"]["selector"].as_object().context("the Service has no selector")?;
    let labels: Vec<(&str, &str)> =
        selector.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect();
    let port = &service["spec"]["ports"][0];
    let number = port["port"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
        .context("the Service has no port")?;
    lab.pod(&format!("example-{name}"), node, &labels)?;
    let families = if service["spec"]["ipFamilyPolicy"].is_string() { 2 } else { 1 };
    let addresses = services::wait_for(lab, name, &format!("{families} addresses"), |service| {
        Some(services::addresses(service)).filter(|addresses| addresses.len() == families)
    })?;
    for address in addresses {
        // Several examples select the same pods, so any of them may reply.
        if port["protocol"] == "UDP" {
            wait_udp_reply(lab, (address, number).into(), "example-")?;
            continue;
        }
        let page = wait_page(lab, (address, number).into(), "example-")?;
        if service["spec"]["externalTrafficPolicy"] == "Local" {
            let client = if address.is_ipv4() {
                Host::client().v4().to_string()
            } else {
                Host::client().v6().to_string()
            };
            ensure!(
                page.body.trim().ends_with(&client),
                "the pod did not see the client address {client}: {:?}",
                page.body
            );
        }
    }
    Ok(())
}

/// Waits until a pod whose name has this prefix replies to the client's datagram.
fn wait_udp_reply(lab: &Lab, server: SocketAddr, pod: &str) -> Result<()> {
    wait::until(&format!("a pod with the prefix {pod} replies over UDP"), pools::STATE_MAX, || {
        let report = lab
            .start_probe_over(Transport::Udp, server, DATAGRAM_TIMEOUT, DATAGRAM_TIMEOUT)
            .finish()?;
        ensure!(
            report.pods.keys().any(|name| name.starts_with(pod)),
            "no such pod replied: {report:?}"
        );
        Ok(Some(()))
    })
}

/// Waits until the client gets the page of a pod whose name has this prefix.
pub(crate) fn wait_page(lab: &Lab, server: SocketAddr, pod: &str) -> Result<Page> {
    wait::until(
        &format!("the client gets the page of a pod with the prefix {pod}"),
        pools::STATE_MAX,
        || {
            let page = lab.http_get(CLIENT, server, "/")?;
            ensure!(page.status == 200 && page.body.starts_with(pod), "the client gets {page:?}");
            Ok(Some(page))
        },
    )
}

#[test]
fn a_dual_stack_service_gets_and_reports_both_addresses() {
    run_scenario(&Options::named("dualstack"), |lab| {
        lab.start_ferrolb()?;
        lab.pod("web", "node2", &WEB)?;
        let dual = json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]});
        lab.apply_objects(&[
            pools::pool("lan", &["172.30.0.200/30", "fd30::200-fd30::201"]),
            pools::advertisement(),
        ])?;
        // Without a valid pool, the first Event about the Service could correctly report that there
        // is no pool.
        pools::wait_valid(lab, "lan", true)?;
        lab.apply_objects(&[services::service("web", dual)])?;
        let expect: [IpAddr; 2] = [[172, 30, 0, 200].into(), "fd30::200".parse()?];
        step("the Service gets the lowest address of each family, with ipMode VIP", || {
            check_addresses(lab, &expect)
        })?;
        step("the condition and exactly one Event report the addresses", || {
            check_reported_once(lab, &expect)
        })?;
        step("the pool is valid, and its status counts assigned and available addresses", || {
            pools::wait_valid(lab, "lan", true)?;
            pools::wait_for(lab, "lan", "the expected counts", |pool| {
                let status = pool.status.as_ref()?;
                let counts = (
                    status.assigned_ipv4,
                    status.available_ipv4,
                    status.assigned_ipv6,
                    status.available_ipv6,
                );
                (counts == (1, Some(3), 1, Some(1))).then_some(())
            })
        })?;
        step("the client gets the page over IPv4", || {
            wait_page(lab, ([172, 30, 0, 200], 80).into(), "web").map(drop)
        })?;
        step("the client's neighbor entry is the owner", || {
            let owner = segment::owner(lab, [172, 30, 0, 200])?;
            let kernel = lab.owner_of([172, 30, 0, 200].into())?;
            ensure!(
                kernel.as_deref() == Some(owner.as_str()),
                "the client's neighbor entry is {kernel:?}, not {owner}"
            );
            Ok(())
        })?;
        step(
            "an invalid pool keeps assigned addresses announced, also by restarted speakers",
            || check_invalid_pool(lab, &expect),
        )
    });
}

/// Waits until the Service has these addresses, and checks that their ipMode is VIP.
fn check_addresses(lab: &Lab, expect: &[IpAddr; 2]) -> Result<()> {
    let service = services::wait_for(lab, "web", "both addresses", |service| {
        (services::addresses(service) == expect).then(|| service.clone())
    })?;
    let balancer = service.status.and_then(|status| status.load_balancer);
    let modes: Vec<_> = balancer
        .and_then(|balancer| balancer.ingress)
        .unwrap_or_default()
        .into_iter()
        .map(|i| i.ip_mode)
        .collect();
    ensure!(modes == [Some("VIP".to_owned()), Some("VIP".to_owned())], "the modes are {modes:?}");
    Ok(())
}

/// Makes the pool invalid, restarts all speakers, and checks that the Service keeps its addresses
/// and the client gets the page.
fn check_invalid_pool(lab: &Lab, expect: &[IpAddr; 2]) -> Result<()> {
    lab.apply_objects(&[pools::pool("lan", &["172.30.0.209-172.30.0.200"])])?;
    pools::wait_valid(lab, "lan", false)?;
    for node in lab.nodes() {
        lab.stop(&format!("speaker-{node}"), Signal::KILL)?;
        lab.restart(&format!("speaker-{node}"))?;
    }
    wait_page(lab, ([172, 30, 0, 200], 80).into(), "web")?;
    let service = services::get(lab, "web")?;
    ensure!(
        services::addresses(&service) == expect,
        "the Service has the addresses {:?}",
        services::addresses(&service)
    );
    Ok(())
}

/// Waits until the condition names the addresses, and checks that exactly one Event names them.
fn check_reported_once(lab: &Lab, addresses: &[IpAddr]) -> Result<()> {
    services::wait_for(lab, "web", "AddressAssigned", |service| {
        let condition = services::condition(service, ADDRESS_ASSIGNED)?;
        let names = |address: &IpAddr| condition.message.contains(&address.to_string());
        let reported = condition.status == "True"
            && condition.reason == "Assigned"
            && addresses.iter().all(names);
        reported.then_some(())
    })?;
    let events = wait::until("an Event reports the assignment", pools::STATE_MAX, || {
        let events = services::events(lab, "web")?;
        Ok((!events.is_empty()).then_some(events))
    })?;
    let [event] = events.as_slice() else {
        anyhow::bail!("there are {} Events instead of one: {events:#?}", events.len())
    };
    let note = event.note.clone().unwrap_or_default();
    ensure!(event.series.is_none(), "the Event was repeated: {event:#?}");
    ensure!(
        addresses.iter().all(|address| note.contains(&address.to_string())),
        "the Event's note is {note:?}"
    );
    Ok(())
}
