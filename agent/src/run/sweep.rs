//! Which connections that no proxy carries may go on.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ambit_common::MeshClass;
use ipnet::IpNet;

use super::pods::LocalPod;
use super::reconcile::Reconciler;
use ambit_datapath::netns::NetnsHandle;
use ambit_datapath::{PassedRules, close_passed};
use ambit_model::{ApplicationAddress, CallerAddress, Workload};
use ambit_policy::{ConnectionAttributes, ConnectionVerdict, MeshView, WorkloadPolicies};

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
    /// The pod has just been enrolled: its connections with the mesh are older, and not tunnels.
    Enrolment,
    /// Policies or objects changed.
    Change,
}

impl Reconciler {
    /// Closes the connections of a pod that no proxy carries and that policy does not allow to go on.
    pub(super) fn sweep(
        &self,
        view: &MeshView,
        pod: &LocalPod,
        node: &BTreeSet<IpAddr>,
        occasion: SweepOccasion,
    ) {
        let Some(kernel) = pod.kernel() else {
            return;
        };
        let rules = PodRules {
            workload: &pod.workload,
            policies: view.policies.for_workload(&pod.workload),
            classes: &self.classes,
            node,
            occasion,
        };
        let agents = self.parts.enroller.agent_sockets();
        match close_passed(kernel, agents, &pod.workload.addresses, &rules) {
            Ok(0) => {}
            Ok(closed) => tracing::info!(
                pod = %pod.workload.name, closed,
                "connections that no proxy carries were closed: policy does not allow them"
            ),
            Err(error) => tracing::error!(
                pod = %pod.workload.name, %error, "the pod's connections could not be judged again"
            ),
        }
    }
}

/// The node's own addresses. Without them a live probe connection is judged as plaintext, which is stricter.
pub(super) fn node_addresses() -> BTreeSet<IpAddr> {
    let addresses = NetnsHandle::current().and_then(|own| own.addresses());
    addresses.unwrap_or_default().into_iter().collect()
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

/// The rules for a pod that is kept closed: connections with the mesh end, and so do those that others
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

    /// The kernel's attestation lasts for the handshake only. Afterwards the node's own address and a
    /// port declared for probes must suffice: the connection was judged when it was opened, and a probe
    /// is over in seconds.
    fn is_probe(&self, source: SocketAddr, destination: SocketAddr) -> bool {
        self.node.contains(&source.ip()) && self.workload.probe_ports.contains(&destination.port())
    }

    /// If userspace has to decide, the proxy carries the connection.
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
