//! `ambit run`.

mod issuer;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::run::{MemorySize, RunConfig};
use ambit_datapath::KernelLog;
use ambit_model::{MeshRanges, Revision, TrustDomain};
use ambit_observe::logging::{self, LogFormat};
use ambit_proxy::SameNode;

/// The default path of the admin socket.
pub(super) const DEFAULT_SOCKET: &str = "/run/ambit/admin.sock";

/// The agent's settings.
#[derive(clap::Args)]
pub(super) struct RunArguments {
    /// This node's name, as the pods' spec.nodeName has it.
    #[arg(long, env = "AMBIT_NODE")]
    node: String,
    /// The cgroup2 directory below which every pod and this agent run [default: the whole tree].
    #[arg(long, env = "AMBIT_CGROUP")]
    cgroup: Option<PathBuf>,
    /// The cgroup2 directory below which every pod runs: processes in it do not count as the node itself.
    #[arg(long, env = "AMBIT_PODS_CGROUP")]
    pods_cgroup: Option<PathBuf>,
    /// A directory of Kubernetes YAML.
    #[arg(long, env = "AMBIT_CONFIG_DIR", default_value = "/etc/ambit/config")]
    config_dir: PathBuf,
    /// The mesh's SPIFFE trust domain.
    #[arg(long, env = "AMBIT_TRUST_DOMAIN", default_value = "cluster.local", value_parser = TrustDomain::new)]
    trust_domain: TrustDomain,
    /// A trust domain that counts as the mesh's own. May be given several times.
    #[arg(long = "trust-domain-alias", value_parser = TrustDomain::new)]
    trust_domain_aliases: Vec<TrustDomain>,
    /// Istio's root namespace.
    #[arg(long, env = "AMBIT_ROOT_NAMESPACE", default_value = "istio-system")]
    root_namespace: String,
    /// The control plane's revision: policies with another revision in the label istio.io/rev do not
    /// apply. Without one (""), all apply.
    #[arg(long, env = "AMBIT_REVISION", default_value_t, value_parser = Revision::new)]
    revision: Revision,
    /// A Pod or Service CIDR of the cluster. Required: without it, addresses that are not known yet
    /// would count as outside the mesh, and be dialled in plaintext.
    #[arg(long, env = "AMBIT_MESH_CIDR", value_delimiter = ',', required = true)]
    mesh_cidr: Vec<IpNet>,
    /// A part of the mesh's CIDRs that is outside the mesh.
    #[arg(long, env = "AMBIT_MESH_CIDR_EXCLUDE", value_delimiter = ',')]
    mesh_cidr_exclude: Vec<IpNet>,
    /// The directory for pins, on a bpffs. Only this agent may use it.
    #[arg(long, env = "AMBIT_PIN_DIR", default_value = "/sys/fs/bpf/ambit")]
    pin_dir: PathBuf,
    /// The admin socket.
    #[arg(long, env = "AMBIT_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Where to serve metrics over HTTP, for example 127.0.0.1:15020 [default: nowhere].
    #[arg(long, env = "AMBIT_METRICS")]
    metrics: Option<SocketAddr>,
    /// Threads of the data path, 1 to 8 [default: as many as the CPUs allow, up to 4].
    #[arg(long, env = "AMBIT_SHARDS")]
    shards: Option<NonZeroUsize>,
    /// The memory that connections and requests may take while they wait, such as 256Mi [default: half of
    /// the control group's limit, else a quarter of the machine's memory and at most 512Mi].
    #[arg(long, env = "AMBIT_MEMORY", value_name = "BYTES")]
    memory: Option<MemorySize>,
    /// How connections between two pods of this node travel.
    #[arg(long, env = "AMBIT_SAME_NODE", value_enum, default_value_t = SameNodePath::Tunnel)]
    same_node: SameNodePath,
    /// Certificates (PEM) to trust, in addition to the node's own, when an issuer's JWKS is fetched.
    #[arg(long, env = "AMBIT_JWKS_CA")]
    jwks_ca: Option<PathBuf>,
    /// What to log: a level, or a list of target=level.
    #[arg(long, env = "AMBIT_LOG", default_value = "info")]
    log: String,
    /// The format of log lines.
    #[arg(long, env = "AMBIT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Let the kernel programs log each step, at debug level.
    #[arg(long, env = "AMBIT_KERNEL_LOG")]
    kernel_log: bool,
    #[command(flatten)]
    ca: issuer::IssuerArguments,
}

/// How connections between two pods of this node travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum SameNodePath {
    /// Encrypted, like those between nodes.
    Tunnel,
    /// In the agent's memory, under the same certificates and policies.
    Handoff,
}

impl From<SameNodePath> for SameNode {
    fn from(path: SameNodePath) -> Self {
        match path {
            SameNodePath::Tunnel => Self::Tunnel,
            SameNodePath::Handoff => Self::Handoff,
        }
    }
}

impl RunArguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let log = logging::init(&self.log, self.log_format)?;
        crate::run::run(self.config()?, log.dropped())
    }

    fn config(self) -> anyhow::Result<RunConfig> {
        Ok(RunConfig {
            node: self.node,
            cgroup: self.cgroup,
            pods_cgroup: self.pods_cgroup,
            config_dir: self.config_dir,
            certificate_lifetime: self.ca.lifetime(),
            ca: self.ca.authority()?,
            trust_domain: self.trust_domain,
            trust_domain_aliases: self.trust_domain_aliases,
            root_namespace: self.root_namespace,
            revision: self.revision,
            ranges: MeshRanges {
                included: self.mesh_cidr,
                excluded: self.mesh_cidr_exclude,
            },
            pin_dir: self.pin_dir,
            socket: self.socket,
            metrics: self.metrics,
            shards: self.shards,
            memory: self.memory,
            same_node: self.same_node.into(),
            jwks_ca: self.jwks_ca,
            connect_timeout: Duration::from_secs(5),
            kernel_log: if self.kernel_log {
                KernelLog::Debug
            } else {
                KernelLog::Off
            },
        })
    }
}
