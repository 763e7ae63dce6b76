//! What an address and port are to a connection. Each has a type of its own, so that one cannot be passed
//! for another.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ambit_common::AddressPort;

/// The direction of a connection, as the pod sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// To the pod.
    Inbound,
    /// From the pod.
    Outbound,
}

impl Direction {
    /// The word that logs, events and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// Defines an address and port in one role.
macro_rules! address_role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub struct $name(pub SocketAddr);

        impl $name {
            /// The IP address.
            pub const fn ip(self) -> IpAddr {
                self.0.ip()
            }

            /// The port.
            pub const fn port(self) -> u16 {
                self.0.port()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$name> for AddressPort {
            fn from(address: $name) -> Self {
                address.0.into()
            }
        }
    };
}

address_role! {
    /// The address from which a caller dialled. Policy uses the IP address and not the port, which is 0 if
    /// it is not known.
    CallerAddress
}

address_role! {
    /// The address of a pod's application: one of the pod's own IP addresses, and the application's port.
    ApplicationAddress
}

address_role! {
    /// The address to which an application wanted to connect, before the connect hook rewrote it.
    OriginalDestination
}
