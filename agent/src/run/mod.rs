//! Puts the agent together: the only place that knows every other module.

mod answers;
mod claims;
mod denials;
mod depart;
mod enrol;
mod kernel_faults;
mod leftovers;
mod memory;
mod metrics;
mod pods;
mod prepare;
mod reconcile;
mod start;
mod sweep;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::watch;

use ambit_daemon::signals;
use ambit_datapath::{KernelLog, NodePrograms};
use ambit_identity::IstioCaConfig;
use ambit_model::{MeshRanges, Revision, Snapshot, TrustDomain};
use ambit_observe::logging::DroppedLines;
use ambit_proxy::{Proxy, SameNode};
use ambit_source::FileSource;
pub use memory::{MemorySize, NoMemorySize};
use prepare::Prepared;
use reconcile::Reconciler;
use start::StartChanges;

/// How often failed pods are retried, and replaced namespaces noticed.
const TICK: Duration = Duration::from_millis(500);

/// How long after a change connections are judged once more, to find those that were being accepted
/// while the tables were switched.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// How long live connections may go on after the agent was told to end.
const DRAIN: Duration = Duration::from_secs(5);

/// The agent's settings.
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
    /// A directory on a bpffs, which only this node's agent uses.
    pub pin_dir: PathBuf,
    /// The admin socket.
    pub socket: PathBuf,
    /// Where metrics are served; not at all if `None`.
    pub metrics: Option<SocketAddr>,
    /// Shards of the data path; `None`: as many as the CPUs allow, up to 4.
    pub shards: Option<NonZeroUsize>,
    /// The memory that waiting bytes may take; `None`: a part of what the process may have.
    pub memory: Option<MemorySize>,
    /// How connections between two pods of this node travel.
    pub same_node: SameNode,
    /// Certificates (PEM) that servers of issuers' keys may chain to, in addition to the node's own roots.
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
    /// The agent itself, with its own root.
    Embedded {
        /// Its files.
        directory: PathBuf,
    },
    /// Another CA, by Istio's protocol.
    Istio(IstioCaConfig),
}

/// Runs the agent until it is told to end. Its pods stay enrolled, and closed, when it ends.
///
/// # Errors
/// If it cannot start. The error says what to do, and a failed first start leaves the node unchanged.
pub fn run(config: RunConfig, dropped_lines: DroppedLines) -> Result<()> {
    prepare::ensure_kernel()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("ambit-control")
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut changes = StartChanges::default();
        let prepared = Prepared::gather(&config).await?;
        let agent = start::start(config, prepared, dropped_lines, &mut changes)?;
        let _pins = changes.keep();
        Box::pin(agent.run()).await
    })
}

/// An agent that is in charge of the node.
struct Agent {
    reconciler: Reconciler,
    proxy: Arc<Proxy>,
    first: Arc<Snapshot>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    arrivals: watch::Receiver<u64>,
    _source: FileSource,
    _node: NodePrograms,
}

impl Agent {
    async fn run(self) -> Result<()> {
        let Self {
            reconciler,
            proxy,
            first,
            snapshots,
            arrivals,
            _source,
            _node,
        } = self;
        let end = async {
            signals::termination()?.await;
            tracing::info!(
                "the agent ends; its pods stay enrolled, and their mesh traffic is closed"
            );
            Ok(proxy.stop(DRAIN).await?)
        };
        tokio::select! {
            ended = end => ended,
            failed = follow(reconciler, first, snapshots, arrivals) => failed,
        }
    }
}

/// Follows the configuration, also while the last connections end.
async fn follow(
    mut reconciler: Reconciler,
    first: Arc<Snapshot>,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    mut arrivals: watch::Receiver<u64>,
) -> Result<()> {
    reconciler.follow(first).await;
    let mut second_look = Some(Instant::now() + SECOND_LOOK);
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            changed = snapshots.changed() => {
                changed.context("the configuration is no longer watched")?;
                let snapshot = Arc::clone(&snapshots.borrow_and_update());
                reconciler.follow(snapshot).await;
                second_look = Some(Instant::now() + SECOND_LOOK);
            }
            arrived = arrivals.changed() => {
                arrived.context("certificates are no longer asked for")?;
                reconciler.tick(Instant::now()).await;
            }
            _ = tick.tick() => {
                let now = Instant::now();
                reconciler.tick(now).await;
                if second_look.is_some_and(|at| at <= now) {
                    second_look = None;
                    reconciler.judge_again().await;
                }
            }
        }
    }
}
