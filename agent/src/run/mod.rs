//! Puts the agent together: the one place that knows every other module.

mod claims;
mod config;
mod depart;
mod descriptors;
mod enrol;
mod istio;
mod kernel_denials;
mod leftovers;
mod metrics;
mod pods;
mod reconcile;
mod rules;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_common::NodeSettings;
use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub use config::{CaConfig, RunConfig};

use crate::admin::server;
use crate::datapath::bpffs::PinDirectory;
use crate::datapath::cgroup::{CgroupMount, CgroupPath};
use crate::datapath::check::CheckReport;
use crate::datapath::netns::NetnsHandle;
use crate::datapath::{Counters, Enroller, EnrollerParts, MeshTable, Node, Pins, Tables};
use crate::identity::{CertificateProvider, EmbeddedCa, Identities, IstioCa, TrustPolicy};
use crate::jwt::{Addresses, HttpFetcher, KeyCache};
use crate::model::{Snapshot, TrustBundle};
use crate::observe;
use crate::observe::events::RecentEvents;
use crate::observe::logging::DroppedLines;
use crate::policy::MeshView;
use crate::proxy::{Proxy, ProxyConfig, ProxyLimits};
use crate::source::{FileSource, FileSourceConfig};
use pods::NodeReport;
use reconcile::{Parts, Reconciler};
use state::State;

/// How often failed pods are tried again and replaced namespaces are noticed.
const TICK: Duration = Duration::from_millis(500);

/// How long after a change connections are judged once more: one that was being accepted while the
/// tables were switched is found then.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// How long live connections have to end of themselves when the agent is told to end.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs the agent until it is told to end. Its pods stay enrolled, and closed, when it ends.
///
/// # Errors
/// Where it cannot start; the error says what to do.
pub fn run(config: RunConfig, dropped_lines: DroppedLines) -> Result<()> {
    let missing: Vec<_> = CheckReport::gather()
        .missing()
        .map(|feature| feature.name.to_string())
        .collect();
    if !missing.is_empty() {
        bail!(
            "this kernel lacks {}; `ambit check` tells more",
            missing.join(", ")
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("ambit-control")
        .enable_all()
        .build()?;
    runtime.block_on(start(config, dropped_lines))
}

async fn start(config: RunConfig, dropped_lines: DroppedLines) -> Result<()> {
    let listener = server::bind(&config.socket)?;
    let groups = Groups::find(&config)?;
    let directory = PinDirectory::prepare(&config.pin_dir)?;
    let metrics = listen_for_metrics(config.metrics).await?;
    let pins = Pins::open(&directory)?;
    let mut node = Node::install(
        &pins,
        groups.node.path(),
        node_settings(groups.pods.as_ref())?,
        config.kernel_log,
    )?;
    if config.kernel_log.is_on() {
        follow_kernel_log(&mut node)?;
    }
    let trust = TrustPolicy {
        trust_domain: config.trust_domain.clone(),
        aliases: config.trust_domain_aliases.clone(),
    };
    let ca = authority(&config, &trust)?;
    let identities = Identities::new(ca, trust, config.certificate_lifetime);
    let (_source, mut snapshots) = FileSource::start(source_config(&config))?;
    let first = Arc::clone(&snapshots.borrow_and_update());
    let view = Arc::new(MeshView::new(Arc::clone(&first)));
    let (views, mesh) = watch::channel(view);
    let fetcher = HttpFetcher::new(Addresses::Routable, config.jwks_ca.as_deref())?;
    let keys = Arc::new(KeyCache::new(Handle::current(), Arc::new(fetcher)));
    let descriptors = descriptors::raise()?;
    let proxy_config = ProxyConfig {
        limits: ProxyLimits::default().within(descriptors),
        shards: config.shards,
    };
    let events = Arc::new(RecentEvents::default());
    let proxy = Arc::new(Proxy::start(proxy_config, &mesh, &keys, &events)?);
    let tables = Tables::open(&pins)?;
    let enroller = Enroller::new(EnrollerParts {
        pins: pins.clone(),
        cgroup: groups.node.clone(),
        tables: tables.clone(),
        shards: proxy.shards(),
        connect_timeout: config.connect_timeout,
        log: config.kernel_log,
    })?;
    let (reports, node_report) = watch::channel(NodeReport::default());
    let state = State {
        config: config.clone(),
        cgroup: groups.node.clone(),
        mesh,
        node: node_report.clone(),
        proxy: Arc::clone(&proxy),
        tables: tables.clone(),
        identities: identities.clone(),
        keys: Arc::clone(&keys),
        counters: Counters::open(&pins)?,
        events: Arc::clone(&events),
        dropped_lines,
    };
    let state = Arc::new(state);
    if let Some(listener) = metrics {
        tokio::spawn(observe::metrics::serve(listener, Arc::clone(&state)));
    }
    tokio::spawn(server::serve(listener, state));
    tokio::spawn(kernel_denials::follow(
        pins.clone(),
        tables.clone(),
        node_report,
        events,
    ));
    let arrivals = identities.arrivals();
    let reconciler = Reconciler::new(Parts {
        node: config.node.as_str().into(),
        enroller,
        mesh: MeshTable::open(&pins)?,
        tables,
        proxy: Arc::clone(&proxy),
        identities,
        keys,
        views,
        reports,
    });
    let end = async {
        told_to_end().await?;
        tracing::info!("the agent ends; its pods stay enrolled, and their mesh traffic is closed");
        Ok(proxy.stop(DRAIN).await?)
    };
    tokio::select! {
        ended = end => ended,
        failed = follow(reconciler, first, snapshots, arrivals) => failed,
    }
}

/// The control groups of the node and of its pods.
struct Groups {
    node: CgroupPath,
    pods: Option<CgroupPath>,
}

impl Groups {
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

/// Logs what kernel programs say, a little late: it is for debugging only.
fn follow_kernel_log(node: &mut Node) -> Result<()> {
    let mut logger =
        aya_log::EbpfLogger::init(node.ebpf_mut()).context("the kernel's log cannot be read")?;
    tokio::spawn(async move {
        loop {
            logger.flush();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    Ok(())
}

fn source_config(config: &RunConfig) -> FileSourceConfig {
    FileSourceConfig {
        directory: config.config_dir.clone(),
        trust_bundle: TrustBundle {
            own: config.trust_domain.clone(),
            aliases: config.trust_domain_aliases.clone(),
        },
        root_namespace: config.root_namespace.as_str().into(),
        revision: config.revision.clone(),
        ranges: config.ranges.clone(),
    }
}

async fn listen_for_metrics(address: Option<SocketAddr>) -> Result<Option<TcpListener>> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = observe::metrics::bind(address).await;
    let listener = listener.with_context(|| format!("--metrics {address} cannot be used"))?;
    Ok(Some(listener))
}

fn authority(config: &RunConfig, trust: &TrustPolicy) -> Result<Arc<dyn CertificateProvider>> {
    Ok(match &config.ca {
        CaConfig::Embedded { directory } => {
            Arc::new(EmbeddedCa::open(directory, &config.trust_domain)?)
        }
        CaConfig::Istio(settings) => Arc::new(IstioCa::new(settings.clone(), trust.clone())?),
    })
}

async fn told_to_end() -> Result<()> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
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

fn node_settings(pods_cgroup: Option<&CgroupPath>) -> Result<NodeSettings> {
    Ok(NodeSettings {
        host_netns: NetnsHandle::current()?.cookie()?,
        pods_cgroup: pods_cgroup.map_or(0, CgroupPath::id),
        pods_cgroup_level: pods_cgroup.map_or(0, CgroupPath::level),
        zero: 0,
    })
}
