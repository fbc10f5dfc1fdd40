//! Description of the machine that runs the benchmark, and of the measured build. Values can only
//! be compared if both are known.

use crate::cluster::nodes;
use crate::run;
use crate::setup;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt;
use std::fs;
use std::process::Command;

/// The machine, and its load before the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    pub processors: usize,
    pub processor: String,
    pub memory_mb: u64,
    pub architecture: &'static str,
    /// Release of the running Linux kernel.
    pub kernel: String,
    /// Load average of the minute before the run: number of processes that ran or waited for a
    /// processor. A value far below the number of processors means an idle machine.
    pub load: f64,
}

impl Machine {
    /// Reads the description of this machine.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn inspect() -> Result<Self> {
        let read =
            |file: &str| fs::read_to_string(file).with_context(|| format!("cannot read {file}"));
        let load = read("/proc/loadavg")?;
        Ok(Self {
            processors: std::thread::available_parallelism()?.get(),
            processor: field(&read("/proc/cpuinfo")?, "model name").unwrap_or("unnamed").to_owned(),
            memory_mb: kilobytes(&read("/proc/meminfo")?, "MemTotal")
                .context("/proc/meminfo has no MemTotal")?
                / 1000,
            architecture: std::env::consts::ARCH,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load: load
                .split(' ')
                .next()
                .and_then(|word| word.parse().ok())
                .context("/proc/loadavg has no load")?,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processors, processor, memory_mb, architecture, kernel, load } = self;
        write!(
            f,
            "{processors} processors ({processor}), {memory_mb} MB, Linux {kernel} {architecture}, load before: {load}"
        )
    }
}

/// The measured build.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Build {
    /// Checked-out commit; `None` outside of a git checkout.
    pub commit: Option<String>,
    /// True if files in the checkout differ from the commit.
    pub changed: bool,
    /// Cargo's profile.
    pub profile: &'static str,
    pub kubernetes: String,
    /// kube-proxy's mode; `None` if no benchmark ran in a lab with kube-proxies.
    pub proxy_mode: Option<String>,
}

impl Build {
    /// Reads the checked-out commit from git.
    ///
    /// # Errors
    /// If the version of Kubernetes cannot be read.
    pub fn inspect(profile: &'static str, proxy_mode: Option<String>) -> Result<Self> {
        let git = |args: &[&str]| {
            run::run(Command::new("git").current_dir(setup::repository()).args(args)).ok()
        };
        Ok(Self {
            commit: git(&["rev-parse", "--short=12", "HEAD"])
                .map(|commit| commit.trim().to_owned()),
            changed: git(&["status", "--porcelain"]).is_some_and(|files| !files.trim().is_empty()),
            profile,
            kubernetes: setup::kubernetes::KubernetesVersion::Newest.name()?,
            proxy_mode,
        })
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commit = self.commit.as_deref().unwrap_or("(unknown commit)");
        let changed = if self.changed { " with changes" } else { "" };
        let Self { profile, kubernetes, proxy_mode, .. } = self;
        let proxies = nodes::proxies(proxy_mode.as_deref());
        write!(f, "FerroLB {commit}{changed}, {profile} build; Kubernetes {kubernetes}, {proxies}")
    }
}

/// Returns the value of a line `NAME : VALUE` (the blanks vary), the format of many files in
/// `/proc`.
pub(super) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim()))
}

/// Returns the value of a line `NAME: 12345 kB`, converted from units of 1,024 bytes to units of
/// 1,000.
pub(super) fn kilobytes(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024 / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_fields_are_matched_by_full_name() {
        let text = "Rss:            1000 kB\nPss:              25 kB\nPss_Anon:   7 kB\nmodel name\t: A CPU\nOdd: 3\n";
        for (name, expect) in [
            ("Rss", Some(1024)),
            ("Pss", Some(25)),
            ("Pss_Anon", Some(7)),
            ("Odd", None),
            ("Swap", None),
        ] {
            assert_eq!(kilobytes(text, name), expect, "{name}");
        }
        assert_eq!(field(text, "model name"), Some("A CPU"));
    }
}
