//! New addresses that a foreign host already has, in both families: no node claims one, replies for
//! it or announces it, although the nodes learn of each Service at different times.

use crate::frame_log::{self, FrameLog};
use crate::pools::{self, pool};
use crate::scenario::{print_measured, run_scenario, step};
use crate::services::{self, service};
use anyhow::{Result, ensure};
use ferrolb_lab::topology::{CONTROL_PLANE, node_index};
use ferrolb_lab::{Lab, Options, wait};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Number of addresses of each family, and of Services.
const COUNT: u16 = 200;
/// Parts of the pool: those addresses of the nodes' subnet that no host of the lab has.
const RANGES: [&str; 3] =
    ["172.30.0.30-172.30.0.98", "172.30.0.120-172.30.0.250", "fd30::1:0-fd30::1:c7"];
/// Preempt delay (`--failback-delay`) of this test. After it, nodes take addresses by order.
const PREEMPT_DELAY: &str = "1s";
/// Pause between two Services, so that the nodes receive each one separately.
const PAUSE: Duration = Duration::from_millis(50);
/// Time after the last Service in which a node that ignores the host would announce its address:
/// a speaker withholds a new address for 1.5 s at most.
const SETTLED: Duration = Duration::from_secs(3);

#[test]
fn no_node_announces_a_new_address_that_a_foreign_host_has() {
    run_scenario(&Options::named("inuse"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        for node in lab.nodes() {
            lab.start_speaker(&node, &["--failback-delay", PREEMPT_DELAY])?;
        }
        step("another Service is served, so all programs have started", || {
            lab.apply_objects(&[pool("first", &["172.30.0.251/32"]), pools::advertisement()])?;
            lab.pod("web", "node1", &services::WEB)?;
            services::serve(lab, "web")?;
            services::wait_announced(lab, "web", "Announced", "")
        })?;
        let keys = frame_log::keys(lab)?;
        lab.apply_objects(&[pool("used", &RANGES)])?;
        step("the control plane's host gets all addresses of the pool", || {
            let commands: String = addresses()
                .map(|address| {
                    let (length, rest) = if address.is_ipv4() { (32, "") } else { (128, " nodad") };
                    format!("ip address add {address}/{length} dev eth0{rest}\n")
                })
                .collect();
            lab.exec(CONTROL_PLANE, &["sh", "-ec", &commands])
        })?;
        let ((), frames) = step("Services get these addresses", || {
            FrameLog::of(lab, &keys, || {
                (0..usize::from(COUNT)).try_for_each(|number| create(lab, number))?;
                wait::during(SETTLED, || Ok(()))
            })
        })?;
        step("no node has announced or claimed one", || check(lab, &frames))?;
        step("the condition of a Service names the conflict", || {
            services::wait_announced(lab, "used0", "AddressConflict", "").map(drop)
        })
    });
}

fn addresses() -> impl Iterator<Item = IpAddr> {
    let v4 = (30..=98).chain(120..=250).map(|last| Ipv4Addr::new(172, 30, 0, last).into());
    v4.chain((0..COUNT).map(|last| Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 1, last).into()))
}

/// Creates a Service that requests an address of each family. Without a request, it would get
/// another one.
fn create(lab: &Lab, number: usize) -> Result<()> {
    let mut service =
        service(&format!("used{number}"), json!({"ipFamilyPolicy": "RequireDualStack"}));
    let of_family = |is_ipv4| addresses().filter(move |it| it.is_ipv4() == is_ipv4).nth(number);
    let requested: Vec<_> = [of_family(true), of_family(false)].into_iter().flatten().collect();
    let requested = requested.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    service["metadata"]["annotations"] = json!({"ferrolb.io/loadBalancerIPs": requested});
    lab.apply_objects(&[service])?;
    wait::during(PAUSE, || Ok(()))
}

fn check(lab: &Lab, frames: &FrameLog) -> Result<()> {
    let results = [("IPv4", true), ("IPv6", false)].map(|(name, is_ipv4)| {
        let family: Vec<_> = addresses().filter(|it| it.is_ipv4() == is_ipv4).collect();
        let by_node = |address: &&IpAddr| {
            let all = frames.announcements_and_replies(lab, **address);
            all.iter().any(|frame| node_index(&frame.host).is_some())
        };
        let announced = family.iter().filter(by_node).count();
        let claimed = family.iter().filter(|it| !frames.claims(**it).is_empty()).count();
        print_measured(&format!(
            "{name} addresses of a foreign host: {announced} of {} announced, {claimed} claimed",
            family.len()
        ));
        (announced, claimed)
    });
    ensure!(results == [(0, 0); 2], "nodes used addresses of a foreign host");
    Ok(())
}
