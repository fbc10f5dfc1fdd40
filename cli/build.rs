//! Sets the manifests that `kubectl ferrolb install` applies, and the chart that the plans of
//! `kubectl ferrolb migrate` install. `cargo lab dist` names those of a release, which pin the
//! images by digest. The defaults are those of a clone.

/// Variables of the build, and their values in a clone.
const INPUTS: [(&str, &str); 2] = [
    ("FERROLB_MANIFESTS", concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy")),
    ("FERROLB_CHART", "deploy/helm/ferrolb"),
];

fn main() {
    for (name, default) in INPUTS {
        #[expect(clippy::disallowed_methods, reason = "an input of the build, not of a component")]
        let value = std::env::var(name).unwrap_or_else(|_| default.to_owned());
        println!("cargo::rerun-if-env-changed={name}");
        println!("cargo::rustc-env={name}={value}");
    }
}
