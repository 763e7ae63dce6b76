//! Pods, and whether their labels or their namespace's opt them in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::{ObjectName, WorkloadIdentity};

/// A pod.
#[derive(Clone, PartialEq, Debug)]
pub struct Workload {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.uid`, which tells a pod from its successor of the same name. If a file has none, the
    /// source makes one from the name and the netns reference.
    pub uid: Arc<str>,
    /// `spec.nodeName`.
    pub node: Option<Arc<str>>,
    /// `status.podIPs`, canonical, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// The identity in its certificate.
    pub identity: WorkloadIdentity,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// Whether its objects opt it in.
    pub membership: Membership,
    /// Whether it may be chosen as an endpoint of a Service.
    pub ready: bool,
    /// Container ports by name, for a Service's named target ports.
    pub named_ports: BTreeMap<String, u16>,
    /// Ports declared for probes and lifecycle hooks, on which the node itself is admitted.
    pub probe_ports: BTreeSet<u16>,
    /// How its network namespace is found; `None` if the source does not say.
    pub netns: Option<NetnsReference>,
    /// What its annotations claim about Istio, without proof in the object.
    pub istio_claim: IstioClaim,
}

impl Workload {
    /// Whether its objects opt it in.
    pub fn is_opted_in(&self) -> bool {
        matches!(self.membership, Membership::OptedIn)
    }

    /// The addresses at which the mesh reaches it, canonical. A pod on the node's network has none,
    /// because they are the node's.
    pub fn mesh_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let own: &[IpAddr] = match self.membership {
            Membership::Never(NeverEnrolled::HostNetwork) => &[],
            Membership::OptedIn | Membership::NotOptedIn | Membership::Never(_) => &self.addresses,
        };
        own.iter().map(IpAddr::to_canonical)
    }
}

/// A reference to a pod's network namespace.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum NetnsReference {
    /// A file of nsfs, such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    Path(PathBuf),
}

/// Whether a pod's objects opt it in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub enum Membership {
    /// In the mesh: its own label, or else its namespace's, says `ambient`.
    OptedIn,
    /// Not in the mesh.
    NotOptedIn,
    /// Opted in, but of a kind that is never enrolled. Connections to it are refused rather than made in
    /// plaintext.
    Never(NeverEnrolled),
}

/// Why a pod is never enrolled although a label opts it in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum NeverEnrolled {
    /// `spec.hostNetwork`.
    HostNetwork,
    /// Annotation `sidecar.istio.io/status` and a container `istio-proxy`.
    IstioSidecar,
    /// A `spec.runtimeClassName` whose sockets are not those of the host's kernel.
    ForeignKernel,
}

/// What annotations claim about Istio. Anyone who may annotate a pod can write them, so a claim by itself
/// does not take a pod out of the mesh.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum IstioClaim {
    /// There is no claim.
    None,
    /// `sidecar.istio.io/status`, but the pod has no container `istio-proxy`, so there is no sidecar.
    Sidecar,
    /// `ambient.istio.io/redirection: enabled`. It is true if Istio's ztunnel listens in the pod, which only
    /// the pod's node can check.
    Ambient,
}

impl fmt::Display for NeverEnrolled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostNetwork => "it uses the node's own network (hostNetwork)",
            Self::IstioSidecar => {
                "it has an Istio sidecar (annotation sidecar.istio.io/status, container \
                 istio-proxy)"
            }
            Self::ForeignKernel => {
                "its runtime class gives it another kernel's sockets (gVisor, Kata)"
            }
        })
    }
}

/// The label of a namespace or a pod that opts it in or out of the mesh (Istio ambient).
pub const DATAPLANE_MODE_LABEL: &str = "istio.io/dataplane-mode";

/// A Kubernetes namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NamespaceInfo {
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
}

impl NamespaceInfo {
    /// The mode of its pods that have no label of their own.
    pub fn dataplane_mode(&self) -> DataplaneMode {
        DataplaneMode::of(&self.labels)
    }
}

/// The value of the label [`DATAPLANE_MODE_LABEL`] of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataplaneMode {
    /// `ambient`: in the mesh.
    Ambient,
    /// `none` or an unknown value: not in the mesh.
    Outside,
    /// No such label: a pod follows its namespace, a namespace is outside.
    Unset,
}

impl DataplaneMode {
    /// The mode that an object's labels set.
    pub fn of(labels: &BTreeMap<String, String>) -> Self {
        match labels.get(DATAPLANE_MODE_LABEL).map(String::as_str) {
            Some("ambient") => Self::Ambient,
            Some(_) => Self::Outside,
            None => Self::Unset,
        }
    }
}
