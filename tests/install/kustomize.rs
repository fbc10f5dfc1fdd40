//! kustomize, asked for an overlay of `deploy/`.

use anyhow::Result;
use ferrolb_tests::run::run;
use ferrolb_tests::setup::{installers, repository};

/// What an overlay makes, as YAML.
pub(crate) fn build(overlay: &str) -> Result<String> {
    let mut kustomize = installers::kustomize()?;
    run(kustomize.args(["build".into(), repository().join("deploy/overlays").join(overlay)]))
}
