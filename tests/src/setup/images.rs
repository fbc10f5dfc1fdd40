//! FerroLB's images, made of static programs without Docker and without a registry: what `deploy/image/Dockerfile` gives, for the tests and for whoever
//! has neither.

pub mod archive;
pub mod tree;

use super::programs::{self, Static};
use super::{gobgp, packages};
use anyhow::{Context, Result};
use archive::{Image, Layer};
use std::fs;
use std::path::{Path, PathBuf};

/// A kind of machine that the programs run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// The one that this machine is.
    pub const fn own() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 }
    }

    /// As Go, images and Kubernetes call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As Rust calls it, for static programs.
    pub const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }

    /// What Debian calls a C compiler for it, and the headers, on a machine of another kind.
    const fn packages(self) -> [&'static str; 2] {
        match self {
            Self::Amd64 => ["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"],
            Self::Arm64 => ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        }
    }
}

/// An image of one program.
#[derive(Clone, Copy, Debug)]
struct Form {
    component: &'static str,
    user: &'static str,
}

/// Nobody, by the custom of images without a user database; the manifest of the controller says the same.
const NOBODY: &str = "65532:65532";
const CONTROLLER: Form = Form { component: "controller", user: NOBODY };
/// Root, because a capability reaches no other user through a pod's `capabilities.add`.
const SPEAKER: Form = Form { component: "speaker", user: "" };
const GOBGPD: Form = Form { component: "gobgpd", user: "" };

/// An image that was made.
#[derive(Clone, Debug)]
pub struct Made {
    pub name: String,
    pub arch: Arch,
    pub archive: PathBuf,
    /// The program in it, in bytes.
    pub program: u64,
    /// What a registry keeps and a node fetches, in bytes.
    pub compressed: u64,
}

/// Installs what builds programs for this kind of machine.
///
/// # Errors
/// When a package is not to be had, or there is no rustup for the target.
pub fn prepare(arch: Arch) -> Result<()> {
    if arch != Arch::own() {
        packages::install(&packages::missing_of(&arch.packages())?)?;
    }
    programs::add_target(arch.target())
}

/// Makes controller, speaker and gobgpd as they are released, into `folder`.
///
/// # Errors
/// When a program does not build.
pub fn release(arch: Arch, folder: &Path) -> Result<Vec<Made>> {
    let built = programs::build_static("release", arch.target())?;
    let gobgp = gobgp::build_for(arch)?;
    Ok(vec![
        make(arch, CONTROLLER, &built.controller, &ours(CONTROLLER), folder)?,
        make(arch, SPEAKER, &built.speaker, &ours(SPEAKER), folder)?,
        make(arch, GOBGPD, &gobgp.join("gobgpd"), &daemon(), folder)?,
    ])
}

/// Makes controller and speaker of these programs, for this machine; and where there is BGP gobgpd, out of the folder that it is in.
///
/// # Errors
/// When a file cannot be written.
pub fn of_programs(built: &Static, gobgp: Option<&Path>, folder: &Path) -> Result<Vec<Made>> {
    let arch = Arch::own();
    let mut made = vec![
        make(arch, CONTROLLER, &built.controller, &ours(CONTROLLER), folder)?,
        make(arch, SPEAKER, &built.speaker, &ours(SPEAKER), folder)?,
    ];
    if let Some(gobgp) = gobgp {
        made.push(make(arch, GOBGPD, &gobgp.join("gobgpd"), &daemon(), folder)?);
    }
    Ok(made)
}

/// What the images are called, as the manifests ask for them.
pub fn names() -> [String; 3] {
    [ours(CONTROLLER), ours(SPEAKER), daemon()]
}

fn ours(form: Form) -> String {
    format!("ferrolb/{}:{}", form.component, env!("CARGO_PKG_VERSION"))
}

fn daemon() -> String {
    format!("ferrolb/{}:{}", GOBGPD.component, gobgp::VERSION.trim_start_matches('v'))
}

fn make(arch: Arch, form: Form, program: &Path, name: &str, folder: &Path) -> Result<Made> {
    let tree = folder.join(format!("{}-{}", form.component, arch.name()));
    let file = program.file_name().and_then(|name| name.to_str()).context("a program has a name")?;
    fs::create_dir_all(&tree)?;
    let bytes = fs::copy(program, tree.join(file)).with_context(|| format!("no {}", program.display()))?;
    let layer = Layer::pack(&tree)?;
    let archive = tree.with_extension("tar");
    let compressed = layer.compressed()?;
    let image = Image {
        names: vec![name.to_owned()],
        layers: vec![layer],
        entrypoint: vec![format!("/{file}")],
        user: form.user,
    };
    archive::save(&[image], arch, &archive)?;
    fs::remove_dir_all(&tree)?;
    fs::remove_file(tree.with_extension("layer"))?;
    Ok(Made { name: name.to_owned(), arch, archive, program: bytes, compressed })
}
