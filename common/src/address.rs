use crate::assert_size;

/// An IP address in the form that every map uses: IPv6, or IPv4 as `::ffff:a.b.c.d`.
///
/// Dual-stack sockets show IPv4 peers in the mapped form. A single form means a single key. The address is
/// stored as the four words, in network order, that kernel contexts give.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    words_be: [u32; 4],
}
assert_size!(Address, 16);

/// The word `0000:ffff` that precedes a mapped IPv4 address, in network order.
const V4_MARK_BE: u32 = 0x0000_ffff_u32.to_be();

impl Address {
    /// `::`, which means "no address".
    pub const UNSPECIFIED: Self = Self { words_be: [0; 4] };

    /// `::1`.
    pub const V6_LOOPBACK: Self = Self {
        words_be: [0, 0, 0, 1_u32.to_be()],
    };

    /// Makes an IPv4 address from its octets.
    #[inline(always)]
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self::from_v4_be(u32::from_ne_bytes(octets))
    }

    /// Makes an IPv4 address from its word in network order.
    #[inline(always)]
    pub const fn from_v4_be(word_be: u32) -> Self {
        Self {
            words_be: [0, 0, V4_MARK_BE, word_be],
        }
    }

    /// Makes an IPv6 or mapped address from its words in network order.
    #[inline(always)]
    pub const fn from_v6_be(words_be: [u32; 4]) -> Self {
        Self { words_be }
    }

    /// Returns the four words in network order.
    #[inline(always)]
    pub const fn v6_be(&self) -> [u32; 4] {
        self.words_be
    }

    /// Returns the word of an IPv4 address in network order. Meaningless for an IPv6 address.
    #[inline(always)]
    pub const fn v4_be(&self) -> u32 {
        self.words_be[3]
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.words_be[0] | self.words_be[1] == 0 && self.words_be[2] == V4_MARK_BE
    }

    /// Whether this is in 127.0.0.0/8 or is ::1.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            self.v4_host() >> 24 == 127
        } else {
            self.is_v6_tail(1)
        }
    }

    /// Whether this is 0.0.0.0 or ::, which a connect takes for loopback.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        if self.is_v4() {
            self.words_be[3] == 0
        } else {
            self.is_v6_tail(0)
        }
    }

    /// Whether this is in fe80::/10.
    #[inline(always)]
    pub const fn is_link_local_v6(&self) -> bool {
        u32::from_be(self.words_be[0]) >> 22 == 0xfe80 >> 6
    }

    /// Whether this is an IPv4 address in the /16 whose first two octets are `range`.
    #[inline(always)]
    pub const fn in_v4_range(&self, range: [u8; 2]) -> bool {
        self.is_v4() && self.v4_host() >> 16 == (range[0] as u32) << 8 | range[1] as u32
    }

    #[inline(always)]
    const fn v4_host(&self) -> u32 {
        u32::from_be(self.words_be[3])
    }

    #[inline(always)]
    const fn is_v6_tail(&self, last: u32) -> bool {
        self.words_be[0] | self.words_be[1] | self.words_be[2] == 0
            && self.words_be[3] == last.to_be()
    }
}

/// An address and a port.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressPort {
    /// The address.
    pub address: Address,
    /// The port, in host order.
    pub port: u16,
    /// Zero; part of keys.
    pub zero: u16,
}
assert_size!(AddressPort, 20);

impl AddressPort {
    /// No address, no port.
    pub const UNSPECIFIED: Self = Self::new(Address::UNSPECIFIED, 0);

    /// Joins an address and a port in host order.
    #[inline(always)]
    pub const fn new(address: Address, port: u16) -> Self {
        Self {
            address,
            port,
            zero: 0,
        }
    }
}

/// The four-tuple of a TCP connection.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FourTuple {
    /// The end that dialled.
    pub client: AddressPort,
    /// The end that was dialled.
    pub server: AddressPort,
}
assert_size!(FourTuple, 40);

#[cfg(feature = "user")]
mod std_conversions {
    use std::fmt;
    use std::net::{IpAddr, Ipv6Addr, SocketAddr};

    use super::{Address, AddressPort, FourTuple};

    impl Address {
        /// Returns the sixteen octets.
        pub fn octets(&self) -> [u8; 16] {
            let mut octets = [0; 16];
            for (chunk, word_be) in octets.chunks_exact_mut(4).zip(self.v6_be()) {
                chunk.copy_from_slice(&word_be.to_ne_bytes());
            }
            octets
        }
    }

    impl From<[u8; 16]> for Address {
        fn from(octets: [u8; 16]) -> Self {
            let word = |n: usize| {
                u32::from_ne_bytes([octets[n], octets[n + 1], octets[n + 2], octets[n + 3]])
            };
            Self::from_v6_be([word(0), word(4), word(8), word(12)])
        }
    }

    impl From<IpAddr> for Address {
        fn from(ip: IpAddr) -> Self {
            match ip {
                IpAddr::V4(v4) => Self::v4(v4.octets()),
                IpAddr::V6(v6) => Self::from(v6.octets()),
            }
        }
    }

    impl From<Address> for IpAddr {
        fn from(address: Address) -> Self {
            Ipv6Addr::from(address.octets()).to_canonical()
        }
    }

    impl From<SocketAddr> for AddressPort {
        fn from(addr: SocketAddr) -> Self {
            Self::new(addr.ip().into(), addr.port())
        }
    }

    impl From<AddressPort> for SocketAddr {
        fn from(endpoint: AddressPort) -> Self {
            Self::new(endpoint.address.into(), endpoint.port)
        }
    }

    impl fmt::Debug for Address {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            IpAddr::from(*self).fmt(f)
        }
    }

    impl fmt::Debug for AddressPort {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            SocketAddr::from(*self).fmt(f)
        }
    }

    impl fmt::Debug for FourTuple {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{:?} -> {:?}", self.client, self.server)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn address(text: &str) -> Address {
            text.parse::<IpAddr>()
                .unwrap_or_else(|e| panic!("{text}: {e}"))
                .into()
        }

        #[test]
        fn mapped_and_plain_ipv4_are_one_key() {
            assert_eq!(address("::ffff:10.1.2.3"), address("10.1.2.3"));
            assert!(address("10.1.2.3").is_v4());
            assert!(!address("fd00::1").is_v4());
        }

        #[test]
        fn special_addresses() {
            for loopback in ["127.0.0.1", "127.77.1.2", "::1", "::ffff:127.0.0.1"] {
                assert!(address(loopback).is_loopback(), "{loopback}");
            }
            for unspecified in ["0.0.0.0", "::", "::ffff:0.0.0.0"] {
                assert!(address(unspecified).is_unspecified(), "{unspecified}");
            }
            for other in ["10.0.0.1", "fe80::1", "::2", "1::1"] {
                assert!(!address(other).is_loopback() && !address(other).is_unspecified());
            }
            assert!(address("fe80::1").is_link_local_v6());
            assert!(!address("fec0::1").is_link_local_v6());
            assert!(address("127.77.9.9").in_v4_range(crate::DELIVERY_RANGE));
            assert!(!address("127.78.9.9").in_v4_range(crate::DELIVERY_RANGE));
        }
    }
}
