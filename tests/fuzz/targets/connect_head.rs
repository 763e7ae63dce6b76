//! The head of a tunnel's CONNECT. Whatever it says, it leads to the pod that the tunnel reached, for
//! the caller at the tunnel's other end.

#![no_main]

use std::net::SocketAddr;

use ambit_fuzz::ensure_linear;
use ambit_proxy::{TunnelAddresses, connect_target};
use ambit_tunnel::RequestHead;
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

const AGENTS_PORT: u16 = 15008;

#[derive(Arbitrary, Debug)]
struct Head<'a> {
    is_connect: bool,
    authority: &'a str,
    forwarded: &'a [u8],
    is_ipv6: bool,
}

fuzz_target!(|head: Head<'_>| {
    let (source, reached): (SocketAddr, SocketAddr) = if head.is_ipv6 {
        (
            ([0xfd00, 0, 0, 0, 0, 0, 0, 1], 40_000).into(),
            ([0xfd00, 0, 0, 0, 0, 0, 0, 2], 15008).into(),
        )
    } else {
        (
            ([10, 0, 0, 1], 40_000).into(),
            ([10, 0, 0, 2], 15008).into(),
        )
    };
    let tunnel = TunnelAddresses { source, reached };
    let request = |authority: &str, forwarded: &[u8]| RequestHead {
        method: if head.is_connect { "CONNECT" } else { "GET" }.to_owned(),
        authority: Some(authority.to_owned()),
        protocol: None,
        forwarded: Some(forwarded.to_vec()),
    };
    let target =
        |request: &RequestHead| connect_target(request, tunnel, |port| port == AGENTS_PORT);
    ensure_linear(head.forwarded, |value| {
        target(&request("10.0.0.2:80", value)).ok()
    });
    if let Ok(target) = target(&request(head.authority, head.forwarded)) {
        assert!(head.is_connect);
        assert_eq!(target.to.ip(), reached.ip());
        assert_eq!(target.caller.ip(), source.ip());
        assert_ne!(target.to.port(), 0);
        assert_ne!(target.to.port(), AGENTS_PORT);
    }
});
