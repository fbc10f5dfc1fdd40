//! Checks that each overlay of `deploy/` is rendered into one file, for users who have only
//! kubectl. With the variable `FERROLB_UPDATE_SNAPSHOTS`, the test also writes the files.

use crate::kustomize;
use ferrolb_lab::setup::repository;
use std::fs;

/// Name of each overlay, and the file that contains its rendered objects.
const OVERLAYS: [(&str, &str); 4] = [
    ("l2", "deploy/install.yaml"),
    ("bgp", "deploy/install-bgp.yaml"),
    ("metallb-takeover", "deploy/install-metallb-takeover.yaml"),
    ("beside-metallb", "deploy/install-beside-metallb.yaml"),
];

#[test]
fn rendered_files_are_current() {
    #[expect(
        clippy::disallowed_methods,
        reason = "the variable is an option of this test, not of a component"
    )]
    let update = std::env::var("FERROLB_UPDATE_SNAPSHOTS").is_ok();
    let mut outdated = Vec::new();
    for (overlay, file) in OVERLAYS {
        let path = repository().join(file);
        let text = format!(
            "# Generated from deploy/overlays/{overlay}: do not edit. After a change there or in\n\
             # deploy/base:\n\
             #   FERROLB_UPDATE_SNAPSHOTS=1 cargo test -p ferrolb-tests --test install rendered\n{}",
            kustomize::build(overlay).unwrap()
        );
        if update {
            fs::write(&path, &text).unwrap();
        }
        if fs::read_to_string(&path).unwrap_or_default() != text {
            outdated.push(file);
        }
    }
    assert!(
        outdated.is_empty(),
        "{outdated:?} differ from deploy/overlays: \
         run FERROLB_UPDATE_SNAPSHOTS=1 cargo test -p ferrolb-tests --test install rendered, and read the diff"
    );
}
