//! What a start checks before it changes the node. If the settings or the node's state are wrong, it
//! ends here and leaves no trace.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ambit_common::NodeSettings;
use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{IssuerConfig, RunConfig, memory};
use crate::admin::socket;
use ambit_daemon::descriptors::DescriptorLimit;
use ambit_datapath::PinDirectory;
use ambit_datapath::cgroup::{CgroupMount, CgroupPath};
use ambit_datapath::check::CheckReport;
use ambit_datapath::is_local;
use ambit_datapath::netns::NetnsHandle;
use ambit_identity::{CertificateProvider, EmbeddedCa, IstioCa, TrustPolicy};
use ambit_jwt::{FetchableAddresses, HttpFetcher, KeyCache};
use ambit_model::{Snapshot, TrustBundle};
use ambit_observe::events::RecentEvents;
use ambit_policy::MeshView;
use ambit_proxy::{Proxy, ProxyConfig, ProxyLimits};
use ambit_source::{FileSource, FileSourceConfig};

/// With fewer file descriptors, they are what limits the connections of a pod.
const AMPLE_DESCRIPTORS: u64 = 1 << 17;

/// All that a start needs before it changes anything.
pub(super) struct Prepared {
    pub(super) groups: NodeCgroups,
    pub(super) node: NodeSettings,
    pub(super) metrics: Option<TcpListener>,
    pub(super) trust: TrustPolicy,
    pub(super) issuer: CertificateIssuer,
    pub(super) configuration: FollowedConfiguration,
    pub(super) views: watch::Sender<Arc<MeshView>>,
    pub(super) keys: Arc<KeyCache>,
    pub(super) events: Arc<RecentEvents>,
    pub(super) proxy: Arc<Proxy>,
}

/// The configuration, which is read and followed from here on.
pub(super) struct FollowedConfiguration {
    /// Follows it until it is dropped.
    pub(super) source: FileSource,
    /// What it is from now on.
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What it was when it was read first.
    pub(super) first: Arc<Snapshot>,
}

/// Who issues certificates.
pub(super) enum CertificateIssuer {
    /// The agent itself, by files that can be read or made.
    Embedded(PathBuf),
    /// Another, whose roots have been read.
    Other(Arc<dyn CertificateProvider>),
}

/// The control groups of the node and of its pods.
pub(super) struct NodeCgroups {
    pub(super) node: CgroupPath,
    pub(super) pods: Option<CgroupPath>,
}

/// Whether this kernel has what the agent needs.
///
/// # Errors
/// What it lacks.
pub(super) fn ensure_kernel() -> Result<()> {
    let missing: Vec<_> = CheckReport::gather()
        .missing()
        .map(|feature| feature.name.to_string())
        .collect();
    if !missing.is_empty() {
        bail!(
            "this kernel lacks {}; `ambit check` says more",
            missing.join(", ")
        );
    }
    Ok(())
}

impl Prepared {
    /// Checks everything. Must be called within the agent's runtime.
    ///
    /// # Errors
    /// Anything that would keep the agent from starting, if it can be found out without a change.
    pub(super) async fn gather(config: &RunConfig) -> Result<Self> {
        socket::check(&config.socket)?;
        let groups = NodeCgroups::find(config)?;
        let node = node_settings(groups.pods.as_ref())?;
        PinDirectory::check(&config.pin_dir)?;
        let metrics = listen_for_metrics(config.metrics).await?;
        let trust = TrustPolicy {
            trust_domain: config.trust_domain.clone(),
            aliases: config.trust_domain_aliases.clone(),
        };
        let issuer = CertificateIssuer::check(config, &trust)?;
        let fetcher = HttpFetcher::new(
            FetchableAddresses::Routable(is_local),
            config.jwks_ca.as_deref(),
        )?;
        let keys = Arc::new(KeyCache::new(Handle::current(), Arc::new(fetcher)));
        let configuration = FollowedConfiguration::read(config)?;
        let view = Arc::new(MeshView::new(Arc::clone(&configuration.first)));
        let (views, mesh) = watch::channel(view);
        let proxy_config = ProxyConfig {
            memory: memory::account(config.memory)?,
            limits: ProxyLimits::default().within(raise_descriptors()?),
            shards: config.shards,
            same_node: config.same_node,
        };
        let events = Arc::new(RecentEvents::default());
        let proxy = Arc::new(Proxy::start(proxy_config, &mesh, &keys, &events)?);
        Ok(Self {
            groups,
            node,
            metrics,
            trust,
            issuer,
            configuration,
            views,
            keys,
            events,
            proxy,
        })
    }
}

impl CertificateIssuer {
    fn check(config: &RunConfig, trust: &TrustPolicy) -> Result<Self> {
        Ok(match &config.ca {
            IssuerConfig::Embedded { directory } => {
                EmbeddedCa::check(directory, &config.trust_domain)?;
                Self::Embedded(directory.clone())
            }
            IssuerConfig::Istio(settings) => {
                Self::Other(Arc::new(IstioCa::new(settings.clone(), trust.clone())?))
            }
        })
    }

    /// Opens the authority. An embedded one makes its files if there are none.
    ///
    /// # Errors
    /// If they cannot be made, or have changed meanwhile.
    pub(super) fn open(self, trust: &TrustPolicy) -> Result<Arc<dyn CertificateProvider>> {
        Ok(match self {
            Self::Embedded(directory) => {
                Arc::new(EmbeddedCa::open(&directory, &trust.trust_domain)?)
            }
            Self::Other(provider) => provider,
        })
    }
}

impl NodeCgroups {
    fn find(config: &RunConfig) -> Result<Self> {
        let mount = CgroupMount::find()?;
        let node = config.cgroup.as_deref().unwrap_or(mount.path());
        let pods = config.pods_cgroup.as_deref();
        Ok(Self {
            node: mount.cgroup(node)?,
            pods: pods.map(|path| mount.cgroup(path)).transpose()?,
        })
    }
}

impl FollowedConfiguration {
    fn read(config: &RunConfig) -> Result<Self> {
        let (source, mut snapshots) = FileSource::start(FileSourceConfig {
            directory: config.config_dir.clone(),
            trust_bundle: TrustBundle {
                own: config.trust_domain.clone(),
                aliases: config.trust_domain_aliases.clone(),
            },
            root_namespace: config.root_namespace.as_str().into(),
            revision: config.revision.clone(),
            ranges: config.ranges.clone(),
        })?;
        let first = Arc::clone(&snapshots.borrow_and_update());
        Ok(Self {
            source,
            snapshots,
            first,
        })
    }
}

async fn listen_for_metrics(address: Option<SocketAddr>) -> Result<Option<TcpListener>> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = ambit_observe::metrics::bind(address).await;
    let listener = listener.with_context(|| format!("--metrics {address} cannot be used"))?;
    Ok(Some(listener))
}

fn node_settings(pods_cgroup: Option<&CgroupPath>) -> Result<NodeSettings> {
    Ok(NodeSettings {
        host_netns: NetnsHandle::current()?.cookie()?,
        pods_cgroup: pods_cgroup.map_or(0, CgroupPath::id),
        pods_cgroup_level: pods_cgroup.map_or(0, CgroupPath::level),
        agent: 0,
    })
}

/// Raises the limit of file descriptors to what this process is allowed, and returns it.
fn raise_descriptors() -> Result<u64> {
    let DescriptorLimit { soft, hard } =
        DescriptorLimit::read().context("RLIMIT_NOFILE cannot be read")?;
    let limit = match DescriptorLimit::raise_to(hard) {
        Ok(raised) => raised,
        Err(error) => {
            tracing::warn!(%error, "RLIMIT_NOFILE cannot be raised from {soft} to {hard}");
            soft
        }
    };
    if limit < AMPLE_DESCRIPTORS {
        tracing::warn!(
            limit,
            "few file descriptors: pods are capped accordingly. Raise the agent's limit \
             (LimitNOFILE of systemd) to {AMPLE_DESCRIPTORS} or more"
        );
    }
    Ok(limit)
}
