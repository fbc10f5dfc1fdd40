//! What a password opens, and that nothing else is tried without it; the drawing is in README.md.

use crate::expect::standing;
use crate::knocks;
use crate::objects::{self, BGP_MAX, NAMESPACE, peer_name};
use crate::said::{self, ESTABLISHED, VALID};
use anyhow::{Result, ensure};
use ferrolb_tests::routers::{Kind, Peering, Router};
use ferrolb_tests::stage::{measured, play, step};
use ferrolb_tests::topology::Host;
use ferrolb_tests::topology::routers::ROUTERS;
use ferrolb_tests::{Lab, Options, wait};
use serde_json::{Value, json};
use std::net::IpAddr;

/// The routers' password.
const RIGHT: &str = "open-sesame";
/// Another one.
const WRONG: &str = "open-barley";
/// The Secret that the BGPPeers of IPv6 name.
const SECRET: &str = "routers";
/// The type that a Secret with a password is of.
const BASIC_AUTH: &str = "kubernetes.io/basic-auth";

#[test]
fn a_session_is_opened_with_its_password_and_never_without() {
    play(&Options { nodes: 1, bgp: true, ..Options::named("password") }, |lab| {
        let node = Host::node(1);
        let [v4, v6] = node.addresses();
        lab.start_ferrolb()?;
        let routers = step("FRR, BIRD and GoBGP ask for a password", || start(lab))?;
        let all = |expect: &[_]| routers.iter().try_for_each(|router| standing(router, expect));
        step("a password that is written is there, a Secret is not", || {
            write(lab, RIGHT)?;
            all(&[v4])?;
            closed(lab, &node, "there is no Secret")
        })?;
        step("a Secret of another type opens nothing, either", || {
            lab.apply_objects(&[secret("Opaque", RIGHT)])?;
            closed(lab, &node, "it is of type Opaque")
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
            measured(&format!("six passwords made right: the last session stood after {:?}", wait::now() - start));
            names(1).iter().try_for_each(|peer| said::wait_condition(lab, ("bgppeer", peer), VALID, ("Valid", "")))
        })?;
        without_secret(lab, &routers, [v4, v6])
    });
}

/// Sessions whose Secret is deleted.
fn without_secret(lab: &Lab, routers: &[Router<'_>], [v4, v6]: [IpAddr; 2]) -> Result<()> {
    let all = |expect: &[_]| routers.iter().try_for_each(|router| standing(router, expect));
    let say = |reason, words| {
        names(1).iter().try_for_each(|peer| said::wait_condition(lab, ("bgppeer", peer), VALID, (reason, words)))
    };
    step("a Secret that is replaced ends no session, and while it is gone the BGPPeer says so", || {
        let before = established(lab)?;
        forget_secret(lab)?;
        say("BadSecret", "goes on with the last password")?;
        lab.apply_objects(&[secret(BASIC_AUTH, RIGHT)])?;
        say("Valid", "")?;
        all(&[v4, v6])?;
        let after = established(lab)?;
        ensure!(before == after, "the sessions stood since {before}, and now since {after}");
        Ok(())
    })?;
    step("a BGPPeer that is made again needs its Secret", || {
        forget_secret(lab)?;
        for peer in names(1) {
            lab.kubectl(&["delete", "bgppeers.ferrolb.io", &peer, "-n", NAMESPACE])?;
        }
        all(&[v4])?;
        write(lab, RIGHT)?;
        say("BadSecret", "there is no Secret")?;
        all(&[v4])
    })
}

/// The times since which the sessions are established, once the SpeakerStatus has all of them.
fn established(lab: &Lab) -> Result<String> {
    let since = "jsonpath={.items[*].status.bgp.sessions[*].since}";
    wait::until("the status of all sessions", BGP_MAX, || {
        let since = lab.kubectl(&["get", "speakerstatuses.ferrolb.io", "-n", NAMESPACE, "-o", since])?;
        Ok((since.split_whitespace().count() == 2 * ROUTERS.len()).then_some(since))
    })
}

fn start(lab: &Lab) -> Result<Vec<Router<'_>>> {
    let start = |(kind, host): (Kind, &str)| {
        knocks::count(lab, host)?;
        let mut peering = Peering::with_nodes(lab, host)?;
        peering.neighbours.iter_mut().for_each(|neighbour| neighbour.password = Some(RIGHT.to_owned()));
        Router::with(lab, kind, host, &peering)
    };
    Kind::ALL.into_iter().zip(ROUTERS).map(start).collect()
}

/// The names of the BGPPeers of a family: 0 is IPv4.
fn names(family: usize) -> Vec<String> {
    ROUTERS.map(|router| peer_name(router, objects::ADDRESSES[family])).into()
}

/// The BGPPeers: this password over IPv4, that of the Secret over IPv6.
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

/// Waits until it is said why there is no session over IPv6, and none was tried.
fn closed(lab: &Lab, node: &Host, why: &str) -> Result<()> {
    for (peer, router) in names(1).iter().zip(ROUTERS) {
        said::wait_why(lab, &node.name, peer, &["spec.passwordSecret", SECRET, why])?;
        said::wait_condition(lab, ("bgppeer", peer), VALID, ("BadSecret", why))?;
        let [v4, v6] = knocks::counted(lab, router)?;
        ensure!(v4 > 0 && v6 == 0, "{router} was asked {v4} times over IPv4, and {v6} times over IPv6");
    }
    Ok(())
}

/// Waits until it is said that it may be the password.
fn refused(lab: &Lab, node: &Host) -> Result<()> {
    for peer in names(0).iter().chain(&names(1)) {
        said::wait_why(lab, &node.name, peer, &["no connection to the router", "with this password"])?;
        said::wait_condition(lab, ("bgppeer", peer), ESTABLISHED, ("NoSession", "with this password"))?;
        said::wait_condition(lab, ("bgppeer", peer), VALID, ("Valid", ""))?;
    }
    Ok(())
}
