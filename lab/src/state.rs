//! Directory of a lab under `/run/ferrolb-lab`: its facts, its processes, and its owner, which is a
//! process that locks a file in the directory. The kernel releases the lock when the owner ends, so
//! any process can remove the lab of a killed owner.

use crate::setup::kubernetes::KubernetesVersion;
use crate::setup::network_plugin::NetworkPlugin;
use crate::shared_folder;
use crate::topology::{
    self, CONTROL_PLANE, Families, Host, LabName, PLUGIN_POD_RANGES, POD_RANGES,
};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const ROOT: &str = "/run/ferrolb-lab";
const LOCK_FILE: &str = "owner";
const FACTS_FILE: &str = "lab.json";

/// Stored facts about a lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LabFacts {
    pub nodes: u8,
    /// IP families. A lab of an older checkout has no such fact and is dual stack. The default
    /// keeps its facts readable, so that the lab does not count as abandoned.
    #[serde(default)]
    pub families: Families,
    /// kube-proxy's mode; `None` without kube-proxies.
    pub proxy_mode: Option<String>,
    /// True if the nodes of the lab renew leases.
    #[serde(default)]
    pub leases: bool,
    /// Directory with kube-apiserver, kubectl and the other programs.
    pub kubernetes: PathBuf,
    /// Version of Kubernetes.
    #[serde(default)]
    pub version: KubernetesVersion,
    /// Directory with gobgpd and gobgp, if each node runs a gobgpd and hosts for routers exist.
    #[serde(default)]
    pub gobgp: Option<PathBuf>,
    /// True if the routers' hosts are containers of the lab's own engine.
    #[serde(default)]
    pub containers: bool,
    /// True if the nodes of the lab are machines with kubelets, created by kubeadm; the first node
    /// is the control plane.
    #[serde(default)]
    pub kubeadm: bool,
    /// True if the kube-proxies of such nodes serve their health at loopback only.
    #[serde(default)]
    pub loopback_health: bool,
    /// True if such nodes get FerroLB's images only from a registry.
    #[serde(default)]
    pub registry: bool,
    /// Network plugin of such nodes; `None` for the lab's own bridges and routes.
    #[serde(default)]
    pub network_plugin: Option<NetworkPlugin>,
    /// True if the API server logs the requests of FerroLB's accounts.
    #[serde(default)]
    pub audit: bool,
    /// True if a test scenario runs in the lab: Kubernetes' own programs run at low priority unless
    /// a kubelet runs them.
    #[serde(default)]
    pub scenario: bool,
    /// True if the lab keeps running after the process that started it has ended.
    pub kept: bool,
}

impl LabFacts {
    /// Returns every host of the lab.
    pub fn hosts(&self) -> Vec<Host> {
        let mut hosts = topology::hosts(self.nodes, self.gobgp.is_some());
        hosts.retain(|host| !self.kubeadm || host.name != CONTROL_PLANE);
        hosts
    }

    /// Returns whether a host is a machine of its own, not only a network namespace.
    pub fn is_machine(&self, host: &str) -> bool {
        self.kubeadm && topology::node_index(host).is_some()
    }

    /// Returns the ranges of all pods, IPv4 and IPv6.
    pub fn pod_ranges(&self) -> [&'static str; 2] {
        if self.network_plugin.is_some() { PLUGIN_POD_RANGES } else { POD_RANGES }
    }

    /// Returns whether a host is a container.
    pub fn is_container(&self, host: &Host) -> bool {
        self.containers && topology::routers::hosts().contains(host)
    }
}

/// A lab's directory. While this value holds the lock of the owner file, this process may change
/// the lab.
#[derive(Debug)]
pub struct LabState {
    pub name: LabName,
    path: PathBuf,
    /// Open owner file, whose lock ends when the file is closed.
    _owner: Option<File>,
}

impl LabState {
    /// Creates the directory of a new lab. This process owns the lab from the first moment, because
    /// the directory is filled under a temporary name and then renamed.
    ///
    /// # Errors
    /// If a lab of this name exists, or `/run` is not writable.
    pub fn create(name: &LabName, facts: &LabFacts) -> Result<Self> {
        let (path, unfinished) =
            (folder(name), Path::new(ROOT).join(format!(".{name}.{}", std::process::id())));
        for part in ["processes", "logs"] {
            shared_folder::create(Path::new(ROOT), &unfinished.join(part))
                .with_context(|| format!("cannot create {}", unfinished.display()))?;
        }
        let owner = File::create(unfinished.join(LOCK_FILE))?;
        owner.lock()?;
        fs::write(unfinished.join(LOCK_FILE), std::process::id().to_string())?;
        fs::write(unfinished.join(FACTS_FILE), serde_json::to_vec_pretty(facts)?)?;
        if let Err(error) = fs::rename(&unfinished, &path) {
            fs::remove_dir_all(&unfinished)?;
            return Err(error).with_context(|| {
                format!(
                    "a lab named {name} already exists: stop it with `cargo lab --name {name} down`"
                )
            });
        }
        Ok(Self { name: name.clone(), path, _owner: Some(owner) })
    }

    /// Opens the directory of an existing lab for reading.
    ///
    /// # Errors
    /// If there is no lab of this name.
    pub fn open(name: &LabName) -> Result<Self> {
        let path = folder(name);
        if !path.join(FACTS_FILE).is_file() {
            bail!(
                "there is no lab named {name}: `cargo lab status` lists them, `cargo lab --name {name} up` starts it"
            );
        }
        Ok(Self { name: name.clone(), path, _owner: None })
    }

    /// Locks the owner file of a lab and opens its directory for changes; `None` if there is no
    /// such lab.
    ///
    /// # Errors
    /// If a live process owns the lab, with the pid of that process.
    pub fn claim(name: &LabName) -> Result<Option<Self>> {
        let path = folder(name);
        loop {
            let Ok(owner) = File::open(path.join(LOCK_FILE)) else { return Ok(None) };
            match owner.try_lock() {
                Ok(()) if same_file(&owner, &path.join(LOCK_FILE)) => {
                    return Ok(Some(Self { name: name.clone(), path, _owner: Some(owner) }));
                }
                // The lab was stopped, and possibly started again, since the file was opened.
                Ok(()) => {}
                Err(TryLockError::Error(error)) => {
                    return Err(error).context("cannot lock the lab");
                }
                Err(TryLockError::WouldBlock) => bail!(
                    "process {} uses the lab {name}: stop it first (Ctrl-C there), or choose another --name",
                    fs::read_to_string(path.join(LOCK_FILE)).unwrap_or_default()
                ),
            }
        }
    }

    /// Reads the facts about the lab.
    ///
    /// # Errors
    /// If the directory is being removed.
    pub fn facts(&self) -> Result<LabFacts> {
        let text = fs::read(self.path.join(FACTS_FILE))
            .with_context(|| format!("the lab {} is incomplete", self.name))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Marks the lab as kept, so that it keeps running after this process has ended.
    ///
    /// # Errors
    /// If the directory is not writable.
    pub fn keep(&self) -> Result<()> {
        let facts = LabFacts { kept: true, ..self.facts()? };
        Ok(fs::write(self.path.join(FACTS_FILE), serde_json::to_vec_pretty(&facts)?)?)
    }

    /// Returns whether the directory still exists.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Returns the path of a file of the lab.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Returns the path of the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.file("kubeconfig")
    }

    /// Removes the directory, as the last step of stopping a lab.
    ///
    /// # Errors
    /// If a file in it cannot be removed.
    pub fn remove(&self) -> Result<()> {
        fs::remove_dir_all(&self.path)
            .with_context(|| format!("cannot remove {}", self.path.display()))?;
        Ok(shared_folder::remove_if_empty(Path::new(ROOT))?)
    }
}

/// Returns the names of all labs with a directory.
pub fn labs() -> Vec<LabName> {
    let Ok(entries) = fs::read_dir(ROOT) else { return Vec::new() };
    let mut labs: Vec<LabName> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    labs.sort();
    labs
}

/// Returns the directory with the logs of a lab's processes.
pub fn logs(name: &LabName) -> PathBuf {
    folder(name).join("logs")
}

/// Removes the temporary directories that killed processes left while they created a lab's
/// directory.
///
/// # Errors
/// If a directory cannot be removed.
pub fn remove_unfinished() -> Result<()> {
    let Ok(entries) = fs::read_dir(ROOT) else { return Ok(()) };
    for path in entries.flatten().map(|entry| entry.path()) {
        let creator = path.file_name().and_then(|name| unfinished_by(name.to_str()?));
        if creator.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(shared_folder::remove_if_empty(Path::new(ROOT))?)
}

/// Returns the pid in the name of a directory that is being created: `.LAB.PID`.
fn unfinished_by(name: &str) -> Option<u32> {
    name.strip_prefix('.')?.split_once('.')?.1.parse().ok()
}

fn folder(name: &LabName) -> PathBuf {
    Path::new(ROOT).join(name.to_string())
}

fn same_file(open: &File, path: &Path) -> bool {
    match (open.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unfinished_directory_names_a_pid() {
        for (name, pid) in
            [(".demo.4711", Some(4711)), ("demo", None), (".demo", None), (".demo.x", None)]
        {
            assert_eq!(unfinished_by(name), pid, "{name}");
        }
    }
}
