//! Somebody else has an address of ours: a host that takes it, one that had it first, and a node whose own kernel answers. It is said where an
//! operator looks, and nobody fights at full speed.

use crate::client_wire::{self, Wire};
use crate::evidence::{self, Evidence};
use crate::metrics::metric;
use crate::pools::BRINGING_MAX;
use crate::services::{self, service};
use crate::stage::{measured, play, step};
use anyhow::{Context, Result, ensure};
use ferrolb_proto::api::{GROUP, Kind, NAMESPACE, resource};
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::KeyRing;
use ferrolb_tests::topology::{CLIENT, CONTROL_PLANE, Host};
use ferrolb_tests::{Lab, Options, wait};
use kube::api::{Api, DynamicObject};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// The first address of the pool, and the second.
const FIRST: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
const SECOND: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 201);
/// How long a stranger insists.
const TAKEN: Duration = Duration::from_secs(11);
/// How often an owner may say in that time that the address is its own: every 10 s (RFC 5227 section 2.4), each time in both forms.
const DEFENCES_MAX: usize = 2 * 2;
/// A fresh address that somebody has is given up within a second, three times over.
const GIVEN_UP_MAX: Duration = Duration::from_secs(3);
/// And announced within 15 s after that host lets go, three times over.
const AGAIN_MAX: Duration = Duration::from_secs(45);
/// Whoever repeats an announcement does so for 5 s.
const REPEATS: Duration = Duration::from_secs(6);

#[test]
fn a_stranger_with_our_address_is_named_and_an_owner_neither_yields_nor_fights() {
    play(&Options::named("strangers"), |lab| {
        lab.start_ferrolb()?;
        let keys = evidence::keys(lab)?;
        services::furnish(lab, "node1")?;
        let address = services::serve(lab, "web")?;
        ensure!(address == FIRST, "the first address is {address}");
        let owner = client_wire::wait_owner(lab, address)?;
        wait::during(REPEATS, || Ok(()))?;
        let (_, evidence) = step("a host takes an address that is served", || {
            Evidence::of(lab, &keys, || taken(lab, address, &owner))
        })?;
        step("the owner answers on, and defends it no more than every 10 s", || {
            let mac = mac(&client_wire::mac_of(&owner)?)?;
            let defences = evidence.announcements(address, mac).len();
            measured(&format!("address taken by a stranger for {TAKEN:?}: {defences} frames in defence"));
            ensure!((1..=DEFENCES_MAX).contains(&defences), "{defences} frames in defence within {TAKEN:?}");
            let claims = evidence.claims(address);
            ensure!(claims.is_empty(), "there were claims: {claims:?}");
            let now = Wire::open(lab)?.answering(address)?;
            ensure!(now.contains(&mac), "{owner} answers no longer, but {now:?}");
            Ok(())
        })?;
        step("the second address is had by a host before it is given to a Service", || had_before(lab, &keys))?;
        step("the kernel of a node that is not the owner answers for the first", || kernel_answers(lab, address))
    });
}

/// A host announces the address again and again, as `arping -U` does.
fn taken(lab: &Lab, address: Ipv4Addr, owner: &str) -> Result<()> {
    let counted = || metric(lab, owner, "ferrolb_speaker_strangers_total");
    let (before, text, seconds) = (counted()?, address.to_string(), TAKEN.as_secs().to_string());
    // The host has the address for that time: it sends from there.
    let place = format!("{address}/32");
    lab.exec(CONTROL_PLANE, &["ip", "address", "add", &place, "dev", "lo"])?;
    let sent = lab.try_exec(CONTROL_PLANE, &["arping", "-U", "-c", &seconds, "-I", "eth0", &text]);
    lab.exec(CONTROL_PLANE, &["ip", "address", "delete", &place, "dev", "lo"])?;
    sent?;
    ensure!(counted()? > before, "no frame of the stranger is counted");
    wait_trouble(lab, owner, address, "AddressConflict", &Host::control_plane().mac(), None)
}

/// A host has an address that the next Service is given.
fn had_before(lab: &Lab, keys: &KeyRing) -> Result<()> {
    let (cp, place) = (Host::control_plane(), format!("{SECOND}/32"));
    lab.exec(CONTROL_PLANE, &["ip", "address", "add", &place, "dev", "eth0"])?;
    let (given_up, evidence) = Evidence::of(lab, keys, || {
        let given_up = given_up(lab, mac(&cp.mac())?)?;
        wait::until("a node says who has it", BRINGING_MAX, || {
            let says = |node: &String| trouble(lab, node, SECOND, "AddressConflict", &cp.mac(), None);
            let said: Vec<_> = lab.nodes().iter().map(says).collect();
            if said.iter().any(Result::is_ok) {
                Ok(Some(()))
            } else {
                said.into_iter().collect::<Result<()>>().map(|()| None)
            }
        })?;
        wait::during(REPEATS, || Ok(()))?;
        Ok(given_up)
    })?;
    for node in lab.nodes() {
        let late = evidence.announcements(SECOND, mac(&client_wire::mac_of(&node)?)?);
        ensure!(!late.iter().any(|at| *at > given_up), "{node} announces what it has given up");
    }
    lab.exec(CONTROL_PLANE, &["ip", "address", "delete", &place, "dev", "eth0"])?;
    let let_go = wait::now();
    wait::until("a node answers for it", AGAIN_MAX, || client_wire::owner(lab, SECOND).map(Some))?;
    measured(&format!("an address that a host had: answered for {:?} after it let go", let_go.elapsed()));
    Ok(())
}

/// Makes a Service that is given the second address; when the host that has it was alone in answering for it.
fn given_up(lab: &Lab, host: Mac) -> Result<Instant> {
    lab.apply_objects(&[service("web2", json!({}))])?;
    let address = services::address(lab, "web2")?;
    ensure!(address == SECOND, "the second address is {address}");
    let (given, mut wire) = (wait::now(), Wire::open(lab)?);
    wait::until("only the host answers", BRINGING_MAX, || {
        let answering = wire.answering(address)?;
        ensure!(answering == [host].into(), "{answering:?} answer");
        Ok(Some(()))
    })?;
    let took = given.elapsed();
    // Asking takes a while itself.
    measured(&format!("an address that a host has: given up after {took:?} or less"));
    ensure!(took <= GIVEN_UP_MAX, "it was given up only after {took:?}");
    Ok(wait::now())
}

/// A node has the address on its loopback, and its kernel answers for all it has.
fn kernel_answers(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    let owner = client_wire::owner(lab, address)?;
    let node = lab.nodes().into_iter().find(|node| *node != owner).context("another node")?;
    let place = format!("{address}/32");
    lab.exec(&node, &["ip", "address", "add", &place, "dev", "lo"])?;
    // The owner hears the other's answers only where it asks; a client that asks all makes the kernel answer the client alone.
    let mut wire = Wire::open(lab)?;
    wait::until("two answer", BRINGING_MAX, || Ok((wire.answering(address)?.len() == 2).then_some(())))?;
    lab.exec(&node, &["arping", "-U", "-c", "1", "-I", "eth0", &address.to_string()])?;
    wait_trouble(lab, &owner, address, "KernelAnswers", &client_wire::mac_of(&node)?, Some(&node))?;
    lab.exec(&node, &["ip", "address", "delete", &place, "dev", "lo"])?;
    let page = lab.http_get(CLIENT, services::http(address), "/")?;
    ensure!(page.status == 200, "the Service says {}", page.status);
    Ok(())
}

fn wait_trouble(lab: &Lab, node: &str, address: Ipv4Addr, reason: &str, mac: &str, member: Option<&str>) -> Result<()> {
    wait::until(&format!("{node} says {reason}"), BRINGING_MAX, || {
        trouble(lab, node, address, reason, mac, member).map(Some)
    })
}

/// The status of a node's speaker names this trouble with the address (`status.links[].troubles[]`).
fn trouble(lab: &Lab, node: &str, address: Ipv4Addr, reason: &str, mac: &str, member: Option<&str>) -> Result<()> {
    let status = lab.api(async |client| {
        let kind = resource(Kind::SpeakerStatus, GROUP);
        let speakers: Api<DynamicObject> = Api::namespaced_with(client, NAMESPACE, &kind);
        Ok(speakers.get(node).await?.data["status"].take())
    })?;
    let links = status["links"].as_array().map(Vec::as_slice).unwrap_or_default();
    let troubles = links.iter().filter_map(|link| link["troubles"].as_array()).flatten();
    let is = |trouble: &&Value| {
        trouble["address"] == address.to_string()
            && trouble["reason"] == reason
            && trouble["mac"] == mac
            && trouble["node"].as_str().filter(|node| !node.is_empty()) == member
    };
    ensure!(troubles.into_iter().any(|trouble| is(&trouble)), "{node} says {status}");
    Ok(())
}

fn mac(text: &str) -> Result<Mac> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).map(Mac).context("six bytes")
}
