//! Checks that the installed CustomResourceDefinitions are generated from the custom resources in
//! `proto`. With the variable `FERROLB_UPDATE_SNAPSHOTS`, the test also writes the files.

use ferrolb_proto::api;
use serde_json::Value;

use crate::generated;
use crate::tree::root;

/// Files with the CRDs, both with the same content, because kustomize reads no file above its
/// folder and Helm no file outside of the chart.
const CRD_FILES: [&str; 2] = ["deploy/base/crds.yaml", "deploy/helm/ferrolb/crds/crds.yaml"];

const HEADER: &str = "\
# Generated from proto/src/api: do not edit. After a change there:
#   FERROLB_UPDATE_SNAPSHOTS=1 cargo test -p ferrolb-tidy crds
";

/// Returns the YAML of all CRDs.
fn generate() -> String {
    let mut text = HEADER.to_owned();
    for crd in api::crds() {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&crd).expect("a CRD cannot be written as YAML"));
    }
    text
}

#[test]
fn crds_are_current() {
    let text = generate();
    for file in CRD_FILES {
        generated::check(&root(), file, &text, "-p ferrolb-tidy crds");
    }
}

#[test]
fn crds_are_unchanged_after_parsing_their_yaml() {
    let parsed: Vec<Value> = serde_saphyr::from_multiple(&generate()).unwrap();
    let expected: Vec<_> =
        api::crds().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
    assert_eq!(parsed, expected);
}
