//! Interface threads on a real segment: network namespaces joined by a bridge, and the kernel's own
//! ARP and Neighbor Discovery as the client. Needs root, `ip` and `nft`; a test removes everything
//! that it creates.

mod bridge;
mod datagrams;
mod flood;
mod groups;
mod instance;
mod invalid_ndp;
mod no_allocation;
mod owners;
mod quiet_segment;
mod raw_socket;
mod receive_filter;
mod replaced_addresses;
mod routes;
mod second_path;
mod segment;
mod speaker;
mod thread_usage;
mod unused_interface;
mod vlan;
