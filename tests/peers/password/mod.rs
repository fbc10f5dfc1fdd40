//! Passwords of sessions: FerroLB never tries a session without the configured password; README.md
//! has the drawing.

use crate::connection_attempts;
use crate::expect::wait_sessions_with;
use crate::in_containers;
use crate::objects::{self, BGP_MAX, NAMESPACE, peer_name};
use crate::reported::{self, ESTABLISHED, VALID};
use anyhow::{Result, ensure};
use ferrolb_lab::routers::{Peering, Router, RouterKind};
use ferrolb_lab::scenario::{print_measured, run_scenario, step};
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::ROUTERS;
use ferrolb_lab::{Lab, wait};
use serde_json::{Value, json};
use std::net::IpAddr;

/// The routers' password.
const ROUTER_PASSWORD: &str = "open-sesame";
/// A password that no router accepts.
const WRONG_PASSWORD: &str = "open-barley";
/// Name of the Secret in the `passwordSecret` of the IPv6 BGPPeers.
const SECRET: &str = "routers";
/// Required type of a Secret with a password.
const BASIC_AUTH: &str = "kubernetes.io/basic-auth";

#[test]
fn no_session_is_attempted_without_its_password() {
    run_scenario(&in_containers("password"), |lab| {
        let node = Host::node(1);
        let [v4, v6] = node.addresses();
        lab.start_ferrolb()?;
        let routers = step("FRR, BIRD and GoBGP start with a password", || start_routers(lab))?;
        let wait_sessions =
            |expect: &[_]| routers.iter().try_for_each(|router| wait_sessions_with(router, expect));
        step(
            "IPv4 BGPPeers contain the password, and the Secret of the IPv6 ones does not exist",
            || {
                apply_peers(lab, ROUTER_PASSWORD)?;
                wait_sessions(&[v4])?;
                check_no_attempt(lab, &node, &format!("Secret {SECRET} does not exist"))
            },
        )?;
        step("with a Secret of another type, no session is attempted", || {
            lab.apply_objects(&[secret("Opaque", ROUTER_PASSWORD)])?;
            check_no_attempt(lab, &node, "is of type Opaque")
        })?;
        step(
            "with a wrong password, no session is established, and the BGPPeers report it",
            || {
                delete_secret(lab)?;
                lab.apply_objects(&[secret(BASIC_AUTH, WRONG_PASSWORD)])?;
                apply_peers(lab, WRONG_PASSWORD)?;
                wait_sessions(&[])?;
                wait_password_issue(lab, &node)
            },
        )?;
        step("with the correct password, all sessions are established", || {
            let start = wait::now();
            lab.apply_objects(&[secret(BASIC_AUTH, ROUTER_PASSWORD)])?;
            apply_peers(lab, ROUTER_PASSWORD)?;
            wait_sessions(&[v4, v6])?;
            print_measured(&format!(
                "six passwords corrected: all sessions are established after {:?}",
                wait::now() - start
            ));
            peer_names(1).iter().try_for_each(|peer| {
                reported::wait_condition(lab, ("bgppeers", peer), VALID, ("Valid", ""))
            })
        })?;
        check_deleted_secret(lab, &routers, [v4, v6])
    });
}

/// Runs the steps in which the Secret of established sessions is deleted.
fn check_deleted_secret(lab: &Lab, routers: &[Router<'_>], [v4, v6]: [IpAddr; 2]) -> Result<()> {
    let wait_sessions =
        |expect: &[_]| routers.iter().try_for_each(|router| wait_sessions_with(router, expect));
    let wait_valid_reason = |reason: &str, words: &str| {
        peer_names(1).iter().try_for_each(|peer| {
            reported::wait_condition(lab, ("bgppeers", peer), VALID, (reason, words))
        })
    };
    step(
        "a deleted Secret ends no session, and the BGPPeers report it until it exists again",
        || {
            let before = session_starts(lab)?;
            delete_secret(lab)?;
            wait_valid_reason("BadSecret", "continues with the last password")?;
            lab.apply_objects(&[secret(BASIC_AUTH, ROUTER_PASSWORD)])?;
            wait_valid_reason("Valid", "")?;
            wait_sessions(&[v4, v6])?;
            let after = session_starts(lab)?;
            ensure!(
                before == after,
                "the start times of the sessions were {before}, and are now {after}"
            );
            Ok(())
        },
    )?;
    step("a new BGPPeer without its Secret attempts no session", || {
        delete_secret(lab)?;
        for peer in peer_names(1) {
            lab.kubectl(&["delete", "bgppeers.ferrolb.io", &peer, "-n", NAMESPACE])?;
        }
        wait_sessions(&[v4])?;
        apply_peers(lab, ROUTER_PASSWORD)?;
        wait_valid_reason("BadSecret", &format!("Secret {SECRET} does not exist"))?;
        wait_sessions(&[v4])
    })
}

/// Waits until the SpeakerStatus lists all sessions as established, and returns their start times.
fn session_starts(lab: &Lab) -> Result<String> {
    let since = "jsonpath={.items[*].status.bgp.sessions[*].since}";
    wait::until("all sessions are in the SpeakerStatus", BGP_MAX, || {
        let since =
            lab.kubectl(&["get", "speakerstatuses.ferrolb.io", "-n", NAMESPACE, "-o", since])?;
        Ok((since.split_whitespace().count() == 2 * ROUTERS.len()).then_some(since))
    })
}

fn start_routers(lab: &Lab) -> Result<Vec<Router<'_>>> {
    let start = |(kind, host): (RouterKind, &str)| {
        connection_attempts::start(lab, host)?;
        let mut peering = Peering::with_nodes(lab, host)?;
        peering
            .neighbors
            .iter_mut()
            .for_each(|neighbor| neighbor.password = Some(ROUTER_PASSWORD.to_owned()));
        Router::start_with_peering(lab, kind, host, &peering)
    };
    RouterKind::ALL.into_iter().zip(ROUTERS).map(start).collect()
}

/// Returns the names of the BGPPeers of a family (0: IPv4, 1: IPv6).
fn peer_names(family: usize) -> Vec<String> {
    ROUTERS.map(|router| peer_name(router, objects::ADDRESSES[family])).into()
}

/// Applies the BGPPeers: those of IPv4 contain this password, and those of IPv6 refer to the
/// Secret.
fn apply_peers(lab: &Lab, password: &str) -> Result<()> {
    ROUTERS.iter().try_for_each(|router| {
        let mut peers = objects::peers(lab, router)?;
        peers[0]["spec"]["password"] = password.into();
        peers[1]["spec"]["passwordSecret"] = json!({"name": SECRET});
        lab.apply_objects(&peers)
    })
}

fn secret(kind: &str, password: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": NAMESPACE}, "type": kind,
        "stringData": {"password": password},
    })
}

fn delete_secret(lab: &Lab) -> Result<()> {
    lab.kubectl(&["delete", "secret", SECRET, "-n", NAMESPACE]).map(drop)
}

/// Waits until the IPv6 BGPPeers and the speaker report the cause `why`, and checks that no IPv6
/// session was attempted.
fn check_no_attempt(lab: &Lab, node: &Host, why: &str) -> Result<()> {
    for (peer, router) in peer_names(1).iter().zip(ROUTERS) {
        reported::wait_no_session(lab, &node.name, peer, &["spec.passwordSecret", SECRET, why])?;
        reported::wait_condition(lab, ("bgppeers", peer), VALID, ("BadSecret", why))?;
        let [v4, v6] = connection_attempts::counted(lab, router)?;
        ensure!(v4 > 0 && v6 == 0, "{router} received {v4} attempts over IPv4, and {v6} over IPv6");
    }
    Ok(())
}

/// Waits until all BGPPeers report a wrong password as a possible cause.
fn wait_password_issue(lab: &Lab, node: &Host) -> Result<()> {
    for peer in peer_names(0).iter().chain(&peer_names(1)) {
        reported::wait_no_session(
            lab,
            &node.name,
            peer,
            &["no connection to the router", "with this password"],
        )?;
        reported::wait_condition(
            lab,
            ("bgppeers", peer),
            ESTABLISHED,
            ("NoSession", "with this password"),
        )?;
        reported::wait_condition(lab, ("bgppeers", peer), VALID, ("Valid", ""))?;
    }
    Ok(())
}
