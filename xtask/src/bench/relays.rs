//! The plain relays: one beside each pod, as the agents are. Nothing redirects to them. The caller calls a
//! loopback address for each pod that is called.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use ambit_tests::{Lab, Process, Relay};
use anyhow::Result;

use super::lane::Lane;
use super::stretch::Span;
use super::tools::PORTS;

/// A relay beside a server listens on the server's port and this.
const ABOVE: u16 = 20_000;

/// The address that the caller calls.
pub(super) fn entrance(span: Span) -> IpAddr {
    let last = match span {
        Span::TwoNodes => 1,
        Span::OneNode => 2,
    };
    Ipv4Addr::new(127, 0, 0, last).into()
}

/// Starts the relays of the caller, the near and the far pod.
pub(super) fn start(lab: &Lab, lane: &Lane, program: &Path) -> Result<[Process; 3]> {
    let start = |pod: &ambit_tests::Pod, routes: &[(SocketAddr, SocketAddr)]| {
        Relay { program, routes }.start(lab, pod.place())
    };
    let beside = |span| {
        let ip = lane.called(span);
        PORTS.map(|port| ((ip, port + ABOVE).into(), (ip, port).into()))
    };
    let outwards = Span::ALL.map(|span| {
        let ip = lane.called(span);
        PORTS.map(|port| ((entrance(span), port).into(), (ip, port + ABOVE).into()))
    });
    Ok([
        start(&lane.caller, outwards.as_flattened())?,
        start(&lane.near, &beside(Span::OneNode))?,
        start(&lane.far, &beside(Span::TwoNodes))?,
    ])
}
