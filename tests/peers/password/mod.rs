//! Passwords of sessions: FerroLB never tries a session without the configured password; README.md
//! has the drawing.

use crate::connection_attempts;
use crate::expect::sessions_with;
use crate::objects::{self, BGP_MAX, NAMESPACE, peer_name};
use crate::reported::{self, ESTABLISHED, VALID};
use anyhow::{Result, ensure};
use ferrolb_lab::routers::{Peering, Router, RouterKind};
use ferrolb_lab::scenario::{print_measured, run_scenario, step};
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::ROUTERS;
use ferrolb_lab::{Lab, Options, wait};
use serde_json::{Value, json};
use std::net::IpAddr;

/// The routers' password.
const RIGHT: &str = "open-sesame";
/// A wrong password.
const WRONG: &str = "open-barley";
/// The Secret that the BGPPeers of IPv6 name.
const SECRET: &str = "routers";
/// Required type of a Secret with a password.
const BASIC_AUTH: &str = "kubernetes.io/basic-auth";

#[test]
fn a_session_is_never_tried_without_its_password() {
    run_scenario(&Options { nodes: 1, bgp: true, ..Options::named("password") }, |lab| {
        let node = Host::node(1);
        let [v4, v6] = node.addresses();
        lab.start_ferrolb()?;
        let routers = step("FRR, BIRD and GoBGP ask for a password", || start(lab))?;
        let all =
            |expect: &[_]| routers.iter().try_for_each(|router| sessions_with(router, expect));
        step("a password that is written is there, a Secret is not", || {
            write(lab, RIGHT)?;
            all(&[v4])?;
            closed(lab, &node, &format!("Secret {SECRET} does not exist"))
        })?;
        step("a Secret of another type opens nothing, either", || {
            lab.apply_objects(&[secret("Opaque", RIGHT)])?;
            closed(lab, &node, "its type is Opaque")
        })?;
        step("another password opens nothing, and so it is said", || {
            forget_secret(lab)?;
            lab.apply_objects(&[secret(BASIC_AUTH, WRONG)])?;
            write(lab, WRONG)?;
            all(&[])?;
            refused(lab, &node)
        })?;
        step("the right one opens both", || {
            let start = wait::now();
            lab.apply_objects(&[secret(BASIC_AUTH, RIGHT)])?;
            write(lab, RIGHT)?;
            all(&[v4, v6])?;
            print_measured(&format!(
                "six passwords made right: the last session stood after {:?}",
                wait::now() - start
            ));
            names(1).iter().try_for_each(|peer| {
                reported::wait_condition(lab, ("bgppeer", peer), VALID, ("Valid", ""))
            })
        })?;
        without_secret(lab, &routers, [v4, v6])
    });
}

/// Checks sessions whose Secret is deleted.
fn without_secret(lab: &Lab, routers: &[Router<'_>], [v4, v6]: [IpAddr; 2]) -> Result<()> {
    let all = |expect: &[_]| routers.iter().try_for_each(|router| sessions_with(router, expect));
    let say = |reason: &str, words: &str| {
        names(1).iter().try_for_each(|peer| {
            reported::wait_condition(lab, ("bgppeer", peer), VALID, (reason, words))
        })
    };
    step(
        "a Secret that is replaced ends no session, and while it is gone the BGPPeer says so",
        || {
            let before = established(lab)?;
            forget_secret(lab)?;
            say("BadSecret", "continues with the last password")?;
            lab.apply_objects(&[secret(BASIC_AUTH, RIGHT)])?;
            say("Valid", "")?;
            all(&[v4, v6])?;
            let after = established(lab)?;
            ensure!(before == after, "established since {before}, and now since {after}");
            Ok(())
        },
    )?;
    step("a BGPPeer that is made again needs its Secret", || {
        forget_secret(lab)?;
        for peer in names(1) {
            lab.kubectl(&["delete", "bgppeers.ferrolb.io", &peer, "-n", NAMESPACE])?;
        }
        all(&[v4])?;
        write(lab, RIGHT)?;
        say("BadSecret", &format!("Secret {SECRET} does not exist"))?;
        all(&[v4])
    })
}

/// Returns the times since which the sessions are established, once the SpeakerStatus has all of
/// them.
fn established(lab: &Lab) -> Result<String> {
    let since = "jsonpath={.items[*].status.bgp.sessions[*].since}";
    wait::until("the status of all sessions", BGP_MAX, || {
        let since =
            lab.kubectl(&["get", "speakerstatuses.ferrolb.io", "-n", NAMESPACE, "-o", since])?;
        Ok((since.split_whitespace().count() == 2 * ROUTERS.len()).then_some(since))
    })
}

fn start(lab: &Lab) -> Result<Vec<Router<'_>>> {
    let start = |(kind, host): (RouterKind, &str)| {
        connection_attempts::start(lab, host)?;
        let mut peering = Peering::with_nodes(lab, host)?;
        peering
            .neighbours
            .iter_mut()
            .for_each(|neighbour| neighbour.password = Some(RIGHT.to_owned()));
        Router::with(lab, kind, host, &peering)
    };
    RouterKind::ALL.into_iter().zip(ROUTERS).map(start).collect()
}

/// Returns the names of the BGPPeers of a family (0: IPv4).
fn names(family: usize) -> Vec<String> {
    ROUTERS.map(|router| peer_name(router, objects::ADDRESSES[family])).into()
}

/// Applies the BGPPeers: with this password over IPv4, and with the Secret's over IPv6.
fn write(lab: &Lab, password: &str) -> Result<()> {
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

fn forget_secret(lab: &Lab) -> Result<()> {
    lab.kubectl(&["delete", "secret", SECRET, "-n", NAMESPACE]).map(drop)
}

/// Waits until the reason for the missing IPv6 sessions is reported, and checks that none was
/// tried.
fn closed(lab: &Lab, node: &Host, why: &str) -> Result<()> {
    for (peer, router) in names(1).iter().zip(ROUTERS) {
        reported::wait_no_session(lab, &node.name, peer, &["spec.passwordSecret", SECRET, why])?;
        reported::wait_condition(lab, ("bgppeer", peer), VALID, ("BadSecret", why))?;
        let [v4, v6] = connection_attempts::counted(lab, router)?;
        ensure!(v4 > 0 && v6 == 0, "{router} received {v4} attempts over IPv4, and {v6} over IPv6");
    }
    Ok(())
}

/// Waits until a wrong password is reported as a possible reason.
fn refused(lab: &Lab, node: &Host) -> Result<()> {
    for peer in names(0).iter().chain(&names(1)) {
        reported::wait_no_session(
            lab,
            &node.name,
            peer,
            &["no connection to the router", "with this password"],
        )?;
        reported::wait_condition(
            lab,
            ("bgppeer", peer),
            ESTABLISHED,
            ("NoSession", "with this password"),
        )?;
        reported::wait_condition(lab, ("bgppeer", peer), VALID, ("Valid", ""))?;
    }
    Ok(())
}
