//! An image of a network plugin: programs that Go has built, and programs of the machines' own
//! Debian system with their libraries.

use super::manifest;
use crate::setup::images::archive::{ImageArchiveEntry, Layer};
use crate::setup::images::tree;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Content of an image.
pub(super) struct PluginImage {
    /// Last part of the image's name, without its tag.
    pub(super) component: &'static str,
    /// Built programs, and their paths in the image.
    pub(super) built: Vec<(PathBuf, &'static str)>,
    /// Program that starts if the manifest names none.
    pub(super) entrypoint: Option<&'static str>,
    /// Programs of the machines' root file system.
    pub(super) system: &'static [&'static str],
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
        for (program, inside) in &self.built {
            let target = tree.join(inside.trim_start_matches('/'));
            fs::create_dir_all(target.parent().context("the path has no directory")?)?;
            fs::copy(program, &target)
                .with_context(|| format!("cannot copy {}", program.display()))?;
        }
        tree::copy_programs(&tree, root, self.system)?;
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
