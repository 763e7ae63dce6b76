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
    /// `metadata.uid`; tells a pod from its successor of the same name. Where a file has none, the
    /// source makes one from the name and the netns reference.
    pub uid: Arc<str>,
    /// `spec.nodeName`.
    pub node: Option<Arc<str>>,
    /// `status.podIPs`, canonical, the primary one first. A pod on the node's network has none: its
    /// address is the node's.
    pub addresses: Vec<IpAddr>,
    /// What its certificate says.
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
    /// How its network namespace is found; `None` where this source does not say.
    pub netns: Option<NetnsReference>,
    /// What its annotations say of Istio, and nothing else in its object proves.
    pub istio_claim: IstioClaim,
}

impl Workload {
    /// Whether its objects opt it in.
    pub fn is_opted_in(&self) -> bool {
        matches!(self.membership, Membership::OptedIn)
    }

    /// The addresses at which the mesh reaches it, canonical: none where they are the node's.
    pub fn mesh_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let own: &[IpAddr] = match self.membership {
            Membership::Never(NeverEnrolled::HostNetwork) => &[],
            Membership::OptedIn | Membership::NotOptedIn | Membership::Never(_) => &self.addresses,
        };
        own.iter().map(IpAddr::to_canonical)
    }
}

/// How a source says where a pod's network namespace is.
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
    /// Opted in, but of a kind that is never enrolled. Refused, never served in plaintext unless
    /// its objects say that it is outside.
    Never(NeverEnrolled),
}

/// What is never enrolled, though a label opts it in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum NeverEnrolled {
    /// `spec.hostNetwork`.
    HostNetwork,
    /// Annotation `sidecar.istio.io/status` and a container `istio-proxy`.
    IstioSidecar,
    /// A `spec.runtimeClassName` whose sockets are not the host kernel's.
    ForeignKernel,
}

/// What annotations say of Istio. Whoever may annotate a pod can write them, who may be somebody
/// else than who made it: by itself a claim takes no pod out of the mesh.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum IstioClaim {
    /// Nothing.
    None,
    /// `sidecar.istio.io/status`, and the pod has no container `istio-proxy`: there is no sidecar.
    Sidecar,
    /// `ambient.istio.io/redirection: enabled`: true if Istio's ztunnel listens in the pod, which only
    /// its own node can tell.
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

/// The label with which a namespace or a pod chooses whether it is in the mesh (Istio ambient).
pub const DATAPLANE_MODE_LABEL: &str = "istio.io/dataplane-mode";

/// A namespace, as far as the mesh is concerned.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NamespaceInfo {
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
}

impl NamespaceInfo {
    /// What its label chooses for those of its pods that have no label of their own.
    pub fn dataplane_mode(&self) -> DataplaneMode {
        DataplaneMode::of(&self.labels)
    }
}

/// What the label [`DATAPLANE_MODE_LABEL`] of one object chooses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataplaneMode {
    /// `ambient`: in the mesh.
    Ambient,
    /// `none`, or a value that Ambit does not know: not in the mesh.
    Outside,
    /// No such label: a pod follows its namespace, a namespace is outside.
    Unset,
}

impl DataplaneMode {
    /// The mode that an object's labels choose.
    pub fn of(labels: &BTreeMap<String, String>) -> Self {
        match labels.get(DATAPLANE_MODE_LABEL).map(String::as_str) {
            Some("ambient") => Self::Ambient,
            Some(_) => Self::Outside,
            None => Self::Unset,
        }
    }
}
