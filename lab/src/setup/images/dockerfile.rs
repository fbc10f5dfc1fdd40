//! Tests that `deploy/image/Dockerfile` builds the images of this module.

use super::*;
use crate::setup::repository;

#[test]
fn the_dockerfile_builds_the_same_images_with_the_same_toolchain() {
    let read = |path| fs::read_to_string(repository().join(path)).unwrap();
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap();
    let rust = format!("rust:{}-", channel.trim_matches('"'));
    let gobgp = format!("cmd/gobgpd@{} ", gobgp::VERSION);
    let dockerfile = read("deploy/image/Dockerfile");
    for text in names().map(|name| format!("-t {name} ")).into_iter().chain([rust, gobgp]) {
        assert!(dockerfile.contains(&text), "deploy/image/Dockerfile does not contain {text:?}");
    }
}

#[test]
fn the_dockerfile_gives_the_images_the_same_labels_except_the_commit() {
    let dockerfile = fs::read_to_string(repository().join("deploy/image/Dockerfile")).unwrap();
    let labels_of = |stage: &str| -> BTreeMap<String, String> {
        let text =
            dockerfile.split("\nFROM ").find(|text| text.contains(&format!(" AS {stage}\n")));
        let text = text.unwrap_or_else(|| panic!("there is no stage {stage}"));
        let label = |line: &str| {
            let (_, label) = line.split_once("org.opencontainers.image.")?;
            let (name, value) = label.split_once("=\"")?;
            Some((name.to_owned(), value.split('"').next()?.to_owned()))
        };
        text.lines().filter_map(label).collect()
    };
    let program = PathBuf::new();
    let built = StaticPrograms { controller: program.clone(), speaker: program.clone() };
    for program in of(Arch::Amd64, &built, Some(&program)) {
        let mut expected = labels_of("labels");
        expected.extend(labels_of(program.component()));
        let labels = program.labels().into_iter().filter_map(|(name, value)| {
            Some((name.strip_prefix("org.opencontainers.image.")?.to_owned(), value))
        });
        let mut labels: BTreeMap<_, _> = labels.collect();
        let (revision, created) = commit().unzip();
        assert_eq!([labels.remove("revision"), labels.remove("created")], [revision, created]);
        assert_eq!(labels, expected, "{}", program.component());
    }
}
