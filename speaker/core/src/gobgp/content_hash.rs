//! Mark that identifies the configuration of one session or of one class of routes in gobgpd.
//!
//! A mark is a hash of the whole configuration. A restarted speaker compares marks alone to find
//! out which parts of gobgpd's configuration are already as desired
//! (docs/internals/adr/0010-routes.md).

use std::fmt;

use gobgp_proto as api;
use sha2::{Digest, Sha256};

/// Prefix of the names of all objects that FerroLB creates in gobgpd.
pub(super) const NAME_PREFIX: &str = "ferrolb-";
/// First number (global administrator) of a large community that carries a mark. The number is a
/// private AS number (RFC 6996). The export policy removes marks, so no router receives one.
const HASH_COMMUNITY_ADMIN: u32 = 4_200_000_000;

/// Content hash of the configuration of one session or one class of routes: the first 64 bits of
/// its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(u64);

impl ContentHash {
    pub(super) fn of(content: &[u8]) -> Self {
        let mut head = [0; 8];
        head.copy_from_slice(&Sha256::digest(content)[..8]);
        Self(u64::from_be_bytes(head))
    }

    /// Returns the large community (RFC 8092) by which the export policy recognizes the paths of
    /// the class with this mark.
    pub const fn community(self) -> api::LargeCommunity {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of 64 bits")]
        let (local_data1, local_data2) = ((self.0 >> 32) as u32, self.0 as u32);
        api::LargeCommunity { global_admin: HASH_COMMUNITY_ADMIN, local_data1, local_data2 }
    }

    /// Returns the mark that a large community carries, or none if the community is not a mark.
    pub fn from_community(community: &api::LargeCommunity) -> Option<Self> {
        let api::LargeCommunity { global_admin, local_data1, local_data2 } = community;
        (*global_admin == HASH_COMMUNITY_ADMIN)
            .then(|| Self(u64::from(*local_data1) << 32 | u64::from(*local_data2)))
    }

    /// Returns the mark in the name of a policy statement of gobgpd, or none if FerroLB did not
    /// create the statement.
    pub fn from_statement_name(name: &str) -> Option<Self> {
        let (mark, _) = name.strip_prefix(NAME_PREFIX)?.split_once('-')?;
        u64::from_str_radix(mark, 16).ok().map(Self)
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
