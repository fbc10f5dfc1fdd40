//! Pages that install, upgrade and uninstall FerroLB, on one kubeadm cluster: their commands
//! succeed and print the outputs of the pages.

use crate::scenario::{print_measured, run_scenario, step};
use crate::upgrade::PAGE as UPGRADE;
use crate::{install_command, migration, platforms, registry, three_nodes, uninstall, web};
use Action::{AllBlocks, BesideOthers, Blocks, DeleteService, Remove};
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, Options, wait};
use ferrolb_tests::run::Runner;
use ferrolb_tests::{Block, Page, Topology, pages, read_page};

const MANIFESTS: &str = "docs/install/manifests.md";
const DRAIN: &str = "docs/operate/drain.md";
const IMAGES: &str = "docs/install/images.md";
const TROUBLESHOOTING_BGP: &str = "docs/operate/troubleshooting-bgp.md";
/// Part of the commands that install FerroLB again, or over another file.
const APPLY: &str = "kubectl apply -f deploy/install.yaml";
/// Part of the commands that delete objects whose names had no namespace.
const OLD_NAMES: &str = "ferrolb-own-namespace ferrolb-own-status";
/// Part of the commands after a change from `install-bgp.yaml` to `install.yaml`.
const DELETE_GOBGPD: &str = "delete daemonset/gobgpd";

/// Action of the scenario. Strings are the path of a page and parts of its blocks.
enum Action {
    /// Runs all blocks of a page, except those with a part.
    AllBlocks(&'static str, &'static [&'static str]),
    /// Runs the first block of a page with each part.
    Blocks(&'static str, &'static [&'static str]),
    /// Runs these blocks of the page on uninstallation, and checks that nothing is left.
    Remove(&'static [&'static str]),
    /// Deletes the Service of a page, by its name.
    DeleteService(&'static str),
    /// Runs FerroLB beside other load balancers.
    BesideOthers,
}

const ACTIONS: [Action; 32] = [
    Blocks(IMAGES, &["images import -", "images ls -q"]),
    AllBlocks("README.md", &[]),
    Blocks(uninstall::PAGE, &[uninstall::KEEP_POOLS]),
    Blocks(UPGRADE, &[APPLY]),
    Remove(uninstall::BY_FILE),
    Blocks(uninstall::PAGE, uninstall::SERVICES),
    DeleteService("web"),
    AllBlocks("docs/getting-started.md", &[]),
    Blocks(UPGRADE, &["ferrolb-backup.yaml", "images tag"]),
    Remove(uninstall::BY_FILE),
    Blocks(UPGRADE, &["-f deploy/base/namespace.yaml", APPLY]),
    Remove(uninstall::BY_FILE),
    AllBlocks(MANIFESTS, &[DELETE_GOBGPD]),
    Blocks(UPGRADE, &[APPLY, OLD_NAMES, "kubectl get fspeaker", "custom-columns=POD:"]),
    Blocks("docs/operate/troubleshooting.md", &["grep announcing"]),
    Blocks("docs/reference/flags.md", &["HELLO_MISSES=5", "HELLO_MISSES-"]),
    Blocks("docs/cni.md", &["strictARP"]),
    Blocks(DRAIN, &["kubectl drain node1", "kubectl uncordon node1"]),
    Blocks(UPGRADE, &["rollout undo"]),
    Remove(uninstall::BY_FILE),
    DeleteService("web"),
    AllBlocks(registry::HELM, &[migration::SIDE_BY_SIDE, registry::INSTALL]),
    Remove(uninstall::BY_HELM),
    Blocks("docs/configure/bgp.md", &["kubectl apply -f deploy/install-bgp.yaml"]),
    Blocks(UPGRADE, &["install-bgp.yaml -l", "rollout status daemonset/gobgpd"]),
    Blocks(DRAIN, &["rollout restart daemonset/gobgpd"]),
    Blocks(UPGRADE, &[APPLY]),
    Blocks(TROUBLESHOOTING_BGP, &["logs -l app.kubernetes.io/component=gobgpd"]),
    Blocks(MANIFESTS, &[DELETE_GOBGPD]),
    Remove(uninstall::BY_FILE),
    BesideOthers,
    Blocks(uninstall::PAGE, &["images rm"]),
];

impl Action {
    /// Returns the page whose blocks the action runs.
    fn path(&self) -> Option<&'static str> {
        match self {
            AllBlocks(path, _) | Blocks(path, _) => Some(path),
            Remove(_) => Some(uninstall::PAGE),
            DeleteService(_) | BesideOthers => None,
        }
    }

    /// Returns the blocks of a page that the action runs.
    fn blocks<'a>(&self, page: &'a Page) -> Result<Vec<&'a Block>> {
        match self {
            BesideOthers => platforms::blocks(page),
            _ if self.path() != Some(page.path.as_str()) => Ok(Vec::new()),
            AllBlocks(_, except) => {
                let excluded = |block: &Block| except.iter().any(|part| block.text.contains(part));
                let blocks = page.blocks_for(Topology::Kubeadm).into_iter();
                Ok(blocks.filter(|block| !excluded(block)).collect())
            }
            Blocks(_, parts) | Remove(parts) => {
                parts.iter().map(|part| page.block_with(Topology::Kubeadm, part)).collect()
            }
            DeleteService(_) => Ok(Vec::new()),
        }
    }

    fn run(&self, lab: &Lab, runner: &Runner<'_>) -> Result<()> {
        match self {
            Remove(parts) => step("FerroLB is removed", || uninstall::remove(lab, parts)),
            BesideOthers => platforms::part(lab, runner),
            DeleteService(name) => lab.kubectl(&["delete", "service", name]).map(drop),
            AllBlocks(path, _) | Blocks(path, _) => {
                let (page, start) = (read_page(path)?, wait::now());
                let blocks = self.blocks(&page)?;
                blocks.iter().try_for_each(|block| runner.block(&page, block))?;
                let took = start.elapsed().as_secs_f64();
                print_measured(&format!("{path}: {} blocks in {took:.1} s", blocks.len()));
                Ok(())
            }
        }
    }
}

#[test]
fn commands_of_the_pages_print_the_outputs_of_the_pages() {
    run_scenario(
        &Options { bgp: true, loopback_health: true, ..three_nodes("kubepages") },
        |lab| {
            web::run_deployment(lab)?;
            let runner = Runner::in_lab(lab)?;
            ACTIONS.iter().try_for_each(|action| action.run(lab, &runner))
        },
    );
}

#[test]
fn every_block_for_kubeadm_is_run() -> Result<()> {
    let mut missing = Vec::new();
    for page in pages()? {
        let mut run = [migration::blocks(&page)?, registry::blocks(&page)?].concat();
        run.extend(install_command::blocks(&page)?);
        for action in &ACTIONS {
            run.extend(action.blocks(&page)?);
        }
        let blocks = page.blocks.iter().filter(|block| block.runs_in(Topology::Kubeadm));
        missing.extend(blocks.filter(|block| !run.contains(block)).map(|it| page.position(it)));
    }
    ensure!(missing.is_empty(), "add these blocks to a scenario in tests/kubeadm: {missing:?}");
    Ok(())
}
