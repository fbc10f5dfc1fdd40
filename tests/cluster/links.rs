//! A node's links come, change and go while its speaker runs: it follows by the kernel's own messages, and links that are none of its business
//! cost it nothing.

use crate::client_wire::{self, Wire};
use crate::metrics::{admin, metric};
use crate::node_death::{PROBE_LENGTH, probed, serve_elsewhere, within_budget};
use crate::pools::BRINGING_MAX;
use crate::stage::{play, step};
use anyhow::{Context, Result, ensure};
use ferrolb_proto::api::{GROUP, Kind, NAMESPACE, Speaker, resource};
use ferrolb_proto::wire::Mac;
use ferrolb_tests::topology::{CLIENT, Host};
use ferrolb_tests::{Lab, Options, run, wait};
use kube::api::Api;
use std::fmt::Write;
use std::fs;
use std::net::IpAddr;

/// The node whose links change.
const NODE: &str = "node1";
/// Links of a container network: two at a time.
const VETH_PAIRS: usize = 100;
/// The other end of the node's further link, at the client.
const FAR: &str = "far";

#[test]
fn links_come_change_and_go_and_two_hundred_of_no_concern_cost_nothing() {
    play(&Options { nodes: 2, ..Options::named("links") }, |lab| {
        lab.start_ferrolb()?;
        let (address, owner) = step("a Service is served", || serve_elsewhere(lab))?;
        let before = threads(lab)?;
        step("a further link is spoken on, with a thread of its own", || {
            on_node(lab, &format!("link add lan type veth peer name {FAR} netns {}", namespace(lab, CLIENT)))?;
            lab.exec(CLIENT, &["ip", "link", "set", FAR, "up"])?;
            // Nobody else speaks there: what makes it one to announce on is a subnet that has the
            // pool's addresses.
            on_node(lab, "link set lan up\naddress add 172.30.0.99/24 dev lan noprefixroute")?;
            answers(lab, address, "lan")?;
            ensure!(threads(lab)? == before + 1, "there were {before} threads, and are {}", threads(lab)?);
            Ok(())
        })?;
        step("two hundred veths cost no thread", || veths(lab, before + 1))?;
        step("the link gets another hardware address, and answers with it", || {
            on_node(lab, "link set lan address 02:fb:00:00:01:01")?;
            answers(lab, address, "lan")
        })?;
        step("it is renamed", || {
            on_node(lab, "link set lan down\nlink set lan name wan\nlink set wan up")?;
            answers(lab, address, "wan")?;
            ensure!(!listed(lab)?.iter().any(|name| name == "lan"), "the status still has its old name");
            ensure!(series(lab, "lan")? == 0, "metrics still have its old name");
            Ok(())
        })?;
        step("it goes down and comes up", || {
            on_node(lab, "link set wan down")?;
            gone(lab, before)?;
            on_node(lab, "link set wan up")?;
            answers(lab, address, "wan")
        })?;
        step("it becomes a port of a bridge, and none again", || {
            on_node(lab, "link add apart type bridge\nlink set wan master apart")?;
            gone(lab, before)?;
            on_node(lab, "link set wan nomaster\nlink delete apart")?;
            answers(lab, address, "wan")
        })?;
        step("it goes for good, and nothing of it stays", || {
            on_node(lab, "link delete wan")?;
            gone(lab, before)?;
            wait::until("no metric of it", BRINGING_MAX, || Ok((series(lab, "wan")? == 0).then_some(())))?;
            wait::until("no status of it", BRINGING_MAX, || Ok((listed(lab)? == ["eth0"]).then_some(())))
        })?;
        step("the owner's own link goes down: its address moves at once", || {
            let report = probed(lab, address, "owner's link down", PROBE_LENGTH, || lab.set_link(&owner, false))?;
            within_budget(&report)?;
            let now = client_wire::owner(lab, address)?;
            ensure!(now != owner, "{owner} answers over a link that is down");
            Ok(())
        })
    });
}

/// Makes many links of a container network, and takes them away.
fn veths(lab: &Lab, before: usize) -> Result<()> {
    let mut batch = String::new();
    for number in 0..VETH_PAIRS {
        let [one, other] = ["a", "b"].map(|end| format!("veth{number}{end}"));
        let _ = writeln!(batch, "link add {one} type veth peer name {other}\nlink set {one} up\nlink set {other} up");
    }
    on_node(lab, &batch)?;
    // What the speaker hears after all of them it heard after all of them.
    on_node(lab, "link set lan address 02:fb:00:00:01:02")?;
    wait::until("the links were noticed", BRINGING_MAX, || {
        let status = status(lab)?;
        Ok(status.links.iter().any(|link| link.mac == "02:fb:00:00:01:02").then_some(()))
    })?;
    ensure!(listed(lab)? == ["eth0", "lan"], "{:?} are spoken on", listed(lab)?);
    ensure!(threads(lab)? == before, "there were {before} threads, and are {}", threads(lab)?);
    let batch: String = (0..VETH_PAIRS).map(|number| format!("link delete veth{number}a\n")).collect();
    on_node(lab, &batch)
}

/// Waits until the node's link, called so, is up in its status, and answers for the address with the link's hardware address of now.
fn answers(lab: &Lab, address: IpAddr, link: &str) -> Result<()> {
    let own = mac_of_link(lab, link)?;
    wait::until(&format!("{link} is in the status as it is"), BRINGING_MAX, || {
        let status = status(lab)?;
        let found = status.links.iter().find(|found| found.name == link).context("it is not there")?;
        ensure!(found.up && found.mac == own.to_string(), "it says {found:?}");
        Ok(Some(()))
    })?;
    wait::until(&format!("{link} answers"), BRINGING_MAX, || {
        let answering = Wire::open_on(lab, &Host::client(), FAR)?.answering(address)?;
        ensure!(answering == [own].into(), "{answering:?} answer, and {link} has {own}");
        Ok(Some(()))
    })
}

/// Waits until the further link is spoken on no longer: its thread has ended.
fn gone(lab: &Lab, before: usize) -> Result<()> {
    wait::until("its thread has ended", BRINGING_MAX, || {
        let now = threads(lab)?;
        ensure!(now == before, "there are {now} threads, and were {before}");
        Ok(Some(()))
    })
}

/// The hardware address that a link of the node has.
fn mac_of_link(lab: &Lab, link: &str) -> Result<Mac> {
    let shown = lab.exec(NODE, &["ip", "-brief", "link", "show", "dev", link])?;
    let text = shown.split_whitespace().nth(2).context("a hardware address")?;
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).map(Mac).context("six bytes")
}

fn status(lab: &Lab) -> Result<ferrolb_proto::api::SpeakerStatusStatus> {
    let speaker = lab.api(async |client| {
        let speakers: Api<Speaker> = Api::namespaced_with(client, NAMESPACE, &resource(Kind::SpeakerStatus, GROUP));
        Ok(speakers.get(NODE).await?)
    })?;
    speaker.status.context("no status yet")
}

/// The links in the node's status.
fn listed(lab: &Lab) -> Result<Vec<String>> {
    Ok(status(lab)?.links.into_iter().map(|link| link.name).collect())
}

/// How many series of metrics name this link.
fn series(lab: &Lab, link: &str) -> Result<usize> {
    metric(lab, NODE, "ferrolb_speaker_owned_addresses")?;
    let page = lab.http_get(CLIENT, admin(lab, NODE)?, "/metrics")?;
    Ok(page.body.lines().filter(|line| line.contains(&format!("link=\"{link}\""))).count())
}

/// How many threads the node's speaker has.
fn threads(lab: &Lab) -> Result<usize> {
    let pid = lab.pid(&format!("speaker-{NODE}"))?;
    Ok(fs::read_dir(format!("/proc/{pid}/task"))?.count())
}

fn on_node(lab: &Lab, batch: &str) -> Result<()> {
    run::ip_batch(Some(&namespace(lab, NODE)), batch)
}

fn namespace(lab: &Lab, host: &str) -> String {
    lab.state().name.namespace(host)
}
