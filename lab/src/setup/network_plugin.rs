//! Network plugins of kubeadm clusters: each has a manifest or a chart, read from its Go module,
//! and images with programs that are built from Go modules. The images have the names in the
//! manifest, so no registry is used.

mod cilium;
mod flannel;
mod image;
mod kube_router;
mod manifest;

use super::images::Arch;
use super::images::archive;
use super::{build_cache, go};
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use image::PluginImage;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Name of the directory in the lab's cache that holds the images.
const CACHE_NAME: &str = "network-plugins";
/// Version of the images' format; a change rebuilds them.
const FORMAT_VERSION: &str = "1";
/// File of the images in the directory of a plugin.
const ARCHIVE: &str = "network-plugin.tar";

/// Network plugin of a kubeadm cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum NetworkPlugin {
    /// Cilium with its chart's defaults: tunnels by vxlan, and kube-proxy stays.
    Cilium,
    /// Flannel with its default backend, vxlan.
    Flannel,
    /// kube-router for the pod network and network policies, without its service proxy.
    KubeRouter,
}

impl NetworkPlugin {
    pub const ALL: [Self; 3] = [Self::Cilium, Self::Flannel, Self::KubeRouter];
    /// Plugins whose tests `cargo lab test` runs also without a tier. Cilium is too large for it.
    pub const IN_EVERY_RUN: [Self; 2] = [Self::Flannel, Self::KubeRouter];

    /// Returns the version of the plugin.
    pub const fn version(self) -> &'static str {
        match self {
            Self::Cilium => cilium::VERSION,
            Self::Flannel => flannel::VERSION,
            Self::KubeRouter => kube_router::VERSION,
        }
    }

    /// Returns namespace and name of the plugin's DaemonSet.
    pub const fn daemon_set(self) -> (&'static str, &'static str) {
        match self {
            Self::Cilium => ("kube-system", "cilium"),
            Self::Flannel => ("kube-flannel", "kube-flannel-ds"),
            Self::KubeRouter => ("kube-system", "kube-router"),
        }
    }

    /// Returns the objects of the plugin's manifest, adapted to the lab's clusters. `settings` are
    /// values of its chart, such as `a.b=true`; a manifest has none.
    ///
    /// # Errors
    /// If the module cannot be downloaded, or its manifest has another form.
    pub fn objects(self, settings: &[&str]) -> Result<Vec<Value>> {
        ensure!(self == Self::Cilium || settings.is_empty(), "{self} has no chart with values");
        let objects = match self {
            Self::Cilium => cilium::objects(settings),
            Self::Flannel => flannel::objects(),
            Self::KubeRouter => kube_router::objects(),
        };
        let mut objects = objects.with_context(|| format!("cannot use the manifest of {self}"))?;
        manifest::use_local_images(&mut objects, self.version());
        Ok(objects)
    }

    /// Returns the file with the plugin's images, and builds it if it is missing. `root` is the
    /// root file system of the machines, whose programs the images contain.
    ///
    /// # Errors
    /// If the machine cannot run the plugin, or if a program does not build.
    pub fn build(self, root: &Path) -> Result<PathBuf> {
        let names = manifest::image_names(&self.objects(&[])?);
        let mut inputs = go::install_inputs(self.version())?;
        if self == Self::Cilium {
            cilium::prepare()?;
            inputs.extend(cilium::inputs()?);
        }
        let more = [
            ("plugin", self.to_string()),
            ("root", root.display().to_string()),
            ("images", names.join(" ")),
            ("form", FORMAT_VERSION.to_owned()),
        ];
        inputs.extend(more.map(|(name, value)| (name.to_owned(), value.into_bytes())));
        let folder = build_cache::build(CACHE_NAME, &inputs, |folder| {
            self.make(root, &names, folder).with_context(|| format!("{self} does not build"))
        })?;
        Ok(folder.join(ARCHIVE))
    }

    /// Builds the plugin's images into one archive in `folder`.
    fn make(self, root: &Path, names: &[String], folder: &Path) -> Result<()> {
        let work = folder.join("work");
        fs::create_dir_all(&work)?;
        let images: Vec<PluginImage> = match self {
            Self::Cilium => cilium::images(&work)?,
            Self::Flannel => flannel::images(&work)?,
            Self::KubeRouter => kube_router::images(&work)?,
        };
        let images = images
            .iter()
            .map(|image| image.pack(root, names, &work))
            .collect::<Result<Vec<_>>>()?;
        archive::save(&images, Arch::own(), &folder.join(ARCHIVE))?;
        Ok(fs::remove_dir_all(&work)?)
    }
}

impl fmt::Display for NetworkPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cilium => "cilium",
            Self::Flannel => "flannel",
            Self::KubeRouter => "kube-router",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_has_the_same_name_on_the_command_line() {
        for plugin in NetworkPlugin::ALL {
            let value = plugin.to_possible_value().unwrap();
            assert_eq!(value.get_name(), plugin.to_string());
        }
    }
}
