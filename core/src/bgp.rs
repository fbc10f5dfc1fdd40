//! BGP: the routers with which a node has sessions, the prefixes that the node advertises, and the
//! attributes that each router receives. Pure functions; used by the speakers' plans and the
//! controller's conditions. The speaker translates the result into GoBGP's configuration.
//!
//! - [`sessions()`] selects the BGPPeers with which a node can have sessions at the same time.
//! - [`RouteTable`] contains the routes that a node advertises in these sessions.
//! - [`Advertiser`] computes the routers to which a node should advertise one address, and those to
//!   which it does.
//! - [`RouteClass`] contains all of a route except its prefix: the routers that receive the route,
//!   and the attributes.

mod advertisements;
mod advertiser;
mod prefix;
mod route_class;
mod route_table;
mod routes;
mod sessions;

pub use advertisements::{BgpAdvertisements, too_wide_prefix};
pub use advertiser::Advertiser;
pub use prefix::Prefix;
pub use route_class::{RouteAttributes, RouteClass};
pub use route_table::{ClassCounts, RouteTable, Routes};
pub use routes::{ExportTargets, RouteInput};
pub use sessions::{BfdUnavailable, PeerConflict, ProfilesByName, Sessions, bfd_timers, sessions};
