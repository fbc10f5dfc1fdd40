//! The installed CustomResourceDefinitions are generated from the custom resources in `proto`. This
//! test is also the generator.

use std::fs;

use ferrolb_proto::api;
use serde_json::Value;

use crate::tree::root;

/// Two files with the same content: kustomize reads no file above its folder, and Helm none outside
/// of the chart.
const FILES: [&str; 2] = ["deploy/base/crds.yaml", "deploy/helm/ferrolb/crds/crds.yaml"];

const HEAD: &str = "\
# Generated from proto/src/api: do not edit. After a change there:
#   FERROLB_UPDATE_SNAPSHOTS=1 cargo test -p ferrolb-tidy crds
";

fn generated() -> String {
    let mut text = HEAD.to_owned();
    for crd in api::crds() {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&crd).expect("a CRD is plain data"));
    }
    text
}

#[test]
fn crds_are_current() {
    let text = generated();
    #[expect(clippy::disallowed_methods, reason = "a switch of this test, no setting of a program")]
    let update = std::env::var("FERROLB_UPDATE_SNAPSHOTS").is_ok();
    for file in FILES {
        let path = root().join(file);
        if update {
            fs::write(&path, &text).unwrap();
        }
        assert!(
            fs::read_to_string(&path).unwrap_or_default() == text,
            "{file} is not what proto/src/api makes: \
             run FERROLB_UPDATE_SNAPSHOTS=1 cargo test -p ferrolb-tidy crds, and read the diff"
        );
    }
}

#[test]
fn crds_mean_the_same_read_back() {
    let read: Vec<Value> = serde_saphyr::from_multiple(&generated()).unwrap();
    let made: Vec<_> = api::crds().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
    assert_eq!(read, made);
}
