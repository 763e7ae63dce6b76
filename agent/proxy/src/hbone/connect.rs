//! What a CONNECT on a tunnel asks for: its target, and the caller that the application is to see. Pure
//! decisions about bytes from outside.

use std::net::{IpAddr, SocketAddr};

use ambit_tunnel::RequestHead;

use crate::connection::canonical;
use ambit_model::{ApplicationAddress, CallerAddress};

/// The addresses of a tunnel's TCP connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TunnelAddresses {
    /// The peer's address: that of the calling pod.
    pub source: SocketAddr,
    /// The address that the tunnel reached: one of the pod's own.
    pub reached: SocketAddr,
}

/// Where a CONNECT leads, and for whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectTarget {
    /// The application to deliver to.
    pub to: ApplicationAddress,
    /// The caller as the application is to see it. Its port is 0 if the peer does not send it.
    pub caller: CallerAddress,
}

/// Why a request on a tunnel is not a CONNECT to this pod. The answer is 400.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConnectRequestError {
    /// It has another method.
    #[error("the method {0} is not CONNECT")]
    NotConnect(String),
    /// It names a protocol (RFC 8441).
    #[error("an extended CONNECT does not open a tunnel")]
    Extended,
    /// Its authority is something else, or missing.
    #[error("the authority {0:?} is not an address and port")]
    NotAnAddress(Option<String>),
    /// It names a pod address other than the one that the tunnel reached.
    #[error("the CONNECT names {named}, but its tunnel came to {reached}")]
    OtherAddress {
        /// The address that it names.
        named: IpAddr,
        /// The address that the tunnel reached.
        reached: IpAddr,
    },
    /// It names a port of the agent.
    #[error("the CONNECT names port {0}, which is the agent's in this pod")]
    AgentPort(u16),
    /// It names port 0.
    #[error("the CONNECT names port 0")]
    NoPort,
}

/// Reads the head of a request that came through a tunnel. `is_agents` returns whether a port is one of
/// the agent's own in the pod. No header gives an address: see [`ConnectTarget::caller`].
///
/// # Errors
/// [`ConnectRequestError`].
pub fn connect_target(
    request: &RequestHead,
    tunnel: TunnelAddresses,
    is_agents: impl Fn(u16) -> bool,
) -> Result<ConnectTarget, ConnectRequestError> {
    if request.method != "CONNECT" {
        return Err(ConnectRequestError::NotConnect(request.method.clone()));
    }
    if request.protocol.is_some() {
        return Err(ConnectRequestError::Extended);
    }
    let authority = request.authority.as_deref();
    let named: SocketAddr = authority
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| ConnectRequestError::NotAnAddress(authority.map(str::to_owned)))?;
    let to = delivery_address(named, tunnel.reached, is_agents)?;
    let forwarded = request.forwarded.as_deref().and_then(parse_forwarded);
    Ok(ConnectTarget {
        to,
        caller: caller_address(tunnel.source, forwarded),
    })
}

/// Returns the address to deliver to: the one that the CONNECT names, which has to be the pod address
/// that the tunnel itself reached.
///
/// # Errors
/// [`ConnectRequestError`] for another address, port 0, or a port of the agent in this pod.
fn delivery_address(
    named: SocketAddr,
    reached: SocketAddr,
    is_agents: impl Fn(u16) -> bool,
) -> Result<ApplicationAddress, ConnectRequestError> {
    let to = canonical(named);
    let reached = reached.ip().to_canonical();
    if to.ip() != reached {
        return Err(ConnectRequestError::OtherAddress {
            named: to.ip(),
            reached,
        });
    }
    match to.port() {
        0 => Err(ConnectRequestError::NoPort),
        port if is_agents(port) => Err(ConnectRequestError::AgentPort(port)),
        _ => Ok(ApplicationAddress(to)),
    }
}

/// Returns the caller as the application is to see it: the tunnel's TCP source, with the port that the
/// peer forwards if that is for the same address, else port 0.
fn caller_address(tunnel: SocketAddr, forwarded: Option<SocketAddr>) -> CallerAddress {
    let source = tunnel.ip().to_canonical();
    let port = forwarded
        .map(canonical)
        .filter(|claimed| claimed.ip() == source)
        .map_or(0, |claimed| claimed.port());
    CallerAddress(SocketAddr::new(source, port))
}

/// Returns the value of the `forwarded` header (RFC 7239) that tells a caller's port.
pub(super) fn forwarded_for(caller: CallerAddress) -> String {
    format!("for=\"{caller}\"")
}

/// Reads the first `for` of a `forwarded` header. `None` for anything that is not an address and port: a
/// malformed header never hurts the connection.
fn parse_forwarded(value: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(value).ok()?;
    let element = text.split(',').next()?;
    let parameter = element.split(';').map(str::trim).find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    })?;
    parameter.trim_matches('"').parse().ok()
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
    fn a_connect_to_the_address_that_the_tunnel_reached_is_delivered() {
        for (named, reached) in [
            ("10.1.0.2:8080", "10.1.0.2:15008"),
            ("[::ffff:10.1.0.2]:8080", "10.1.0.2:15008"),
            ("10.1.0.2:8080", "[::ffff:10.1.0.2]:15008"),
        ] {
            let to = delivery_address(at(named), at(reached), agents).expect("its own address");
            assert_eq!(to, ApplicationAddress(at("10.1.0.2:8080")));
        }
        let to = delivery_address(at("[fd00::2]:80"), at("[fd00::2]:15008"), agents);
        assert_eq!(to, Ok(ApplicationAddress(at("[fd00::2]:80"))));
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
                matches!(refused, Err(ConnectRequestError::OtherAddress { .. })),
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
            assert_eq!(refused, Err(ConnectRequestError::AgentPort(port)));
        }
        let refused = delivery_address(at("10.1.0.2:0"), reached, agents);
        assert_eq!(refused, Err(ConnectRequestError::NoPort));
    }

    #[test]
    fn a_forwarded_port_counts_only_for_the_tunnels_own_source() {
        let tunnel = at("10.1.0.9:43210");
        let caller = |forwarded: Option<&str>| caller_address(tunnel, forwarded.map(at)).0;
        assert_eq!(caller(Some("10.1.0.9:5555")), at("10.1.0.9:5555"));
        assert_eq!(caller(Some("[::ffff:10.1.0.9]:5555")), at("10.1.0.9:5555"));
        for elsewhere in [Some("10.1.0.8:5555"), Some("127.0.0.1:5555"), None] {
            assert_eq!(caller(elsewhere), at("10.1.0.9:0"), "{elsewhere:?}");
        }
    }

    #[test]
    fn the_forwarded_header_is_read_as_it_is_written() {
        for caller in ["10.1.2.3:4567", "[fd00::1]:80"] {
            let caller: SocketAddr = caller.parse().unwrap();
            assert_eq!(
                parse_forwarded(forwarded_for(CallerAddress(caller)).as_bytes()),
                Some(caller)
            );
        }
    }

    #[test]
    fn a_forwarded_header_of_another_form_is_ignored() {
        for value in [
            "",
            "for",
            "for=",
            "for=_hidden",
            "for=\"10.1.2.3\"",
            "by=\"1.2.3.4:5\"",
            "\u{fffd}",
        ] {
            assert_eq!(parse_forwarded(value.as_bytes()), None, "{value:?}");
        }
        assert_eq!(parse_forwarded(&[0xff, 0xfe]), None);
        let first = parse_forwarded(b"proto=http; FOR=\"10.1.2.3:4\", for=\"10.9.9.9:9\"");
        assert_eq!(first, Some("10.1.2.3:4".parse().unwrap()));
    }
}
