//! Pods that stay ready and do not answer: the annotation `ferrolb.io/health-check` moves the address of a Service with policy Local away from
//! them, says so, never takes it off the wire, and comes to no harm by servers of any manners. Whether kube-proxy works is known in this lab by
//! the node port of that Service alone.

use crate::client_wire;
use crate::one_family_fails;
use crate::pools;
use crate::proxy_outages::{GONE_MAX, GONE_MIN};
use crate::services::{self, WEB, http, wait_announced};
use crate::speakers::{taken, wait_data_path, wait_for};
use crate::stage::{measured, play, step};
use crate::under_load::{stays, unharmed, wait_moved, watched};
use anyhow::{Context, Result, ensure};
use ferrolb_proto::api::{DataPathState, FailingService};
use ferrolb_tests::cluster::ferrolb::speaker_name;
use ferrolb_tests::cluster::nodes::proxy_name;
use ferrolb_tests::cluster::pods::process_name;
use ferrolb_tests::topology::{CLIENT, POD_PORT};
use ferrolb_tests::{Lab, Options, Signal, wait};
use serde_json::{Value, json};
use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Where no kube-proxy listens, so that a Service's own node port is the only one that speaks for it.
const NOBODY: &str = "127.0.0.1:9";
pub(crate) const CHECK: &str = "ferrolb.io/health-check";
/// With defaults a dead endpoint is found after two failures a second apart, and its address moves at once. Three times as much on a busy
/// machine; what it is here is printed.
pub(crate) const MOVED_MAX: Duration = Duration::from_secs(3 * 4);
/// How long is looked that nothing moves.
const SETTLED: Duration = Duration::from_secs(3);
/// How often a target fails and passes again while it flaps, and how long each lasts: less than it takes to be believed again.
const FLAPS: usize = 5;
const FLAP: Duration = Duration::from_millis(700);
/// How much a speaker may hold more, in kB, after it has asked servers of bad manners.
const GROWTH_MAX: u64 = 4096;
/// How long they are asked.
const ASKED: Duration = Duration::from_secs(4);

#[test]
fn an_address_leaves_pods_that_are_ready_and_do_not_answer_unless_none_does() {
    play(&Options::named("healthchecks"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        for node in lab.nodes() {
            // No failback, which is a move for order alone and would come in the middle of the story.
            lab.start_speaker(&node, &["--kube-proxy-address", NOBODY, "--failback-delay", "never"])?;
        }
        lab.apply_objects(&[pools::pool("lan", &["172.30.0.200-172.30.0.209"]), pools::advertisement()])?;
        step("where kube-proxy cannot be asked at its own port, none is known", || {
            lab.nodes().iter().try_for_each(|node| wait_data_path(lab, node, DataPathState::NotChecked))
        })?;
        for node in lab.nodes() {
            lab.pod(&pod(&node), &node, &WEB)?;
        }
        lab.apply_objects(&[services::service("web", json!({"externalTrafficPolicy": "Local"}))])?;
        let address = services::address(lab, "web")?;
        served(lab, address)?;
        step("the node port of a Service with policy Local speaks for it", || witnessed(lab))?;
        check(lab, json!("tcp"))?;
        let first = step("an endpoint that comes and goes moves its address once at most", || flaps(lab, address))?;
        let second = step("the owner's pod refuses connections and stays ready: the address moves", || {
            refuses(lab, address, &first)
        })?;
        step("the node's status names the Service, the endpoint and why", || named(lab, &first))?;
        step("the others refuse, too: nothing moves, and it is said that readiness alone decides", || {
            none_answers(lab, address, &first, &second)
        })?;
        step("servers of bad manners fail in bounded time and cost a speaker no memory", || manners(lab))?;
        step("a check that cannot be understood is told, and readiness decides", || misspelt(lab, address))?;
        one_family_fails::part(lab)?;
        step("the owner's kube-proxy is killed, the node port is silent, and the address moves", || {
            unwitnessed(lab, address)
        })
    });
}

/// The pod of a node.
pub(crate) fn pod(node: &str) -> String {
    format!("web{node}")
}

fn check(lab: &Lab, value: Value) -> Result<()> {
    services::patch(lab, "web", &json!({"metadata": {"annotations": {CHECK: value}}}))
}

/// Waits until the page is there.
fn served(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    wait::until("the page", pools::BRINGING_MAX, || {
        let page = lab.http_get(CLIENT, http(address), "/")?;
        ensure!(page.status == 200, "{page:?}");
        Ok(Some(()))
    })
}

/// The pod's server ends or begins; its kubelet, which would say so, is not there.
fn answer(lab: &Lab, node: &str, answers: bool) -> Result<()> {
    let server = process_name(&pod(node));
    if answers { lab.restart(&server) } else { lab.stop(&server, Signal::KILL) }
}

/// Ends and begins the owner's server again and again; who answers for the address in the end.
fn flaps(lab: &Lab, address: Ipv4Addr) -> Result<String> {
    let (owner, before) = (client_wire::wait_owner(lab, address)?, taken(lab));
    for answers in [false, true].repeat(FLAPS) {
        answer(lab, &owner, answers)?;
        wait::during(FLAP, || Ok(()))?;
    }
    let moves = taken(lab) - before;
    measured(&format!("the owner's pod comes and goes {FLAPS} times: {moves} moves"));
    ensure!(moves <= 1, "the address moved {moves} times");
    none_fails(lab)?;
    client_wire::wait_owner(lab, address)
}

/// Waits until no node says that an endpoint fails.
fn none_fails(lab: &Lab) -> Result<()> {
    lab.nodes()
        .iter()
        .try_for_each(|node| wait_for(lab, node, "nothing fails", |status| status.failing.is_empty().then_some(())))
}

fn refuses(lab: &Lab, address: Ipv4Addr, owner: &str) -> Result<String> {
    let (report, second) = watched(lab, address, "Local, tcp check, the owner's pod refuses", || {
        let start = wait::now();
        answer(lab, owner, false)?;
        let second = wait_moved(lab, address, owner)?;
        let after = start.elapsed();
        measured(&format!("tcp check: another node answers after {:.1} s", after.as_secs_f64()));
        ensure!(after < MOVED_MAX, "it took {after:?}");
        Ok(second)
    })?;
    // What is lost is the pod's doing until it is found.
    ensure!(report.longest_gap_ms < MOVED_MAX.as_secs_f64() * 1000.0, "{report:?}");
    unharmed(lab, address, ("and after it has moved", 0), || Ok(()))?;
    Ok(second)
}

/// What the speaker of a node says of the Service.
fn failing(lab: &Lab, node: &str, word: &str) -> Result<FailingService> {
    wait_for(lab, node, &format!("Service web fails, {word:?}"), |status| {
        let found = status.failing.iter().find(|failing| failing.name == "web")?;
        found.message.contains(word).then(|| found.clone())
    })
}

fn named(lab: &Lab, node: &str) -> Result<()> {
    let ip = lab.kubectl(&["get", "pod", &pod(node), "-o", "jsonpath={.status.podIP}"])?;
    let (told, endpoint) = (failing(lab, node, "refused")?, format!("{ip}:{POD_PORT}"));
    ensure!(told.endpoint == endpoint && told.namespace == "default", "{told:?}, not {endpoint}");
    wait_announced(lab, "web", "Announced", &endpoint).map(drop)
}

fn none_answers(lab: &Lab, address: Ipv4Addr, first: &str, second: &str) -> Result<()> {
    let third = lab.nodes().into_iter().find(|node| node != first && node != second).context("a third node")?;
    answer(lab, &third, false)?;
    failing(lab, &third, "refused")?;
    answer(lab, second, false)?;
    failing(lab, second, "refused")?;
    stays(lab, address, second, SETTLED)?;
    wait_announced(lab, "web", "Announced", "readiness alone decides")?;
    answer(lab, second, true)?;
    served(lab, address)?;
    stays(lab, address, second, SETTLED)?;
    answer(lab, first, true)?;
    answer(lab, &third, true)?;
    none_fails(lab)
}

/// Servers that never answer, that speak another language, and one whose page takes no end, which is a page.
fn manners(lab: &Lab) -> Result<()> {
    let before = resident(lab)?;
    for (path, word) in [("/silent", Some("500 ms")), ("/garbage", Some("HTTP")), ("/endless", None)] {
        check(lab, json!(format!("http:{POD_PORT}{path};interval=200ms")))?;
        for node in lab.nodes() {
            match word {
                Some(word) => drop(failing(lab, &node, word)?),
                None => wait_for(lab, &node, path, |status| status.failing.is_empty().then_some(()))?,
            }
        }
    }
    wait::during(ASKED, || Ok(()))?;
    let after = resident(lab)?;
    for ((node, before), after) in lab.nodes().iter().zip(before).zip(after) {
        measured(&format!("speaker of {node}: {before} kB before servers of bad manners were asked, {after} kB after"));
        ensure!(after < before + GROWTH_MAX, "the speaker of {node} grew from {before} to {after} kB");
    }
    Ok(())
}

/// What each speaker holds, in kB (proc(5), `VmRSS`).
fn resident(lab: &Lab) -> Result<Vec<u64>> {
    let held = |node: &String| {
        let status = fs::read_to_string(format!("/proc/{}/status", lab.pid(&speaker_name(node))?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).with_context(|| status.clone())
    };
    lab.nodes().iter().map(held).collect()
}

fn misspelt(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    unharmed(lab, address, ("a check that cannot be understood", 0), || {
        check(lab, json!("ping"))?;
        wait_announced(lab, "web", "Announced", "\"ping\" is no kind of check: write tcp or http").map(drop)
    })?;
    let owner = client_wire::wait_owner(lab, address)?;
    answer(lab, &owner, false)?;
    stays(lab, address, &owner, SETTLED)?;
    answer(lab, &owner, true)?;
    served(lab, address)
}

/// Waits until every speaker has heard of kube-proxy by a `healthCheckNodePort`: nothing else answers.
fn witnessed(lab: &Lab) -> Result<()> {
    lab.nodes().iter().try_for_each(|node| {
        wait_for(lab, node, "a node port speaks for kube-proxy", |status| {
            let path = status.data_path.as_ref()?;
            let by_port = path.message.contains(NOBODY) && path.message.contains("node port");
            (path.state == DataPathState::Healthy && by_port).then_some(())
        })
    })
}

fn unwitnessed(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    let owner = client_wire::wait_owner(lab, address)?;
    unharmed(lab, address, ("kube-proxy of the owner killed, known by a node port alone", 1), || {
        let start = wait::now();
        lab.stop(&proxy_name(&owner), Signal::KILL)?;
        wait_moved(lab, address, &owner)?;
        let after = start.elapsed();
        measured(&format!(
            "kube-proxy of the owner killed, known by a node port: it moves after {:.1} s",
            after.as_secs_f64()
        ));
        ensure!((GONE_MIN..GONE_MAX).contains(&after), "it took {after:?}");
        Ok(())
    })?;
    wait_data_path(lab, &owner, DataPathState::Unhealthy)
}
