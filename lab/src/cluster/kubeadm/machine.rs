//! A machine of a kubeadm cluster: the network namespace of a node with mounts, processes, a host
//! name and control groups of its own. Its first process is `cargo lab machine`.
//!
//! Its root is an overlay on the common root of all machines. Its writable files are in
//! `/var/lib/ferrolb-lab`, because an overlay cannot be on an overlay, and images are too large for
//! memory. When the first process ends, the kernel ends all other processes and removes the mounts.

use crate::cluster::groups;
use crate::process::{self, Launch, ProcessRecord};
use crate::run;
use crate::setup::kubeadm::KubeadmParts;
use crate::shared_folder;
use crate::state::LabState;
use crate::topology::LabName;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Directory of the machines' writable files.
pub const ROOT: &str = "/var/lib/ferrolb-lab";
/// Mount point of the lab's files on a machine.
pub const LAB_MOUNT: &str = "/lab";
/// Marker file among containerd's files; present when all images are loaded.
pub const IMAGES_LOADED: &str = "/var/lib/containerd/lab-images";
/// Control groups of version 2 on this computer, next to version 1 and alone. Each machine has a
/// group below them.
pub const UNIFIED_GROUPS: [&str; 2] =
    ["/sys/fs/cgroup/unified/cgroup.procs", "/sys/fs/cgroup/cgroup.procs"];
/// Search path of a machine's programs.
pub const PROGRAM_PATH: &str =
    "/lab/programs:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Logs of a machine that explain a failure.
pub const LOG_NAMES: [&str; 2] = ["containerd", "kubelet"];

/// Joins a control group (`$1`, below the host's own group of each tree), and from there enters new
/// namespaces. Groups from an earlier run of the machine are removed first, like at a boot. If
/// version 2 is the only one, its root is the only tree, and gives its groups all controllers.
///
/// All machines of a lab together have ten times the CPU weight of one test thread. With equal
/// weights the test's client delayed the speakers' hellos by up to 268 ms while pods started.
///
/// Kubelet, containerd and their children share the group `system` next to that of the pods, like
/// `system.slice` under systemd. Otherwise each of their threads has half the weight of all pods.
/// With version 2, a group that has groups with controllers cannot have processes.
const JOIN_GROUPS_SCRIPT: &str = r#"trees=/sys/fs/cgroup
[ -e $trees/cgroup.procs ] || trees=$(echo /sys/fs/cgroup/*)
for tree in $trees; do
  [ ! -L "$tree" ] || continue
  own=$tree/$1
  [ ! -d "$own" ] || find "$own" -depth -type d -exec rmdir {} +
  mkdir -p "$own"
  [ "$tree" != /sys/fs/cgroup ] || for folder in "$tree" "${own%/*}"; do
    sed 's/[^ ]*/+&/g' "$folder/cgroup.controllers" >"$folder/cgroup.subtree_control"
  done
  for folder in "${own%/*}" "$own"; do for file in cpuset.cpus cpuset.mems; do
    [ ! -e "${folder%/*}/$file" ] || cat "${folder%/*}/$file" >"$folder/$file"
  done; done
  [ ! -e "$own/cpu.shares" ] || echo 10240 >"${own%/*}/cpu.shares"
  [ ! -e "$own/cpu.weight" ] || echo 1000 >"${own%/*}/cpu.weight"
  echo $$ >"$own/cgroup.procs"
done
group=$1
shift
exec unshare --cgroup sh -euc 'for tree in $0; do
  own=$tree/$1
  for file in cpu.shares cpuacct.usage memory.limit_in_bytes memory.max; do
    [ ! -e "$own/$file" ] || { mkdir -p "$own/system"; echo $$ >"$own/system/cgroup.procs"; }
  done
done
shift
exec unshare --mount --pid --fork --kill-child --uts --ipc sh -euc "$@"' "$trees" "$group" "$@""#;

/// Mounts the machine's file system (its directory: `$0`; root: `$1`; programs: `$2`; images: `$3`,
/// `$4`; the lab's program: `$5`), and becomes its first process. Kernel settings that a kubelet or
/// Cilium writes would change the whole host, so each machine gets files in their place.
///
/// The control group of version 2 is at `/run/cgroup2`: programs that a network plugin attaches
/// there reach only the processes of the machine. Containerd and the kubelet use version 1 if this
/// computer has it. A kubelet starts only if `/proc/cpuinfo` has a clock speed, which User Mode
/// Linux omits.
const MOUNT_SCRIPT: &str = r#"mount -t overlay overlay -o "lowerdir=$1,upperdir=$0/upper,workdir=$0/work" "$0/root"
cd "$0/root"
mkdir -p lab/programs lab/images/kubernetes lab/images/own mnt var/lib/containerd var/lib/kubelet
touch lab/ferrolb-lab
for kept in containerd kubelet; do mount --bind "$0/$kept" "var/lib/$kept"; done
mount --bind -o ro "$2" lab/programs
mount --bind -o ro "$3" lab/images/kubernetes
mount --bind -o ro "$4" lab/images/own
mount --bind -o ro "$5" lab/ferrolb-lab
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount --rbind /dev dev
mkdir run/cgroup2
mount -t cgroup2 cgroup2 run/cgroup2
trees=$(sed -n 's/^[1-9][0-9]*:\([^:]*\):.*/\1/p' /proc/self/cgroup)
if [ -n "$trees" ]; then mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
else mount -t cgroup2 cgroup2 sys/fs/cgroup; fi
for kinds in $trees; do
  case $kinds in name=*) options=none,$kinds ;; *) options=$kinds ;; esac
  mkdir "sys/fs/cgroup/${kinds#name=}"
  mount -t cgroup -o "$options" cgroup "sys/fs/cgroup/${kinds#name=}"
done
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes kernel/timer_migration kernel/unprivileged_bpf_disabled; do
  [ -e "/proc/sys/$setting" ] || continue
  file=run/setting-${setting##*/}
  cat "/proc/sys/$setting" >"$file"
  mount --bind "$file" "proc/sys/$setting"
done
grep -q '^cpu MHz' proc/cpuinfo || {
  { cat proc/cpuinfo; echo 'cpu MHz : 1000.000'; } >run/cpuinfo
  mount --bind run/cpuinfo proc/cpuinfo
}
hostname -F etc/hostname
pivot_root . mnt
cd /
umount -l /mnt
mount --make-rshared /
exec /lab/ferrolb-lab machine"#;

/// Returns the directory of the writable files of a lab's machines.
pub fn folder(lab: &LabName) -> PathBuf {
    Path::new(ROOT).join(lab.to_string())
}

fn machine_folder(state: &LabState, node: &str) -> PathBuf {
    folder(&state.name).join(node)
}

/// Starts a machine for the first time, with `files` in its file system, and returns at once.
///
/// # Errors
/// If the machine cannot be started.
pub fn start(
    state: &LabState,
    parts: &KubeadmParts,
    lab: &Path,
    node: &str,
    files: &[(String, String)],
) -> Result<ProcessRecord> {
    let folder = machine_folder(state, node);
    for part in ["upper", "work", "root", "containerd", "kubelet"] {
        fs::create_dir_all(folder.join(part))
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    for (path, text) in files {
        let file = folder.join("upper").join(path);
        fs::create_dir_all(file.parent().context("the file has no parent directory")?)?;
        fs::write(file, text)?;
    }
    let images = self::folder(&state.name).join("images");
    let mut args = vec![
        "-euc".to_owned(),
        JOIN_GROUPS_SCRIPT.to_owned(),
        "sh".to_owned(),
        groups::of_host(&state.name, node),
    ];
    args.push(MOUNT_SCRIPT.to_owned());
    args.extend(
        [&folder, &parts.root, &parts.programs, &parts.images, &images, lab]
            .map(|path| path.display().to_string()),
    );
    let launch = Launch {
        name: process_name(node),
        host: node.to_owned(),
        node: Some(node.to_owned()),
        program: "/bin/sh".into(),
        args,
        env: [].into(),
        low_priority: false,
    };
    process::start(state, launch)
}

/// Returns the process name of a machine in the lab.
fn process_name(node: &str) -> String {
    format!("machine-{node}")
}

/// Returns whether the machine is on.
pub fn is_on(state: &LabState, node: &str) -> bool {
    process::find(state, &process_name(node)).is_some_and(|record| record.is_alive())
}

/// Returns whether containerd has all images.
pub fn has_images(state: &LabState, node: &str) -> bool {
    machine_folder(state, node)
        .join("containerd")
        .join(IMAGES_LOADED.rsplit('/').next().unwrap_or_default())
        .exists()
}

/// Returns the path, seen from outside, of a file in a machine's own file system.
pub fn inside_file(state: &LabState, node: &str, path: &str) -> PathBuf {
    machine_folder(state, node).join("upper").join(path)
}

/// Returns a command that runs its further arguments as a program on the machine, like a local
/// login.
///
/// # Errors
/// If the machine is off.
pub fn command(state: &LabState, node: &str) -> Result<Command> {
    let first = first_process(state, node)?.to_string();
    let mut nsenter = Command::new("nsenter");
    nsenter.args([
        "--target", &first, "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--root",
        "--wd",
    ]);
    nsenter.args(["env", &format!("PATH={PROGRAM_PATH}")]);
    Ok(nsenter)
}

/// Returns the machine's first process.
///
/// # Errors
/// If the machine is off.
pub(super) fn first_process(state: &LabState, node: &str) -> Result<i32> {
    let record = process::find(state, &process_name(node))
        .filter(ProcessRecord::is_alive)
        .with_context(|| format!("{node} is off"))?;
    let children = format!("/proc/{0}/task/{0}/children", record.pid);
    let children =
        fs::read_to_string(&children).with_context(|| format!("cannot read {children}"))?;
    let first = children.split_whitespace().next();
    Ok(first.with_context(|| format!("{node} is starting"))?.parse()?)
}

/// Returns the end of the logs of a machine and of its daemons.
pub fn log_tail(state: &LabState, node: &str, lines: usize) -> String {
    let mut tail =
        format!("{node}: {}\n", run::last_lines(&process::log(state, &process_name(node)), lines));
    for log in LOG_NAMES {
        let text = fs::read_to_string(inside_file(state, node, &format!("var/log/{log}.log")))
            .unwrap_or_default();
        tail += &format!("the log of {log} on {node} ends:\n{}\n", run::last_lines(&text, lines));
    }
    tail
}

/// Removes the writable files of a lab's machines, which must have ended.
///
/// # Errors
/// If a file cannot be removed.
pub fn remove_all(lab: &LabName) -> Result<()> {
    let folder = folder(lab);
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(shared_folder::remove_if_empty(Path::new(ROOT))?)
}
