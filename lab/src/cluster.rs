//! A real Kubernetes cluster in network namespaces: network segment, control plane, nodes with a
//! real kube-proxy, and pods.

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
pub mod network;
pub mod nodes;
pub mod pods;
pub mod registry;
