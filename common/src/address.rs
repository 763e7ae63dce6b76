use crate::assert_size;

/// An IP address in the one form that every map uses: IPv6, with IPv4 as `::ffff:a.b.c.d`.
///
/// Dual-stack sockets show IPv4 peers in the mapped form; with one form there is one key.
#[repr(C, align(4))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(pub [u8; 16]);
assert_size!(Address, 16);

impl Address {
    /// `::`, which stands for "no address".
    pub const UNSPECIFIED: Self = Self([0; 16]);

    /// An IPv4 address from its octets.
    #[inline(always)]
    pub const fn v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let b = &self.0;
        b[0] | b[1] | b[2] | b[3] | b[4] | b[5] | b[6] | b[7] | b[8] | b[9] == 0
            && b[10] & b[11] == 0xff
    }

    /// The IPv4 octets; meaningful only where [`Address::is_v4`].
    #[inline(always)]
    pub const fn v4_octets(&self) -> [u8; 4] {
        [self.0[12], self.0[13], self.0[14], self.0[15]]
    }

    /// 127.0.0.0/8 or ::1.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            self.0[12] == 127
        } else {
            self.is_v6_tail(1)
        }
    }

    /// 0.0.0.0 or ::, which a connect takes for loopback.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        if self.is_v4() {
            self.0[12] | self.0[13] | self.0[14] | self.0[15] == 0
        } else {
            self.is_v6_tail(0)
        }
    }

    /// fe80::/10.
    #[inline(always)]
    pub const fn is_link_local_v6(&self) -> bool {
        self.0[0] == 0xfe && self.0[1] & 0xc0 == 0x80
    }

    /// Whether this IPv4 address lies in a /16 given by its first two octets.
    #[inline(always)]
    pub const fn in_v4_range(&self, range: [u8; 2]) -> bool {
        self.is_v4() && self.0[12] == range[0] && self.0[13] == range[1]
    }

    #[inline(always)]
    const fn is_v6_tail(&self, last: u8) -> bool {
        let b = &self.0;
        b[0] | b[1] | b[2] | b[3] | b[4] | b[5] | b[6] | b[7] == 0
            && b[8] | b[9] | b[10] | b[11] | b[12] | b[13] | b[14] == 0
            && b[15] == last
    }
}

/// An address and a port.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address, in the one form.
    pub address: Address,
    /// The port, in host order.
    pub port: u16,
    /// Zero: part of keys.
    pub zero: u16,
}
assert_size!(Endpoint, 20);

impl Endpoint {
    /// No address, no port.
    pub const UNSPECIFIED: Self = Self::new(Address::UNSPECIFIED, 0);

    /// An endpoint; `port` in host order.
    #[inline(always)]
    pub const fn new(address: Address, port: u16) -> Self {
        Self {
            address,
            port,
            zero: 0,
        }
    }
}

/// A TCP connection's four-tuple, seen from its client.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Connection {
    /// Who dialled.
    pub client: Endpoint,
    /// Who was dialled.
    pub server: Endpoint,
}
assert_size!(Connection, 40);

#[cfg(feature = "user")]
mod std_conversions {
    use std::fmt;
    use std::net::{IpAddr, Ipv6Addr, SocketAddr};

    use super::{Address, Connection, Endpoint};

    impl From<IpAddr> for Address {
        fn from(ip: IpAddr) -> Self {
            match ip {
                IpAddr::V4(v4) => Self::v4(v4.octets()),
                IpAddr::V6(v6) => Self(v6.octets()),
            }
        }
    }

    impl From<Address> for IpAddr {
        fn from(address: Address) -> Self {
            Ipv6Addr::from(address.0).to_canonical()
        }
    }

    impl From<SocketAddr> for Endpoint {
        fn from(addr: SocketAddr) -> Self {
            Self::new(addr.ip().into(), addr.port())
        }
    }

    impl From<Endpoint> for SocketAddr {
        fn from(endpoint: Endpoint) -> Self {
            Self::new(endpoint.address.into(), endpoint.port)
        }
    }

    impl fmt::Debug for Address {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            IpAddr::from(*self).fmt(f)
        }
    }

    impl fmt::Debug for Endpoint {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            SocketAddr::from(*self).fmt(f)
        }
    }

    impl fmt::Debug for Connection {
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
