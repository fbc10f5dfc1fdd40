//! `kubectl ferrolb migrate metallb` on a cluster with a running MetalLB: the test executes the
//! printed steps and rollbacks while a client connects and sends ARP requests. Both ways: FerroLB's
//! own objects, and in place.

use crate::running_metallb::{MetalLb, NAMESPACE};
use crate::scenario::{print_measured, run_scenario, step};
use crate::segment::{self, Replies, replies_while};
use crate::services::{self, ADDRESS_ASSIGNED, WEB, service};
use crate::under_load::{run_without_loss, wait_moved};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::ferrolb;
use ferrolb_lab::setup::metallb;
use ferrolb_lab::topology::Host;
use ferrolb_lab::{Lab, Options, Signal, wait};
use ferrolb_proto::wire::Mac;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const GROUP: &str = "metallb.io";
const SERVICES: [&str; 4] = ["web", "shop", "wiki", "mail"];
/// Options of FerroLB's components for the in-place migration.
const IN_PLACE: [&str; 2] = ["--api-group=metallb.io", "--namespace=metallb-system"];
/// Time for which addresses must stay.
const SETTLED: Duration = Duration::from_secs(3);
/// Maximum time without a reply for an address: three times the 160 ms of a node failure.
const UNANSWERED_MAX: Duration = Duration::from_millis(480);

/// The addresses of MetalLB's Services, and the nodes that announce them.
struct Served(Vec<(&'static str, Ipv4Addr, String)>);

#[test]
fn the_steps_of_a_migration_from_metallb_change_no_address() {
    // A build in the scenario would delay all others.
    metallb::build().expect("MetalLB builds");
    run_scenario(&Options::named("migrate"), |lab| {
        lab.start_ferrolb()?;
        let metallb = MetalLb::install(lab)?;
        let served = step("MetalLB serves Services", || Served::set_up(lab, &metallb))?;
        let plan = step("the plan keeps all addresses, and compares both ways", || own_group(lab))?;
        step("the steps before the switch change nothing", || {
            for id in ["save", "copy", "default"] {
                execute(lab, &plan, id, |_| Ok(()))?;
            }
            SERVICES.iter().try_for_each(|name| wait_served_by_metallb(lab, name))
        })?;
        step("FerroLB replaces MetalLB, and nothing moves", || {
            served.check(lab, "migration from MetalLB", || {
                switch(lab, &metallb, &plan)?;
                served.wait_announced(lab)?;
                stop_speakers(lab, &metallb, &plan)
            })?;
            execute(lab, &plan, "verify", |_| Ok(()))
        })?;
        // Until the speakers of MetalLB have found each other, more than one of them may announce
        // an address.
        step("the rollbacks return the Services to MetalLB, on the same nodes", || {
            let roll_back = || roll_back(lab, &metallb, &plan);
            served.check_end(lab, "rollback to MetalLB", roll_back).map(drop)
        })?;
        step("the in-place migration moves nothing", || {
            let plan = in_place(lab)?;
            execute(lab, &plan, "save", |_| Ok(()))?;
            served.check(lab, "in-place migration", || {
                switch(lab, &metallb, &plan)?;
                wait::during(SETTLED, || Ok(()))?;
                stop_speakers(lab, &metallb, &plan)
            })?;
            execute(lab, &plan, "verify", |_| Ok(()))
        })?;
        step("for comparison, an address moves to another node", || hand_over(lab, &served))
    });
}

impl Served {
    /// Starts MetalLB with one object of each kind, and Services that it serves.
    fn set_up(lab: &Lab, metallb: &MetalLb<'_>) -> Result<Self> {
        lab.pod("web", "node3", &WEB)?;
        let object = |version: &str, kind: &str, spec: Value| {
            json!({"apiVersion": format!("{GROUP}/{version}"), "kind": kind,
                "metadata": {"name": "lan", "namespace": NAMESPACE}, "spec": spec})
        };
        let aliases = json!([{"name": "vpn-only", "value": "1234:1"}]);
        // MetalLB's start waits for its attempt to connect, which this host refuses at once.
        let router = Host::client().v4();
        let peer = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": router});
        let mut objects = vec![
            object("v1beta1", "IPAddressPool", json!({"addresses": ["172.30.0.200-172.30.0.209"]})),
            object("v1beta1", "L2Advertisement", json!({"ipAddressPools": ["lan"]})),
            object("v1beta1", "Community", json!({"communities": aliases})),
            object("v1beta1", "BGPAdvertisement", json!({"communities": ["vpn-only"]})),
            object("v1beta2", "BGPPeer", peer),
        ];
        objects.extend(ferrolb::migration_permissions()?);
        lab.apply_objects(&objects)?;
        metallb.start_controller()?;
        metallb.start_speakers()?;
        lab.apply_objects(&SERVICES.map(|name| service(name, json!({}))))?;
        let mut served = Vec::new();
        for name in SERVICES {
            metallb.wait_served(name)?;
            wait_served_by_metallb(lab, name)?;
            let address = services::address(lab, name)?;
            served.push((name, address, metallb.wait_announced(address)?));
        }
        // MetalLB without FRR rejects a BFDProfile, and keeps its configuration until it restarts.
        lab.apply_objects(&[object("v1beta1", "BFDProfile", json!({"receiveInterval": 300}))])?;
        Ok(Self(served))
    }

    /// Runs [`Self::check_end`], and checks that no other node has replied for an address.
    fn check(&self, lab: &Lab, name: &str, event: impl FnOnce() -> Result<()>) -> Result<()> {
        let macs = self.check_end(lab, name, event)?;
        for (_, address, owner) in &self.0 {
            let expected = segment::mac_of(owner)?;
            let found: Vec<_> = macs[&(*address).into()].iter().map(ToString::to_string).collect();
            ensure!(found == [expected], "{owner} does not reply alone for {address}: {found:?}");
        }
        Ok(())
    }

    /// Runs `event` while the client connects to the first address and sends requests for all.
    /// Checks that no connection is lost, no reply is missing, and every address is on its node at
    /// the end. Returns the hosts that have replied for each address.
    fn check_end(
        &self,
        lab: &Lab,
        name: &str,
        event: impl FnOnce() -> Result<()>,
    ) -> Result<BTreeMap<IpAddr, BTreeSet<Mac>>> {
        let addresses: Vec<_> = self.0.iter().map(|(_, address, _)| (*address).into()).collect();
        let (replies, ()) = run_without_loss(lab, self.0[0].1, (name, 0), || {
            replies_while(lab, &addresses, || {
                event()?;
                wait::during(SETTLED, || Ok(()))
            })
        })?;
        let Replies { longest, macs } = replies;
        print_measured(&format!("{name}: longest time without a reply {longest:?}"));
        ensure!(longest < UNANSWERED_MAX, "no host replied for {longest:?}");
        for (service, address, owner) in &self.0 {
            let found = segment::owner(lab, *address)?;
            ensure!(found == *owner, "{address} is on {found}, not on {owner}");
            services::wait_addresses(lab, service, &[&address.to_string()])?;
        }
        Ok(macs)
    }

    fn wait_announced(&self, lab: &Lab) -> Result<()> {
        self.0.iter().try_for_each(|(name, address, _)| {
            services::wait_announced(lab, name, "Announced", &address.to_string()).map(drop)
        })
    }
}

fn wait_served_by_metallb(lab: &Lab, name: &str) -> Result<()> {
    services::wait_for(lab, name, "ServedByMetalLB", |service| {
        let condition = services::condition(service, ADDRESS_ASSIGNED)?;
        (condition.reason == "ServedByMetalLB").then_some(())
    })
}

/// Writes FerroLB's objects, and returns the plan. The command fails if an address would change.
fn own_group(lab: &Lab) -> Result<Value> {
    let text = lab.shell("kubectl ferrolb migrate metallb")?;
    let expected =
        format!("Services with the same addresses: {}; with other ones or none: 0", SERVICES.len());
    ensure!(text.matches(&expected).count() == 2, "not both ways keep the addresses:\n{text}");
    let directory = lab.state().file("migration").display().to_string();
    let command = format!("kubectl ferrolb migrate metallb --own-group --to {directory} -o json");
    let plan: Value = serde_json::from_str(&lab.shell(&command)?)?;
    ensure!(plan["problems"] == json!([]), "the plan has problems: {:#}", plan["problems"]);
    let second = lab.shell(&format!("{command} && echo 0 || echo $?"))?;
    ensure!(second.trim() == "2", "existing files are overwritten: {second}");
    lab.kubectl(&["-n", NAMESPACE, "delete", "bfdprofiles.metallb.io", "lan"])?;
    Ok(plan)
}

/// Stops FerroLB, and returns the plan.
fn in_place(lab: &Lab) -> Result<Value> {
    let speakers = lab.nodes().iter().map(|node| ferrolb::speaker_name(node)).collect::<Vec<_>>();
    for process in speakers.iter().map(String::as_str).chain([ferrolb::CONTROLLER]) {
        lab.stop(process, Signal::TERM)?;
    }
    let directory = lab.state().file("in-place").display().to_string();
    let command = format!("kubectl ferrolb migrate metallb --in-place --to {directory} -o json");
    Ok(serde_json::from_str(&lab.shell(&command)?)?)
}

/// Executes the step that stops MetalLB's controller, and lets FerroLB serve the Services.
fn switch(lab: &Lab, metallb: &MetalLb<'_>, plan: &Value) -> Result<()> {
    execute(lab, plan, "switch", |command| {
        if command.contains(" scale deployment/controller ") {
            metallb.stop_controller()?;
        }
        if command.starts_with("helm upgrade --install ") {
            lab.start_components(&IN_PLACE)?;
        }
        Ok(())
    })
}

/// Executes the step that stops MetalLB's speakers.
fn stop_speakers(lab: &Lab, metallb: &MetalLb<'_>, plan: &Value) -> Result<()> {
    execute(lab, plan, "stop", |command| {
        if command.contains(" patch daemonset/speaker ") { metallb.stop_speakers() } else { Ok(()) }
    })
}

/// Undoes the steps `stop` and `switch`.
fn roll_back(lab: &Lab, metallb: &MetalLb<'_>, plan: &Value) -> Result<()> {
    for id in ["stop", "switch"] {
        run(lab, &strings(&find(plan, id)?["rollback"]), |command| {
            if command.contains(" patch daemonset/speaker ") {
                metallb.start_speakers()?;
                wait::during(SETTLED, || Ok(()))?;
            }
            if command.contains(" scale deployment/controller ") {
                metallb.start_controller()?;
                SERVICES.iter().try_for_each(|name| wait_served_by_metallb(lab, name))?;
            }
            Ok(())
        })
        .with_context(|| format!("rollback of step {id}"))?;
    }
    Ok(())
}

/// Drains the owner of the first address until another node has it.
fn hand_over(lab: &Lab, served: &Served) -> Result<()> {
    let (_, address, owner) = &served.0[0];
    let (replies, ()) = replies_while(lab, &[(*address).into()], || {
        lab.kubectl(&["annotate", "node", owner, "ferrolb.io/drain="])?;
        wait_moved(lab, *address, owner).map(drop)
    })?;
    print_measured(&format!("hand-over: longest time without a reply {:?}", replies.longest));
    Ok(())
}

/// Executes the checks and the commands of a step, and passes each command to `after`.
fn execute(lab: &Lab, plan: &Value, id: &str, after: impl Fn(&str) -> Result<()>) -> Result<()> {
    let step = find(plan, id)?;
    let checks = step["checks"].as_array().into_iter().flatten();
    let checks: Vec<_> = checks.filter_map(|check| check["command"].as_str()).collect();
    run(lab, &[checks, strings(&step["commands"])].concat(), after)
        .with_context(|| format!("step {id}"))
}

fn find<'p>(plan: &'p Value, id: &str) -> Result<&'p Value> {
    let mut steps = plan["steps"].as_array().into_iter().flatten();
    steps.find(|step| step["id"] == id).with_context(|| format!("no step {id}"))
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Runs commands, and passes each to `after`. The lab runs FerroLB without Helm and pods, so it
/// only passes the commands for them.
fn run(lab: &Lab, commands: &[&str], after: impl Fn(&str) -> Result<()>) -> Result<()> {
    for command in commands {
        if !command.starts_with("helm ") && !command.contains(" rollout status ") {
            lab.shell(command)?;
        }
        after(command)?;
    }
    Ok(())
}
