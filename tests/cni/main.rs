//! Tests of FerroLB on network plugins, which users have in place of the lab's own pod network: on
//! kubeadm clusters, installed by the plugins' own manifests. The tests need root and a machine
//! with cgroup v1. Each test starts a lab of its own.

#[path = "../kubeadm/client.rs"]
mod client;
mod failover;
mod flannel;
mod health;
mod host;
mod interfaces;
mod kube_router;
mod restart;
mod steps;
mod workload;

use ferrolb_lab::scenario;
