//! `kubectl ferrolb migrate metallb --node-by-node` on the cluster of the scenario
//! [`crate::migration`]: the commands of its runbook move the nodes from MetalLB's stand-ins to
//! FerroLB, whose sessions with FRR are real, delete MetalLB, and move the nodes back. The test
//! compares each output with the expected one.

use crate::metallb::{self, LAN, ROUTED};
use crate::scenario::{print_measured, step};
use crate::web;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::routers::Router;
use ferrolb_lab::topology::node_name;
use ferrolb_lab::topology::routers::OUTSIDE;
use ferrolb_lab::{Lab, wait};
use ferrolb_tests::runbook::{self, Command, Runbook, Stage};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Label of moved nodes.
const LABEL: &str = "ferrolb.io/migration=bgp";
/// Node with the label `rack=a`, and the nodes in no rack.
const RACK: [u8; 1] = [2];
const OTHERS: [u8; 2] = [1, 3];

/// Moves a cluster, on which MetalLB and FerroLB are side by side, and back.
pub(crate) fn run(lab: &Lab, routers: &[Router<'_>]) -> Result<()> {
    lab.kubectl(&["label", "node", &node_name(RACK[0]), "rack=a"])?;
    let directory = lab.state().file("node-by-node");
    let Runbook { stages, last } = step("the plan has a stage for each rack", || {
        let to = directory.display();
        lab.shell(&format!(
            "kubectl ferrolb migrate metallb --node-by-node --group-by rack --to {to}"
        ))?;
        runbook::read(&directory)
    })?;
    let start = wait::now();
    let migration = Migration { lab, routers };
    step("the stages move all Services and nodes to FerroLB", || migration.forward(&stages))?;
    step("the last stage deletes MetalLB", || migration.last(&last))?;
    step("the ways back return all of them to MetalLB", || migration.back(&stages))?;
    let took = start.elapsed().as_secs_f64();
    print_measured(&format!("runbook of {} stages, and back: {took:.1} s", stages.len()));
    Ok(())
}

/// The cluster, and the routers of its nodes.
struct Migration<'a> {
    lab: &'a Lab,
    routers: &'a [Router<'a>],
}

impl Migration<'_> {
    fn forward(&self, stages: &[Stage]) -> Result<()> {
        let before = metallb::daemons(self.lab)?;
        let mut moved = BTreeSet::new();
        for stage in stages {
            self.run(&stage.title, &[stage.checks.as_slice(), &stage.commands].concat())?;
            moved.extend(moved_by(stage));
            let is_last = stage.title.contains("Stop MetalLB's remaining");
            let daemons = metallb::daemons(self.lab)?;
            let expect = before.iter().filter(|(node, _)| !moved.contains(node)).cloned();
            ensure!(
                is_last || moved.len() == 3 || daemons == expect.collect(),
                "{}: MetalLB's pods are {daemons:?}",
                stage.title
            );
            if stage.title.contains("L2Advertisements") {
                metallb::wait_served(self.lab, LAN)?;
            }
        }
        ensure!(metallb::daemons(self.lab)?.is_empty(), "pods of MetalLB run");
        let labeled = self.lab.kubectl(&["get", "nodes", "-l", LABEL, "-o", "name"])?;
        ensure!(labeled.is_empty(), "these nodes have the label: {labeled}");
        self.wait_served(&[RACK.as_slice(), &OTHERS].concat())
    }

    /// Deletes MetalLB. Then creates its workloads again, which the ways back need.
    fn last(&self, stage: &Stage) -> Result<()> {
        let saved = self.lab.state().file("metallb-workloads.yaml");
        let saved = saved.display();
        self.lab.shell(&format!("{} -o yaml > {saved}", metallb::SHOW))?;
        self.run(&stage.title, &[stage.checks.as_slice(), &stage.commands].concat())?;
        let left = self.lab.shell(&format!("{} -o name", metallb::SHOW))?;
        ensure!(left.is_empty(), "parts of MetalLB are left: {left}");
        self.wait_served(&[RACK.as_slice(), &OTHERS].concat())?;
        self.lab.shell(&format!("kubectl replace --force -f {saved}")).map(drop)
    }

    fn back(&self, stages: &[Stage]) -> Result<()> {
        let mut moved: BTreeSet<String> = (1..=3).map(node_name).collect();
        for stage in stages.iter().rev() {
            // The controller's stand-in restores no annotation, but the stages before do.
            self.run(&stage.title, &stage.way_back)?;
            let returned = moved_by(stage);
            if returned.is_empty() {
                continue;
            }
            moved.retain(|node| !returned.contains(node));
            wait::until("MetalLB's pods run on the other nodes", web::PAGE_MAX, || {
                let pods = metallb::daemons(self.lab)?;
                let found: BTreeSet<String> = pods.into_iter().map(|(node, _)| node).collect();
                let expect: BTreeSet<String> =
                    (1..=3).map(node_name).filter(|node| !moved.contains(node)).collect();
                ensure!(found == expect, "MetalLB runs on {found:?}, not {expect:?}");
                Ok(Some(()))
            })?;
        }
        metallb::wait_reported(self.lab)
    }

    /// Runs commands, and compares their outputs with the expected ones.
    fn run(&self, title: &str, commands: &[Command]) -> Result<()> {
        let run = |command: &Command| command.check(&self.lab.shell(&command.text)?);
        commands.iter().try_for_each(|command| {
            let result = if command.expect.contains("repeat the command") {
                wait::until("the output is as expected", web::PAGE_MAX, || run(command).map(Some))
            } else {
                run(command)
            };
            result.with_context(|| format!("stage {title}"))
        })
    }

    /// Waits until the routers have exactly the routes of these nodes, and a client beyond them
    /// gets a page.
    fn wait_served(&self, nodes: &[u8]) -> Result<()> {
        metallb::wait_routes(self.routers, ROUTED.1, nodes)?;
        wait::until("the client gets the page", web::PAGE_MAX, || {
            let page = self.lab.http_get(OUTSIDE, SocketAddr::new(ROUTED.1.into(), 80), "/")?;
            ensure!(page.status == 200, "the status is {}", page.status);
            Ok(Some(()))
        })
    }
}

/// Returns the nodes whose sessions a stage moves.
fn moved_by(stage: &Stage) -> BTreeSet<String> {
    let commands = stage.commands.iter().map(|it| it.text.as_str());
    let labels = commands.filter(|it| it.starts_with("kubectl label --overwrite node "));
    let words = labels.flat_map(|it| it.split(' '));
    words.filter(|it| it.starts_with("node") && *it != "node").map(str::to_owned).collect()
}
