//! `cargo lab dist`: builds the folder of a release, and prints the digests of its images.

use anyhow::{Result, ensure};
use clap::Args;
use ferrolb_lab::dist::{self, Build};
use ferrolb_lab::setup::images::{self, Arch, BuiltProgram};
use ferrolb_lab::setup::{programs, repository};
use ferrolb_lab::steps::Steps;
use std::fs;
use std::time::Duration;

/// Estimated time to build all programs for one architecture, on two cores.
const BUILD_USUAL_TIME: Duration = Duration::from_secs(480);
const PACK_USUAL_TIME: Duration = Duration::from_secs(20);
const SITE_USUAL_TIME: Duration = Duration::from_secs(150);
const TOOLCHAIN_USUAL_TIME: Duration = Duration::from_secs(10);

#[derive(Args, Clone)]
pub(crate) struct DistArgs {
    /// Registry and path of the images and the chart, such as `registry.example.com/ferrolb`.
    #[arg(long)]
    registry: String,
    /// Cargo's profile of the programs.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Workflow of GitHub that runs the command.
    #[arg(long, env = "GITHUB_WORKFLOW_REF", hide = true)]
    workflow: Option<String>,
}

/// Builds all files of a release in `target/dist`, which must not exist.
pub(crate) fn dist(args: &DistArgs) -> Result<()> {
    let folder = repository().canonicalize()?.join("target/dist");
    ensure!(!folder.exists(), "{} exists: remove it first", folder.display());
    fs::create_dir_all(&folder)?;
    let mut steps = Steps::new(2 * Arch::ALL.len() + 2);
    let DistArgs { registry, profile, workflow } = args.clone();
    let build = Build { registry, profile, workflow };
    let mut all: Vec<BuiltProgram> = Vec::new();
    for arch in Arch::ALL {
        let title = format!("Toolchain for {}", arch.name());
        steps.step(&title, TOOLCHAIN_USUAL_TIME, || images::prepare(arch))?;
        let title = format!("Build the programs for {}", arch.name());
        steps.step(&title, BUILD_USUAL_TIME, || -> Result<()> {
            all.extend(images::programs(arch, &args.profile)?);
            let cli = programs::build_static_cli(&args.profile, arch.target())?;
            dist::plugin(&cli, arch, &folder)
        })?;
    }
    steps.step("Render the site", SITE_USUAL_TIME, || dist::site::site(&folder))?;
    let (images, files) =
        steps.step("Pack images, chart and manifests", PACK_USUAL_TIME, || {
            let images = dist::write(&build, &all, &folder)?;
            Ok((images, dist::checksums(&folder)?))
        })?;
    for image in images {
        println!("{}/{}:{}@{}", args.registry, image.component, image.version, image.digest);
    }
    println!("{files} files, checksums in {}", folder.join(dist::CHECKSUMS).display());
    Ok(())
}
