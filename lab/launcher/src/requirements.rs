//! Requirements of a cluster that the launcher checks before a long build: permissions and Go. The
//! lab checks these and all others again. A check of `gcc` is not needed, because cargo has linked
//! the launcher with it.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// Minimum version of Go for the newest Kubernetes; GoBGP needs less.
pub const GO_MIN: ToolVersion = ToolVersion(1, 26);
/// Directory of the running process, which belongs to its effective user.
const OWN_PROCESS: &str = "/proc/self";
const ROOT: u32 = 0;

/// First two numbers of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ToolVersion(pub u32, pub u32);

impl ToolVersion {
    /// Parses the version in `rustc 1.95.0 (...)`, `go version go1.26.8 linux/amd64` or
    /// `go version go1.27rc1 ...`.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        line.split_whitespace().find_map(|word| {
            let (major, rest) = word.trim_start_matches("go").split_once('.')?;
            let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
            Some(Self(major.parse().ok()?, minor.parse().ok()?))
        })
    }
}

impl fmt::Display for ToolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Permissions of the user, and the version of Go.
#[derive(Clone, Copy, Debug)]
pub struct UserAndGo {
    pub is_root: bool,
    pub go: Option<ToolVersion>,
}

impl UserAndGo {
    /// Returns those of this process. `go` is the output of `go version`.
    #[must_use]
    pub fn of_process(go: Option<&str>) -> Self {
        let is_root = fs::metadata(OWN_PROCESS).is_ok_and(|folder| folder.uid() == ROOT);
        Self { is_root, go: go.and_then(ToolVersion::parse) }
    }

    /// Returns the remedies of missing requirements.
    #[must_use]
    pub fn remedies(self) -> Vec<String> {
        let mut remedies = Vec::new();
        if !self.is_root {
            remedies.push(
                "root permissions, for network namespaces: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo lab ...".to_owned(),
            );
        }
        if self.go.is_none_or(|version| version < GO_MIN) {
            remedies.push(format!(
                "Go {GO_MIN} or newer{}, to build Kubernetes and GoBGP: unpack it from https://go.dev/dl/ into /usr/local and add /usr/local/go/bin to PATH",
                found_version(self.go)
            ));
        }
        remedies
    }
}

/// Returns the first line that `go version` prints in the present directory; `None` if there is no
/// Go.
#[must_use]
pub fn go_version() -> Option<String> {
    let output = Command::new("go").arg("version").output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

/// Returns the text about a version that is too old or missing.
#[must_use]
pub fn found_version(version: Option<ToolVersion>) -> String {
    version.map_or_else(
        || " (none is in PATH)".to_owned(),
        |version| format!(" ({version} is in PATH)"),
    )
}

/// Returns the error for a machine that lacks requirements.
#[must_use]
pub fn not_ready(remedies: &[String]) -> String {
    let lines: String = remedies.iter().map(|remedy| format!("  - {remedy}\n")).collect();
    format!("this machine is not ready yet:\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_parsed_from_tool_output() {
        for (line, expect) in [
            ("rustc 1.95.0 (59807616e 2026-04-14)", Some(ToolVersion(1, 95))),
            ("go version go1.26.8 linux/amd64", Some(ToolVersion(1, 26))),
            ("go version go1.27rc1 linux/arm64", Some(ToolVersion(1, 27))),
            ("go version devel linux/amd64", None),
            ("", None),
        ] {
            assert_eq!(ToolVersion::parse(line), expect, "{line}");
        }
        assert!(ToolVersion(2, 0) > ToolVersion(1, 95) && ToolVersion(1, 100) > GO_MIN);
    }

    #[test]
    fn every_missing_requirement_has_its_remedy() {
        for (is_root, go, expect) in [
            (true, Some(GO_MIN), &[][..]),
            (false, Some(GO_MIN), &["sudo"]),
            (true, None, &["Go 1.26 or newer (none is in PATH)"]),
            (true, Some(ToolVersion(1, 25)), &["Go 1.26 or newer (1.25 is in PATH)"]),
            (false, None, &["sudo", "Go 1.26"]),
        ] {
            let remedies = UserAndGo { is_root, go }.remedies();
            let found =
                remedies.iter().zip(expect).filter(|(remedy, text)| remedy.contains(**text));
            assert_eq!(
                (found.count(), remedies.len()),
                (expect.len(), expect.len()),
                "{remedies:?}"
            );
        }
    }
}
