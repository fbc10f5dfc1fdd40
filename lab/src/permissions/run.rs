//! Permissions that the labs of a test run used, collected in a file. `cargo lab test` sets the
//! path of the file. Each lab appends a line after its scenario, with a single write, because two
//! scenarios may run at the same time.

use super::{Permission, PermissionUse, granted};
use crate::cluster::{audit, ferrolb};
use crate::state::LabState;
use anyhow::{Context, Result};
use ferrolb_proto::api::GROUP;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Environment variable with the path of the file; if unset, nothing is collected.
pub const PERMISSIONS_FILE_ENV: &str = "FERROLB_RIGHTS";

/// Returns the permissions that the manifests in `deploy/` grant: for layer 2 alone or with BGP,
/// and for an in-place migration from MetalLB.
///
/// # Errors
/// If `deploy/` has an unexpected form.
pub fn granted_by_deploy(with_bgp: bool) -> Result<BTreeSet<Permission>> {
    let mut permissions = granted(&ferrolb::rendered(with_bgp)?)?;
    permissions.extend(granted(&ferrolb::migration_permissions()?)?);
    Ok(permissions)
}

/// Translates a permission for BGP to MetalLB's custom resources in MetalLB's namespace. The chart
/// grants this permission; no manifest in `deploy/` does.
fn in_metallb_namespace(permission: &Permission) -> Permission {
    let group = if permission.group == GROUP { "metallb.io" } else { &permission.group };
    Permission {
        group: group.to_owned(),
        namespace: Some("metallb-system".to_owned()),
        ..permission.clone()
    }
}

/// Appends the permissions that FerroLB's accounts used in a lab to the file of the test run, if
/// the run collects them.
///
/// # Errors
/// If the file cannot be written.
pub fn record_lab(state: &LabState) -> Result<()> {
    let Some(file) = std::env::var_os(PERMISSIONS_FILE_ENV).map(PathBuf::from) else {
        return Ok(());
    };
    let facts = state.facts()?;
    // The log does not exist if no account sent a request.
    let text = fs::read_to_string(audit::log(state, &facts)).unwrap_or_default();
    let plain = granted_by_deploy(false)?;
    let mut granted = if facts.gobgp.is_some() { granted_by_deploy(true)? } else { plain.clone() };
    let of_chart: Vec<_> = granted.difference(&plain).map(in_metallb_namespace).collect();
    granted.extend(of_chart);
    let permission_use = PermissionUse::of(&audit::requests(&text), &granted);
    let line = serde_json::to_string(&permission_use)? + "\n";
    let file = File::options().create(true).append(true).open(file)?;
    (&file).write_all(line.as_bytes()).context("cannot record the permissions that a lab used")
}

/// Removes the file of an earlier run.
///
/// # Errors
/// If the file cannot be removed.
pub fn reset(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Returns the collected permissions of all labs of a run.
///
/// # Errors
/// If the file cannot be read.
pub fn collected(file: &Path) -> Result<PermissionUse> {
    let mut all = PermissionUse::default();
    if file.exists() {
        for line in fs::read_to_string(file)?.lines() {
            all.extend(
                serde_json::from_str(line).with_context(|| format!("in {}", file.display()))?,
            );
        }
    }
    Ok(all)
}
