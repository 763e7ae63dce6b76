//! The endpoints and the path of a measurement.

use std::fmt;
use std::net::IpAddr;

use ambit_tests::Place;

/// What carries a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Path {
    /// The network alone.
    Direct,
    /// Two plain TCP relays.
    Relays,
    /// Two of a peer's proxies.
    Peer,
    /// The agents.
    Ambit,
}

/// How far it goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Span {
    /// To another node.
    TwoNodes,
    /// To a pod on the same node.
    OneNode,
}

impl Span {
    pub(super) const ALL: [Self; 2] = [Self::TwoNodes, Self::OneNode];
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Relays => "relays",
            Self::Peer => "peer",
            Self::Ambit => "Ambit",
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TwoNodes => "two nodes",
            Self::OneNode => "one node",
        })
    }
}

/// The endpoints of a measurement.
pub(super) struct Stretch<'a> {
    pub(super) from: &'a Place,
    pub(super) to: IpAddr,
}
