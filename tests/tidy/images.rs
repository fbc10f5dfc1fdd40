//! Checks that deploy/image/Dockerfile builds each image of the manifests, and that the pictures of
//! pages are complete. A test of the lab compares the Dockerfile with the images that it builds.

use crate::tree::{assert_none, files, root};
use std::fs;

#[test]
fn the_dockerfile_builds_every_image_of_the_manifests() {
    let dockerfile = fs::read_to_string(root().join("deploy/image/Dockerfile"))
        .expect("cannot read deploy/image/Dockerfile");
    let mut images = Vec::new();
    // The chart's templates are not YAML before Helm renders them. The install tests compare the
    // rendered objects with the manifests.
    let is_manifest = |path: &str| path.starts_with("deploy/") && !path.starts_with("deploy/helm/");
    for file in files(&[".yaml"]).into_iter().filter(|file| is_manifest(&file.path)) {
        let lines = file.text.lines().map(|line| line.trim_start_matches([' ', '-']));
        let names = lines.filter_map(|line| line.strip_prefix("image: "));
        images.extend(names.map(|name| (file.path.clone(), name.trim().to_owned())));
    }
    assert!(!images.is_empty(), "no manifest has an image");
    let missing =
        images.into_iter().filter(|(_, name)| !dockerfile.contains(&format!("-t {name} ")));
    let problems: Vec<_> = missing.map(|(path, name)| format!("{path}: {name}")).collect();
    assert_none(&problems, "deploy/image/Dockerfile does not build these images:");
}

/// The recording of a terminal, which is dark in any case.
const RECORDING: &str = "docs/images/demo.svg";

#[test]
fn pictures_have_colors_for_dark_pages_and_a_head_on_each_arrow() {
    let mut problems = Vec::new();
    for picture in files(&[".svg"]).iter().filter(|file| file.path != RECORDING) {
        if !picture.text.contains("prefers-color-scheme:dark") {
            problems.push(format!("{} has no colors for dark pages", picture.path));
        }
        // SVG draws the head of an arrow only at the last point of a path.
        for line in picture.text.lines().filter(|line| line.contains("marker-end")) {
            if line.split("d=\"").nth(1).is_some_and(|path| path.matches('M').count() > 1) {
                problems.push(format!("{}: write a path for each line: {line}", picture.path));
            }
        }
    }
    assert_none(&problems, "correct these pictures:");
}
