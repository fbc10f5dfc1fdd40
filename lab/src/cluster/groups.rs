//! Control groups of a lab's containers and machines. All processes in them belong to the lab, even
//! if their parent was killed before it could end them.

use crate::topology::{CLIENT, LabName};
use crate::{process, wait};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Mount point of the control groups: one tree of version 2, or one tree per controller.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// Group of all pods on a machine, which its kubelet creates.
const POD_GROUP: &str = "kubepods";
/// Maximum time in which the kernel releases a group after its last process has ended.
const EMPTY_MAX: Duration = Duration::from_secs(10);

/// Returns the parent group of all containers of a lab.
pub(super) fn parent(lab: &LabName) -> String {
    format!("/{}", group_name(lab))
}

/// Returns the group of a host that is a machine, below the root of each controller.
pub(super) fn of_host(lab: &LabName, host: &str) -> String {
    format!("{}/{host}", group_name(lab))
}

fn group_name(lab: &LabName) -> String {
    lab.prefix().trim_end_matches('-').to_owned()
}

/// Ends all processes in the groups of a lab, and removes the groups.
///
/// # Errors
/// If a process does not end.
pub fn remove_all(lab: &LabName) -> Result<()> {
    let groups = within(&group_name(lab));
    process::kill(members(&groups).into_iter().map(|pid| (pid, None)))?;
    groups.iter().try_for_each(|group| {
        wait::until("the control group is empty", EMPTY_MAX, || remove(group).map(Some))
    })
}

/// Returns the processes of all pods on a host that is a machine.
pub(super) fn pods(lab: &LabName, host: &str) -> BTreeSet<i32> {
    members(&within(&format!("{}/{POD_GROUP}", of_host(lab, host))))
}

/// Membership of this process in the control group of the client's host.
#[derive(Debug)]
pub struct ClientGroup {
    tree: PathBuf,
}

impl ClientGroup {
    /// Joins the group, so that this process gets as much processor time as a machine of the lab.
    ///
    /// # Errors
    /// Without root permissions.
    pub(crate) fn join(lab: &LabName) -> Result<Self> {
        let root = PathBuf::from(CGROUP_ROOT);
        let tree = if root.join("cgroup.procs").exists() { root } else { root.join("cpu") };
        let group = tree.join(of_host(lab, CLIENT));
        fs::create_dir_all(&group)?;
        fs::write(group.join("cgroup.procs"), "0")
            .with_context(|| format!("cannot join {}", group.display()))?;
        Ok(Self { tree })
    }
}

impl Drop for ClientGroup {
    /// Leaves the group: the end of the lab ends all processes in it.
    fn drop(&mut self) {
        let left = fs::write(self.tree.join("cgroup.procs"), "0");
        debug_assert!(left.is_ok(), "this process stays in a group of the lab: {left:?}");
    }
}

/// Returns a group and all groups in it, in the tree of each controller.
fn within(group: &str) -> Vec<PathBuf> {
    let mut groups = Vec::new();
    let controllers =
        fs::read_dir(CGROUP_ROOT).into_iter().flatten().flatten().map(|entry| entry.path());
    controllers
        .chain([PathBuf::from(CGROUP_ROOT)])
        .for_each(|tree| collect(&tree.join(group), &mut groups));
    groups
}

/// Returns the processes in these groups.
fn members(groups: &[PathBuf]) -> BTreeSet<i32> {
    let lists = groups
        .iter()
        .map(|group| fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default());
    lists
        .flat_map(|list| list.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Collects a group and all groups in it, the innermost first.
fn collect(group: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(group) else { return };
    let inner = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    inner.for_each(|entry| collect(&entry.path(), into));
    into.push(group.to_owned());
}

fn remove(group: &Path) -> Result<()> {
    match fs::remove_dir(group) {
        // Two controllers may share one tree under two names.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.with_context(|| format!("cannot remove {}", group.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_groups_come_before_outer_groups() {
        let folder =
            std::env::temp_dir().join(format!("ferrolb-groups-test-{}", std::process::id()));
        fs::create_dir_all(folder.join("flb-a/container/inner")).unwrap();
        fs::write(folder.join("flb-a/cgroup.procs"), "").unwrap();
        let mut groups = Vec::new();
        collect(&folder.join("flb-a"), &mut groups);
        collect(&folder.join("flb-b"), &mut groups);
        fs::remove_dir_all(&folder).unwrap();
        let names: Vec<_> = groups.iter().filter_map(|group| group.file_name()?.to_str()).collect();
        assert_eq!(names, ["inner", "container", "flb-a"]);
    }
}
