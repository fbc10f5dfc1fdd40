//! Rendering of the kustomize overlays in `deploy/`.

use anyhow::Result;
use ferrolb_lab::run::run;
use ferrolb_lab::setup::{installers, repository};

/// Renders an overlay. Returns YAML.
pub(crate) fn build(overlay: &str) -> Result<String> {
    let mut kustomize = installers::kustomize()?;
    run(kustomize.args(["build".into(), repository().join("deploy/overlays").join(overlay)]))
}
