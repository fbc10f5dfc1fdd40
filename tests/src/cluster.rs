//! A real Kubernetes cluster out of network namespaces: the wire, the control plane, nodes with a real kube-proxy, and pods.

pub mod api;
pub mod apply;
pub mod audit;
pub mod bgp;
pub mod control_plane;
pub mod docker;
pub mod ferrolb;
pub mod groups;
pub mod kubeadm;
pub mod lease;
pub mod nodes;
pub mod pods;
pub mod wire;
