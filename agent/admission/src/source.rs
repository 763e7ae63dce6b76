//! The source of a connection whose identity is not known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The length of the IPv6 prefixes that count as one source. A host with one address in a /64 can use all
/// of them.
const V6_PREFIX: u32 = 64;

/// The source of a connection that has not proved an identity.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum UnverifiedSource {
    /// The namespace of a pod that the model knows, so that a tenant's share does not grow with the number
    /// of its pods.
    Namespace(Arc<str>),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// The /64 network of an IPv6 address.
    V6(Ipv6Addr),
}

impl UnverifiedSource {
    /// The source of a connection from an address that the model does not know.
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

    fn source(address: &str) -> UnverifiedSource {
        UnverifiedSource::of(address.parse().expect("an address"))
    }

    #[test]
    fn ipv4_counts_by_address_in_both_notations() {
        assert_eq!(source("10.0.0.1"), source("::ffff:10.0.0.1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
    }

    #[test]
    fn ipv6_counts_by_network() {
        assert_eq!(source("fd00::1"), source("fd00::ffff:1:2:3"));
        assert_ne!(source("fd00::1"), source("fd00:0:0:1::1"));
    }
}
