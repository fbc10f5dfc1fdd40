//! FerroLB's images, built from static programs without Docker and without a registry, for the
//! tests and for users who have neither: the images of `deploy/image/Dockerfile`, with the commit
//! in their labels.

pub mod archive;
#[cfg(test)]
mod dockerfile;
pub mod tree;

use super::programs::{self, StaticPrograms};
use super::{gobgp, packages, release_programs};
use crate::run;
use anyhow::{Context, Result};
use archive::{ImageArchiveEntry, Layer};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Architecture that the programs run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// Returns the architecture of this machine.
    pub const fn own() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 }
    }

    /// Returns the architecture's name in Go, images and Kubernetes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Returns Rust's target for static programs.
    pub const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }

    /// Returns Debian's packages of a C cross compiler and of the headers for this architecture.
    const fn packages(self) -> [&'static str; 2] {
        match self {
            Self::Amd64 => ["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"],
            Self::Arm64 => ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        }
    }
}

/// An image of one program.
#[derive(Clone, Copy, Debug)]
struct ProgramImage {
    component: &'static str,
    user: &'static str,
    description: &'static str,
}

/// User `nobody` by the convention of images without a user database; the controller's manifest
/// uses the same.
const NOBODY_USER: &str = "65532:65532";
const CONTROLLER: ProgramImage = ProgramImage {
    component: "controller",
    user: NOBODY_USER,
    description: "Assigns addresses to Services of type LoadBalancer",
};
/// Root, because `capabilities.add` of a pod has no effect for other users.
const SPEAKER: ProgramImage = ProgramImage {
    component: "speaker",
    user: "",
    description: "Announces addresses of Services by ARP, NDP and BGP",
};
const GOBGPD: ProgramImage = ProgramImage {
    component: "gobgpd",
    user: "",
    description: "GoBGP's daemon, which FerroLB's speakers configure",
};

impl ProgramImage {
    /// Returns the tag of the image: the version of its program.
    fn version(self) -> &'static str {
        if self.component == GOBGPD.component {
            gobgp::VERSION.trim_start_matches('v')
        } else {
            env!("CARGO_PKG_VERSION")
        }
    }

    /// Returns the name and the tag, as the manifests use them.
    fn name(self) -> String {
        format!("ferrolb/{}:{}", self.component, self.version())
    }
}

/// The program of an image, built for one architecture.
#[derive(Clone, Debug)]
pub struct BuiltProgram {
    image: ProgramImage,
    arch: Arch,
    program: PathBuf,
}

/// A built image.
#[derive(Clone, Debug)]
pub struct BuiltImage {
    pub name: String,
    pub arch: Arch,
    pub archive: PathBuf,
    /// Size of the program in the image, in bytes.
    pub program: u64,
    /// Compressed size, as a registry stores it and a node downloads it, in bytes.
    pub compressed: usize,
}

/// Installs the toolchain for this architecture.
///
/// # Errors
/// If a package cannot be installed, or there is no rustup for the target.
pub fn prepare(arch: Arch) -> Result<()> {
    if arch != Arch::own() {
        packages::install(&packages::missing_of(&arch.packages())?)?;
    }
    programs::add_target(arch.target())
}

/// Builds the programs of all images: controller, speaker and gobgpd.
///
/// # Errors
/// If a program does not build.
pub fn programs(arch: Arch, profile: &str) -> Result<Vec<BuiltProgram>> {
    let built = release_programs::components(profile, arch.target())?;
    Ok(of(arch, &built, Some(&gobgp::build_for(arch)?)))
}

/// Returns the programs of the images from those in `built`, and from the directory `gobgp` if
/// there is one.
pub fn of(arch: Arch, built: &StaticPrograms, gobgp: Option<&Path>) -> Vec<BuiltProgram> {
    let of = |image, program: &Path| BuiltProgram { image, arch, program: program.to_owned() };
    let ferrolb = [of(CONTROLLER, &built.controller), of(SPEAKER, &built.speaker)];
    let gobgpd = gobgp.map(|folder| of(GOBGPD, &folder.join("gobgpd")));
    ferrolb.into_iter().chain(gobgpd).collect()
}

/// Returns the names of the images, as the manifests use them.
pub fn names() -> [String; 3] {
    [CONTROLLER, SPEAKER, GOBGPD].map(ProgramImage::name)
}

impl BuiltProgram {
    /// Returns the name of the component, such as `controller`.
    pub const fn component(&self) -> &'static str {
        self.image.component
    }

    pub const fn arch(&self) -> Arch {
        self.arch
    }

    /// Returns the program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Returns the tag of the image.
    pub fn version(&self) -> &'static str {
        self.image.version()
    }

    /// Returns the labels of the image (OCI image specification 1.1, annotations.md). The time is
    /// that of the commit, so that the same commit results in the same image.
    pub fn labels(&self) -> BTreeMap<&'static str, String> {
        let repository = env!("CARGO_PKG_REPOSITORY");
        let mut labels = BTreeMap::from([
            ("org.opencontainers.image.title", format!("ferrolb/{}", self.component())),
            ("org.opencontainers.image.description", self.image.description.to_owned()),
            ("org.opencontainers.image.source", repository.to_owned()),
            ("org.opencontainers.image.url", repository.to_owned()),
            ("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE").to_owned()),
            ("org.opencontainers.image.version", self.version().to_owned()),
        ]);
        if let Some((revision, time)) = commit() {
            labels.insert("org.opencontainers.image.revision", revision);
            labels.insert(archive::CREATED, time);
        }
        labels
    }

    /// Returns the image, with its layer packed in `folder`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn image(&self, folder: &Path) -> Result<ImageArchiveEntry> {
        let tree = folder.join(format!("{}-{}", self.component(), self.arch.name()));
        let file = self.program.file_name().and_then(|name| name.to_str());
        let file = file.context("the program has no name")?;
        fs::create_dir_all(&tree)?;
        fs::copy(&self.program, tree.join(file))
            .with_context(|| format!("cannot copy {}", self.program.display()))?;
        let layer = Layer::pack(&tree)?;
        fs::remove_dir_all(&tree)?;
        Ok(ImageArchiveEntry {
            names: vec![self.image.name()],
            layers: vec![layer],
            entrypoint: vec![format!("/{file}")],
            user: self.image.user,
            labels: self.labels(),
        })
    }

    /// Writes the archive of the image into `folder`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn archive(&self, folder: &Path) -> Result<BuiltImage> {
        let image = self.image(folder)?;
        let [layer] = image.layers.as_slice() else { unreachable!("an image has one layer") };
        let compressed = layer.compressed()?.len();
        let archive = folder.join(format!("{}-{}.tar", self.component(), self.arch.name()));
        archive::save(std::slice::from_ref(&image), self.arch, &archive)?;
        layer.remove()?;
        let program = fs::metadata(&self.program)?.len();
        Ok(BuiltImage { name: self.image.name(), arch: self.arch, archive, program, compressed })
    }
}

/// Returns the hash and the time (RFC 3339) of the commit; `None` outside a clone.
pub fn commit() -> Option<(String, String)> {
    let mut git = std::process::Command::new("git");
    git.current_dir(super::repository()).env("TZ", "UTC");
    git.args(["show", "--no-patch", "--format=%H %cd", "--date=format-local:%Y-%m-%dT%H:%M:%SZ"]);
    let (hash, time) =
        run::run(&mut git).ok()?.trim().split_once(' ').map(|(a, b)| (a.into(), b.into()))?;
    Some((hash, time))
}
