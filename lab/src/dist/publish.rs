//! Publication of a release folder: crane pushes the images and the chart to the registry whose
//! name they have, and cosign signs them and attests their SBOMs and their provenance. The person
//! who releases runs it, and the tests do with a registry of the lab.

use super::chart::CHART;
use super::layout::{self, Named};
use super::{CHECKSUMS, IMAGES, PROVENANCE, sbom};
use crate::run;
use crate::setup::installers;
use anyhow::{Context, Result, ensure};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Signature of the checksums and its proofs, next to the checksums.
pub const CHECKSUMS_BUNDLE: &str = "SHA256SUMS.sigstore.json";

/// Variable with the password of a private key.
pub const PASSWORD: &str = "COSIGN_PASSWORD";
/// Flags of cosign for a signature without an entry in a log.
const PRIVATE_FLAGS: [&str; 2] = ["--use-signing-config=false", "--tlog-upload=false"];

/// The signer of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The file of a private key, as `cosign generate-key-pair` creates it, and its password.
    Key { file: PathBuf, password: String },
    /// The identity of the workflow that runs, without a key.
    Workflow,
}

/// How a release is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publication {
    /// Without a signer, nothing is signed.
    pub signer: Option<Signer>,
    /// True for a registry without encryption in a closed network, where signatures get no entry in
    /// the public log of sigstore.
    pub is_private: bool,
}

/// Publishes the release in this folder. Returns the name and the digest of each image and of the
/// chart.
///
/// # Errors
/// If a file differs from the checksums, or if crane or cosign fail, with the end of their output.
pub fn publish(folder: &Path, publication: &Publication) -> Result<Vec<String>> {
    let mut check = Command::new("sha256sum");
    run::run(check.current_dir(folder).args(["--check", "--quiet", CHECKSUMS]))
        .context("the release has changed: build it again")?;
    let mut published = Vec::new();
    let mut images = Vec::new();
    for image in fs::read_dir(folder.join(IMAGES))? {
        images.push(image?.file_name().into_string().ok().context("an image has no name")?);
    }
    images.sort();
    for image in images {
        let reference = publish_layout(folder, &Path::new(IMAGES).join(&image), publication)?;
        if let Some(signer) = &publication.signer {
            for sbom in sbom::of(&image, folder)? {
                attest(signer, publication, "cyclonedx", &sbom, &reference)?;
            }
        }
        published.push(reference);
    }
    published.push(publish_layout(folder, Path::new(CHART), publication)?);
    if let Some(signer) = &publication.signer {
        let bundle = folder.join(CHECKSUMS_BUNDLE);
        let bundle = bundle.to_str().context("the path is not UTF-8")?;
        let file = folder.join(CHECKSUMS);
        let file = file.to_str().context("the path is not UTF-8")?;
        sign(signer, publication, &["sign-blob", "--bundle", bundle], file)?;
        // cosign lets only its own user read the file.
        fs::set_permissions(bundle, Permissions::from_mode(0o644))?;
    }
    Ok(published)
}

/// Pushes the content of a layout, signs it, and attests its provenance. Returns its name with its
/// digest.
fn publish_layout(folder: &Path, layout: &Path, publication: &Publication) -> Result<String> {
    let layout = folder.join(layout);
    let reference = push(&layout, &layout::named(&layout)?, publication)?;
    if let Some(signer) = &publication.signer {
        sign_content(signer, publication, &["sign"], &reference)?;
        attest(signer, publication, "slsaprovenance1", &folder.join(PROVENANCE), &reference)?;
    }
    Ok(reference)
}

/// Pushes the content of a layout. Returns its name with its digest.
fn push(layout: &Path, content: &Named, publication: &Publication) -> Result<String> {
    let mut crane = installers::crane()?;
    crane.arg("push").arg(layout).arg(&content.name);
    if publication.is_private {
        crane.arg("--insecure");
    }
    let pushed = run::run(&mut crane)?;
    let (repository, _) = content.name.rsplit_once(':').context("the name has no tag")?;
    let reference = format!("{repository}@{}", content.digest);
    ensure!(pushed.trim() == reference, "crane pushed {} instead of {reference}", pushed.trim());
    Ok(reference)
}

fn attest(
    signer: &Signer,
    publication: &Publication,
    kind: &str,
    predicate: &Path,
    reference: &str,
) -> Result<()> {
    let predicate = predicate.to_str().context("the path is not UTF-8")?;
    let arguments = ["attest", "--type", kind, "--predicate", predicate];
    sign_content(signer, publication, &arguments, reference)
}

/// Runs cosign with these arguments for a content of the registry.
fn sign_content(
    signer: &Signer,
    publication: &Publication,
    arguments: &[&str],
    reference: &str,
) -> Result<()> {
    let flags: &[&str] = if publication.is_private { &["--allow-http-registry"] } else { &[] };
    sign(signer, publication, &[arguments, flags].concat(), reference)
}

/// Runs cosign with these arguments for a file, or for a content of the registry.
fn sign(
    signer: &Signer,
    publication: &Publication,
    arguments: &[&str],
    content: &str,
) -> Result<()> {
    let mut cosign = installers::cosign()?;
    cosign.args(arguments).arg("--yes");
    if let Signer::Key { file, password } = signer {
        cosign.arg("--key").arg(file).env(PASSWORD, password);
    }
    if publication.is_private {
        cosign.args(PRIVATE_FLAGS);
    }
    run::run(cosign.arg(content)).map(drop)
}
