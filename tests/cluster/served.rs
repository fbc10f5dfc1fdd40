//! The feature itself: a Service gets its addresses, says so, and its page reaches the client over the wire.

use crate::services::{self, ADDRESS_ASSIGNED, WEB};
use crate::stage::{play, step};
use crate::{client_wire, pools};
use anyhow::{Context, Result, ensure};
use ferrolb_tests::cluster::apply;
use ferrolb_tests::topology::{CLIENT, Host};
use ferrolb_tests::traffic::page::Page;
use ferrolb_tests::traffic::probe::Transport;
use ferrolb_tests::{Lab, Options, Signal, setup, wait};
use serde_json::{Value, json};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long one datagram is waited for.
const ASKED: Duration = Duration::from_millis(200);

#[test]
fn every_example_works_as_it_is_and_its_page_reaches_the_client() {
    play(&Options::named("examples"), |lab| {
        lab.start_ferrolb()?;
        let objects = step("every example file is applied as it is", || examples(lab))?;
        let balanced = |object: &&Value| apply::kind(object) == "Service" && object["spec"]["type"] == "LoadBalancer";
        let services: Vec<&Value> = objects.iter().filter(balanced).collect();
        ensure!(!services.is_empty(), "no example has a LoadBalancer Service");
        for (index, service) in services.into_iter().enumerate() {
            step("its pods are there, it has an address, and its page is served", || {
                serve_example(lab, service, &lab.nodes()[index % lab.nodes().len()])
            })?;
        }
        Ok(())
    });
}

/// Applies the files of `examples/`, by name; their objects.
fn examples(lab: &Lab) -> Result<Vec<Value>> {
    let mut files: Vec<_> =
        fs::read_dir(setup::repository().join("examples"))?.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut objects = Vec::new();
    for file in files {
        lab.apply_file(&file)?;
        objects.extend(apply::objects(&fs::read_to_string(&file)?)?);
    }
    Ok(objects)
}

/// Runs a pod that an example's Service selects, and asks it at each address of the Service, by the protocol of its first port.
fn serve_example(lab: &Lab, service: &Value, node: &str) -> Result<()> {
    let name = service["metadata"]["name"].as_str().context("a name")?;
    let selector = service["spec"]["selector"].as_object().context("a selector")?;
    let labels: Vec<(&str, &str)> =
        selector.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect();
    let port = &service["spec"]["ports"][0];
    let number = port["port"].as_u64().and_then(|port| u16::try_from(port).ok()).context("a port")?;
    lab.pod(&format!("example-{name}"), node, &labels)?;
    let families = if service["spec"]["ipFamilyPolicy"].is_string() { 2 } else { 1 };
    let addresses = services::wait_for(lab, name, &format!("{families} addresses"), |service| {
        Some(services::addresses(service)).filter(|addresses| addresses.len() == families)
    })?;
    for address in addresses {
        // Several examples select the same pods, so any of them may answer.
        if port["protocol"] == "UDP" {
            datagram(lab, (address, number).into(), "example-")?;
            continue;
        }
        let page = page(lab, (address, number).into(), "example-")?;
        if service["spec"]["externalTrafficPolicy"] == "Local" {
            let client =
                if address.is_ipv4() { Host::client().v4().to_string() } else { Host::client().v6().to_string() };
            ensure!(page.body.trim().ends_with(&client), "the pod saw another address than {client}: {:?}", page.body);
        }
    }
    Ok(())
}

/// Waits until a datagram of the client is answered by a pod whose name begins so.
fn datagram(lab: &Lab, server: SocketAddr, pod: &str) -> Result<()> {
    wait::until(&format!("an answer of {pod}"), pools::BRINGING_MAX, || {
        let asked = lab.start_probe_by(Transport::Udp, server, ASKED, ASKED).finish()?;
        ensure!(asked.pods.keys().any(|name| name.starts_with(pod)), "{asked:?}");
        Ok(Some(()))
    })
}

/// Waits until the client gets the page of a pod whose name begins so.
fn page(lab: &Lab, server: SocketAddr, pod: &str) -> Result<Page> {
    wait::until(&format!("the page of {pod}"), pools::BRINGING_MAX, || {
        let page = lab.http_get(CLIENT, server, "/")?;
        ensure!(page.status == 200 && page.body.starts_with(pod), "{page:?}");
        Ok(Some(page))
    })
}

#[test]
fn a_dual_stack_service_gets_both_addresses_and_says_so_and_the_pool_counts_them() {
    play(&Options::named("dualstack"), |lab| {
        lab.start_ferrolb()?;
        lab.pod("web", "node2", &WEB)?;
        let dual = json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]});
        lab.apply_objects(&[pools::pool("lan", &["172.30.0.200/30", "fd30::200-fd30::201"]), pools::advertisement()])?;
        // Known before the Service: else an event could rightly say first that there is no pool.
        pools::wait_valid(lab, "lan", true)?;
        lab.apply_objects(&[services::service("web", dual)])?;
        let expect: [IpAddr; 2] = [[172, 30, 0, 200].into(), "fd30::200".parse()?];
        step("it gets the lowest address of each family, as VIP", || {
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
        })?;
        step("its condition says so, and one event", || told_once(lab, &expect))?;
        step("the pool is valid and counts what it gave and what is left", || {
            pools::wait_valid(lab, "lan", true)?;
            pools::wait_for(lab, "lan", "its counts", |pool| {
                let status = pool.status.as_ref()?;
                let counts = (status.assigned_ipv4, status.available_ipv4, status.assigned_ipv6, status.available_ipv6);
                (counts == (1, Some(3), 1, Some(1))).then_some(())
            })
        })?;
        step("the client gets the page over IPv4", || page(lab, ([172, 30, 0, 200], 80).into(), "web").map(drop))?;
        step("the kernel and FerroLB agree on who has it", || {
            let owner = client_wire::owner(lab, [172, 30, 0, 200])?;
            let kernel = lab.who_answers([172, 30, 0, 200].into())?;
            ensure!(kernel.as_deref() == Some(owner.as_str()), "the client's kernel heard {kernel:?}, not {owner}");
            Ok(())
        })?;
        step(
            "a slip in the pool takes it off neither the Service nor the wire, also of speakers that start after it",
            || {
                lab.apply_objects(&[pools::pool("lan", &["172.30.0.209-172.30.0.200"])])?;
                pools::wait_valid(lab, "lan", false)?;
                for node in lab.nodes() {
                    lab.stop(&format!("speaker-{node}"), Signal::KILL)?;
                    lab.restart(&format!("speaker-{node}"))?;
                }
                page(lab, ([172, 30, 0, 200], 80).into(), "web")?;
                let service = services::get(lab, "web")?;
                ensure!(
                    services::addresses(&service) == expect,
                    "its addresses are {:?}",
                    services::addresses(&service)
                );
                Ok(())
            },
        )
    });
}

/// The condition names the addresses, and exactly one event was written of them.
fn told_once(lab: &Lab, addresses: &[IpAddr]) -> Result<()> {
    services::wait_for(lab, "web", "AddressAssigned", |service| {
        let condition = services::condition(service, ADDRESS_ASSIGNED)?;
        let names = |address: &IpAddr| condition.message.contains(&address.to_string());
        let told = condition.status == "True" && condition.reason == "Assigned" && addresses.iter().all(names);
        told.then_some(())
    })?;
    let events = wait::until("an event", pools::BRINGING_MAX, || {
        let events = services::events(lab, "web")?;
        Ok((!events.is_empty()).then_some(events))
    })?;
    let [event] = events.as_slice() else { anyhow::bail!("{} events: {events:#?}", events.len()) };
    let note = event.note.clone().unwrap_or_default();
    ensure!(event.series.is_none(), "it was repeated: {event:#?}");
    ensure!(addresses.iter().all(|address| note.contains(&address.to_string())), "the event says {note:?}");
    Ok(())
}

#[test]
fn a_service_without_node_ports_serves_its_page_to_the_client() {
    play(&Options::named("nonodeports"), |lab| {
        lab.start_ferrolb()?;
        services::furnish(lab, "node1")?;
        lab.apply_objects(&[services::service("web", json!({"allocateLoadBalancerNodePorts": false}))])?;
        let address = services::address(lab, "web")?;
        step("it has no node port", || {
            let ports = services::get(lab, "web")?.spec.and_then(|spec| spec.ports).unwrap_or_default();
            ensure!(ports.len() == 1 && ports[0].node_port.is_none(), "{ports:?}");
            Ok(())
        })?;
        step("the client gets its page", || page(lab, (address, 80).into(), "web").map(drop))?;
        step("from one owner", || client_wire::owner(lab, address).map(drop))
    });
}
