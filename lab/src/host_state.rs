//! State of the computer that a network plugin must not change: kernel settings, interfaces,
//! addresses, routes, packet filters, and with Cilium BPF programs that are attached to control
//! groups. The machines of a lab share its kernel.

use crate::setup::network_plugin::NetworkPlugin;
use crate::{Lab, run};
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

const SETTINGS: &str = "/proc/sys";
/// Parts of the paths of files that are no settings: counters and random numbers, and values that
/// the kernel adapts to the load.
const VOLATILE: [&str; 11] = [
    "/aio-nr",
    "/dentry-state",
    "/file-nr",
    "/inode-nr",
    "/inode-state",
    "/ns_last_pid",
    "/nf_conntrack_count",
    "/perf_event_max_sample_rate",
    "/proc/sys/kernel/pty/nr",
    "/proc/sys/kernel/random/",
    "/proc/sys/fs/quota/",
];
/// Commands whose outputs are compared. The packet filters are printed without their counters.
const COMMANDS: [&[&str]; 7] = [
    &["ip", "-oneline", "link"],
    &["ip", "-brief", "address"],
    &["ip", "-4", "route", "show", "table", "all"],
    &["ip", "-6", "route", "show", "table", "all"],
    &["ip", "rule"],
    &["ip", "-6", "rule"],
    &["nft", "--stateless", "list", "ruleset"],
];

/// Command of the package [`BPFTOOL`](crate::setup::packages::BPFTOOL) that lists the programs that
/// are attached to control groups, below each group's path.
const BPF_COMMAND: [&str; 3] = ["bpftool", "cgroup", "tree"];
/// Beginning of the names of the programs of Cilium.
const CILIUM_PROGRAMS: &str = "cil_";

/// State of the computer: name of a setting or command, and value or output.
#[derive(Debug)]
pub struct HostState {
    plugin: NetworkPlugin,
    /// A part of the paths of the lab's own control groups.
    groups: String,
    entries: BTreeMap<String, String>,
}

impl HostState {
    /// Reads the state that this plugin of a lab must not change.
    ///
    /// # Errors
    /// If a command fails.
    pub fn read(lab: &Lab, plugin: NetworkPlugin) -> Result<Self> {
        let groups = groups(lab);
        Ok(Self { plugin, entries: entries(plugin, &groups)?, groups })
    }

    /// Checks that the state is the same.
    ///
    /// # Errors
    /// If it is not, with the changes.
    pub fn check(&self) -> Result<()> {
        let changes = changes(&self.entries, &entries(self.plugin, &self.groups)?);
        ensure!(changes.is_empty(), "the host has changed:\n{}", changes.join("\n"));
        Ok(())
    }
}

/// Checks that programs of Cilium are attached to the lab's own control groups, so that
/// [`HostState`] would show them elsewhere.
///
/// # Errors
/// If there are none.
pub fn check_own_programs(lab: &Lab) -> Result<()> {
    let (own, _) = by_owner(&attached_programs()?, &groups(lab));
    ensure!(own.contains(CILIUM_PROGRAMS), "the lab's groups have no program: {own}");
    Ok(())
}

/// Returns a part of the paths of the lab's own control groups.
fn groups(lab: &Lab) -> String {
    format!("/{}/", lab.state().name.prefix().trim_end_matches('-'))
}

fn attached_programs() -> Result<String> {
    run::run(Command::new(BPF_COMMAND[0]).args(&BPF_COMMAND[1..]))
}

/// Reads all settings and outputs. `groups` is a part of the paths of the lab's own control groups.
fn entries(plugin: NetworkPlugin, groups: &str) -> Result<BTreeMap<String, String>> {
    let mut entries = BTreeMap::new();
    read_settings(Path::new(SETTINGS), &mut entries);
    for command in COMMANDS {
        let output = run::run(Command::new(command[0]).args(&command[1..]))?;
        entries.insert(command.join(" "), without_expiry(&output));
    }
    if plugin == NetworkPlugin::Cilium {
        let (_, others) = by_owner(&attached_programs()?, groups);
        entries.insert(BPF_COMMAND.join(" "), others);
    }
    Ok(entries)
}

/// Reads all settings below a folder. Some can only be written.
fn read_settings(folder: &Path, into: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_settings(&path, into);
        } else if let Ok(value) = fs::read_to_string(&path) {
            let path = path.display().to_string();
            if !VOLATILE.iter().any(|part| path.contains(part)) {
                into.insert(path, value);
            }
        }
    }
}

/// Removes the remaining lifetimes of routes, which count down: `expires 1790sec`.
fn without_expiry(output: &str) -> String {
    let mut kept = Vec::new();
    let mut words = output.split(' ');
    while let Some(word) = words.next() {
        if word == "expires" {
            words.next();
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

/// Splits the lines about control groups: those whose path contains `groups`, and all others.
fn by_owner(tree: &str, groups: &str) -> (String, String) {
    let (mut own, mut others, mut is_own) = (String::new(), String::new(), false);
    for line in tree.lines() {
        if line.starts_with('/') {
            is_own = line.contains(groups);
        }
        if is_own { &mut own } else { &mut others }.extend([line, "\n"]);
    }
    (own, others)
}

/// Returns the entries that differ, are new or are gone.
fn changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    let changed = names.filter(|name| before.get(*name) != after.get(*name));
    changed.map(|name| format!("{name}: {:?} -> {:?}", before.get(name), after.get(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_of_routes_are_removed() {
        let route = "default via fe80::1 dev eth0 expires 1790sec pref medium\n";
        assert_eq!(without_expiry(route), "default via fe80::1 dev eth0 pref medium\n");
    }

    #[test]
    fn programs_of_other_groups_than_those_of_the_lab_are_compared() {
        let header = "CgroupPath\nID       AttachType      AttachFlags     Name\n";
        let program = "    12       cgroup_inet4_connect multi        cil_sock4_connect\n";
        let lab = format!("/sys/fs/cgroup/unified/flb-a/node1\n{program}");
        for other in ["", "/system.slice", "/flb-ab/node1"] {
            let other = format!("/sys/fs/cgroup/unified{other}\n{program}");
            let found = by_owner(&format!("{header}{lab}{other}{lab}"), "/flb-a/");
            assert_eq!(found, (format!("{lab}{lab}"), format!("{header}{other}")));
        }
    }

    #[test]
    fn a_changed_a_new_and_a_removed_entry_are_found() {
        let state = |pairs: &[(&str, &str)]| -> BTreeMap<_, _> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let before = state(&[("a", "1"), ("b", "1"), ("c", "1")]);
        assert!(changes(&before, &before).is_empty());
        let found = changes(&before, &state(&[("a", "1"), ("b", "2"), ("d", "1")]));
        assert_eq!(found.len(), 3, "{found:?}");
    }
}
