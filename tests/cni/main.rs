//! Tests of FerroLB on network plugins, which users have in place of the lab's own pod network: on
//! kubeadm clusters, installed by the plugins' own manifests. The tests need root and a machine
//! with cgroup v1. Each test starts a lab of its own. `cargo lab test` runs this target; the target
//! `cni-release` has more scenarios.

mod failover;
mod flannel;
mod interfaces;
mod kube_router;
mod steps;
mod workload;

use ferrolb_lab::scenario;
