//! The prefix of a route.

use std::fmt;
use std::net::IpAddr;

use ferrolb_proto::range::{AddressRange, Family};

/// A network address and its length in bits (RFC 4271 section 4.3): `10.0.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    network: IpAddr,
    length: u8,
}

impl Prefix {
    /// Returns the prefix of `length` bits that contains an address. A greater length than that of
    /// the address (32 or 128 bits) is reduced to it.
    #[must_use]
    pub fn of(address: IpAddr, length: u8) -> Self {
        let family = Family::of(address);
        let length = length.min(family.width());
        Self { network: AddressRange::network(address, length).first(), length }
    }

    /// Returns the address of the network.
    #[must_use]
    pub const fn network(&self) -> IpAddr {
        self.network
    }

    /// Returns the length in bits.
    #[must_use]
    pub const fn length(&self) -> u8 {
        self.length
    }

    /// Returns the family of the network.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.network)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_one_prefix_of_each_length() {
        let prefix = |address: &str, length| {
            Prefix::of(address.parse().expect("an address"), length).to_string()
        };
        assert_eq!(prefix("10.1.2.3", 24), "10.1.2.0/24");
        assert_eq!(prefix("10.1.2.3", 32), "10.1.2.3/32");
        assert_eq!(prefix("10.1.2.3", 1), "0.0.0.0/1");
        assert_eq!(prefix("10.1.2.3", 128), "10.1.2.3/32");
        assert_eq!(prefix("fd00::ff:1", 120), "fd00::ff:0/120");
        assert_eq!(prefix("fd00::1", 128), "fd00::1/128");
    }
}
