//! Conflicting hosts: a host that takes an address of FerroLB, a host that had it first, and a node
//! whose own kernel replies for it. The status reports each, and no conflict becomes a storm of
//! frames.

use crate::frame_log::{self, FrameLog};
use crate::metrics::metric;
use crate::pools::STATE_MAX;
use crate::scenario::{print_measured, run_scenario, step};
use crate::segment::{self, SegmentSocket};
use crate::services::{self, service};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::topology::{CLIENT, CONTROL_PLANE, Host};
use ferrolb_lab::{Lab, Options, wait};
use ferrolb_proto::api::{CustomResourceKind, GROUP, NAMESPACE, resource};
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::HelloKeyRing;
use kube::api::{Api, DynamicObject};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// The first address of the pool, and the second.
const FIRST: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
const SECOND: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 201);
/// Time for which a foreign host announces the address.
const CONFLICT_TIME: Duration = Duration::from_secs(11);
/// Maximum number of the owner's defending announcements in that time: one every 10 s (RFC 5227
/// section 2.4), each in both ARP forms.
const DEFENSES_MAX: usize = 2 * 2;
/// Maximum time until a new address that a host already has is released: three times the expected
/// second.
const RELEASED_MAX: Duration = Duration::from_secs(3);
/// Maximum time until the address is announced after that host releases it: three times the
/// expected 15 s.
const AGAIN_MAX: Duration = Duration::from_secs(45);
/// Longer than the 5 s for which an announcement is repeated.
const REPEATS: Duration = Duration::from_secs(6);

#[test]
fn the_owner_keeps_an_address_that_a_foreign_host_announces_and_the_status_names_the_host() {
    run_scenario(&Options::named("strangers"), |lab| {
        lab.start_ferrolb()?;
        let keys = frame_log::keys(lab)?;
        services::apply_pool_and_pod(lab, "node1")?;
        let address = services::serve(lab, "web")?;
        ensure!(address == FIRST, "the first address is {address}");
        let owner = segment::wait_owner(lab, address)?;
        wait::during(REPEATS, || Ok(()))?;
        let (_, evidence) = step("a host takes an address that is served", || {
            FrameLog::of(lab, &keys, || announce_from_foreign_host(lab, address, &owner))
        })?;
        step("the owner answers on, and defends it no more than every 10 s", || {
            let mac = mac(&segment::mac_of(&owner)?)?;
            let defences = evidence.gratuitous_frames(address, mac).len();
            print_measured(&format!(
                "address taken by a stranger for {CONFLICT_TIME:?}: {defences} frames in defence"
            ));
            ensure!(
                (1..=DEFENSES_MAX).contains(&defences),
                "{defences} frames in defence within {CONFLICT_TIME:?}"
            );
            let claims = evidence.claims(address);
            ensure!(claims.is_empty(), "there were claims: {claims:?}");
            let now = SegmentSocket::open(lab)?.replying(address)?;
            ensure!(now.contains(&mac), "{owner} does not reply, but {now:?} do");
            Ok(())
        })?;
        step("the second address is had by a host before it is given to a Service", || {
            already_in_use(lab, &keys)
        })?;
        step("the kernel of a node that is not the owner answers for the first", || {
            kernel_replies(lab, address)
        })
    });
}

/// Announces the address from another host repeatedly, as `arping -U` does.
fn announce_from_foreign_host(lab: &Lab, address: Ipv4Addr, owner: &str) -> Result<()> {
    let counted = || metric(lab, owner, "ferrolb_speaker_strangers_total");
    let (before, text, seconds) =
        (counted()?, address.to_string(), CONFLICT_TIME.as_secs().to_string());
    // The host has the address meanwhile, because it sends from that address.
    let place = format!("{address}/32");
    lab.exec(CONTROL_PLANE, &["ip", "address", "add", &place, "dev", "lo"])?;
    let sent = lab.try_exec(CONTROL_PLANE, &["arping", "-U", "-c", &seconds, "-I", "eth0", &text]);
    lab.exec(CONTROL_PLANE, &["ip", "address", "delete", &place, "dev", "lo"])?;
    sent?;
    ensure!(counted()? > before, "no frame of the foreign host is counted");
    wait_issue(lab, owner, address, "AddressConflict", &Host::control_plane().mac(), None)
}

/// Assigns to the next Service an address that a host already has.
fn already_in_use(lab: &Lab, keys: &HelloKeyRing) -> Result<()> {
    let (cp, place) = (Host::control_plane(), format!("{SECOND}/32"));
    lab.exec(CONTROL_PLANE, &["ip", "address", "add", &place, "dev", "eth0"])?;
    let (given_up, evidence) = FrameLog::of(lab, keys, || {
        let given_up = wait_released(lab, mac(&cp.mac())?)?;
        wait::until("a node says who has it", STATE_MAX, || {
            let says =
                |node: &String| has_issue(lab, node, SECOND, "AddressConflict", &cp.mac(), None);
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
        let late = evidence.gratuitous_frames(SECOND, mac(&segment::mac_of(&node)?)?);
        ensure!(
            !late.iter().any(|at| *at > given_up),
            "{node} announces an address that it has released"
        );
    }
    lab.exec(CONTROL_PLANE, &["ip", "address", "delete", &place, "dev", "eth0"])?;
    let let_go = wait::now();
    wait::until("a node answers for it", AGAIN_MAX, || segment::owner(lab, SECOND).map(Some))?;
    print_measured(&format!(
        "an address that a host had: answered for {:?} after it let go",
        let_go.elapsed()
    ));
    Ok(())
}

/// Creates a Service that gets the second address. Returns the time at which only the other host
/// still replied for it.
fn wait_released(lab: &Lab, host: Mac) -> Result<Instant> {
    lab.apply_objects(&[service("web2", json!({}))])?;
    let address = services::address(lab, "web2")?;
    ensure!(address == SECOND, "the second address is {address}");
    let (given, mut wire) = (wait::now(), SegmentSocket::open(lab)?);
    wait::until("only the host answers", STATE_MAX, || {
        let answering = wire.replying(address)?;
        ensure!(answering == [host].into(), "{answering:?} reply");
        Ok(Some(()))
    })?;
    let took = given.elapsed();
    // The measurement itself takes some time.
    print_measured(&format!("an address that a host has: given up after {took:?} or less"));
    ensure!(took <= RELEASED_MAX, "the address was released only after {took:?}");
    Ok(wait::now())
}

/// Adds the address to a node's loopback interface: the kernel replies for any address of any
/// interface.
fn kernel_replies(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    let owner = segment::owner(lab, address)?;
    let node = lab.nodes().into_iter().find(|node| *node != owner).context("another node")?;
    let place = format!("{address}/32");
    lab.exec(&node, &["ip", "address", "add", &place, "dev", "lo"])?;
    // The owner receives the other node's replies only to its own requests; the kernel replies to
    // this client's request by unicast. The gratuitous frame below is the one that the owner
    // receives.
    let mut wire = SegmentSocket::open(lab)?;
    wait::until(
        "two answer",
        STATE_MAX,
        || Ok((wire.replying(address)?.len() == 2).then_some(())),
    )?;
    lab.exec(&node, &["arping", "-U", "-c", "1", "-I", "eth0", &address.to_string()])?;
    wait_issue(lab, &owner, address, "KernelAnswers", &segment::mac_of(&node)?, Some(&node))?;
    lab.exec(&node, &["ip", "address", "delete", &place, "dev", "lo"])?;
    let page = lab.http_get(CLIENT, services::http(address), "/")?;
    ensure!(page.status == 200, "the page has status {}", page.status);
    Ok(())
}

fn wait_issue(
    lab: &Lab,
    node: &str,
    address: Ipv4Addr,
    reason: &str,
    mac: &str,
    member: Option<&str>,
) -> Result<()> {
    wait::until(&format!("{node} says {reason}"), STATE_MAX, || {
        has_issue(lab, node, address, reason, mac, member).map(Some)
    })
}

/// Checks that the status of a node's speaker names this issue of the address
/// (`status.interfaces[].issues[]`).
fn has_issue(
    lab: &Lab,
    node: &str,
    address: Ipv4Addr,
    reason: &str,
    mac: &str,
    member: Option<&str>,
) -> Result<()> {
    let status = lab.api(async |client| {
        let kind = resource(CustomResourceKind::SpeakerStatus, GROUP);
        let speakers: Api<DynamicObject> = Api::namespaced_with(client, NAMESPACE, &kind);
        Ok(speakers.get(node).await?.data["status"].take())
    })?;
    let links = status["interfaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    let troubles = links.iter().filter_map(|link| link["issues"].as_array()).flatten();
    let is = |trouble: &&Value| {
        trouble["address"] == address.to_string()
            && trouble["reason"] == reason
            && trouble["mac"] == mac
            && trouble["node"].as_str().filter(|node| !node.is_empty()) == member
    };
    ensure!(troubles.into_iter().any(|trouble| is(&trouble)), "the status of {node} is {status}");
    Ok(())
}

fn mac(text: &str) -> Result<Mac> {
    let bytes: Option<Vec<u8>> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).map(Mac).context("six bytes")
}
