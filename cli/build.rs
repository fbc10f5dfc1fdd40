//! Sets the folder of the manifests that `kubectl ferrolb install` applies. `cargo lab dist` names
//! the folder of a release, whose manifests pin the images by digest. The default is `deploy`.

fn main() {
    #[expect(clippy::disallowed_methods, reason = "an input of the build, not of a component")]
    let folder = std::env::var("FERROLB_MANIFESTS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy").to_owned());
    println!("cargo::rerun-if-env-changed=FERROLB_MANIFESTS");
    println!("cargo::rustc-env=FERROLB_MANIFESTS={folder}");
}
