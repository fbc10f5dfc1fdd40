//! Interfaces of a node appear, change and disappear while its speaker runs. The speaker follows
//! the kernel's notifications, and unrelated interfaces cost it nothing.

use crate::metrics::{admin, metric};
use crate::node_failure::{PROBE_LENGTH, probed, serve_elsewhere, within_target};
use crate::pools::STATE_MAX;
use crate::scenario::{run_scenario, step};
use crate::segment::{self, SegmentSocket};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::topology::{CLIENT, Host};
use ferrolb_lab::{Lab, Options, run, wait};
use ferrolb_proto::api::{CustomResourceKind, GROUP, NAMESPACE, SpeakerStatusObject, resource};
use ferrolb_proto::wire::Mac;
use kube::api::Api;
use std::fmt::Write;
use std::fs;
use std::net::IpAddr;

/// The node whose interfaces change.
const NODE: &str = "node1";
/// Number of veth pairs, as of a container network: two interfaces each.
const VETH_PAIRS: usize = 100;
/// The client's end of the node's additional interface.
const CLIENT_END: &str = "far";

#[test]
fn interfaces_appear_change_and_disappear_and_two_hundred_unrelated_ones_cost_nothing() {
    run_scenario(&Options { nodes: 2, ..Options::named("links") }, |lab| {
        lab.start_ferrolb()?;
        let (address, owner) = step("a Service is served", || serve_elsewhere(lab))?;
        let before = threads(lab)?;
        step("a further link is spoken on, with a thread of its own", || {
            on_node(
                lab,
                &format!(
                    "link add lan type veth peer name {CLIENT_END} netns {}",
                    namespace(lab, CLIENT)
                ),
            )?;
            lab.exec(CLIENT, &["ip", "link", "set", CLIENT_END, "up"])?;
            // No other speaker uses this interface. A subnet with the pool's addresses makes it
            // eligible for announcements.
            on_node(lab, "link set lan up\naddress add 172.30.0.99/24 dev lan noprefixroute")?;
            wait_announced(lab, address, "lan")?;
            ensure!(
                threads(lab)? == before + 1,
                "there were {before} threads, and are {}",
                threads(lab)?
            );
            Ok(())
        })?;
        step("two hundred veths cost no thread", || veths(lab, before + 1))?;
        step("the link gets another hardware address, and answers with it", || {
            on_node(lab, "link set lan address 02:fb:00:00:01:01")?;
            wait_announced(lab, address, "lan")
        })?;
        step("it is renamed", || {
            on_node(lab, "link set lan down\nlink set lan name wan\nlink set wan up")?;
            wait_announced(lab, address, "wan")?;
            ensure!(
                !listed(lab)?.iter().any(|name| name == "lan"),
                "the status still has its old name"
            );
            ensure!(series(lab, "lan")? == 0, "metrics still have its old name");
            Ok(())
        })?;
        step("it goes down and comes up", || {
            on_node(lab, "link set wan down")?;
            gone(lab, before)?;
            on_node(lab, "link set wan up")?;
            wait_announced(lab, address, "wan")
        })?;
        step("it becomes a port of a bridge, and none again", || {
            on_node(lab, "link add apart type bridge\nlink set wan master apart")?;
            gone(lab, before)?;
            on_node(lab, "link set wan nomaster\nlink delete apart")?;
            wait_announced(lab, address, "wan")
        })?;
        step("it goes for good, and nothing of it stays", || {
            on_node(lab, "link delete wan")?;
            gone(lab, before)?;
            wait::until("no metric of it", STATE_MAX, || {
                Ok((series(lab, "wan")? == 0).then_some(()))
            })?;
            wait::until("no status of it", STATE_MAX, || {
                Ok((listed(lab)? == ["eth0"]).then_some(()))
            })
        })?;
        step("the owner's own link goes down: its address moves at once", || {
            let report = probed(lab, address, "owner's link down", PROBE_LENGTH, || {
                lab.set_link(&owner, false)
            })?;
            within_target(&report)?;
            let now = segment::owner(lab, address)?;
            ensure!(now != owner, "{owner} owns the address although its interface is down");
            Ok(())
        })
    });
}

/// Creates many interfaces, as of a container network, and deletes them.
fn veths(lab: &Lab, before: usize) -> Result<()> {
    let mut batch = String::new();
    for number in 0..VETH_PAIRS {
        let [one, other] = ["a", "b"].map(|end| format!("veth{number}{end}"));
        let _ = writeln!(
            batch,
            "link add {one} type veth peer name {other}\nlink set {one} up\nlink set {other} up"
        );
    }
    on_node(lab, &batch)?;
    // The kernel's notifications are ordered: once this change is in the status, the speaker has
    // processed all earlier ones.
    on_node(lab, "link set lan address 02:fb:00:00:01:02")?;
    wait::until("the links were noticed", STATE_MAX, || {
        let status = status(lab)?;
        Ok(status.interfaces.iter().any(|link| link.mac == "02:fb:00:00:01:02").then_some(()))
    })?;
    ensure!(listed(lab)? == ["eth0", "lan"], "the speaker uses {:?}", listed(lab)?);
    ensure!(threads(lab)? == before, "there were {before} threads, and are {}", threads(lab)?);
    let batch: String =
        (0..VETH_PAIRS).map(|number| format!("link delete veth{number}a\n")).collect();
    on_node(lab, &batch)
}

/// Waits until the status shows the interface as up with its current MAC address, and the address
/// is announced there with that MAC address.
fn wait_announced(lab: &Lab, address: IpAddr, link: &str) -> Result<()> {
    let own = mac_of_link(lab, link)?;
    wait::until(&format!("{link} is in the status as it is"), STATE_MAX, || {
        let status = status(lab)?;
        let found = status
            .interfaces
            .iter()
            .find(|found| found.name == link)
            .context("the status does not list it")?;
        ensure!(found.up && found.mac == own.to_string(), "the status is {found:?}");
        Ok(Some(()))
    })?;
    wait::until(&format!("{link} answers"), STATE_MAX, || {
        let answering =
            SegmentSocket::open_on(lab, &Host::client(), CLIENT_END)?.replying(address)?;
        ensure!(answering == [own].into(), "{answering:?} reply, but {link} has {own}");
        Ok(Some(()))
    })
}

/// Waits until the additional interface is not used: its thread has ended.
fn gone(lab: &Lab, before: usize) -> Result<()> {
    wait::until("its thread has ended", STATE_MAX, || {
        let now = threads(lab)?;
        ensure!(now == before, "there are {now} threads, and were {before}");
        Ok(Some(()))
    })
}

/// Returns the MAC address of an interface of the node.
fn mac_of_link(lab: &Lab, link: &str) -> Result<Mac> {
    let shown = lab.exec(NODE, &["ip", "-brief", "link", "show", "dev", link])?;
    let text = shown.split_whitespace().nth(2).context("a hardware address")?;
    let bytes: Option<Vec<u8>> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).map(Mac).context("six bytes")
}

fn status(lab: &Lab) -> Result<ferrolb_proto::api::SpeakerStatusStatus> {
    let speaker = lab.api(async |client| {
        let speakers: Api<SpeakerStatusObject> = Api::namespaced_with(
            client,
            NAMESPACE,
            &resource(CustomResourceKind::SpeakerStatus, GROUP),
        );
        Ok(speakers.get(NODE).await?)
    })?;
    speaker.status.context("no status yet")
}

/// Returns the interfaces in the node's status.
fn listed(lab: &Lab) -> Result<Vec<String>> {
    Ok(status(lab)?.interfaces.into_iter().map(|link| link.name).collect())
}

/// Returns the number of metric series that name this interface.
fn series(lab: &Lab, link: &str) -> Result<usize> {
    metric(lab, NODE, "ferrolb_speaker_owned_addresses")?;
    let page = lab.http_get(CLIENT, admin(lab, NODE)?, "/metrics")?;
    Ok(page.body.lines().filter(|line| line.contains(&format!("link=\"{link}\""))).count())
}

/// Returns the number of threads of the node's speaker.
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
