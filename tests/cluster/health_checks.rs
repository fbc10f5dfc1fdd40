//! Health checks of pods that stay ready and do not reply. With the annotation
//! `ferrolb.io/health-check`, the address of a Service with `externalTrafficPolicy: Local` leaves
//! the nodes of such pods. The address stays announced even if all checks fail, and misbehaving
//! servers do no harm. In this lab, the node port of the Service is the only source of kube-proxy
//! health.

use crate::one_family_fails;
use crate::pools;
use crate::proxy_outages::{UNHEALTHY_AFTER_MAX, UNHEALTHY_AFTER_MIN};
use crate::scenario::{print_measured, run_scenario, step};
use crate::segment;
use crate::separate_families;
use crate::services::{self, WEB, http, wait_announced};
use crate::speakers::{announcements_logged, wait_for, wait_proxy_health};
use crate::unchecked_endpoints;
use crate::under_load::{check_owner_stays, probe_while, run_without_loss, wait_moved};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::ferrolb::speaker_name;
use ferrolb_lab::cluster::nodes::proxy_name;
use ferrolb_lab::cluster::pods::process_name;
use ferrolb_lab::topology::{CLIENT, POD_PORT};
use ferrolb_lab::wait::WorkClock;
use ferrolb_lab::{Lab, Options, Signal, wait};
use ferrolb_proto::api::{FailingService, KubeProxyState};
use serde_json::{Value, json};
use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Address at which no kube-proxy listens, so that the health check node port of a Service is the
/// only source of kube-proxy health.
const UNUSED_ENDPOINT: &str = "127.0.0.1:9";
pub(crate) const HEALTH_CHECK_ANNOTATION: &str = "ferrolb.io/health-check";
/// Maximum time from the failure of an endpoint until the address has moved. With the default
/// settings, an endpoint fails after two failed checks a second apart, and the address moves at
/// once. On a busy machine, this takes up to three times as long. The test prints the measured
/// time.
pub(crate) const MOVED_MAX: Duration = Duration::from_secs(3 * 4);
/// Time for which an address must stay with its owner.
const SETTLED: Duration = Duration::from_secs(3);
/// Number of times that a flapping endpoint fails and recovers, and the length of each failure and
/// recovery: shorter than the time until a recovered endpoint counts as healthy.
const FLAPS: usize = 5;
const FLAP_TIME: Duration = Duration::from_millis(700);
/// Maximum growth of a speaker's memory by health checks of misbehaving servers, in kB.
const GROWTH_MAX: u64 = 4096;
/// Time for which the speakers check the last misbehaving server before the memory is measured.
const CHECK_TIME: Duration = Duration::from_secs(4);

#[test]
fn an_address_leaves_a_node_with_failing_endpoints_unless_all_fail() {
    run_scenario(&Options::named("healthchecks"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        for node in lab.nodes() {
            // With an endless preempt delay, no move by rank alone disturbs the scenario.
            lab.start_speaker(
                &node,
                &["--kube-proxy-address", UNUSED_ENDPOINT, "--failback-delay", "never"],
            )?;
        }
        lab.apply_objects(&[
            pools::pool("lan", &["172.30.0.200-172.30.0.209"]),
            pools::advertisement(),
        ])?;
        step("without a kube-proxy health port, kube-proxy health is NotChecked", || {
            lab.nodes()
                .iter()
                .try_for_each(|node| wait_proxy_health(lab, node, KubeProxyState::NotChecked))
        })?;
        for node in lab.nodes() {
            lab.pod(&pod(&node), &node, &WEB)?;
        }
        lab.apply_objects(&[services::service("web", json!({"externalTrafficPolicy": "Local"}))])?;
        let address = services::address(lab, "web")?;
        wait_served(lab, address)?;
        step(
            "the health check node port of a Service with policy Local reports kube-proxy health",
            || wait_health_by_node_port(lab),
        )?;
        set_check(lab, json!("tcp"))?;
        let owner =
            step("a flapping endpoint moves the address once at most", || flap(lab, address))?;
        let second =
            step("the owner's pod refuses connections and stays ready: the address moves", || {
                refuse_on_owner(lab, address, &owner)
            })?;
        step(
            "the SpeakerStatus of the node names the Service, the endpoint and the error",
            || status_names_endpoint(lab, &owner),
        )?;
        step(
            "all pods refuse connections: the address stays, and readiness alone selects the node",
            || refuse_everywhere(lab, address, &owner, &second),
        )?;
        step("checks of misbehaving servers end in bounded time and memory", || {
            misbehaving_servers(lab)
        })?;
        step("an invalid health check is reported, and readiness selects the node", || {
            invalid_check(lab, address)
        })?;
        one_family_fails::part(lab)?;
        separate_families::part(lab)?;
        unchecked_endpoints::part(lab)?;
        step(
            "the owner's kube-proxy is killed, its node port does not reply, and the address moves",
            || kube_proxy_killed(lab, address),
        )
    });
}

/// Returns the name of the pod on a node.
pub(crate) fn pod(node: &str) -> String {
    format!("web{node}")
}

/// Sets the health check annotation of the Service.
fn set_check(lab: &Lab, value: Value) -> Result<()> {
    services::patch(
        lab,
        "web",
        &json!({"metadata": {"annotations": {HEALTH_CHECK_ANNOTATION: value}}}),
    )
}

/// Waits until the client gets the page of the Service.
fn wait_served(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    wait::until("the client gets the page", pools::STATE_MAX, || {
        let page = lab.http_get(CLIENT, http(address), "/")?;
        ensure!(page.status == 200, "the client gets {page:?}");
        Ok(Some(()))
    })
}

/// Starts or stops the pod's server. No kubelet runs here, so the pod stays ready.
pub(crate) fn set_server(lab: &Lab, node: &str, running: bool) -> Result<()> {
    let server = process_name(&pod(node));
    if running { lab.restart(&server) } else { lab.stop(&server, Signal::KILL) }
}

/// Stops and starts the server of the owner's pod repeatedly. Returns the final owner.
fn flap(lab: &Lab, address: Ipv4Addr) -> Result<String> {
    let (owner, before) = (segment::wait_owner(lab, address)?, announcements_logged(lab));
    for running in [false, true].repeat(FLAPS) {
        set_server(lab, &owner, running)?;
        wait::during(FLAP_TIME, || Ok(()))?;
    }
    let moves = announcements_logged(lab) - before;
    print_measured(&format!(
        "server of the owner's pod stopped and started {FLAPS} times: {moves} moves"
    ));
    ensure!(moves <= 1, "the address moved {moves} times");
    wait_no_failure(lab)?;
    segment::wait_owner(lab, address)
}

/// Waits until no node reports a failing endpoint.
fn wait_no_failure(lab: &Lab) -> Result<()> {
    lab.nodes().iter().try_for_each(|node| {
        wait_for(lab, node, "no endpoint fails", |status| {
            status.failing_health_checks.is_empty().then_some(())
        })
    })
}

fn refuse_on_owner(lab: &Lab, address: Ipv4Addr, owner: &str) -> Result<String> {
    let (report, second) = probe_while(
        lab,
        address,
        "policy Local, tcp check, the owner's pod refuses connections",
        || {
            let start = WorkClock::start();
            set_server(lab, owner, false)?;
            let second = wait_moved(lab, address, owner)?;
            let after = start.within(MOVED_MAX).context("the address moves")?;
            print_measured(&format!(
                "tcp check: another node replies after {:.1} s",
                after.as_secs_f64()
            ));
            Ok(second)
        },
    )?;
    // Connections are lost only until the failed pod is detected.
    ensure!(
        report.longest_gap_ms < MOVED_MAX.as_secs_f64() * 1000.0,
        "the gap is too long: {report:?}"
    );
    run_without_loss(lab, address, ("tcp check, after the move", 0), || Ok(()))?;
    Ok(second)
}

/// Waits until the speaker of a node reports that the Service fails, with `word` in the message.
fn wait_failing(lab: &Lab, node: &str, word: &str) -> Result<FailingService> {
    wait_for(lab, node, &format!("the status reports that Service web fails: {word:?}"), |status| {
        let found = status.failing_health_checks.iter().find(|service| service.name == "web")?;
        found.message.contains(word).then(|| found.clone())
    })
}

fn status_names_endpoint(lab: &Lab, node: &str) -> Result<()> {
    let ip = lab.kubectl(&["get", "pod", &pod(node), "-o", "jsonpath={.status.podIP}"])?;
    let (service, endpoint) = (wait_failing(lab, node, "refused")?, format!("{ip}:{POD_PORT}"));
    ensure!(
        service.endpoint == endpoint && service.namespace == "default",
        "the status names {service:?}, not {endpoint}"
    );
    wait_announced(lab, "web", "Announced", &endpoint).map(drop)
}

fn refuse_everywhere(lab: &Lab, address: Ipv4Addr, first: &str, second: &str) -> Result<()> {
    let third = lab
        .nodes()
        .into_iter()
        .find(|node| node != first && node != second)
        .context("the lab has no third node")?;
    set_server(lab, &third, false)?;
    wait_failing(lab, &third, "refused")?;
    set_server(lab, second, false)?;
    wait_failing(lab, second, "refused")?;
    check_owner_stays(lab, address, second, SETTLED)?;
    wait_announced(lab, "web", "Announced", "readiness alone selects the node")?;
    set_server(lab, second, true)?;
    wait_served(lab, address)?;
    check_owner_stays(lab, address, second, SETTLED)?;
    set_server(lab, first, true)?;
    set_server(lab, &third, true)?;
    wait_no_failure(lab)
}

/// Sets health checks, one after the other, of a server that never replies, of one that does not
/// implement HTTP, and of one whose page never ends, which counts as healthy. Checks that the
/// memory of the speakers stays bounded.
fn misbehaving_servers(lab: &Lab) -> Result<()> {
    let before = resident_kb(lab)?;
    for (path, word) in
        [("/silent", Some("500 ms")), ("/garbage", Some("HTTP")), ("/endless", None)]
    {
        set_check(lab, json!(format!("http:{POD_PORT}{path};interval=200ms")))?;
        for node in lab.nodes() {
            match word {
                Some(word) => drop(wait_failing(lab, &node, word)?),
                None => wait_for(lab, &node, path, |status| {
                    status.failing_health_checks.is_empty().then_some(())
                })?,
            }
        }
    }
    wait::during(CHECK_TIME, || Ok(()))?;
    let after = resident_kb(lab)?;
    for ((node, before), after) in lab.nodes().iter().zip(before).zip(after) {
        print_measured(&format!(
            "speaker of {node}: {before} kB before checks of misbehaving servers, {after} kB after"
        ));
        ensure!(
            after < before + GROWTH_MAX,
            "the speaker of {node} grew from {before} to {after} kB"
        );
    }
    Ok(())
}

/// Returns the memory of each speaker, in kB (proc(5), `VmRSS`).
fn resident_kb(lab: &Lab) -> Result<Vec<u64>> {
    let read_kb = |node: &String| {
        let status = fs::read_to_string(format!("/proc/{}/status", lab.pid(&speaker_name(node))?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
            .with_context(|| status.clone())
    };
    lab.nodes().iter().map(read_kb).collect()
}

fn invalid_check(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    run_without_loss(lab, address, ("invalid health check", 0), || {
        set_check(lab, json!("ping"))?;
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
    check_owner_stays(lab, address, &owner, SETTLED)?;
    set_server(lab, &owner, true)?;
    wait_served(lab, address)
}

/// Waits until every speaker reports kube-proxy health from a `healthCheckNodePort`, the only
/// source of this lab.
fn wait_health_by_node_port(lab: &Lab) -> Result<()> {
    lab.nodes().iter().try_for_each(|node| {
        wait_for(lab, node, "kube-proxy health comes from a node port", |status| {
            let health = status.data_path.as_ref()?;
            let from_port =
                health.message.contains(UNUSED_ENDPOINT) && health.message.contains("node port");
            (health.state == KubeProxyState::Healthy && from_port).then_some(())
        })
    })
}

fn kube_proxy_killed(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    let owner = segment::wait_owner(lab, address)?;
    run_without_loss(
        lab,
        address,
        ("kube-proxy of the owner killed, health from a node port alone", 1),
        || {
            let start = WorkClock::start();
            lab.stop(&proxy_name(&owner), Signal::KILL)?;
            wait_moved(lab, address, &owner)?;
            let after = start.within(UNHEALTHY_AFTER_MAX).context("the address moves")?;
            print_measured(&format!(
                "kube-proxy of the owner killed, health from a node port: the address moves after {:.1} s",
                after.as_secs_f64()
            ));
            ensure!(after >= UNHEALTHY_AFTER_MIN, "the address moved after {after:?}");
            Ok(())
        },
    )?;
    wait_proxy_health(lab, &owner, KubeProxyState::Unhealthy)
}
