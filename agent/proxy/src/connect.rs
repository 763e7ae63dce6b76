//! What the head of an inbound request asks for: a pure decision about bytes from outside.

use std::net::SocketAddr;

use http::{Method, Request};

use super::authority::{AuthorityError, caller_address, delivery_address};
use super::hbone::parse_forwarded;

/// Where a CONNECT leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectTarget {
    /// The pod's address, and the application's port.
    pub to: SocketAddr,
    /// The caller, as the application is to see it. Its port is 0 where the peer does not tell it.
    pub caller: SocketAddr,
}

/// Why a request is no CONNECT to this pod: answered with 400.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConnectError {
    /// It has another method.
    #[error("the method {0} is not CONNECT")]
    NotConnect(Method),
    /// It names a protocol (RFC 8441).
    #[error("an extended CONNECT is no tunnel")]
    Extended,
    /// Its authority is something else, or missing.
    #[error("the authority {0:?} is not an address and port")]
    NotAnAddress(Option<String>),
    /// Its authority is not this pod's.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// Reads a request's head that came through a tunnel from `source` to the pod's address `reached`;
/// `is_agents` tells the agent's own ports in the pod. No header gives an address: see
/// [`ConnectTarget::caller`].
///
/// # Errors
/// [`ConnectError`].
pub fn connect_target<B>(
    request: &Request<B>,
    source: SocketAddr,
    reached: SocketAddr,
    is_agents: impl Fn(u16) -> bool,
) -> Result<ConnectTarget, ConnectError> {
    if request.method() != Method::CONNECT {
        return Err(ConnectError::NotConnect(request.method().clone()));
    }
    if request.extensions().get::<h2::ext::Protocol>().is_some() {
        return Err(ConnectError::Extended);
    }
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let named: SocketAddr = authority
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| ConnectError::NotAnAddress(authority.map(str::to_owned)))?;
    let to = delivery_address(named, reached, is_agents)?;
    let forwarded = request.headers().get(http::header::FORWARDED);
    let forwarded = forwarded.and_then(|value| parse_forwarded(value.as_bytes()));
    Ok(ConnectTarget {
        to,
        caller: caller_address(source, forwarded),
    })
}
