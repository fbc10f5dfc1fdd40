//! Kernel privileges of FerroLB's processes in their containers.

use anyhow::{Context, Result, ensure};
use ferrolb_lab::Lab;
use std::collections::BTreeMap;

/// Capability mask in `/proc/PID/status` with `CAP_NET_RAW` only (capabilities(7): bit 13).
const NET_RAW_ONLY: &str = "0000000000002000";
/// Capability mask without any capability.
const NO_CAPABILITIES: &str = "0000000000000000";
/// Value of `Seccomp` with an active system call filter (proc(5)).
const SECCOMP_FILTER: &str = "2";
/// Mount points that containerd and the kubelet create in each container: kernel file systems, at
/// these paths or below, and the pod's network files and token.
const KERNEL_MOUNTS: [&str; 3] = ["/dev", "/proc", "/sys"];
const POD_MOUNTS: [&str; 4] = [
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/var/run/secrets/kubernetes.io/serviceaccount",
];

/// Folder of gobgpd's socket, shared with the node's speaker.
const SOCKET_FOLDER: &str = "/run/ferrolb";

/// Checks the privileges of the speakers and controllers on every node.
pub(crate) fn check(lab: &Lab) -> Result<()> {
    check_all(
        lab,
        &[
            ("ferrolb-speaker", NET_RAW_ONLY, "0", None),
            ("ferrolb-controller", NO_CAPABILITIES, "65532", None),
        ],
        &[3, 2],
    )
}

/// Checks the privileges of the speakers and gobgpds of an installation with BGP.
pub(crate) fn check_bgp(lab: &Lab) -> Result<()> {
    let speaker = ("ferrolb-speaker", NET_RAW_ONLY, "0", Some(SOCKET_FOLDER));
    check_all(lab, &[speaker, ("gobgpd", NO_CAPABILITIES, "0", Some(SOCKET_FOLDER))], &[3, 3])
}

/// Expected fields of a process: its name, capabilities and user, and the host folder that is
/// mounted into its container.
type ExpectedProcess = (&'static str, &'static str, &'static str, Option<&'static str>);

/// Checks the privileges of all processes of `programs`, and that the number of running processes
/// of each program is the one in `expect_running`.
fn check_all(lab: &Lab, programs: &[ExpectedProcess], expect_running: &[usize]) -> Result<()> {
    let mut running = vec![0; programs.len()];
    for node in lab.nodes() {
        for ((program, capabilities, user, folder), running) in programs.iter().zip(&mut running) {
            for status in statuses(lab, &node, program)? {
                for set in ["CapEff", "CapPrm", "CapBnd"] {
                    check_field(&status, set, capabilities)
                        .with_context(|| format!("{program} on {node}"))?;
                }
                for (field, value) in
                    [("NoNewPrivs", "1"), ("Seccomp", SECCOMP_FILTER), ("Uid", user)]
                {
                    check_field(&status, field, value)
                        .with_context(|| format!("{program} on {node}"))?;
                }
                let mounts =
                    lab.exec(&node, &["cat", &format!("/proc/{}/mountinfo", status["Pid"])])?;
                check_mounts(&mounts, *folder).with_context(|| format!("{program} on {node}"))?;
                *running += 1;
            }
        }
    }
    ensure!(
        running == expect_running,
        "{running:?} processes of {programs:?} run, not {expect_running:?}"
    );
    Ok(())
}

/// Checks that the container's root file system is read-only, and that no folder of the host except
/// `shared` is mounted. `mounts` is the container's `/proc/PID/mountinfo` (proc(5)).
fn check_mounts(mounts: &str, shared: Option<&str>) -> Result<()> {
    let mounts: Vec<[&str; 3]> = mounts.lines().filter_map(parse_mount).collect();
    let is_read_only = |options: &str| options.split(',').any(|option| option == "ro");
    let [_, root, _] =
        mounts.iter().find(|[point, ..]| *point == "/").context("nothing is mounted at /")?;
    ensure!(is_read_only(root), "the options of the root file system are {root}");
    for [point, options, kind] in mounts.iter().filter(|[point, ..]| *point != "/") {
        let below = |folder: &str| {
            point.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let allowed = KERNEL_MOUNTS.into_iter().any(below)
            || POD_MOUNTS.contains(point)
            || shared == Some(*point);
        ensure!(allowed, "{point} of the host is mounted");
        // cgroup v1 mounts a tmpfs at the folder of its hierarchies.
        ensure!(
            !below("/sys") || is_read_only(options) || *kind == "tmpfs",
            "the options of {point} are {options}"
        );
    }
    Ok(())
}

/// Returns the mount point, the options and the file system type of a line of `mountinfo`.
fn parse_mount(line: &str) -> Option<[&str; 3]> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(4);
    Some([fields.next()?, fields.next()?, file_system.split(' ').next()?])
}

fn check_field(status: &BTreeMap<String, String>, field: &str, value: &str) -> Result<()> {
    let found = status.get(field).map(String::as_str).unwrap_or_default();
    ensure!(found == value, "{field} is {found}, not {value}");
    Ok(())
}

/// Returns the first word of each field of `/proc/PID/status`, for every process of a program on a
/// node.
fn statuses(lab: &Lab, node: &str, program: &str) -> Result<Vec<BTreeMap<String, String>>> {
    let script = format!("for pid in $(pidof {program}); do cat /proc/$pid/status; echo; done");
    let output = lab.exec(node, &["sh", "-c", &script])?;
    let parse = |status: &str| {
        let fields = status.lines().filter_map(|line| line.split_once(':'));
        fields
            .map(|(name, words)| {
                (name.to_owned(), words.split_whitespace().next().unwrap_or_default().to_owned())
            })
            .collect()
    };
    Ok(output.split("\n\n").filter(|status| !status.trim().is_empty()).map(parse).collect())
}

#[test]
fn mounts_of_host_folders_are_found() {
    let allowed = "1 0 0:50 / / ro,relatime - overlay overlay rw\n2 1 0:51 / /proc rw,nosuid - proc proc rw\n\
                 3 1 0:52 / /sys ro - sysfs sysfs ro\n4 1 8:1 /kubelet/pods/x/etc-hosts /etc/hosts rw - ext4 /dev/a rw\n\
                 4 3 0:53 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n5 1 8:1 /kubelet/pods/x/log /dev/termination-log rw - ext4 /dev/a rw\n";
    check_mounts(allowed, None).unwrap();
    for (line, why) in [
        (
            "6 1 8:1 /run/ferrolb /run/ferrolb rw - ext4 /dev/a rw",
            "/run/ferrolb of the host is mounted",
        ),
        ("6 1 8:1 / /system rw - ext4 /dev/a rw", "/system of the host is mounted"),
        ("6 1 8:1 /x /etc/hosts.d rw - ext4 /dev/a rw", "/etc/hosts.d of the host is mounted"),
        (
            "6 3 0:60 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw",
            "the options of /sys/fs/cgroup/cpu are rw",
        ),
    ] {
        assert_eq!(check_mounts(&format!("{allowed}{line}\n"), None).unwrap_err().to_string(), why);
    }
    let writable = allowed.replace("/ / ro", "/ / rw");
    assert_eq!(
        check_mounts(&writable, None).unwrap_err().to_string(),
        "the options of the root file system are rw,relatime"
    );
    assert!(check_mounts("", None).is_err());
}
