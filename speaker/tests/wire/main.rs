//! Link threads on a real wire: network namespaces joined by a bridge, the kernel's own ARP and Neighbor Discovery as the client. Needs
//! root and `ip`; everything it makes is gone when a test ends.

mod bridge;
mod dropped;
mod flood;
mod groups;
mod hostile;
mod instance;
mod lan;
mod owners;
mod port;
mod quiet;
mod silent;
mod speaker;
mod swap;
mod trunk;
