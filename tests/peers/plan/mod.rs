//! `kubectl ferrolb plan` on a real cluster: predicted and actual effects of random changes are
//! equal; README.md has the drawing.

mod changes;
mod cluster;

use crate::expect::wait_sessions_with;
use anyhow::{Context, Result, ensure};
use changes::Objects;
use cluster::ClusterState;
use ferrolb_lab::routers::{Peering, Router, RouterKind};
use ferrolb_lab::scenario::{print_measured, run_scenario, step};
use ferrolb_lab::topology::{CONTROL_PLANE, Host};
use ferrolb_lab::{Lab, Options, wait};
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;

/// Seed of the random changes, so that each run has the same ones.
const SEED: u64 = 0x5eed;
/// Number of predicted changes. Each takes up to ten seconds; a test without a cluster has
/// thousands.
const CHANGES: usize = 40;
/// Maximum time until the cluster has handled a change. A new BGP session takes the most time.
const HANDLED_MAX: Duration = Duration::from_secs(60);
/// Time for which the result of a change must stay.
const STABLE: Duration = Duration::from_millis(500);
/// Router of the scenario, and the name of its BGPPeer.
const ROUTER: &str = "tor1";
/// Grace of a missing pool, so that the test need not wait for a minute.
const POOL_GRACE: &str = "--pool-grace=1s";

#[test]
fn predicted_changes_equal_the_results() {
    run_scenario(&Options { bgp: true, ..Options::named("plan") }, |lab| {
        start(lab)?;
        let peering = Peering::with_nodes(lab, ROUTER)?;
        let config = RouterKind::Gobgp.config(&peering);
        let router = Router::start(lab, RouterKind::Gobgp, ROUTER, &config)?;
        let mut objects = step("the first objects are handled", || {
            let objects = Objects::new(lab)?;
            lab.apply_objects(&objects.all())?;
            let nodes = lab.nodes();
            let nodes = nodes.iter().filter_map(|name| Host::named(name));
            let addresses: Vec<_> = nodes.map(|node| IpAddr::V4(node.v4())).collect();
            wait_sessions_with(&router, &addresses)?;
            Ok(objects)
        })?;
        let mut random = fastrand::Rng::with_seed(SEED);
        step(&format!("{CHANGES} random changes have the predicted effects"), || {
            let mut before = wait_stable(lab, &router)?;
            let mut effects = 0;
            for number in 0..CHANGES {
                let change = objects.change(&mut random);
                before = predict_and_apply(lab, &router, &change, &before, &mut effects)
                    .with_context(|| format!("change {number}: {change:?}"))?;
            }
            print_measured(&format!(
                "plan: {CHANGES} of {CHANGES} predictions equal the results, with {effects} changed addresses, owners and routes"
            ));
            ensure!(effects >= CHANGES, "the changes have only {effects} effects");
            Ok(())
        })?;
        router.stop()
    });
}

fn start(lab: &Lab) -> Result<()> {
    lab.install_ferrolb()?;
    lab.start_controller(&[POOL_GRACE])?;
    lab.nodes().iter().try_for_each(|node| lab.start_speaker(node, &[]))?;
    let port = ferrolb_lab::cluster::ferrolb::ADMIN_PORT;
    lab.wait_healthy(ferrolb_lab::cluster::ferrolb::CONTROLLER, CONTROL_PLANE, port, "/readyz")?;
    lab.pod("web1", "node1", &[("app", "web")])?;
    lab.pod("web2", "node2", &[("app", "web")])?;
    lab.pod("shop", "node3", &[("app", "shop")])
}

/// A change: objects to apply, and objects to delete.
#[derive(Debug, Default)]
struct Change {
    applied: Vec<Value>,
    deleted: Vec<Value>,
}

/// Predicts a change, applies it, and waits until the cluster equals the prediction. Adds the
/// number of effects to `effects`. Returns the new state.
fn predict_and_apply(
    lab: &Lab,
    router: &Router<'_>,
    change: &Change,
    before: &ClusterState,
    effects: &mut usize,
) -> Result<ClusterState> {
    // In a List, kubectl rejects a label to remove, whose value is null.
    let documents = |objects: &[Value]| -> String {
        objects.iter().map(|object| format!("---\n{object}\n")).collect()
    };
    let folder = lab.state().file("plan");
    std::fs::create_dir_all(&folder)?;
    let mut plan = String::from("kubectl ferrolb plan -o json");
    let mut commands = String::new();
    for (name, objects, option, command) in [
        ("applied", &change.applied, "-f", "apply"),
        ("deleted", &change.deleted, "--delete", "delete"),
    ] {
        if objects.is_empty() {
            continue;
        }
        let file = folder.join(format!("{name}.yaml"));
        std::fs::write(&file, documents(objects))?;
        plan += &format!(" {option} {}", file.display());
        commands += &format!("kubectl {command} -f {}\n", file.display());
    }
    let effect: Value = serde_json::from_str(&lab.shell(&plan)?)?;
    let expected = before.after(&effect)?;
    lab.shell(&commands)?;
    let reached = || -> Result<()> {
        let now = ClusterState::read(lab, router)?;
        ensure!(now == expected, "not equal: {}\neffect: {effect:#}", now.differences(&expected));
        Ok(())
    };
    // If the machine stalls, an owner may change for a moment.
    wait::until("the cluster equals the prediction, and stays so", HANDLED_MAX, || {
        reached()?;
        wait::during(STABLE, reached).map(Some)
    })?;
    let count = |name: &str| effect[name].as_array().map_or(0, Vec::len);
    *effects += count("services") + count("owners") + count("routes");
    Ok(expected)
}

/// Waits until the state of the cluster stays the same, and returns it.
fn wait_stable(lab: &Lab, router: &Router<'_>) -> Result<ClusterState> {
    wait::until("the cluster is stable", HANDLED_MAX, || {
        let state = ClusterState::read(lab, router)?;
        ensure!(!state.is_empty(), "the cluster has no routes or owners yet");
        wait::during(STABLE * 4, || {
            ensure!(ClusterState::read(lab, router)? == state, "the state changes");
            Ok(())
        })?;
        Ok(Some(state))
    })
}
