//! Registry on the client's host: Debian's docker-registry, without encryption. The nodes of a lab
//! with [`LabFacts::registry`] pull FerroLB's images from it.

use crate::process::{self, Launch};
use crate::run;
use crate::setup::installers;
use crate::state::{LabFacts, LabState};
use crate::topology::{CLIENT, Host};
use crate::{netns, wait};
use anyhow::{Context, Result};
use serde_json::json;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Name of the process.
const REGISTRY: &str = "registry";
const PORT: u16 = 5000;
/// Maximum time until the registry replies, on a busy machine.
const READY_MAX: Duration = Duration::from_secs(30);

/// Returns the name of the registry: its address and its port.
pub fn name(facts: &LabFacts) -> String {
    SocketAddr::new(facts.families.first(Host::client().addresses()), PORT).to_string()
}

/// Starts the registry, and waits until it replies.
///
/// # Errors
/// If it does not reply, with the end of its log.
pub(super) fn start(state: &LabState, facts: &LabFacts) -> Result<()> {
    let (name, settings) = (name(facts), state.file("registry.json"));
    let text = json!({
        "version": "0.1", "http": {"addr": name},
        "storage": {"filesystem": {"rootdirectory": state.file("registry")}},
    });
    fs::write(&settings, text.to_string())?;
    process::start(
        state,
        Launch {
            name: REGISTRY.to_owned(),
            host: CLIENT.to_owned(),
            node: None,
            program: PathBuf::from("/usr/bin/docker-registry"),
            args: vec!["serve".to_owned(), settings.display().to_string()],
            env: [].into(),
            low_priority: false,
        },
    )?;
    wait::until("the registry replies", READY_MAX, || {
        let mut crane = installers::crane()?;
        crane.args(["catalog", "--insecure", &name]);
        netns::within(&state.name.namespace(CLIENT), || run::run(&mut crane))?.map(Some)
    })
    .map(drop)
    .with_context(|| run::last_lines(&process::log(state, REGISTRY), 20))
}
