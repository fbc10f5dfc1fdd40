//! A machine of a kubeadm cluster: a node's network namespace with mounts, processes, a name and control groups of its own, whose first process is
//! `cargo lab machine`. Its root is an overlay of the one that all have; what it writes is in `/var/lib/ferrolb-lab`, since an overlay cannot lie on an
//! overlay, nor images in memory. Whoever ends the first process ends all, and the mounts go with them.

use crate::cluster::groups;
use crate::process::{self, Launch, Record};
use crate::run;
use crate::setup::kubeadm::Parts;
use crate::state::State;
use crate::topology::LabName;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where what machines write is.
const ROOT: &str = "/var/lib/ferrolb-lab";
/// Where a machine sees what the lab has for it.
pub const LAB: &str = "/lab";
/// Under this name the images are there once they are, in what containerd keeps.
pub const IMAGES_THERE: &str = "/var/lib/containerd/lab-images";
/// Where a machine's programs look for others.
pub const PATH: &str = "/lab/programs:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The logs of a machine that tell why it failed.
pub const LOGS: [&str; 2] = ["containerd", "kubelet"];

/// Goes into a control group (`$1`, below the machine's own of that controller) for each controller, and from there into namespaces of its own. What
/// an earlier run of the machine left there is gone first, as after a boot.
///
/// All machines of a lab together have ten times the CPU weight of one test thread. With equal
/// weights the test's client delayed the speakers' hellos by up to 268 ms while pods started.
const GROUPS: &str = r#"for tree in /sys/fs/cgroup/*/tasks; do
  own=${tree%/tasks}/$1
  mkdir -p "$own" && find "$own" -mindepth 1 -depth -type d -exec rmdir {} +
  for folder in "${own%/*}" "$own"; do for file in cpuset.cpus cpuset.mems; do
    [ ! -e "$folder/$file" ] || cat "${folder%/*}/$file" >"$folder/$file"
  done; done
  [ ! -e "$own/cpu.shares" ] || echo 10240 >"${own%/*}/cpu.shares"
  echo $$ >"$own/cgroup.procs" || exit
done
shift
exec unshare --mount --pid --fork --kill-child --uts --ipc --cgroup sh -euc "$@""#;

/// Mounts the machine's file system (its folder: `$0`; root: `$1`; programs: `$2`; images: `$3`, `$4`; the lab's program: `$5`), and becomes its
/// first process. The kernel settings that a kubelet makes are the whole machine's: each node gets files in their place.
///
/// Kubelet, containerd and their children share one control group next to that of the pods, like
/// `system.slice` under systemd. Otherwise each of their threads has half the weight of all pods.
const MOUNTS: &str = r#"mount -t overlay overlay -o "lowerdir=$1,upperdir=$0/upper,workdir=$0/work" "$0/root"
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
mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
while IFS=: read -r _ kinds _; do
  case $kinds in
    "") continue ;;
    name=*) folder=${kinds#name=} options=none,$kinds ;;
    *) folder=$kinds options=$kinds ;;
  esac
  mkdir "sys/fs/cgroup/$folder"
  mount -t cgroup -o "$options" cgroup "sys/fs/cgroup/$folder"
done </proc/self/cgroup
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  file=run/setting-${setting##*/}
  cat "/proc/sys/$setting" >"$file"
  mount --bind "$file" "proc/sys/$setting"
done
hostname -F etc/hostname
pivot_root . mnt
cd /
umount -l /mnt
mount --make-rshared /
for kind in cpu.shares cpuacct.usage memory.limit_in_bytes; do
  for tree in /sys/fs/cgroup/*; do
    [ ! -e "$tree/$kind" ] || { mkdir -p "$tree/system"; echo $$ >"$tree/system/cgroup.procs"; }
  done
done
exec /lab/ferrolb-lab machine"#;

/// Where what the machines of a lab write is.
pub fn folder(lab: &LabName) -> PathBuf {
    Path::new(ROOT).join(lab.to_string())
}

fn own(state: &State, node: &str) -> PathBuf {
    folder(&state.name).join(node)
}

/// Switches a machine on for the first time, with these files on it. It is not waited for.
///
/// # Errors
/// When it cannot be started.
pub fn start(state: &State, parts: &Parts, lab: &Path, node: &str, files: &[(&str, String)]) -> Result<Record> {
    let own = own(state, node);
    for part in ["upper", "work", "root", "containerd", "kubelet"] {
        fs::create_dir_all(own.join(part)).with_context(|| format!("cannot make {}", own.display()))?;
    }
    for (path, text) in files {
        let file = own.join("upper").join(path);
        fs::create_dir_all(file.parent().context("a file in a folder")?)?;
        fs::write(file, text)?;
    }
    let images = folder(&state.name).join("images");
    let mut args = vec!["-c".to_owned(), GROUPS.to_owned(), "sh".to_owned(), groups::of_host(&state.name, node)];
    args.push(MOUNTS.to_owned());
    args.extend(
        [&own, &parts.root, &parts.programs, &parts.images, &images, lab].map(|path| path.display().to_string()),
    );
    let launch = Launch {
        name: name(node),
        host: node.to_owned(),
        node: Some(node.to_owned()),
        program: "/bin/sh".into(),
        args,
        env: [].into(),
        yields: false,
    };
    process::start(state, launch)
}

/// What a machine is called among the lab's processes.
fn name(node: &str) -> String {
    format!("machine-{node}")
}

/// Whether it is on.
pub fn is_on(state: &State, node: &str) -> bool {
    process::find(state, &name(node)).is_some_and(|record| record.is_alive())
}

/// Whether containerd has all images.
pub fn has_images(state: &State, node: &str) -> bool {
    own(state, node).join("containerd").join(IMAGES_THERE.rsplit('/').next().unwrap_or_default()).exists()
}

/// Where a file of a machine's own file system is, seen from outside.
pub fn inside_file(state: &State, node: &str, path: &str) -> PathBuf {
    own(state, node).join("upper").join(path)
}

/// The command that runs the program of its further arguments on the machine, as who sits at it would.
///
/// # Errors
/// When it is off.
pub fn command(state: &State, node: &str) -> Result<Command> {
    let record =
        process::find(state, &name(node)).filter(Record::is_alive).with_context(|| format!("{node} is off"))?;
    let children = format!("/proc/{0}/task/{0}/children", record.pid);
    let children = fs::read_to_string(&children).with_context(|| format!("no {children}"))?;
    let first = children.split_whitespace().next().with_context(|| format!("{node} has only begun to start"))?;
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["--target", first, "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--root", "--wd"]);
    nsenter.args(["env", &format!("PATH={PATH}")]);
    Ok(nsenter)
}

/// What a machine said at last: it, and its daemons.
pub fn last_words(state: &State, node: &str, lines: usize) -> String {
    let mut words = format!("{node}: {}\n", run::last_lines(&process::log(state, &name(node)), lines));
    for log in LOGS {
        let text = fs::read_to_string(inside_file(state, node, &format!("var/log/{log}.log"))).unwrap_or_default();
        words += &format!("the log of {log} on {node} ends:\n{}\n", run::last_lines(&text, lines));
    }
    words
}

/// Removes what the machines of a lab wrote, once they have ended.
///
/// # Errors
/// When something cannot be removed.
pub fn sweep(lab: &LabName) -> Result<()> {
    let folder = folder(lab);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    // The last lab takes the common folder along; while others stand this fails, as it should.
    let _ = fs::remove_dir(ROOT);
    Ok(())
}
