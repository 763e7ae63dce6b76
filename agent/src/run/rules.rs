//! Which connections that no proxy carries may go on.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ambit_common::MeshClass;
use ipnet::IpNet;

use ambit_datapath::PassedRules;
use ambit_model::{ApplicationAddress, CallerAddress, Workload};
use ambit_policy::{ConnectionAttributes, ConnectionVerdict, WorkloadPolicies};

/// The rules for one pod under one view of the mesh.
pub(super) struct PodRules<'a> {
    pub(super) workload: &'a Workload,
    pub(super) policies: Arc<WorkloadPolicies>,
    /// The kernel's table of destinations.
    pub(super) classes: &'a [(IpNet, MeshClass)],
    /// The node's own addresses, from which its probes come.
    pub(super) node: &'a BTreeSet<IpAddr>,
    pub(super) occasion: SweepOccasion,
}

/// Why connections are judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SweepOccasion {
    /// The pod has just been enrolled: what it has with the mesh is older, and no tunnel.
    Enrolment,
    /// Policies or objects changed.
    Change,
}

impl PassedRules for PodRules<'_> {
    fn may_leave(&self, peer: IpAddr) -> bool {
        !self.is_mesh(peer)
    }

    fn may_enter(&self, caller: CallerAddress, called: ApplicationAddress) -> bool {
        let (source, destination) = (caller.0, called.0);
        if self.occasion == SweepOccasion::Enrolment && self.is_mesh(source.ip()) {
            return false;
        }
        self.is_probe(source, destination) || self.is_allowed(source, destination)
    }
}

/// The rules for a pod that is kept closed: nothing goes on with the mesh, and nothing that others
/// opened.
pub(super) struct ClosedRules<'a> {
    /// The kernel's table of destinations.
    pub(super) classes: &'a [(IpNet, MeshClass)],
}

impl PassedRules for ClosedRules<'_> {
    fn may_leave(&self, peer: IpAddr) -> bool {
        !is_mesh(self.classes, peer)
    }

    fn may_enter(&self, _caller: CallerAddress, _called: ApplicationAddress) -> bool {
        false
    }
}

/// Whether the kernel sends connections to `peer` to the proxy.
fn is_mesh(classes: &[(IpNet, MeshClass)], peer: IpAddr) -> bool {
    let covering = classes.iter().filter(|(net, _)| net.contains(&peer));
    let longest = covering.max_by_key(|(net, _)| net.prefix_len());
    longest.is_some_and(|(_, class)| *class == MeshClass::Proxy)
}

impl PodRules<'_> {
    fn is_mesh(&self, peer: IpAddr) -> bool {
        is_mesh(self.classes, peer)
    }

    /// The kernel's attestation lasts for the handshake only. Afterwards the node's own address at
    /// a port declared for probes has to do: such a connection was judged when it was opened, and a
    /// probe is over in seconds.
    fn is_probe(&self, source: SocketAddr, destination: SocketAddr) -> bool {
        self.node.contains(&source.ip()) && self.workload.probe_ports.contains(&destination.port())
    }

    /// What has to be asked in userspace is carried by the proxy.
    fn is_allowed(&self, source: SocketAddr, destination: SocketAddr) -> bool {
        let connection = ConnectionAttributes {
            identity: None,
            source: source.ip(),
            destination,
        };
        let verdict = self.policies.judge_connection(&connection);
        matches!(verdict, ConnectionVerdict::Allow(_))
    }
}
