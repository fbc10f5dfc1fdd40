//! Rendering of the kustomize overlays in `deploy/`.

use anyhow::Result;
use ferrolb_lab::run::run;
use ferrolb_lab::setup::{installers, repository};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Directory of an overlay of a page, and its file.
const FOLDER: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/overlays");
const FILE: &str = "kustomization.yaml";

/// Renders an overlay. Returns YAML.
pub(crate) fn build(overlay: &str) -> Result<String> {
    render(&repository().join("deploy/overlays").join(overlay))
}

/// Renders an overlay of a user, which is in `deploy/overlays/mine`. Returns YAML.
pub(crate) fn build_mine(kustomization: &str) -> Result<String> {
    let root = Path::new(FOLDER);
    // A failed run left its files.
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    let mine = root.join("overlays/mine");
    fs::create_dir_all(&mine)?;
    fs::write(mine.join(FILE), kustomization)?;
    for overlay in fs::read_dir(repository().join("deploy/overlays"))? {
        let overlay = overlay?;
        symlink(overlay.path(), root.join("overlays").join(overlay.file_name()))?;
    }
    let rendered = render(&mine);
    fs::remove_dir_all(root)?;
    rendered
}

fn render(folder: &Path) -> Result<String> {
    let mut kustomize = installers::kustomize()?;
    run(kustomize.args(["build".as_ref(), folder.as_os_str()]))
}
