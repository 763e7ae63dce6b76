//! Which address a CONNECT may name: pure decisions.

use std::net::{IpAddr, SocketAddr};

/// Why a CONNECT's target is refused: answered with 400.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AuthorityError {
    /// It names another pod than the one that the tunnel reached.
    #[error("the CONNECT names {named}, but its tunnel came to {reached}")]
    OtherAddress {
        /// What it names.
        named: IpAddr,
        /// Where the tunnel came to.
        reached: IpAddr,
    },
    /// It names a port of the agent.
    #[error("the CONNECT names port {0}, which is the agent's in this pod")]
    AgentPort(u16),
    /// It names port 0.
    #[error("the CONNECT names port 0")]
    NoPort,
}

/// The address to deliver to: what the CONNECT names, which has to be the pod address that the
/// tunnel itself came to.
///
/// # Errors
/// [`AuthorityError`] for another address, port 0, or a port of the agent's in this pod.
pub(crate) fn delivery_address(
    named: SocketAddr,
    reached: SocketAddr,
    is_agents: impl Fn(u16) -> bool,
) -> Result<SocketAddr, AuthorityError> {
    let to = canonical(named);
    let reached = reached.ip().to_canonical();
    if to.ip() != reached {
        return Err(AuthorityError::OtherAddress {
            named: to.ip(),
            reached,
        });
    }
    match to.port() {
        0 => Err(AuthorityError::NoPort),
        port if is_agents(port) => Err(AuthorityError::AgentPort(port)),
        _ => Ok(to),
    }
}

/// The caller as the application is to see it: the tunnel's TCP source, with the port that the
/// peer forwards where it speaks of that same address, else port 0.
pub(crate) fn caller_address(tunnel: SocketAddr, forwarded: Option<SocketAddr>) -> SocketAddr {
    let source = tunnel.ip().to_canonical();
    let port = forwarded
        .map(canonical)
        .filter(|claimed| claimed.ip() == source)
        .map_or(0, |claimed| claimed.port());
    SocketAddr::new(source, port)
}

/// The address with an IPv4-mapped IPv6 address as IPv4.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("valid")
    }

    fn agents(port: u16) -> bool {
        [15001, 15008].contains(&port)
    }

    #[test]
    fn the_address_that_the_tunnel_came_to_is_delivered() {
        for (named, reached) in [
            ("10.1.0.2:8080", "10.1.0.2:15008"),
            ("[::ffff:10.1.0.2]:8080", "10.1.0.2:15008"),
            ("10.1.0.2:8080", "[::ffff:10.1.0.2]:15008"),
        ] {
            let to = delivery_address(at(named), at(reached), agents).expect("its own address");
            assert_eq!(to, at("10.1.0.2:8080"));
        }
        let to = delivery_address(at("[fd00::2]:80"), at("[fd00::2]:15008"), agents);
        assert_eq!(to, Ok(at("[fd00::2]:80")));
    }

    #[test]
    fn another_address_is_refused() {
        for named in [
            "10.1.0.3:8080",
            "127.0.0.1:8080",
            "0.0.0.0:8080",
            "[::1]:8080",
        ] {
            let refused = delivery_address(at(named), at("10.1.0.2:15008"), agents);
            assert!(
                matches!(refused, Err(AuthorityError::OtherAddress { .. })),
                "{named}"
            );
        }
    }

    #[test]
    fn the_agents_ports_and_port_0_are_refused() {
        let reached = at("10.1.0.2:15008");
        for port in [15001, 15008] {
            let named = SocketAddr::new(reached.ip(), port);
            let refused = delivery_address(named, reached, agents);
            assert_eq!(refused, Err(AuthorityError::AgentPort(port)));
        }
        let refused = delivery_address(at("10.1.0.2:0"), reached, agents);
        assert_eq!(refused, Err(AuthorityError::NoPort));
    }

    #[test]
    fn a_forwarded_port_counts_only_for_the_tunnels_own_source() {
        let tunnel = at("10.1.0.9:43210");
        let caller = |forwarded: Option<&str>| caller_address(tunnel, forwarded.map(at));
        assert_eq!(caller(Some("10.1.0.9:5555")), at("10.1.0.9:5555"));
        assert_eq!(caller(Some("[::ffff:10.1.0.9]:5555")), at("10.1.0.9:5555"));
        for elsewhere in [Some("10.1.0.8:5555"), Some("127.0.0.1:5555"), None] {
            assert_eq!(caller(elsewhere), at("10.1.0.9:0"), "{elsewhere:?}");
        }
    }
}
