//! `cargo lab machine`: the first process of a machine of a kubeadm cluster. Like an init system,
//! it keeps containerd and the kubelet running, and reaps ended processes. Once, at the start, it
//! loads the images.

use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::kubeadm::machine::{IMAGES_LOADED, LAB_MOUNT, PROGRAM_PATH};
use ferrolb_lab::wait;
use rustix::process::{WaitOptions, wait as reap};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Maximum time until containerd replies, on a busy machine.
const CONTAINERD_MAX: Duration = Duration::from_secs(60);
/// Interval in which ended processes are reaped, and daemons are restarted.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Files with the kubelet's configuration, written by kubeadm. The kubelet cannot start before
/// these files exist.
const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";
const KUBELET_FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
/// Flags of the kubelet in kubeadm's own systemd unit.
const KUBELET_ARGS: [&str; 3] = [
    "--config=/var/lib/kubelet/config.yaml",
    "--kubeconfig=/etc/kubernetes/kubelet.conf",
    "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
];

/// Runs the machine until it is killed.
pub(crate) fn machine() -> Result<()> {
    let mut containerd = start("containerd", &["--log-level=warn".to_owned()])?;
    wait::until("containerd replies", CONTAINERD_MAX, || ctr(&["version"]).map(Some))?;
    import_images()?;
    let mut kubelet = None;
    loop {
        // The ended process is a child of a shim, or one of the two daemons.
        while let Ok(Some((ended, _))) = reap(WaitOptions::NOHANG) {
            let has_ended = |child: &Child| {
                i32::try_from(child.id()).is_ok_and(|pid| pid == ended.as_raw_nonzero().get())
            };
            if has_ended(&containerd) {
                containerd = start("containerd", &["--log-level=warn".to_owned()])?;
            } else if kubelet.as_ref().is_some_and(has_ended) {
                kubelet = None;
            }
        }
        if kubelet.is_none() && Path::new(KUBELET_CONFIG).exists() {
            let flags = fs::read_to_string(KUBELET_FLAGS).unwrap_or_default();
            let args: Vec<String> =
                KUBELET_ARGS.map(str::to_owned).into_iter().chain(kubeadm_flags(&flags)).collect();
            kubelet = Some(start("kubelet", &args)?);
        }
        wait::during(POLL_INTERVAL, || Ok(()))?;
    }
}

fn start(program: &str, args: &[String]) -> Result<Child> {
    let log = File::options().create(true).append(true).open(format!("/var/log/{program}.log"))?;
    let mut command = Command::new(program);
    command
        .args(args)
        .env("PATH", PROGRAM_PATH)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    command.spawn().with_context(|| format!("cannot start {program}"))
}

fn import_images() -> Result<()> {
    if Path::new(IMAGES_LOADED).exists() {
        return Ok(());
    }
    for folder in ["kubernetes", "own"] {
        for archive in fs::read_dir(Path::new(LAB_MOUNT).join("images").join(folder))? {
            ctr(&["images", "import", &archive?.path().display().to_string()])?;
        }
    }
    Ok(fs::write(IMAGES_LOADED, "")?)
}

/// Runs containerd's own command line in the namespace of Kubernetes.
fn ctr(args: &[&str]) -> Result<()> {
    let output = Command::new("ctr")
        .args(["--namespace", "k8s.io"])
        .args(args)
        .output()
        .context("cannot start ctr")?;
    ensure!(
        output.status.success(),
        "ctr {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Returns the flags in `KUBELET_KUBEADM_ARGS="--a=b --c"`.
fn kubeadm_flags(text: &str) -> Vec<String> {
    let flags = text.lines().find_map(|line| line.strip_prefix("KUBELET_KUBEADM_ARGS="));
    flags.unwrap_or_default().trim_matches('"').split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelet_flags_of_kubeadm_are_parsed() {
        let text =
            "KUBELET_KUBEADM_ARGS=\"--node-ip=172.30.0.11 --pod-infra-container-image=pause:3\"\n";
        assert_eq!(
            kubeadm_flags(text),
            ["--node-ip=172.30.0.11", "--pod-infra-container-image=pause:3"]
        );
        assert!(kubeadm_flags("").is_empty());
    }
}
