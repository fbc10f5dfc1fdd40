//! Pods that stay ready and do not reply. The annotation `ferrolb.io/health-check` moves the
//! address of a Service with `externalTrafficPolicy: Local` away from them and reports it. The
//! address stays announced even if all checks fail, and servers that misbehave do no harm. In this
//! lab the node port of that Service is the only source of kube-proxy health.

use crate::one_family_fails;
use crate::pools;
use crate::proxy_outages::{GONE_MAX, GONE_MIN};
use crate::scenario::{print_measured, run_scenario, step};
use crate::segment;
use crate::services::{self, WEB, http, wait_announced};
use crate::speakers::{announcements_logged, wait_for, wait_proxy_health};
use crate::under_load::{stays, wait_moved, watched, without_loss};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::ferrolb::speaker_name;
use ferrolb_lab::cluster::nodes::proxy_name;
use ferrolb_lab::cluster::pods::process_name;
use ferrolb_lab::topology::{CLIENT, POD_PORT};
use ferrolb_lab::{Lab, Options, Signal, wait};
use ferrolb_proto::api::{FailingService, KubeProxyState};
use serde_json::{Value, json};
use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

/// An address where no kube-proxy listens, so a Service's own node port is the only source of
/// kube-proxy health.
const UNUSED_ENDPOINT: &str = "127.0.0.1:9";
pub(crate) const CHECK: &str = "ferrolb.io/health-check";
/// Maximum time until the address has moved. With the defaults, a failed endpoint is found after
/// two failures a second apart, and the address moves at once. Three times as much for a busy
/// machine; the measured value is printed.
pub(crate) const MOVED_MAX: Duration = Duration::from_secs(3 * 4);
/// Time in which nothing may move.
const SETTLED: Duration = Duration::from_secs(3);
/// Number of failures and recoveries while a target flaps, and the length of each: shorter than the
/// time until a recovered endpoint counts as healthy.
const FLAPS: usize = 5;
const FLAP: Duration = Duration::from_millis(700);
/// Maximum growth of a speaker's memory, in kB, after checks against servers that misbehave.
const GROWTH_MAX: u64 = 4096;
/// Time for which those servers are checked.
const CHECKED: Duration = Duration::from_secs(4);

#[test]
fn an_address_leaves_ready_pods_that_fail_their_health_check_unless_all_fail() {
    run_scenario(&Options::named("healthchecks"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        for node in lab.nodes() {
            // Disables failback: a move by rank alone would disturb the scenario.
            lab.start_speaker(
                &node,
                &["--kube-proxy-address", UNUSED_ENDPOINT, "--failback-delay", "never"],
            )?;
        }
        lab.apply_objects(&[
            pools::pool("lan", &["172.30.0.200-172.30.0.209"]),
            pools::advertisement(),
        ])?;
        step("where kube-proxy cannot be asked at its own port, none is known", || {
            lab.nodes()
                .iter()
                .try_for_each(|node| wait_proxy_health(lab, node, KubeProxyState::NotChecked))
        })?;
        for node in lab.nodes() {
            lab.pod(&pod(&node), &node, &WEB)?;
        }
        lab.apply_objects(&[services::service("web", json!({"externalTrafficPolicy": "Local"}))])?;
        let address = services::address(lab, "web")?;
        served(lab, address)?;
        step("the node port of a Service with policy Local speaks for it", || {
            wait_health_by_node_port(lab)
        })?;
        check(lab, json!("tcp"))?;
        let first = step("an endpoint that comes and goes moves its address once at most", || {
            flaps(lab, address)
        })?;
        let second =
            step("the owner's pod refuses connections and stays ready: the address moves", || {
                refuses(lab, address, &first)
            })?;
        step("the node's status names the Service, the endpoint and why", || {
            status_names_endpoint(lab, &first)
        })?;
        step(
            "the others refuse, too: nothing moves, and it is said that readiness alone decides",
            || all_refuse(lab, address, &first, &second),
        )?;
        step("servers of bad manners fail in bounded time and cost a speaker no memory", || {
            misbehaving_servers(lab)
        })?;
        step("a check that cannot be understood is told, and readiness decides", || {
            invalid_check(lab, address)
        })?;
        one_family_fails::part(lab)?;
        step(
            "the owner's kube-proxy is killed, the node port is silent, and the address moves",
            || kube_proxy_killed(lab, address),
        )
    });
}

/// Returns the name of a node's pod.
pub(crate) fn pod(node: &str) -> String {
    format!("web{node}")
}

fn check(lab: &Lab, value: Value) -> Result<()> {
    services::patch(lab, "web", &json!({"metadata": {"annotations": {CHECK: value}}}))
}

/// Waits until the page is served.
fn served(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    wait::until("the page", pools::STATE_MAX, || {
        let page = lab.http_get(CLIENT, http(address), "/")?;
        ensure!(page.status == 200, "{page:?}");
        Ok(Some(()))
    })
}

/// Starts or stops the pod's server. No kubelet runs here, so the pod stays ready.
fn set_server(lab: &Lab, node: &str, answers: bool) -> Result<()> {
    let server = process_name(&pod(node));
    if answers { lab.restart(&server) } else { lab.stop(&server, Signal::KILL) }
}

/// Stops and starts the owner's server repeatedly. Returns the owner of the address in the end.
fn flaps(lab: &Lab, address: Ipv4Addr) -> Result<String> {
    let (owner, before) = (segment::wait_owner(lab, address)?, announcements_logged(lab));
    for answers in [false, true].repeat(FLAPS) {
        set_server(lab, &owner, answers)?;
        wait::during(FLAP, || Ok(()))?;
    }
    let moves = announcements_logged(lab) - before;
    print_measured(&format!("the owner's pod comes and goes {FLAPS} times: {moves} moves"));
    ensure!(moves <= 1, "the address moved {moves} times");
    none_fails(lab)?;
    segment::wait_owner(lab, address)
}

/// Waits until no node reports a failing endpoint.
fn none_fails(lab: &Lab) -> Result<()> {
    lab.nodes().iter().try_for_each(|node| {
        wait_for(lab, node, "nothing fails", |status| {
            status.failing_health_checks.is_empty().then_some(())
        })
    })
}

fn refuses(lab: &Lab, address: Ipv4Addr, owner: &str) -> Result<String> {
    let (report, second) =
        watched(lab, address, "Local, tcp check, the owner's pod refuses", || {
            let start = wait::now();
            set_server(lab, owner, false)?;
            let second = wait_moved(lab, address, owner)?;
            let after = start.elapsed();
            print_measured(&format!(
                "tcp check: another node answers after {:.1} s",
                after.as_secs_f64()
            ));
            ensure!(after < MOVED_MAX, "it took {after:?}");
            Ok(second)
        })?;
    // Connections are lost only until the failed pod is detected.
    ensure!(report.longest_gap_ms < MOVED_MAX.as_secs_f64() * 1000.0, "{report:?}");
    without_loss(lab, address, ("and after it has moved", 0), || Ok(()))?;
    Ok(second)
}

/// Waits until the speaker of a node reports the Service as failing, with `word` in the message.
fn failing(lab: &Lab, node: &str, word: &str) -> Result<FailingService> {
    wait_for(lab, node, &format!("Service web fails, {word:?}"), |status| {
        let found = status.failing_health_checks.iter().find(|failing| failing.name == "web")?;
        found.message.contains(word).then(|| found.clone())
    })
}

fn status_names_endpoint(lab: &Lab, node: &str) -> Result<()> {
    let ip = lab.kubectl(&["get", "pod", &pod(node), "-o", "jsonpath={.status.podIP}"])?;
    let (told, endpoint) = (failing(lab, node, "refused")?, format!("{ip}:{POD_PORT}"));
    ensure!(
        told.endpoint == endpoint && told.namespace == "default",
        "the status names {told:?}, not {endpoint}"
    );
    wait_announced(lab, "web", "Announced", &endpoint).map(drop)
}

fn all_refuse(lab: &Lab, address: Ipv4Addr, first: &str, second: &str) -> Result<()> {
    let third = lab
        .nodes()
        .into_iter()
        .find(|node| node != first && node != second)
        .context("a third node")?;
    set_server(lab, &third, false)?;
    failing(lab, &third, "refused")?;
    set_server(lab, second, false)?;
    failing(lab, second, "refused")?;
    stays(lab, address, second, SETTLED)?;
    wait_announced(lab, "web", "Announced", "readiness alone selects the node")?;
    set_server(lab, second, true)?;
    served(lab, address)?;
    stays(lab, address, second, SETTLED)?;
    set_server(lab, first, true)?;
    set_server(lab, &third, true)?;
    none_fails(lab)
}

/// Checks servers that never reply or do not implement HTTP, and one with an endless page, which
/// counts as healthy.
fn misbehaving_servers(lab: &Lab) -> Result<()> {
    let before = resident(lab)?;
    for (path, word) in
        [("/silent", Some("500 ms")), ("/garbage", Some("HTTP")), ("/endless", None)]
    {
        check(lab, json!(format!("http:{POD_PORT}{path};interval=200ms")))?;
        for node in lab.nodes() {
            match word {
                Some(word) => drop(failing(lab, &node, word)?),
                None => wait_for(lab, &node, path, |status| {
                    status.failing_health_checks.is_empty().then_some(())
                })?,
            }
        }
    }
    wait::during(CHECKED, || Ok(()))?;
    let after = resident(lab)?;
    for ((node, before), after) in lab.nodes().iter().zip(before).zip(after) {
        print_measured(&format!(
            "speaker of {node}: {before} kB before servers of bad manners were asked, {after} kB after"
        ));
        ensure!(
            after < before + GROWTH_MAX,
            "the speaker of {node} grew from {before} to {after} kB"
        );
    }
    Ok(())
}

/// Returns the memory of each speaker, in kB (proc(5), `VmRSS`).
fn resident(lab: &Lab) -> Result<Vec<u64>> {
    let held = |node: &String| {
        let status = fs::read_to_string(format!("/proc/{}/status", lab.pid(&speaker_name(node))?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
            .with_context(|| status.clone())
    };
    lab.nodes().iter().map(held).collect()
}

fn invalid_check(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    without_loss(lab, address, ("a check that cannot be understood", 0), || {
        check(lab, json!("ping"))?;
        wait_announced(
            lab,
            "web",
            "Announced",
            "\"ping\" is not a type of check: write tcp or http",
        )
        .map(drop)
    })?;
    let owner = segment::wait_owner(lab, address)?;
    set_server(lab, &owner, false)?;
    stays(lab, address, &owner, SETTLED)?;
    set_server(lab, &owner, true)?;
    served(lab, address)
}

/// Waits until every speaker reports kube-proxy health from a `healthCheckNodePort`: nothing else
/// replies.
fn wait_health_by_node_port(lab: &Lab) -> Result<()> {
    lab.nodes().iter().try_for_each(|node| {
        wait_for(lab, node, "a node port speaks for kube-proxy", |status| {
            let path = status.data_path.as_ref()?;
            let by_port =
                path.message.contains(UNUSED_ENDPOINT) && path.message.contains("node port");
            (path.state == KubeProxyState::Healthy && by_port).then_some(())
        })
    })
}

fn kube_proxy_killed(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    let owner = segment::wait_owner(lab, address)?;
    without_loss(
        lab,
        address,
        ("kube-proxy of the owner killed, known by a node port alone", 1),
        || {
            let start = wait::now();
            lab.stop(&proxy_name(&owner), Signal::KILL)?;
            wait_moved(lab, address, &owner)?;
            let after = start.elapsed();
            print_measured(&format!(
                "kube-proxy of the owner killed, known by a node port: it moves after {:.1} s",
                after.as_secs_f64()
            ));
            ensure!((GONE_MIN..GONE_MAX).contains(&after), "it took {after:?}");
            Ok(())
        },
    )?;
    wait_proxy_health(lab, &owner, KubeProxyState::Unhealthy)
}
