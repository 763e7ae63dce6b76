//! The lab's addresses. All of them are inside the lab's own network namespaces, so concurrent labs do
//! not conflict.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The Pod and Service ranges, as arguments of `ambit run`.
pub(crate) const MESH_CIDRS: [&str; 6] = [
    "10.78.1.0/24",
    "10.78.2.0/24",
    "10.78.100.0/24",
    "fd78:0:0:1::/64",
    "fd78:0:0:2::/64",
    "fd78:0:0:100::/64",
];

/// Host part of a node's address on each of its pods' links.
pub(crate) const GATEWAY: u8 = 1;

const SERVICES: u16 = 100;

/// One of the lab's two nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeName {
    /// `node-a`.
    A,
    /// `node-b`.
    B,
}

impl NodeName {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The name that `spec.nodeName` has.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "node-a",
            Self::B => "node-b",
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::B => 2,
        }
    }

    /// On the link between the nodes; outside the mesh.
    pub fn link_addresses(self) -> Addresses {
        Addresses::in_subnet(0, self.number() as u8)
    }

    /// Of a pod of this node, or of the node towards its pods ([`GATEWAY`]).
    pub(crate) fn pod_addresses(self, host: u8) -> Addresses {
        Addresses::in_subnet(self.number(), host)
    }

    /// The range of this node's pods.
    pub(crate) fn pod_range(self, family: Family) -> String {
        let base = Addresses::in_subnet(self.number(), 0).of(family);
        match family {
            Family::V4 => format!("{base}/24"),
            Family::V6 => format!("{base}/64"),
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The range of all addresses.
    pub(crate) fn everything(self) -> &'static str {
        match self {
            Self::V4 => "0.0.0.0/0",
            Self::V6 => "::/0",
        }
    }
}

/// One address of each family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Addresses {
    fn in_subnet(subnet: u16, host: u8) -> Self {
        // The same digits in both families, so that readers recognize them.
        let digits = subnet / 100 * 0x100 + subnet % 100 / 10 * 0x10 + subnet % 10;
        Self {
            v4: Ipv4Addr::new(10, 78, subnet as u8, host),
            v6: Ipv6Addr::new(0xfd78, 0, 0, digits, 0, 0, 0, host.into()),
        }
    }

    /// A Service's.
    pub(crate) fn of_service(host: u8) -> Self {
        Self::in_subnet(SERVICES, host)
    }

    /// The one of this family.
    pub fn of(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// Both as text, IPv4 first.
    pub(crate) fn texts(&self) -> [String; 2] {
        Family::ALL.map(|family| self.of(family).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_show_the_same_digits() {
        let service = Addresses::of_service(30);
        assert_eq!(service.texts(), ["10.78.100.30", "fd78:0:0:100::1e"]);
        let pod = NodeName::B.pod_addresses(11);
        assert_eq!(pod.texts(), ["10.78.2.11", "fd78:0:0:2::b"]);
        assert_eq!(NodeName::A.pod_range(Family::V6), "fd78:0:0:1::/64");
    }
}
