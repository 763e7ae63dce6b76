//! The endpoints and the path of a measurement.

use std::fmt;
use std::net::IpAddr;

use ambit_tests::Place;

/// Whether a connection goes through the mesh.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Path {
    /// Without it.
    Direct,
    /// Through it.
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

impl Path {
    pub(super) const ALL: [Self; 2] = [Self::Direct, Self::Ambit];
}

impl Span {
    pub(super) const ALL: [Self; 2] = [Self::TwoNodes, Self::OneNode];
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
