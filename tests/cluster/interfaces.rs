//! Interfaces of a node appear, change and disappear while its speaker runs. The speaker follows
//! the kernel's notifications, and starts no thread for unrelated interfaces.

use crate::metrics::{admin, metric};
use crate::node_failure::{PROBE_TIME, check_longest_gap, probe_during, serve_from_other_node};
use crate::pools::STATE_MAX;
use crate::scenario::{run_scenario, step};
use crate::segment::{self, SegmentSocket};
use crate::{pools, services};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::topology::{CLIENT, Host};
use ferrolb_lab::{Lab, Options, run, wait};
use ferrolb_proto::api::{
    CustomResourceKind, GROUP, NAMESPACE, SpeakerStatusObject, SpeakerStatusStatus, resource,
};
use ferrolb_proto::wire::Mac;
use kube::api::Api;
use serde_json::json;
use std::fmt::Write;
use std::fs;
use std::net::IpAddr;

/// The node whose interfaces change.
const NODE: &str = "node1";
/// Number of veth pairs, as a container network creates them: two interfaces each.
const VETH_PAIRS: usize = 100;
/// The client's end of the veth pair that is the node's additional interface.
const CLIENT_END: &str = "far";

#[test]
fn a_speaker_follows_changes_of_its_interfaces() {
    run_scenario(&Options { nodes: 2, ..Options::named("interfaces") }, |lab| {
        lab.start_ferrolb()?;
        let (address, owner) = step("a Service is served", || serve_from_other_node(lab))?;
        let before = threads(lab)?;
        step("the speaker uses an additional interface in a thread of its own", || {
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
                "the speaker had {before} threads, and has {}",
                threads(lab)?
            );
            Ok(())
        })?;
        step("200 unrelated interfaces cost no thread", || check_unrelated_veths(lab, before + 1))?;
        step("the interface gets another MAC, and the speaker replies with it", || {
            on_node(lab, "link set lan address 02:fb:00:00:01:01")?;
            wait_announced(lab, address, "lan")
        })?;
        step("the interface is renamed", || {
            on_node(lab, "link set lan down\nlink set lan name wan\nlink set wan up")?;
            wait_announced(lab, address, "wan")?;
            ensure!(
                !listed_interfaces(lab)?.iter().any(|name| name == "lan"),
                "the status still lists the old name"
            );
            ensure!(count_series(lab, "lan")? == 0, "the metrics still have the old name");
            Ok(())
        })?;
        step("the interface goes down and up", || {
            on_node(lab, "link set wan down")?;
            wait_unused(lab, before)?;
            on_node(lab, "link set wan up")?;
            wait_announced(lab, address, "wan")
        })?;
        step("the interface becomes a port of a bridge, and is removed from it", || {
            on_node(lab, "link add apart type bridge\nlink set wan master apart")?;
            wait_unused(lab, before)?;
            on_node(lab, "link set wan nomaster\nlink delete apart")?;
            wait_announced(lab, address, "wan")
        })?;
        step("the interface gets another subnet, and announces only addresses in it", || {
            change_subnet(lab, address)
        })?;
        step("conditions report a foreign subnet and an unknown interface", || {
            check_conditions(lab)
        })?;
        step("the interface is deleted and disappears from metrics and status", || {
            delete_interface(lab, before)
        })?;
        step("the owner's interface goes down, and the address moves at once", || {
            let report = probe_during(lab, address, "owner's interface down", PROBE_TIME, || {
                lab.set_link(&owner, false)
            })?;
            check_longest_gap(&report)?;
            let now = segment::owner(lab, address)?;
            ensure!(now != owner, "{owner} owns the address although its interface is down");
            Ok(())
        })
    });
}

/// Creates many interfaces, as a container network does, checks that the speaker starts no thread
/// for them, and deletes them.
fn check_unrelated_veths(lab: &Lab, before: usize) -> Result<()> {
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
    wait::until("the status has the new MAC", STATE_MAX, || {
        let status = status(lab)?;
        Ok(status.interfaces.iter().any(|link| link.mac == "02:fb:00:00:01:02").then_some(()))
    })?;
    ensure!(
        listed_interfaces(lab)? == ["eth0", "lan"],
        "the speaker uses {:?}",
        listed_interfaces(lab)?
    );
    ensure!(threads(lab)? == before, "the speaker had {before} threads, and has {}", threads(lab)?);
    let batch: String =
        (0..VETH_PAIRS).map(|number| format!("link delete veth{number}a\n")).collect();
    on_node(lab, &batch)
}

/// Deletes the additional interface. Then the speaker has as many threads as `before`.
fn delete_interface(lab: &Lab, before: usize) -> Result<()> {
    on_node(lab, "link delete wan")?;
    wait_unused(lab, before)?;
    wait::until("no metric names the interface", STATE_MAX, || {
        Ok((count_series(lab, "wan")? == 0).then_some(()))
    })?;
    wait::until("the status does not list the interface", STATE_MAX, || {
        Ok((listed_interfaces(lab)? == ["eth0"]).then_some(()))
    })
}

/// Moves the additional interface to a subnet without the address of the Service. Then checks that
/// the node announces there only an address of this subnet, and no IPv6 address without IPv6.
fn change_subnet(lab: &Lab, address: IpAddr) -> Result<()> {
    on_node(
        lab,
        "address del 172.30.0.99/24 dev wan\naddress add 172.30.77.1/24 dev wan noprefixroute",
    )?;
    let replying = |address: IpAddr| {
        SegmentSocket::open_on(lab, &Host::client(), CLIENT_END)?.replying(address)
    };
    wait::until("the address is not announced on the interface any more", STATE_MAX, || {
        Ok(replying(address)?.is_empty().then_some(()))
    })?;
    lab.apply_objects(&[pools::pool("far", &["172.30.77.200/32"])])?;
    let mut far = services::service("far", json!({}));
    far["metadata"]["annotations"] = json!({"ferrolb.io/address-pool": "far"});
    lab.apply_objects(&[far])?;
    wait_announced(lab, services::address(lab, "far")?.into(), "wan")?;
    let wan = |status: SpeakerStatusStatus| {
        status.interfaces.into_iter().find(|link| link.name == "wan").context("no such interface")
    };
    let found = wan(status(lab)?)?;
    ensure!(found.subnets == ["172.30.77.0/24"] && !found.ipv6_disabled, "{found:?}");
    lab.exec(NODE, &["sysctl", "-w", "net.ipv6.conf.wan.disable_ipv6=1"])?;
    wait::until("the status reports that IPv6 is disabled", STATE_MAX, || {
        Ok(wan(status(lab)?)?.ipv6_disabled.then_some(()))
    })
}

/// Checks the conditions of a pool outside all subnets, and of an advertisement with an interface
/// that no node has.
fn check_conditions(lab: &Lab) -> Result<()> {
    let reason = |kind, name, reason, word| pools::wait_reason(lab, kind, name, reason, word);
    let pool = CustomResourceKind::IPAddressPool;
    let mut outside = pools::pool("outside", &["198.51.100.0/28"]);
    lab.apply_objects(&[outside.clone()])?;
    reason(pool, "outside", "OutsideSubnets", "198.51.100.0-198.51.100.15")?;
    outside["spec"]["routed"] = json!(true);
    lab.apply_objects(&[outside])?;
    reason(pool, "outside", "Valid", "")?;
    reason(pool, "far", "Valid", "")?;
    let ad = CustomResourceKind::L2Advertisement;
    let named = json!({"interfaces": ["eth0", "eth9"]});
    lab.apply_objects(&[pools::object(ad, "named", named)])?;
    reason(ad, "named", "UnknownInterface", "eth9")
}

/// Waits until the SpeakerStatus shows the interface `link` as up with its current MAC address, and
/// until the speaker replies for `address` on that interface with that MAC address.
fn wait_announced(lab: &Lab, address: IpAddr, link: &str) -> Result<()> {
    let mac = mac_of_link(lab, link)?;
    wait::until(&format!("the status shows {link} as up with its current MAC"), STATE_MAX, || {
        let status = status(lab)?;
        let found = status
            .interfaces
            .iter()
            .find(|found| found.name == link)
            .context("the status does not list the interface")?;
        ensure!(found.up && found.mac == mac.to_string(), "the status is {found:?}");
        Ok(Some(()))
    })?;
    wait::until_heard(&format!("{link} replies"), STATE_MAX, || {
        let replying =
            SegmentSocket::open_on(lab, &Host::client(), CLIENT_END)?.replying(address)?;
        ensure!(replying == [mac].into(), "{replying:?} reply, but {link} has {mac}");
        Ok(Some(()))
    })
}

/// Waits until the speaker has ended the thread of the additional interface, and has as many
/// threads as `before`.
fn wait_unused(lab: &Lab, before: usize) -> Result<()> {
    wait::until("the thread of the interface has ended", STATE_MAX, || {
        let now = threads(lab)?;
        ensure!(now == before, "the speaker has {now} threads, and had {before}");
        Ok(Some(()))
    })
}

/// Returns the MAC address of an interface of the node.
fn mac_of_link(lab: &Lab, link: &str) -> Result<Mac> {
    let shown = lab.exec(NODE, &["ip", "-brief", "link", "show", "dev", link])?;
    let text = shown.split_whitespace().nth(2).context("the interface has no MAC")?;
    let bytes: Option<Vec<u8>> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .map(Mac)
        .with_context(|| format!("{text} is not a MAC address"))
}

fn status(lab: &Lab) -> Result<SpeakerStatusStatus> {
    let speaker = lab.api(async |client| {
        let speakers: Api<SpeakerStatusObject> = Api::namespaced_with(
            client,
            NAMESPACE,
            &resource(CustomResourceKind::SpeakerStatus, GROUP),
        );
        Ok(speakers.get(NODE).await?)
    })?;
    speaker.status.context("the SpeakerStatus has no status yet")
}

/// Returns the names of the interfaces in the node's SpeakerStatus.
fn listed_interfaces(lab: &Lab) -> Result<Vec<String>> {
    Ok(status(lab)?.interfaces.into_iter().map(|link| link.name).collect())
}

/// Returns the number of metric series that name this interface.
fn count_series(lab: &Lab, link: &str) -> Result<usize> {
    metric(lab, NODE, "ferrolb_speaker_owned_addresses")?;
    let page = lab.http_get(CLIENT, admin(lab, NODE)?, "/metrics")?;
    Ok(page.body.lines().filter(|line| line.contains(&format!("link=\"{link}\""))).count())
}

/// Returns the number of threads of the node's speaker.
fn threads(lab: &Lab) -> Result<usize> {
    let pid = lab.pid(&format!("speaker-{NODE}"))?;
    Ok(fs::read_dir(format!("/proc/{pid}/task"))?.count())
}

/// Runs `ip -batch` on the node.
fn on_node(lab: &Lab, batch: &str) -> Result<()> {
    run::ip_batch(Some(&namespace(lab, NODE)), batch)
}

fn namespace(lab: &Lab, host: &str) -> String {
    lab.state().name.namespace(host)
}
