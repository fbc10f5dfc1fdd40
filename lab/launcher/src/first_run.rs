//! Duration of a first run: the builds that are still missing, and how long they take. The launcher
//! prints the sum, and the lab shows each part as the usual time of its step.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Duration of the build of the lab's program. All durations are measured on two cores, on a
/// machine without any earlier build.
pub const LAB_BUILD: Duration = Duration::from_secs(210);
/// Duration of the build of Kubernetes.
pub const KUBERNETES_BUILD: Duration = Duration::from_secs(330);
/// Duration of the build of the controller and the speaker. A cluster then starts in seconds.
pub const FERROLB_BUILD: Duration = Duration::from_secs(120);

/// Directory of Kubernetes in the cache.
pub const KUBERNETES_CACHE: &str = "kubernetes";
/// Beginning of the names of incomplete builds in the cache.
pub const UNFINISHED: &str = "unfinished-";
/// Disk space of a first run.
pub const DISK_GB: u64 = 8;

/// Returns the directory of the cache: `$XDG_CACHE_HOME/ferrolb`, or `~/.cache/ferrolb`. `None`:
/// neither `XDG_CACHE_HOME` nor `HOME` is set.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    let set =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("ferrolb"))
}

/// Returns whether the cache has a complete build of Kubernetes, of any version.
#[must_use]
pub fn has_kubernetes(cache: &Path) -> bool {
    let entries = fs::read_dir(cache.join(KUBERNETES_CACHE)).into_iter().flatten().flatten();
    entries
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with(UNFINISHED))
        .any(|entry| entry.path().is_dir())
}

/// Returns the message before a run that starts a cluster. Empty if all long builds exist.
#[must_use]
pub fn cluster_message(has_lab: bool, has_kubernetes: bool) -> String {
    if has_lab && has_kubernetes {
        return String::new();
    }
    let parts = [
        (!has_lab, LAB_BUILD, "build the lab's program (cargo shows its progress now)"),
        (!has_kubernetes, KUBERNETES_BUILD, "build Kubernetes"),
        (true, FERROLB_BUILD, "build FerroLB, and start the cluster"),
    ];
    let parts = parts.into_iter().filter(|(is_missing, ..)| *is_missing);
    let (mut sum, mut lines) = (Duration::ZERO, String::new());
    for (_, duration, text) in parts {
        sum += duration;
        lines += &format!("  {:<12}{text}\n", shown(duration));
    }
    format!(
        "First run: about {} minutes on two cores. The next runs take less than a minute.\n\
         {lines}Requirements: root, Go {} or newer, {DISK_GB} GB of disk space.\n",
        sum.as_secs().div_ceil(60),
        super::requirements::GO_MIN,
    )
}

/// Returns the message before the first run of any other command.
#[must_use]
pub fn build_message() -> String {
    format!(
        "First run: cargo builds the lab's program now, which takes about {} on two cores.\n",
        shown(LAB_BUILD)
    )
}

fn shown(duration: Duration) -> String {
    match (duration.as_secs() / 60, duration.as_secs() % 60) {
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_lists_the_missing_builds_and_their_sum() {
        for (has_lab, has_kubernetes, expect) in [
            (false, false, "about 11 minutes"),
            (false, true, "about 6 minutes"),
            (true, false, "about 8 minutes"),
        ] {
            let message = cluster_message(has_lab, has_kubernetes);
            assert!(message.contains(expect), "{message}");
            assert_eq!(message.contains("  3 min 30 s  build the lab's"), !has_lab, "{message}");
            assert_eq!(message.contains("build Kubernetes"), !has_kubernetes, "{message}");
            assert!(message.contains("\n  2 min       build FerroLB"), "{message}");
        }
        assert_eq!(cluster_message(true, true), "");
    }

    #[test]
    fn an_unfinished_build_of_kubernetes_does_not_count() {
        let cache = std::env::temp_dir().join(format!("ferrolb-launcher-{}", std::process::id()));
        let builds = cache.join(KUBERNETES_CACHE);
        let mut found = vec![has_kubernetes(&cache)];
        for name in ["unfinished-0123456789abcdef", "0123456789abcdef"] {
            fs::create_dir_all(builds.join(name)).unwrap();
            fs::write(builds.join("lock"), "").unwrap();
            found.push(has_kubernetes(&cache));
        }
        fs::remove_dir_all(cache).unwrap();
        assert_eq!(found, [false, false, true]);
    }
}
