//! A release from a registry: the folder of `cargo lab dist`, pushed and signed, on nodes that have
//! no image of FerroLB. The commands of docs/install/release.md verify it, and those of
//! docs/install/helm.md install it from the registry. An upgrade to the next release follows.

use crate::client::run_without_loss;
use crate::scenario::{print_measured, run_scenario, step};
use crate::{uninstall, upgrade, web};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::registry;
use ferrolb_lab::dist::publish::{self, PASSWORD, Publication, Signer};
use ferrolb_lab::dist::{self, Build, ReleaseImage, sbom};
use ferrolb_lab::setup::images::{self, Arch};
use ferrolb_lab::setup::kubeadm::PodImage;
use ferrolb_lab::setup::programs::StaticPrograms;
use ferrolb_lab::setup::{Tools, gobgp, installers};
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Lab, Options, run, wait};
use ferrolb_tests::run::Runner;
use ferrolb_tests::{Block, Page, read_page};
use serde_json::json;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const RELEASE: &str = "docs/install/release.md";
pub(crate) const HELM: &str = "docs/install/helm.md";
/// Registry in the commands of the pages.
const EXAMPLE: &str = "registry.example.com";
/// Parts of the blocks that verify a release, and of the one that installs it.
const VERIFY: [&str; 4] = ["verify-blob", "cosign verify ", "slsaprovenance1", "cyclonedx"];
pub(crate) const INSTALL: &str = "helm install ferrolb oci://";
/// Flags of the commands for a registry without encryption, whose signatures are in no public log.
const PRIVATE: [(&str, &str); 4] = [
    ("verify-blob ", "verify-blob --insecure-ignore-tlog "),
    ("cosign verify ", "cosign verify --insecure-ignore-tlog --allow-http-registry "),
    ("verify-attestation ", "verify-attestation --insecure-ignore-tlog --allow-http-registry "),
    ("helm install ", "helm install --plain-http "),
];
/// Folder of the release, where the page's commands run.
const FOLDER: &str = "target/dist";

/// A release in a registry.
struct Release {
    /// Name of the registry, and path of the images and the chart.
    registry: String,
    folder: PathBuf,
    images: Vec<ReleaseImage>,
}

#[test]
fn a_release_is_verified_and_pulled_by_digest_from_a_registry() {
    let options = Options { kubeadm: true, registry: true, nodes: 2, ..Options::named("kubereg") };
    run_scenario(&options, |lab| {
        let host = registry::name(&lab.state().facts()?);
        let (release, next) = step("a release and the next one are built", || {
            let programs = &Tools::with_kubeadm()?.kubeadm.as_ref().context("no kubelets")?.ferrolb;
            let next = changed(programs, &lab.state().file("changed"))?;
            Ok((build(lab, &host, "ferrolb", programs)?, build(lab, &host, "next", &next)?))
        })?;
        step("the releases are pushed and signed", || {
            publish(lab, &next, None)?;
            let start = wait::now();
            publish(lab, &release, Some(generate_key(&release.folder)?))?;
            print_measured(&format!("pushed and signed: {:.1} s", start.elapsed().as_secs_f64()));
            push_page_server(lab, &host, &release.folder)
        })?;
        let page = read_page(RELEASE)?;
        let runner = Runner::in_lab(lab)?;
        symlink(&release.folder, lab.state().file("pages").join(FOLDER))?;
        for part in VERIFY {
            runner.block(&page, &adapted(page.commands_with(part)?, &host)?)?;
        }
        step("a changed file, and an image without a signature, are refused", || {
            refuse_others(lab, &release, &next)
        })?;
        let start = wait::now();
        let page = read_page(HELM)?;
        runner.block(&page, &adapted(page.commands_with(INSTALL)?, &host)?)?;
        let servers = step("a client gets pages of a Deployment", || serve(lab, &host))?;
        print_measured(&format!(
            "from helm install oci:// to the first page: {:.1} s",
            start.elapsed().as_secs_f64()
        ));
        step("the pods run the images of the release by digest", || check_pods(lab, &release))?;
        let web = [("web", servers[0])];
        step("an upgrade to the next release loses no connection", || {
            let upgrade = || helm_upgrade(lab, &next);
            run_without_loss(lab, "helm upgrade from a registry", &web, upgrade)?;
            check_pods(lab, &next)
        })?;
        step("the commands of docs/install/uninstall.md remove everything", || {
            uninstall::remove(lab, uninstall::BY_HELM)
        })?;
        step("the manifests of the release install the same images", || {
            let manifest = release.folder.join("install.yaml");
            lab.shell(&format!("kubectl apply -f {}", manifest.display()))?;
            upgrade::wait_rolled_out(lab)?;
            check_pods(lab, &release)
        })
    });
}

/// Returns other programs that do the same, as the next release has.
fn changed(programs: &StaticPrograms, folder: &Path) -> Result<StaticPrograms> {
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
fn build(lab: &Lab, host: &str, name: &str, programs: &StaticPrograms) -> Result<Release> {
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
    Ok(Release { registry, folder, images })
}

fn publish(lab: &Lab, release: &Release, signer: Option<Signer>) -> Result<()> {
    let publication = Publication { signer, is_private: true };
    let published = lab.within(CLIENT, || publish::publish(&release.folder, &publication))??;
    ensure!(published.len() == release.images.len() + 1, "only {published:?} is published");
    Ok(())
}

/// Creates a key without a password in the folder of the release.
fn generate_key(folder: &Path) -> Result<Signer> {
    let mut cosign = installers::cosign()?;
    run::run(cosign.current_dir(folder).env(PASSWORD, "").arg("generate-key-pair"))?;
    Ok(Signer::Key { file: folder.join("cosign.key"), password: String::new() })
}

/// Pushes the image of the pods that serve pages.
fn push_page_server(lab: &Lab, host: &str, folder: &Path) -> Result<()> {
    PodImage::make(&Tools::ready()?.programs.lab, folder)?;
    let mut crane = installers::crane()?;
    crane.arg("push").arg(folder.join("pod.tar")).args([&page_server(host), "--insecure"]);
    lab.within(CLIENT, || run::run(&mut crane))??;
    Ok(())
}

fn page_server(host: &str) -> String {
    format!("{host}/lab/pod:0")
}

/// Returns a block of the page for the lab's registry, in the folder of the release.
fn adapted(block: &Block, host: &str) -> Result<Block> {
    let cosign = installers::cosign()?;
    let cosign = cosign.get_program().to_str().context("the path is not UTF-8")?;
    let text = block.text.replace(EXAMPLE, host);
    let text = PRIVATE.iter().fold(text, |text, (from, to)| text.replace(from, to));
    let text =
        format!("cd {FOLDER}\n{}", text.replace("cosign verify", &format!("{cosign} verify")));
    Ok(Block { text, ..block.clone() })
}

fn refuse_others(lab: &Lab, release: &Release, unsigned: &Release) -> Result<()> {
    let key = release.folder.join("cosign.pub");
    let verify = |reference: &str| {
        let mut cosign = installers::cosign()?;
        cosign.args(["verify", "--insecure-ignore-tlog", "--allow-http-registry", "--key"]);
        cosign.arg(&key).arg(reference);
        lab.within(CLIENT, || cosign.output().context("cosign does not start"))?
    };
    let [signed, other] = [release, unsigned].map(|release| {
        let image = release.images.first().context("a release has images")?;
        verify(&format!("{}/{}@{}", release.registry, image.component, image.digest))
    });
    ensure!(signed?.status.success(), "the image of the release is not verified");
    ensure!(!other?.status.success(), "the image without a signature is verified");
    let changed = release.folder.join("install.yaml");
    let text = fs::read_to_string(&changed)?;
    fs::write(&changed, format!("{text}# changed\n"))?;
    let refused = publish(lab, release, None);
    fs::write(&changed, text)?;
    let refused = refused.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(refused.contains("the release has changed"), "the result is {refused:?}");
    Ok(())
}

/// Applies the Service and its Deployment, and returns the addresses that serve pages.
fn serve(lab: &Lab, host: &str) -> Result<Vec<std::net::SocketAddr>> {
    let mut deployment = web::deployment();
    let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
    container["image"] = json!(page_server(host));
    container["imagePullPolicy"] = json!("Always");
    web::apply_service_of(lab, deployment)?;
    web::wait_pages(lab, "web")
}

/// Checks that every pod of FerroLB runs an image of the release by digest, and that no node has
/// an image of FerroLB under another name.
fn check_pods(lab: &Lab, release: &Release) -> Result<()> {
    let path =
        "jsonpath={range .items[*].status.containerStatuses[*]}{.image} {.imageID}{\"\\n\"}{end}";
    let pods = lab.kubectl(&["-n", "ferrolb-system", "get", "pods", "-o", path])?;
    ensure!(pods.lines().count() >= 3, "only these pods run:\n{pods}");
    for line in pods.lines() {
        let of = |it: &&ReleaseImage| line.ends_with(&format!("/{}@{}", it.component, it.digest));
        let found = release.images.iter().find(of);
        ensure!(found.is_some(), "{line} is no image of the release {:?}", release.images);
    }
    for node in lab.nodes() {
        let names = lab.exec(&node, &["ctr", "-n", "k8s.io", "images", "ls", "-q"])?;
        let other = names.lines().find(|name| name.starts_with("docker.io/ferrolb/"));
        ensure!(other.is_none(), "{node} has {other:?}");
    }
    Ok(())
}

fn helm_upgrade(lab: &Lab, release: &Release) -> Result<()> {
    let chart = format!("oci://{}/charts/ferrolb", release.registry);
    let flags = "--plain-http --version 0.1.0 --namespace ferrolb-system --wait --timeout 120s";
    lab.shell(&format!("helm upgrade ferrolb {chart} {flags} --reset-then-reuse-values"))?;
    upgrade::wait_rolled_out(lab)
}

/// Returns the blocks of a page that this scenario runs.
pub(crate) fn blocks(page: &Page) -> Result<Vec<&Block>> {
    let parts: &[&str] = match page.path.as_str() {
        RELEASE => &VERIFY,
        HELM => &[INSTALL],
        _ => &[],
    };
    parts.iter().map(|part| page.commands_with(part)).collect()
}
