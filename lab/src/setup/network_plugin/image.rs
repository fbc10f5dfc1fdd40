//! An image of a network plugin: programs that Go has built, files of its module, and programs of a
//! Debian system with their libraries.

use super::manifest;
use crate::run;
use crate::setup::images::archive::{ImageArchiveEntry, Layer};
use crate::setup::images::tree;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Content of an image.
pub(super) struct PluginImage {
    /// Last part of the image's name, without its tag.
    pub(super) component: &'static str,
    /// Built programs, other files and directories, and their paths in the image.
    pub(super) files: Vec<(PathBuf, &'static str)>,
    /// Program that starts if the manifest names none.
    pub(super) entrypoint: Option<&'static str>,
    /// Programs of the machines' root file system.
    pub(super) system: &'static [&'static str],
    /// Programs of this computer, whose Debian release is that of the machines.
    pub(super) own: &'static [&'static str],
    /// True if the image has iptables.
    pub(super) iptables: bool,
}

impl PluginImage {
    /// Packs the image, under its name among `names`, with its layer in `work`.
    pub(super) fn pack(
        &self,
        root: &Path,
        names: &[String],
        work: &Path,
    ) -> Result<ImageArchiveEntry> {
        let tree = work.join(format!("image-{}", self.component));
        fs::create_dir_all(&tree)?;
        for (source, inside) in &self.files {
            copy(source, &tree.join(inside.trim_start_matches('/')))?;
        }
        tree::copy_programs(&tree, root, self.system)?;
        tree::copy_programs(&tree, Path::new("/"), self.own)?;
        if self.iptables {
            tree::copy_iptables(&tree, root)?;
        }
        Ok(ImageArchiveEntry {
            names: vec![manifest::image_of(names, self.component)?.to_owned()],
            layers: vec![Layer::pack(&tree)?],
            entrypoint: self.entrypoint.iter().map(|&program| program.to_owned()).collect(),
            user: "",
            labels: BTreeMap::new(),
        })
    }
}

/// Copies a file, a link or a directory. Files get the right to execute, which those of a Go module
/// do not have.
fn copy(source: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target.parent().context("the path has no directory")?)?;
    let mut cp = Command::new("cp");
    run::run(cp.args(["--recursive", "--no-target-directory"]).arg(source).arg(target))?;
    if fs::symlink_metadata(target)?.is_file() {
        fs::set_permissions(target, Permissions::from_mode(0o755))?;
    }
    Ok(())
}
