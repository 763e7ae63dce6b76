//! Which addresses are fetched from.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether packets to an address stay on this node, as its routes are now.
pub type IsLocal = fn(IpAddr) -> io::Result<bool>;

/// Where clouds tell a machine its credentials, besides link-local addresses. The node reaches them,
/// and its pods often do not.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// The prefix under which a gateway makes IPv4 of IPv6 (RFC 6052, section 2.1).
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// Which addresses may be asked. Whoever may write a policy in some namespace has the node send a
/// request to a URL, and the node reaches more than a pod does. What it reaches of the mesh is no
/// question of addresses: the kernel takes the agent for a stranger there.
#[derive(Clone, Copy, Debug)]
pub enum FetchableAddresses {
    /// None of the node itself, none of its link, and none of a cloud's metadata.
    Routable(IsLocal),
    /// All.
    Any,
}

impl FetchableAddresses {
    /// # Errors
    /// Where it cannot be told whether the address is the node's own, or no route leads to it.
    pub(super) fn admits(self, address: IpAddr) -> io::Result<bool> {
        match self {
            Self::Any => Ok(true),
            Self::Routable(is_local) => {
                let address = address.to_canonical();
                Ok(is_routable(address) && !is_local(address)?)
            }
        }
    }
}

fn is_routable(address: IpAddr) -> bool {
    let is_special = match address {
        IpAddr::V4(address) => {
            address.is_link_local() || address.is_broadcast() || address.octets()[0] == 0
        }
        IpAddr::V6(address) => {
            let carries_special = |inner: Ipv4Addr| !is_routable(inner.into());
            address.is_unicast_link_local() || embedded(address).is_some_and(carries_special)
        }
    };
    let is_local = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    !is_special && !is_local && !METADATA.contains(&address)
}

/// The IPv4 address that a gateway makes of this one.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [prefix @ .., high, low] = address.segments();
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    (prefix == NAT64).then(|| Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_does_not_reach_the_node_or_its_link() {
        let is_own = |address: IpAddr| Ok(address == IpAddr::from([192, 168, 0, 7]));
        let routable = FetchableAddresses::Routable(is_own);
        let admitted = |text: &str| {
            let address = text.parse().expect("an address");
            routable.admits(address).expect("told")
        };
        for text in [
            "10.0.0.1",
            "192.168.0.1",
            "1.1.1.1",
            "fd00::1",
            "2001:db8::1",
            "64:ff9b::1.1.1.1",
        ] {
            assert!(admitted(text), "{text}");
        }
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "255.255.255.255",
            "224.0.0.1",
            "192.168.0.7",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:192.168.0.7",
            "64:ff9b::169.254.169.254",
            "64:ff9b::127.0.0.1",
        ] {
            assert!(!admitted(text), "{text}");
            let any = FetchableAddresses::Any.admits(text.parse().expect("an address"));
            assert!(any.expect("told"));
        }
    }

    #[test]
    fn an_address_about_which_nothing_is_known_is_not_asked() {
        let unknown = FetchableAddresses::Routable(|_| Err(io::ErrorKind::Other.into()));
        assert!(unknown.admits(IpAddr::from([10, 0, 0, 1])).is_err());
        let link_local = unknown.admits(IpAddr::from([169, 254, 169, 254]));
        assert!(!link_local.expect("needs no route"));
    }
}
