//! Checks of .krew.yaml, the template from which krew-release-bot makes krew's manifest of `kubectl
//! ferrolb`: the required fields, the name of the program, and the platforms.

use serde::Deserialize;
use std::fs;

use crate::tree::{assert_none, root};

/// Tag of the release for which the tests render the template.
const TAG: &str = "v0.1.0";
/// Page of the project, below which GitHub has the archives.
const HOMEPAGE: &str = "https://github.com/ferrolb/ferrolb";
/// Placeholder of the tag, also inside of addresses.
const TAG_PLACEHOLDER: &str = "{{ .TagName }}";
/// Beginning and end of the placeholder of an archive's address and checksum. At its place, the bot
/// writes the fields `uri` and `sha256`.
const ARCHIVE_PLACEHOLDER: (&str, &str) = ("{{addURIAndSha \"", "\" .TagName }}");
/// Beginning of the lines of .ci/compute that build the program for another system.
const CHECKED_TARGET: &str = "check_cli ";

/// Manifest of a plugin, `Plugin` of krew.googlecontainertools.github.com/v1alpha2.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Plugin {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: PluginSpec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PluginSpec {
    version: String,
    homepage: String,
    short_description: String,
    description: String,
    caveats: String,
    platforms: Vec<Platform>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Platform {
    selector: Selector,
    uri: String,
    sha256: String,
    bin: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    match_labels: System,
}

/// Operating system and architecture, as Go names them.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct System {
    os: String,
    arch: String,
}

impl System {
    /// Returns the system of a target of Rust, such as `aarch64-apple-darwin`.
    fn of_target(target: &str) -> Self {
        let (arch, rest) = target.split_once('-').expect("a target without a vendor");
        let arch = match arch {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let systems = ["linux", "darwin", "windows"];
        let os = systems.into_iter().find(|os| rest.contains(os)).unwrap_or(rest);
        Self { os: os.to_owned(), arch: arch.to_owned() }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the manifest of a release, as the bot renders the template.
fn manifest() -> Plugin {
    let line = |line: &str| {
        let (begin, end) = ARCHIVE_PLACEHOLDER;
        let address = line.trim().strip_prefix(begin)?.strip_suffix(end)?;
        let indent = " ".repeat(line.len() - line.trim_start().len());
        Some(format!("{indent}uri: {address}\n{indent}sha256: \"{}\"\n", "0".repeat(64)))
    };
    let text = read(".krew.yaml").replace(TAG_PLACEHOLDER, TAG);
    let text: String =
        text.lines().map(|it| line(it).unwrap_or_else(|| format!("{it}\n"))).collect();
    assert!(!text.contains("{{"), "unknown placeholders in .krew.yaml:\n{text}");
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!(".krew.yaml: {error}\n{text}"))
}

/// Returns the name of the program that the crate `cli` builds.
fn program() -> String {
    let manifest = read("cli/Cargo.toml");
    let (_, target) = manifest.split_once("[[bin]]\nname = \"").expect("cli has no program");
    target.split('"').next().unwrap_or_default().to_owned()
}

#[test]
fn the_manifest_has_the_fields_that_krew_requires() {
    let Plugin { api_version, kind, metadata, spec } = manifest();
    assert_eq!(
        (api_version.as_str(), kind.as_str()),
        ("krew.googlecontainertools.github.com/v1alpha2", "Plugin")
    );
    assert_eq!(format!("kubectl-{}", metadata.name), program());
    assert_eq!((spec.version.as_str(), spec.homepage.as_str()), (TAG, HOMEPAGE));
    assert!(!spec.short_description.is_empty() && !spec.short_description.contains('\n'));
    assert!(!spec.description.is_empty() && !spec.caveats.is_empty());
    assert!(!spec.platforms.is_empty(), "no platform");
}

#[test]
fn each_platform_has_an_archive_and_the_program() {
    let mut problems = Vec::new();
    for platform in manifest().spec.platforms {
        let System { os, arch } = &platform.selector.match_labels;
        let program = program();
        let archive =
            format!("{HOMEPAGE}/releases/download/{TAG}/{program}_{TAG}_{os}_{arch}.tar.gz");
        let bin = if os == "windows" { program + ".exe" } else { program };
        if (&platform.uri, &platform.bin) != (&archive, &bin) || platform.sha256.len() != 64 {
            problems.push(format!("{os} {arch}: {} with {}", platform.uri, platform.bin));
        }
    }
    assert_none(&problems, "name the archives PROGRAM_TAG_OS_ARCH.tar.gz in .krew.yaml:");
}

#[test]
fn each_platform_is_listed_once_and_each_checked_target_is_a_platform() {
    let platforms: Vec<System> =
        manifest().spec.platforms.into_iter().map(|it| it.selector.match_labels).collect();
    for (index, platform) in platforms.iter().enumerate() {
        assert!(!platforms[..index].contains(platform), "{platform:?} is listed twice");
    }
    let ci = read(".ci/compute");
    let targets = ci.lines().filter_map(|line| line.strip_prefix(CHECKED_TARGET));
    let checked: Vec<System> =
        targets.filter_map(|it| it.split(' ').next()).map(System::of_target).collect();
    assert!(!checked.is_empty(), ".ci/compute builds the program for no other system");
    let missing = checked.iter().filter(|system| !platforms.contains(system));
    let problems: Vec<_> = missing.map(|it| format!("{} {}", it.os, it.arch)).collect();
    assert_none(&problems, ".ci/compute checks these systems, which .krew.yaml does not list:");
    // The tests run on Linux, so .ci/compute has no line for it.
    let has_check = |os: &str| os == "linux" || checked.iter().any(|system| system.os == os);
    let unchecked = platforms.iter().filter(|platform| !has_check(&platform.os));
    let problems: Vec<_> = unchecked.map(|it| it.os.clone()).collect();
    assert_none(&problems, ".ci/compute builds the program for none of these systems:");
}
