//! `cargo lab publish`: pushes the folder of a release to its registry, and signs it.

use anyhow::Result;
use clap::Args;
use ferrolb_lab::dist::publish::{self, PASSWORD, Publication, Signer};
use ferrolb_lab::setup::repository;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct PublishArgs {
    /// Sign with this private key.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Password of the private key.
    #[arg(long, env = PASSWORD, hide_env_values = true, default_value = "")]
    password: String,
    /// Sign as the workflow that runs, without a key.
    #[arg(long, conflicts_with = "key")]
    workflow: bool,
    /// Use a registry without encryption in a closed network, and no public log of signatures.
    #[arg(long)]
    private: bool,
}

/// Publishes `target/dist`, which `cargo lab dist` has written.
pub(crate) fn publish(args: &PublishArgs) -> Result<()> {
    let password = args.password.clone();
    let key = args.key.clone().map(|file| Signer::Key { file, password });
    let signer = key.or_else(|| args.workflow.then_some(Signer::Workflow));
    let publication = Publication { signer, is_private: args.private };
    let folder = repository().canonicalize()?.join("target/dist");
    for reference in publish::publish(&folder, &publication)? {
        println!("{reference}");
    }
    Ok(())
}
