use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ambit_datapath::KernelLog;
use ambit_identity::IstioCaConfig;
use ambit_model::{MeshRanges, Revision, TrustDomain};

/// What the agent is told at start.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// This node's name, as `spec.nodeName` has it.
    pub node: String,
    /// The cgroup below which every pod and the agent run; `None` is the whole cgroup2 tree.
    pub cgroup: Option<PathBuf>,
    /// The cgroup below which every pod runs, hostNetwork pods too.
    pub pods_cgroup: Option<PathBuf>,
    /// Kubernetes YAML.
    pub config_dir: PathBuf,
    /// Who issues certificates.
    pub ca: IssuerConfig,
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// Trust domains that count as the mesh's own.
    pub trust_domain_aliases: Vec<TrustDomain>,
    /// Istio's root namespace.
    pub root_namespace: String,
    /// The control plane's revision, whose policies apply.
    pub revision: Revision,
    /// The cluster's pod and Service ranges.
    pub ranges: MeshRanges,
    /// A directory on a bpffs, of this node's agent alone.
    pub pin_dir: PathBuf,
    /// The admin socket.
    pub socket: PathBuf,
    /// Where metrics are served; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Shards of the data path; `None`: as many as the CPUs allow, up to 4.
    pub shards: Option<NonZeroUsize>,
    /// Certificates (PEM) that are trusted, besides the node's own, where an issuer's keys are
    /// fetched from.
    pub jwks_ca: Option<PathBuf>,
    /// How long certificates are valid.
    pub certificate_lifetime: Duration,
    /// How long a connect of the agent may take.
    pub connect_timeout: Duration,
    /// Whether the kernel programs log.
    pub kernel_log: KernelLog,
}

/// Who issues certificates.
#[derive(Clone, Debug)]
pub enum IssuerConfig {
    /// The agent itself, with a root of its own.
    Embedded {
        /// Its files.
        directory: PathBuf,
    },
    /// Another, by the Istio CA protocol.
    Istio(IstioCaConfig),
}
