//! More scenarios of FerroLB on network plugins than the target `cni` has. `cargo lab test cni`
//! runs both targets, before a release; `cargo lab test` without a tier leaves this one out.

mod cilium;
#[path = "../kubeadm/client.rs"]
mod client;
#[path = "../cni/failover.rs"]
mod failover;
mod flannel;
mod health;
#[path = "../cni/interfaces.rs"]
mod interfaces;
mod kube_proxy;
mod kube_router;
mod power;
mod restart;
#[path = "../cni/steps.rs"]
mod steps;
mod upgrade;
#[path = "../cni/workload.rs"]
mod workload;

use ferrolb_lab::scenario;
