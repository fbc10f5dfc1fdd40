//! `kubectl ferrolb install`: it leaves an installation by Helm alone, installs by the command of
//! docs/cli.md, and changes nothing when it runs again.

use crate::scenario::{print_measured, step};
use crate::{uninstall, upgrade, web};
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, wait};
use ferrolb_tests::run::Runner;
use ferrolb_tests::{Block, Page, read_page};

const PAGE: &str = "docs/cli.md";
/// Part of the block with the command.
const INSTALL: &str = "kubectl ferrolb install --yes";

/// Returns the blocks of a page that this part runs.
pub(crate) fn blocks(page: &Page) -> Result<Vec<&Block>> {
    if page.path != PAGE { Ok(Vec::new()) } else { Ok(vec![page.commands_with(INSTALL)?]) }
}

/// Checks that the command refuses to change an installation by Helm.
pub(crate) fn check_refused(lab: &Lab) -> Result<()> {
    let before = upgrade::pods(lab)?;
    let text = lab.shell(&format!("{INSTALL} 2>&1 || test $? = 2"))?;
    ensure!(text.contains("`helm upgrade ferrolb CHART "), "the command prints {text:?}");
    ensure!(upgrade::pods(lab)? == before, "pods were replaced; before: {before}");
    Ok(())
}

/// Installs FerroLB on a cluster without it, serves a Service, and uninstalls FerroLB.
pub(crate) fn part(lab: &Lab) -> Result<()> {
    let (start, page) = (wait::now(), read_page(PAGE)?);
    let runner = Runner::in_lab(lab)?;
    blocks(&page)?.iter().try_for_each(|block| runner.block(&page, block))?;
    let installed = start.elapsed().as_secs_f64();
    step("a client gets pages of a Deployment", || {
        web::apply_service(lab)?;
        web::wait_pages(lab, "web").map(drop)
    })?;
    print_measured(&format!(
        "kubectl ferrolb install: {installed:.1} s, to a page in total: {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    step("the command runs again, and no pod is replaced", || {
        let before = upgrade::pods(lab)?;
        let text = lab.shell(&format!("{INSTALL} 2>&1"))?;
        ensure!(text.contains("IPAddressPool default exists"), "the command prints {text:?}");
        ensure!(upgrade::pods(lab)? == before, "pods were replaced; before: {before}");
        Ok(())
    })?;
    uninstall::uninstall(lab, uninstall::BY_FILE)
}
