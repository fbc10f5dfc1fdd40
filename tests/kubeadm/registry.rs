//! A release from a registry: the folder of `cargo lab dist`, pushed and signed, on nodes that have
//! no image of FerroLB. The commands of docs/install/release.md verify it, and those of
//! docs/install/helm.md install it from the registry. An upgrade to the next release and a rollback
//! follow, by those of docs/install/upgrade.md.

mod contents;
mod release;

use crate::client::run_without_loss;
use crate::scenario::{print_measured, run_scenario, step};
use crate::{uninstall, upgrade, web};
use anyhow::{Context, Result, ensure};
use contents::check_pods;
use ferrolb_lab::cluster::registry;
use ferrolb_lab::setup::{Tools, installers};
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Lab, Options, wait};
use ferrolb_tests::run::Runner;
use ferrolb_tests::{Block, Page, read_page};
use release::{Release, build, changed, generate_key, page_server, publish, push_page_server};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;

const RELEASE: &str = "docs/install/release.md";
pub(crate) const HELM: &str = "docs/install/helm.md";
/// Registry and path in the commands of the pages.
const EXAMPLE: &str = "registry.example.com/ferrolb";
/// Parts of the blocks that verify a release, and of those that install, replace and restore it.
const VERIFY: [&str; 4] = ["verify-blob", "cosign verify ", "slsaprovenance1", "cyclonedx"];
pub(crate) const INSTALL: &str = "helm install ferrolb oci://";
const REPLACE: &str = "helm show crds $CHART";
const RESTORE: &str = "helm rollback";
/// Flags of the commands for a registry without encryption, whose signatures are in no public log.
/// The upgrade also adds gobgpd.
const PRIVATE: [(&str, &str); 6] = [
    ("verify-blob ", "verify-blob --insecure-ignore-tlog "),
    ("cosign verify ", "cosign verify --insecure-ignore-tlog --allow-http-registry "),
    ("verify-attestation ", "verify-attestation --insecure-ignore-tlog --allow-http-registry "),
    ("helm install ", "helm install --plain-http "),
    ("helm show crds ", "helm show crds --plain-http "),
    ("helm upgrade ", "helm upgrade --plain-http --set bgp.enabled=true "),
];
/// Folder of the release, where the page's commands run.
const FOLDER: &str = "target/dist";
/// Components with pods, without BGP and with it.
const LAYER2: &[&str] = &["controller", "speaker"];
const BGP: &[&str] = &["controller", "speaker", "gobgpd"];

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
        step("the registry has complete images, each with labels and one static program", || {
            contents::check(lab, &release)
        })?;
        let page = read_page(RELEASE)?;
        let runner = Runner::in_lab(lab)?;
        symlink(&release.folder, lab.state().file("pages").join(FOLDER))?;
        for part in VERIFY {
            runner.block(&page, &adapted(page.commands_with(part)?, &release)?)?;
        }
        step("a changed file, and an image without a signature, are refused", || {
            refuse_others(lab, &release, &next)
        })?;
        let start = wait::now();
        let page = read_page(HELM)?;
        runner.block(&page, &adapted(page.commands_with(INSTALL)?, &release)?)?;
        let servers = step("a client gets pages of a Deployment", || serve(lab, &host))?;
        print_measured(&format!(
            "from helm install oci:// to the first page: {:.1} s",
            start.elapsed().as_secs_f64()
        ));
        step("the pods run the images of the release by digest", || {
            check_pods(lab, &release, LAYER2)
        })?;
        let web = [("web", servers[0])];
        let page = read_page(upgrade::PAGE)?;
        step("an upgrade to the next release loses no connection", || {
            let replace = adapted(page.commands_with(REPLACE)?, &next)?;
            let upgrade = || runner.block(&page, &replace);
            run_without_loss(lab, "helm upgrade from a registry", &web, upgrade)?;
            check_pods(lab, &next, BGP)
        })?;
        step("a rollback restores the release", || {
            runner.block(&page, page.commands_with(RESTORE)?)?;
            check_pods(lab, &release, LAYER2)
        })?;
        step("the commands of docs/install/uninstall.md remove everything", || {
            uninstall::remove(lab, uninstall::BY_HELM)
        })?;
        step("the manifests of the release install the same images", || {
            let manifest = release.folder.join("install.yaml");
            lab.shell(&format!("kubectl apply -f {}", manifest.display()))?;
            upgrade::wait_rolled_out(lab)?;
            check_pods(lab, &release, LAYER2)
        })
    });
}

/// Returns a block of a page for a release in the lab's registry, in the folder of the release.
fn adapted(block: &Block, release: &Release) -> Result<Block> {
    let cosign = installers::cosign()?;
    let cosign = cosign.get_program().to_str().context("the path is not UTF-8")?;
    let text = block.text.replace(EXAMPLE, &release.registry);
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
        verify(&release.name(image))
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

/// Returns the blocks of a page that this scenario runs.
pub(crate) fn blocks(page: &Page) -> Result<Vec<&Block>> {
    let parts: &[&str] = match page.path.as_str() {
        RELEASE => &VERIFY,
        HELM => &[INSTALL],
        upgrade::PAGE => &[REPLACE, RESTORE],
        _ => &[],
    };
    parts.iter().map(|part| page.commands_with(part)).collect()
}
