//! BGP: which routers a node has sessions with, which prefixes it announces, and how each router sees them. Pure; the speakers' plans and the
//! controller's conditions ask it. What GoBGP is told is made of it by the speaker.
//!
//! [`sessions`] settles which BGPPeers a node can have at once, [`routes`] what it announces to them, [`audience`] whom it should tell of one address, a [`Teller`] whom it does, and [`Others`] what a node that drains
//! need not tell any more. A route's [`Class`] is all
//! that its prefix does not say: who gets it, with which attributes.

mod ads;
mod answers;
mod class;
mod drain;
mod prefix;
mod routes;
mod sessions;
mod teller;

pub use ads::{Ads, too_wide};
pub use answers::Answers;
pub use class::{Attributes, Class};
pub use drain::{Covered, Doubted, Others, Relief};
pub use prefix::Prefix;
pub use routes::{Announcement, Asked, Audience, Routes, audience, routes};
pub use sessions::{BfdFault, PeerConflict, Sessions, sessions};
pub use teller::{Silence, Teller};
