//! The rights that the labs of a test run used, added up in a file: `cargo lab test` names it, each lab adds its own when its story is told, by one
//! write, as two may be told at a time.

use super::{Right, Seen, granted};
use crate::cluster::{audit, ferrolb};
use crate::state::State;
use anyhow::{Context, Result};
use ferrolb_proto::api::GROUP;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Names the file to the tests; where it is not set nothing is added up.
pub const VARIABLE: &str = "FERROLB_RIGHTS";

/// What a user grants, by layer 2 alone or with BGP, and in MetalLB's place.
///
/// # Errors
/// When `deploy/` is not what it should be.
pub fn of_deploy(with_bgp: bool) -> Result<BTreeSet<Right>> {
    let mut rights = granted(&ferrolb::rendered(with_bgp)?)?;
    rights.extend(granted(&ferrolb::rights_in_metallbs_place()?)?);
    Ok(rights)
}

/// What BGP needs, for MetalLB's kinds in its namespace: the chart grants it there, and none of the files.
fn in_metallbs_place(right: &Right) -> Right {
    let group = if right.group == GROUP { "metallb.io" } else { &right.group };
    Right { group: group.to_owned(), namespace: Some("metallb-system".to_owned()), ..right.clone() }
}

/// Adds what FerroLB's accounts did in a lab, if a run adds up.
///
/// # Errors
/// When the file cannot be written.
pub fn add(state: &State) -> Result<()> {
    let Some(file) = std::env::var_os(VARIABLE).map(PathBuf::from) else { return Ok(()) };
    let facts = state.facts()?;
    // There is none where nobody asked anything.
    let text = fs::read_to_string(audit::log(state, &facts)).unwrap_or_default();
    let plain = of_deploy(false)?;
    let mut granted = if facts.gobgp.is_some() { of_deploy(true)? } else { plain.clone() };
    let of_chart: Vec<_> = granted.difference(&plain).map(in_metallbs_place).collect();
    granted.extend(of_chart);
    let seen = Seen::of(&audit::asked(&text), &granted);
    let line = serde_json::to_string(&seen)? + "\n";
    let file = File::options().create(true).append(true).open(file)?;
    (&file).write_all(line.as_bytes()).context("the rights of a lab are not added up")
}

/// Forgets an earlier run.
///
/// # Errors
/// When the file cannot be removed.
pub fn forget(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What all labs of a run saw.
///
/// # Errors
/// When the file cannot be read.
pub fn added_up(file: &Path) -> Result<Seen> {
    let mut all = Seen::default();
    if file.exists() {
        for line in fs::read_to_string(file)?.lines() {
            all.extend(serde_json::from_str(line).with_context(|| format!("in {}", file.display()))?);
        }
    }
    Ok(all)
}
