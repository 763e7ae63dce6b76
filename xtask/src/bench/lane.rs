//! The pods of one path: one that calls, and one on each node that is called.

use std::fs;
use std::net::IpAddr;

use ambit_tests::{Family, Lab, Membership, NodeName, Pod, PodSpec};
use anyhow::Result;

use super::stretch::{Path, Span};

pub(super) struct Lane {
    pub(super) caller: Pod,
    pub(super) near: Pod,
    pub(super) far: Pod,
}

impl Lane {
    pub(super) fn build(lab: &Lab, path: Path) -> Result<Self> {
        let (namespace, membership, [caller, near, far]) = match path {
            Path::Direct => ("outside", Membership::None, ["dc", "dn", "df"]),
            Path::Relays => ("relayed", Membership::None, ["rc", "rn", "rf"]),
            Path::Peer => ("in-peer", Membership::None, ["pc", "pn", "pf"]),
            Path::Ambit => ("in-mesh", Membership::Ambient, ["mc", "mn", "mf"]),
        };
        lab.manifests().write_namespace(namespace, membership)?;
        let pod = |node, name| {
            let spec = PodSpec {
                namespace,
                ..PodSpec::named(name)
            };
            let pod = lab.add_pod(node, spec)?;
            lab.manifests().write_pod(&pod)?;
            fs::create_dir(lab.directory().join(name))?;
            anyhow::Ok(pod)
        };
        Ok(Self {
            caller: pod(NodeName::A, caller)?,
            near: pod(NodeName::A, near)?,
            far: pod(NodeName::B, far)?,
        })
    }

    pub(super) fn pods(&self) -> [&Pod; 3] {
        [&self.caller, &self.near, &self.far]
    }

    /// The address of the pod that is called.
    pub(super) fn called(&self, span: Span) -> IpAddr {
        let pod = match span {
            Span::TwoNodes => &self.far,
            Span::OneNode => &self.near,
        };
        pod.ip(Family::V4)
    }
}
