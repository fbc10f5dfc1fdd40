//! Runs the command `migrate`: reads the objects, plans, writes the files, and returns the text.

use anyhow::{Context as _, Result};
use kube::Client;
use serde::Serialize;

use super::args::{Common, Source};
use super::metallb::MetalLb;
use super::{Migration, external_ips, files, kube_vip, live, render, runbook, servicelb};
use crate::args::JsonOutput;

/// The output of the command.
pub struct Output {
    /// The text for stdout.
    pub text: String,
    /// True if all addresses are kept and there is no problem.
    pub keeps_everything: bool,
}

/// Both ways of a migration from MetalLB.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ways {
    own_group: Migration,
    in_place: Migration,
}

/// Runs the command. `client` is necessary unless the objects are in files, and `ferrolb` is
/// FerroLB's namespace.
///
/// # Errors
/// The objects cannot be read, the load balancer is not found, or a file cannot be written.
pub async fn run(client: Option<Client>, source: &Source, ferrolb: &str) -> Result<Output> {
    let common = source.common();
    let objects = match client {
        Some(client) => live::read(&client, source).await?,
        None => files::read(&common.from)?,
    };
    let directory = common.to.to_str().context("the value of --to is not UTF-8")?;
    match source {
        Source::Metallb {
            own_group, in_place, node_by_node, group_by, metallb_namespace, ..
        } => {
            let metallb = MetalLb::find(&objects, metallb_namespace.as_deref(), ferrolb)?;
            match (own_group, in_place, node_by_node) {
                (true, ..) => finish(common, &metallb.own_group(directory)),
                (_, true, _) => finish(common, &metallb.in_place(directory)),
                (.., true) => {
                    finish(common, &metallb.node_by_node(directory, group_by.as_deref())?)
                }
                (false, false, false) => {
                    let (own_group, in_place) =
                        (metallb.own_group(directory), metallb.in_place(directory));
                    compare(common, Ways { own_group, in_place })
                }
            }
        }
        Source::Servicelb(_) => finish(common, &servicelb::plan(&objects, directory, ferrolb)),
        Source::KubeVip(_) => finish(common, &kube_vip::plan(&objects, directory, ferrolb)),
        Source::ExternalIps(_) => finish(common, &external_ips::plan(&objects, directory, ferrolb)),
    }
}

/// Writes the files of a migration, and returns its text.
fn finish(common: &Common, migration: &Migration) -> Result<Output> {
    if !common.plan && !migration.steps.is_empty() {
        files::write(&common.to, &files_of(migration)?)?;
    }
    let text = match common.output {
        Some(JsonOutput::Json) => serde_json::to_string_pretty(migration)? + "\n",
        None => render::migration(migration),
    };
    Ok(Output { text, keeps_everything: migration.keeps_everything() })
}

/// Returns the names and the texts of all files: the manifests, and the runbook.
fn files_of(migration: &Migration) -> Result<Vec<(&'static str, String)>> {
    let manifests = migration.files.iter().map(|file| {
        let text = file.yaml().with_context(|| format!("cannot write {}", file.name))?;
        Ok((file.name, text))
    });
    manifests.chain([Ok((runbook::FILE, runbook::runbook(migration)))]).collect()
}

/// Returns the comparison of both ways.
fn compare(common: &Common, ways: Ways) -> Result<Output> {
    let keeps_everything = ways.own_group.keeps_everything() || ways.in_place.keeps_everything();
    let text = match common.output {
        Some(JsonOutput::Json) => serde_json::to_string_pretty(&ways)? + "\n",
        None => render::comparison(
            &[&ways.own_group, &ways.in_place],
            "The commands, checks and rollbacks of one way, and its files: --own-group, \
             --node-by-node (the same objects, one group of nodes after the other), or --in-place",
        ),
    };
    Ok(Output { text, keeps_everything })
}

/// Returns whether the command needs a connection to a cluster.
#[must_use]
pub fn needs_cluster(source: &Source) -> bool {
    source.common().from.is_empty()
}
