//! Kernel privileges of FerroLB's processes in their containers.

use anyhow::{Context, Result, ensure};
use ferrolb_lab::Lab;
use std::collections::BTreeMap;

/// Mask of `CAP_NET_RAW` alone, as in `/proc/PID/status` (capabilities(7): bit 13).
const NET_RAW: &str = "0000000000002000";
const NOTHING: &str = "0000000000000000";
/// Value of `Seccomp` with an active system call filter (proc(5)).
const FILTERED: &str = "2";
/// Mount points that containerd and the kubelet create in each container: kernel file systems
/// (these or below), and the pod's network files and token.
const KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];
const OF_POD: [&str; 4] = [
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/var/run/secrets/kubernetes.io/serviceaccount",
];

/// Folder of gobgpd's socket, shared with the node's speaker.
const SOCKET: &str = "/run/ferrolb";

/// Checks every process of FerroLB on every node.
pub(crate) fn check(lab: &Lab) -> Result<()> {
    check_all(
        lab,
        &[("ferrolb-speaker", NET_RAW, "0", None), ("ferrolb-controller", NOTHING, "65532", None)],
        &[3, 2],
    )
}

/// Checks the same in an installation with BGP.
pub(crate) fn check_bgp(lab: &Lab) -> Result<()> {
    let speaker = ("ferrolb-speaker", NET_RAW, "0", Some(SOCKET));
    check_all(lab, &[speaker, ("gobgpd", NOTHING, "0", Some(SOCKET))], &[3, 3])
}

/// A program: its name, capabilities and user, and the folder of the host that it may see.
type ExpectedProcess = (&'static str, &'static str, &'static str, Option<&'static str>);

fn check_all(lab: &Lab, programs: &[ExpectedProcess], expect_running: &[usize]) -> Result<()> {
    let mut running = vec![0; programs.len()];
    for node in lab.nodes() {
        for ((program, capabilities, user, folder), running) in programs.iter().zip(&mut running) {
            for status in statuses(lab, &node, program)? {
                for set in ["CapEff", "CapPrm", "CapBnd"] {
                    expect(&status, set, capabilities)
                        .with_context(|| format!("{program} on {node}"))?;
                }
                for (field, value) in [("NoNewPrivs", "1"), ("Seccomp", FILTERED), ("Uid", user)] {
                    expect(&status, field, value)
                        .with_context(|| format!("{program} on {node}"))?;
                }
                let mounts =
                    lab.exec(&node, &["cat", &format!("/proc/{}/mountinfo", status["Pid"])])?;
                check_mounts(&mounts, *folder).with_context(|| format!("{program} on {node}"))?;
                *running += 1;
            }
        }
    }
    ensure!(running == expect_running, "{running:?} processes of {programs:?} are running");
    Ok(())
}

/// Checks that the container's file system is read-only, and that only `shared` of the host is
/// mounted into it. `mounts` is its `/proc/PID/mountinfo` (proc(5)).
fn check_mounts(mounts: &str, shared: Option<&str>) -> Result<()> {
    let mounts: Vec<[&str; 3]> = mounts.lines().filter_map(mount).collect();
    let is_read_only = |options: &str| options.split(',').any(|option| option == "ro");
    let [_, root, _] =
        mounts.iter().find(|[point, ..]| *point == "/").context("nothing is mounted at /")?;
    ensure!(is_read_only(root), "its root is {root}");
    for [point, options, kind] in mounts.iter().filter(|[point, ..]| *point != "/") {
        let below = |folder: &str| {
            point.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let usual =
            KERNEL.into_iter().any(below) || OF_POD.contains(point) || shared == Some(*point);
        ensure!(usual, "{point} is mounted into it");
        // cgroup v1 mounts a tmpfs at the folder of its hierarchies.
        ensure!(
            !below("/sys") || is_read_only(options) || *kind == "tmpfs",
            "{point} is {options}"
        );
    }
    Ok(())
}

/// Returns the mount point, the options, and the type of the file system.
fn mount(line: &str) -> Option<[&str; 3]> {
    let (place, what) = line.split_once(" - ")?;
    let mut fields = place.split(' ').skip(4);
    Some([fields.next()?, fields.next()?, what.split(' ').next()?])
}

fn expect(status: &BTreeMap<String, String>, field: &str, value: &str) -> Result<()> {
    let found = status.get(field).map(String::as_str).unwrap_or_default();
    ensure!(found == value, "{field} is {found}, not {value}");
    Ok(())
}

/// Returns the first word of each field of `/proc/PID/status`, for every process of a program on a
/// node.
fn statuses(lab: &Lab, node: &str, program: &str) -> Result<Vec<BTreeMap<String, String>>> {
    let all = format!("for pid in $(pidof {program}); do cat /proc/$pid/status; echo; done");
    let said = lab.exec(node, &["sh", "-c", &all])?;
    let read = |status: &str| {
        let fields = status.lines().filter_map(|line| line.split_once(':'));
        fields
            .map(|(name, words)| {
                (name.to_owned(), words.split_whitespace().next().unwrap_or_default().to_owned())
            })
            .collect()
    };
    Ok(said.split("\n\n").filter(|status| !status.trim().is_empty()).map(read).collect())
}

#[test]
fn a_container_mounts_nothing_of_its_host() {
    let usual = "1 0 0:50 / / ro,relatime - overlay overlay rw\n2 1 0:51 / /proc rw,nosuid - proc proc rw\n\
                 3 1 0:52 / /sys ro - sysfs sysfs ro\n4 1 8:1 /kubelet/pods/x/etc-hosts /etc/hosts rw - ext4 /dev/a rw\n\
                 4 3 0:53 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n5 1 8:1 /kubelet/pods/x/log /dev/termination-log rw - ext4 /dev/a rw\n";
    check_mounts(usual, None).unwrap();
    for (line, why) in [
        (
            "6 1 8:1 /run/ferrolb /run/ferrolb rw - ext4 /dev/a rw",
            "/run/ferrolb is mounted into it",
        ),
        ("6 1 8:1 / /system rw - ext4 /dev/a rw", "/system is mounted into it"),
        ("6 1 8:1 /x /etc/hosts.d rw - ext4 /dev/a rw", "/etc/hosts.d is mounted into it"),
        ("6 3 0:60 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw", "/sys/fs/cgroup/cpu is rw"),
    ] {
        assert_eq!(check_mounts(&format!("{usual}{line}\n"), None).unwrap_err().to_string(), why);
    }
    let writable = usual.replace("/ / ro", "/ / rw");
    assert_eq!(check_mounts(&writable, None).unwrap_err().to_string(), "its root is rw,relatime");
    assert!(check_mounts("", None).is_err());
}
