//! The images have one name and one way of being built, wherever these are written: the manifests, the Dockerfile, the toolchain, the lab.

use crate::tree::{assert_none, files, root};
use ferrolb_tests::setup::{gobgp, images};
use std::fs;

fn dockerfile() -> String {
    fs::read_to_string(root().join("deploy/image/Dockerfile")).expect("a text file can be read")
}

#[test]
fn the_manifests_ask_for_the_images_that_are_made() {
    let made = images::names();
    let mut asked = Vec::new();
    // The chart's templates are no YAML yet; what they make is held to what the manifests say.
    let manifests = |path: &str| path.starts_with("deploy/") && !path.starts_with("deploy/helm/");
    for file in files(&[".yaml"]).into_iter().filter(|file| manifests(&file.path)) {
        let named = file.text.lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("image: "));
        asked.extend(named.map(|name| (file.path.clone(), name.trim().to_owned())));
    }
    assert!(!asked.is_empty(), "no manifest asks for an image");
    let unknown = asked.into_iter().filter(|(_, name)| !made.contains(name));
    let problems: Vec<_> = unknown.map(|(path, name)| format!("{path}: {name}")).collect();
    assert_none(&problems, &format!("nobody makes these images, but {}:", made.join(", ")));
}

#[test]
fn the_dockerfile_builds_what_the_lab_builds_by_the_same_toolchain() {
    let toolchain = fs::read_to_string(root().join("rust-toolchain.toml")).expect("a text file can be read");
    let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = "));
    let rust = format!("rust:{}-", channel.expect("it names a channel").trim_matches('"'));
    let gobgp = format!("cmd/gobgpd@{} ", gobgp::VERSION);
    let text = dockerfile();
    let wanted = images::names().map(|name| format!("-t {name} ")).into_iter().chain([rust, gobgp]);
    let problems: Vec<_> = wanted.filter(|word| !text.contains(word)).collect();
    assert_none(&problems, "deploy/image/Dockerfile does not say:");
}
