//! Releases in the registry of the lab: their build, their key and their publication.

use anyhow::{Context, Result, ensure};
use ferrolb_lab::dist::publish::{self, PASSWORD, Publication, Signer};
use ferrolb_lab::dist::{self, Build, ReleaseImage, sbom};
use ferrolb_lab::setup::images::{self, Arch, BuiltProgram};
use ferrolb_lab::setup::kubeadm::PodImage;
use ferrolb_lab::setup::programs::StaticPrograms;
use ferrolb_lab::setup::{Tools, gobgp, installers};
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Lab, run};
use serde_json::json;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A release in a registry.
pub(super) struct Release {
    /// Name of the registry, and path of the images and the chart.
    pub(super) registry: String,
    pub(super) folder: PathBuf,
    pub(super) programs: Vec<BuiltProgram>,
    pub(super) images: Vec<ReleaseImage>,
}

impl Release {
    /// Returns the name of an image with its digest.
    pub(super) fn name(&self, image: &ReleaseImage) -> String {
        format!("{}/{}@{}", self.registry, image.component, image.digest)
    }
}

/// Returns other programs that do the same, as the next release has.
pub(super) fn changed(programs: &StaticPrograms, folder: &Path) -> Result<StaticPrograms> {
    fs::create_dir_all(folder)?;
    let change = |program: &Path| -> Result<PathBuf> {
        let changed = folder.join(program.file_name().context("the program has no name")?);
        fs::copy(program, &changed)?;
        fs::File::options().append(true).open(&changed)?.write_all(b"next")?;
        Ok(changed)
    };
    Ok(StaticPrograms {
        controller: change(&programs.controller)?,
        speaker: change(&programs.speaker)?,
    })
}

/// Builds a release for this machine's architecture.
pub(super) fn build(
    lab: &Lab,
    host: &str,
    name: &str,
    programs: &StaticPrograms,
) -> Result<Release> {
    let programs = images::of(Arch::own(), programs, Some(&gobgp::build()?));
    let (registry, folder) = (format!("{host}/{name}"), lab.state().file(name));
    fs::create_dir_all(&folder)?;
    let build = Build { registry: registry.clone(), profile: "lab".to_owned(), workflow: None };
    let images = dist::write(&build, &programs, &folder)?;
    for component in ["controller", "speaker", "gobgpd"] {
        // syft, which writes the SBOMs of a release, takes minutes to build.
        let sbom = json!({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": []});
        let file = sbom::file(&format!("{component}-{}", Arch::own().name()));
        fs::write(folder.join(file), sbom.to_string())?;
    }
    dist::checksums(&folder)?;
    Ok(Release { registry, folder, programs, images })
}

pub(super) fn publish(lab: &Lab, release: &Release, signer: Option<Signer>) -> Result<()> {
    let publication = Publication { signer, is_private: true };
    let published = lab.within(CLIENT, || publish::publish(&release.folder, &publication))??;
    ensure!(published.len() == release.images.len() + 1, "only {published:?} is published");
    Ok(())
}

/// Creates a key without a password in the folder of the release.
pub(super) fn generate_key(folder: &Path) -> Result<Signer> {
    let mut cosign = installers::cosign()?;
    run::run(cosign.current_dir(folder).env(PASSWORD, "").arg("generate-key-pair"))?;
    Ok(Signer::Key { file: folder.join("cosign.key"), password: String::new() })
}

/// Pushes the image of the pods that serve pages.
pub(super) fn push_page_server(lab: &Lab, host: &str, folder: &Path) -> Result<()> {
    PodImage::make(&Tools::ready()?.programs.lab, folder)?;
    let mut crane = installers::crane()?;
    crane.arg("push").arg(folder.join("pod.tar")).args([&page_server(host), "--insecure"]);
    lab.within(CLIENT, || run::run(&mut crane))??;
    Ok(())
}

pub(super) fn page_server(host: &str) -> String {
    format!("{host}/lab/pod:0")
}
