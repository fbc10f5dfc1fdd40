//! `cargo lab dist`: builds the folder of a release, and prints the digests of its images.

use anyhow::{Result, ensure};
use clap::Args;
use ferrolb_lab::dist::crates::{self, Crates};
use ferrolb_lab::dist::plugin::{self, Platform};
use ferrolb_lab::dist::sbom::{self, Source};
use ferrolb_lab::dist::{self, Build, licenses};
use ferrolb_lab::setup::images::{self, Arch, BuiltProgram};
use ferrolb_lab::setup::{self, programs, release_programs, repository};
use ferrolb_lab::steps::Steps;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Estimated times on two cores: all images of one architecture, and `kubectl ferrolb` for one
/// platform.
const BUILD_USUAL_TIME: Duration = Duration::from_secs(420);
const PLUGIN_USUAL_TIME: Duration = Duration::from_secs(120);
const SITE_USUAL_TIME: Duration = Duration::from_secs(150);
/// Time of a step that compiles nothing.
const PACK_USUAL_TIME: Duration = Duration::from_secs(20);

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
    let finished = repository().canonicalize()?.join("target/dist");
    ensure!(!finished.exists(), "{} exists: remove it first", finished.display());
    let changed = setup::changed_files()?;
    ensure!(changed.is_empty(), "these files differ from the commit: commit them first\n{changed}");
    let folder = finished.with_extension("unfinished");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let DistArgs { registry, profile, workflow } = args.clone();
    let build = Build { registry, profile, workflow };
    let mut steps = Steps::new(2 * Arch::ALL.len() + Platform::ALL.len() + 3);
    let mut all: Vec<BuiltProgram> = Vec::new();
    for arch in Arch::ALL {
        let title = format!("Toolchain for {}", arch.name());
        steps.step(&title, PACK_USUAL_TIME, || images::prepare(arch))?;
        let title = format!("Build the programs for {}", arch.name());
        let built = || images::programs(arch, &build.profile);
        all.extend(steps.step(&title, BUILD_USUAL_TIME, built)?);
    }
    let images = steps.step("Pack images, chart and manifests", PACK_USUAL_TIME, || {
        dist::write(&build, &all, &folder)
    })?;
    let mut plugins = Vec::new();
    for platform in Platform::ALL {
        let title = format!("Build kubectl-ferrolb for {}", platform.name());
        let program = steps.step(&title, PLUGIN_USUAL_TIME, || {
            programs::add_target(platform.target())?;
            let chart = build.chart_arguments();
            release_programs::cli(&build.profile, platform.target(), &folder, &chart)
        })?;
        plugins.push((platform, program));
    }
    steps.step("Render the site", SITE_USUAL_TIME, || dist::site::site(&folder))?;
    let summary = steps.step("SBOMs, licenses and checksums", PACK_USUAL_TIME, || {
        let locked = crates::read()?;
        let [crates, modules] = sboms(&all, &plugins, &locked, &folder)?;
        let count = licenses::write(&locked, &crates, &modules, &folder)?;
        for (platform, program) in &plugins {
            plugin::write(program, *platform, &folder)?;
        }
        Ok(format!("{} files, {count} licenses of dependencies", dist::checksums(&folder)?))
    })?;
    fs::rename(&folder, &finished)?;
    for image in images {
        println!("{}/{}:{}@{}", args.registry, image.component, image.version, image.digest);
    }
    println!("{summary}; checksums in {}", finished.join(dist::CHECKSUMS).display());
    Ok(())
}

/// Writes the SBOM of each program. Returns all crates, and all Go modules.
fn sboms(
    components: &[BuiltProgram],
    plugins: &[(Platform, PathBuf)],
    locked: &Crates,
    folder: &Path,
) -> Result<[BTreeSet<sbom::Dependency>; 2]> {
    let (mut crates, mut modules) = (BTreeSet::new(), BTreeSet::new());
    for component in components {
        let (name, target) = (component.component(), component.arch().target());
        let (source, found) = match name {
            "gobgpd" => (Source::GoBgp, &mut modules),
            "controller" => (Source::Package { name: "ferrolb-controller", target }, &mut crates),
            _ => (Source::Package { name: "ferrolb-speaker", target }, &mut crates),
        };
        let name = format!("{name}-{}", component.arch().name());
        found.extend(sbom::write(&name, component.program(), source, locked, folder)?);
    }
    for (platform, program) in plugins {
        let source = Source::Package { name: "ferrolb-cli", target: platform.target() };
        let name = format!("kubectl-ferrolb_{}", platform.name());
        crates.extend(sbom::write(&name, program, source, locked, folder)?);
    }
    Ok([crates, modules])
}
