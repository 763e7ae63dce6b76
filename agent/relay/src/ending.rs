//! Who ended a connection, and how.

use std::io;

/// One of the two applications that a connection connects.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Party {
    /// The one that opened the connection.
    Client,
    /// The one that accepted it.
    Server,
}

/// How a connection ended that was carried. Policy, caps and the removal of a pod are ends of their
/// own: they drop the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RelayEnd {
    /// Both directions ended in order.
    Orderly,
    /// This party closed its socket in order, and the other had nothing more to end.
    Closed(Party),
    /// This party reset the connection, or closed it while bytes were on their way to it.
    Reset(Party),
    /// The network between this party and the agent failed: nothing answers there any more.
    Lost(Party),
    /// This party took nothing for minutes, and nothing else kept the connection open.
    Stalled(Party),
    /// The agent on the other side ended the stream, with this HTTP/2 error code.
    StreamReset(u32),
    /// The tunnel to the other side's agent broke off.
    TunnelLost,
}

impl Party {
    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

impl RelayEnd {
    /// The end of a connection whose socket towards `party` failed with `error`.
    pub fn failed(party: Party, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown => Self::Lost(party),
            _ => Self::Reset(party),
        }
    }

    /// Whether all that was sent has arrived, and both applications saw the end in order.
    pub const fn is_orderly(self) -> bool {
        match self {
            Self::Orderly | Self::Closed(_) => true,
            Self::Reset(_)
            | Self::Lost(_)
            | Self::Stalled(_)
            | Self::StreamReset(_)
            | Self::TunnelLost => false,
        }
    }

    /// The word that logs and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Orderly => "orderly",
            Self::Closed(Party::Client) => "closed-by-client",
            Self::Closed(Party::Server) => "closed-by-server",
            Self::Reset(Party::Client) => "reset-by-client",
            Self::Reset(Party::Server) => "reset-by-server",
            Self::Lost(Party::Client) => "client-lost",
            Self::Lost(Party::Server) => "server-lost",
            Self::Stalled(Party::Client) => "client-stalled",
            Self::Stalled(Party::Server) => "server-stalled",
            Self::StreamReset(_) => "stream-reset",
            Self::TunnelLost => "tunnel-lost",
        }
    }

    /// The HTTP/2 error code with which the other agent ended the stream.
    pub const fn error_code(self) -> Option<u32> {
        match self {
            Self::StreamReset(code) => Some(code),
            Self::Orderly
            | Self::Closed(_)
            | Self::Reset(_)
            | Self::Lost(_)
            | Self::Stalled(_)
            | Self::TunnelLost => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_fails_is_told_from_a_reset() {
        let end = |errno| RelayEnd::failed(Party::Server, &io::Error::from_raw_os_error(errno));
        assert_eq!(end(104).as_str(), "reset-by-server"); // ECONNRESET
        assert_eq!(end(32).as_str(), "reset-by-server"); // EPIPE
        assert_eq!(end(110).as_str(), "server-lost"); // ETIMEDOUT
        assert_eq!(end(113).as_str(), "server-lost"); // EHOSTUNREACH
    }
}
