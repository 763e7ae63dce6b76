//! Where a connection comes from, as long as nothing else is known about it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The bits of an IPv6 address that a site does not choose itself. A host that has one address of a
/// network of this size has all of them.
const V6_PREFIX: u32 = 64;

/// The source of a connection that has not proved an identity.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Origin {
    /// A pod that the model knows: its namespace, so that a tenant's share does not grow with the
    /// number of its pods.
    Namespace(Arc<str>),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// The /64 network of an IPv6 address.
    V6(Ipv6Addr),
}

impl Origin {
    /// The origin of an address that no object of the model explains.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let host_bits = u128::BITS - V6_PREFIX;
                Self::V6(Ipv6Addr::from_bits(
                    address.to_bits() >> host_bits << host_bits,
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(address: &str) -> Origin {
        Origin::of(address.parse().expect("an address"))
    }

    #[test]
    fn ipv4_counts_by_address_in_both_notations() {
        assert_eq!(origin("10.0.0.1"), origin("::ffff:10.0.0.1"));
        assert_ne!(origin("10.0.0.1"), origin("10.0.0.2"));
    }

    #[test]
    fn ipv6_counts_by_network() {
        assert_eq!(origin("fd00::1"), origin("fd00::ffff:1:2:3"));
        assert_ne!(origin("fd00::1"), origin("fd00:0:0:1::1"));
    }
}
