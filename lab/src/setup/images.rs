//! FerroLB's images, built from static programs without Docker and without a registry: the same
//! images as from `deploy/image/Dockerfile`, for the tests and for users who have neither Docker
//! nor a registry.

pub mod archive;
pub mod tree;

use super::programs::{self, StaticPrograms};
use super::{gobgp, packages};
use anyhow::{Context, Result};
use archive::{ImageArchiveEntry, Layer};
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
}

/// User `nobody` by the convention of images without a user database; the controller's manifest
/// uses the same.
const NOBODY_USER: &str = "65532:65532";
const CONTROLLER: ProgramImage = ProgramImage { component: "controller", user: NOBODY_USER };
/// Root, because `capabilities.add` of a pod has no effect for other users.
const SPEAKER: ProgramImage = ProgramImage { component: "speaker", user: "" };
const GOBGPD: ProgramImage = ProgramImage { component: "gobgpd", user: "" };

/// A built image.
#[derive(Clone, Debug)]
pub struct BuiltImage {
    pub name: String,
    pub arch: Arch,
    pub archive: PathBuf,
    /// Size of the program in the image, in bytes.
    pub program: u64,
    /// Compressed size, as a registry stores it and a node downloads it, in bytes.
    pub compressed: u64,
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

/// Builds the release images of controller, speaker and gobgpd into `folder`.
///
/// # Errors
/// If a program does not build.
pub fn release(arch: Arch, folder: &Path) -> Result<Vec<BuiltImage>> {
    let built = programs::build_static("release", arch.target())?;
    let gobgp = gobgp::build_for(arch)?;
    Ok(vec![
        build_image(arch, CONTROLLER, &built.controller, &ferrolb_image(CONTROLLER), folder)?,
        build_image(arch, SPEAKER, &built.speaker, &ferrolb_image(SPEAKER), folder)?,
        build_image(arch, GOBGPD, &gobgp.join("gobgpd"), &gobgpd_image(), folder)?,
    ])
}

/// Builds the images of controller and speaker for this machine, from the programs `built`. With
/// `gobgp`, also builds the image of gobgpd from the programs in that directory.
///
/// # Errors
/// If a file cannot be written.
pub fn of_programs(
    built: &StaticPrograms,
    gobgp: Option<&Path>,
    folder: &Path,
) -> Result<Vec<BuiltImage>> {
    let arch = Arch::own();
    let mut images = vec![
        build_image(arch, CONTROLLER, &built.controller, &ferrolb_image(CONTROLLER), folder)?,
        build_image(arch, SPEAKER, &built.speaker, &ferrolb_image(SPEAKER), folder)?,
    ];
    if let Some(gobgp) = gobgp {
        images.push(build_image(arch, GOBGPD, &gobgp.join("gobgpd"), &gobgpd_image(), folder)?);
    }
    Ok(images)
}

/// Returns the names of the images, as the manifests use them.
pub fn names() -> [String; 3] {
    [ferrolb_image(CONTROLLER), ferrolb_image(SPEAKER), gobgpd_image()]
}

fn ferrolb_image(image: ProgramImage) -> String {
    format!("ferrolb/{}:{}", image.component, env!("CARGO_PKG_VERSION"))
}

fn gobgpd_image() -> String {
    format!("ferrolb/{}:{}", GOBGPD.component, gobgp::VERSION.trim_start_matches('v'))
}

fn build_image(
    arch: Arch,
    image: ProgramImage,
    program: &Path,
    name: &str,
    folder: &Path,
) -> Result<BuiltImage> {
    let tree = folder.join(format!("{}-{}", image.component, arch.name()));
    let file =
        program.file_name().and_then(|name| name.to_str()).context("the program has no name")?;
    fs::create_dir_all(&tree)?;
    let bytes = fs::copy(program, tree.join(file))
        .with_context(|| format!("cannot copy {}", program.display()))?;
    let layer = Layer::pack(&tree)?;
    let archive = tree.with_extension("tar");
    let compressed = layer.compressed()?;
    let entry = ImageArchiveEntry {
        names: vec![name.to_owned()],
        layers: vec![layer],
        entrypoint: vec![format!("/{file}")],
        user: image.user,
    };
    archive::save(&[entry], arch, &archive)?;
    fs::remove_dir_all(&tree)?;
    fs::remove_file(tree.with_extension("layer"))?;
    Ok(BuiltImage { name: name.to_owned(), arch, archive, program: bytes, compressed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::repository;

    #[test]
    fn the_dockerfile_builds_the_same_images_with_the_same_toolchain() {
        let read = |path| fs::read_to_string(repository().join(path)).unwrap();
        let toolchain = read("rust-toolchain.toml");
        let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap();
        let rust = format!("rust:{}-", channel.trim_matches('"'));
        let gobgp = format!("cmd/gobgpd@{} ", gobgp::VERSION);
        let dockerfile = read("deploy/image/Dockerfile");
        for text in names().map(|name| format!("-t {name} ")).into_iter().chain([rust, gobgp]) {
            assert!(
                dockerfile.contains(&text),
                "deploy/image/Dockerfile does not contain {text:?}"
            );
        }
    }
}
