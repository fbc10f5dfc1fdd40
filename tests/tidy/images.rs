//! Images of the manifests: deploy/image/Dockerfile builds each of them. A test of the lab compares
//! the Dockerfile with the images that the lab builds itself.

use crate::tree::{assert_none, files, root};
use std::fs;

#[test]
fn the_dockerfile_builds_every_image_of_the_manifests() {
    let dockerfile = fs::read_to_string(root().join("deploy/image/Dockerfile"))
        .expect("a text file can be read");
    let mut images = Vec::new();
    // The chart's templates are not YAML before Helm renders them. The install tests compare the
    // rendered objects with the manifests.
    let manifests = |path: &str| path.starts_with("deploy/") && !path.starts_with("deploy/helm/");
    for file in files(&[".yaml"]).into_iter().filter(|file| manifests(&file.path)) {
        let lines = file.text.lines().map(|line| line.trim_start_matches([' ', '-']));
        let named = lines.filter_map(|line| line.strip_prefix("image: "));
        images.extend(named.map(|name| (file.path.clone(), name.trim().to_owned())));
    }
    assert!(!images.is_empty(), "no manifest has an image");
    let unknown =
        images.into_iter().filter(|(_, name)| !dockerfile.contains(&format!("-t {name} ")));
    let problems: Vec<_> = unknown.map(|(path, name)| format!("{path}: {name}")).collect();
    assert_none(&problems, "deploy/image/Dockerfile does not build these images:");
}
