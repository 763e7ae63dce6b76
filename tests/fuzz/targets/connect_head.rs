//! The head of a request that came through a tunnel: whatever it contains, it leads to the pod at this
//! end of the tunnel, for the caller at the other end.

#![no_main]

use std::net::SocketAddr;

use ambit_fuzz::ensure_linear;
use ambit_proxy::connect_target;
use arbitrary::Arbitrary;
use http::{Method, Request, Uri};
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
    ensure_linear(head.forwarded, |value| {
        let request = Request::connect("10.0.0.2:80")
            .header("forwarded", value)
            .body(());
        let request = request.ok()?;
        connect_target(&request, source, reached, |port| port == AGENTS_PORT).ok()
    });
    let Ok(uri) = Uri::builder().authority(head.authority).build() else {
        return;
    };
    let method = if head.is_connect {
        Method::CONNECT
    } else {
        Method::GET
    };
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header("forwarded", head.forwarded)
        .body(());
    let Ok(request) = request else { return };
    if let Ok(target) = connect_target(&request, source, reached, |port| port == AGENTS_PORT) {
        assert!(head.is_connect);
        assert_eq!(target.to.ip(), reached.ip());
        assert_eq!(target.caller.ip(), source.ip());
        assert_ne!(target.to.port(), 0);
        assert_ne!(target.to.port(), AGENTS_PORT);
    }
});
