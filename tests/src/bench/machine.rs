//! What was measured and on what: without it a figure cannot be compared.

use crate::cluster::nodes;
use crate::run;
use crate::setup;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt;
use std::fs;
use std::process::Command;

/// The machine and how busy it was before the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    pub processors: usize,
    pub processor: String,
    pub memory_mb: u64,
    pub architecture: &'static str,
    /// The release of the running Linux.
    pub kernel: String,
    /// Processes that ran or waited for a processor, on average over the last minute before the run. Far below the number of processors is quiet.
    pub load: f64,
}

impl Machine {
    /// Looks at this machine.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn look() -> Result<Self> {
        let read = |file: &str| fs::read_to_string(file).with_context(|| format!("cannot read {file}"));
        let load = read("/proc/loadavg")?;
        Ok(Self {
            processors: std::thread::available_parallelism()?.get(),
            processor: field(&read("/proc/cpuinfo")?, "model name").unwrap_or("unnamed").to_owned(),
            memory_mb: kilobytes(&read("/proc/meminfo")?, "MemTotal").context("/proc/meminfo has no MemTotal")? / 1000,
            architecture: std::env::consts::ARCH,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load: load.split(' ').next().and_then(|word| word.parse().ok()).context("/proc/loadavg has no load")?,
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

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Build {
    /// The commit that is checked out; none outside of a git checkout.
    pub commit: Option<String>,
    /// Files differ from the commit.
    pub changed: bool,
    /// cargo's profile.
    pub profile: &'static str,
    pub kubernetes: String,
    /// kube-proxy's mode; none: nothing was measured in a lab that has kube-proxies.
    pub proxy_mode: Option<String>,
}

impl Build {
    /// Asks git what is checked out.
    ///
    /// # Errors
    /// When the version of Kubernetes cannot be read.
    pub fn look(profile: &'static str, proxy_mode: Option<String>) -> Result<Self> {
        let git = |args: &[&str]| run::run(Command::new("git").current_dir(setup::repository()).args(args)).ok();
        Ok(Self {
            commit: git(&["rev-parse", "--short=12", "HEAD"]).map(|commit| commit.trim().to_owned()),
            changed: git(&["status", "--porcelain"]).is_some_and(|files| !files.trim().is_empty()),
            profile,
            kubernetes: setup::kubernetes::Version::Newest.name()?,
            proxy_mode,
        })
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commit = self.commit.as_deref().unwrap_or("of no known commit");
        let changed = if self.changed { " with changes" } else { "" };
        let Self { profile, kubernetes, proxy_mode, .. } = self;
        let proxies = nodes::proxies(proxy_mode.as_deref());
        write!(f, "FerroLB {commit}{changed}, {profile} build; Kubernetes {kubernetes}, {proxies}")
    }
}

/// The value of a line `NAME : VALUE` (the blanks vary), as `/proc` writes many of its files.
pub(super) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim()))
}

/// The value of a line `NAME: 12345 kB`, in units of 1,024 bytes, turned into units of 1,000.
pub(super) fn kilobytes(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024 / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_are_read_by_their_whole_names() {
        let text = "Rss:            1000 kB\nPss:              25 kB\nPss_Anon:   7 kB\nmodel name\t: A CPU\nOdd: 3\n";
        for (name, expect) in
            [("Rss", Some(1024)), ("Pss", Some(25)), ("Pss_Anon", Some(7)), ("Odd", None), ("Swap", None)]
        {
            assert_eq!(kilobytes(text, name), expect, "{name}");
        }
        assert_eq!(field(text, "model name"), Some("A CPU"));
    }
}
