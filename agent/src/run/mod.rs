//! Puts the agent together: the one place that knows every other module.

mod answers;
mod changes;
mod claims;
mod config;
mod depart;
mod descriptors;
mod enrol;
mod istio;
mod kernel_denials;
mod kernel_faults;
mod left_out;
mod leftovers;
mod metrics;
mod pods;
mod prepare;
mod reconcile;
mod rules;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::watch;

pub use config::{IssuerConfig, RunConfig};

use crate::admin::server;
use ambit_daemon::signals;
use ambit_datapath::{
    Counters, Enroller, EnrollerParts, MeshTable, NodePrograms, Pins, PolicyTables,
};
use ambit_identity::Identities;
use ambit_model::Snapshot;
use ambit_observe;
use ambit_observe::logging::DroppedLines;
use ambit_proxy::Proxy;
use ambit_source::FileSource;
use answers::AgentState;
use changes::StartChanges;
use pods::NodeReport;
use prepare::Prepared;
use reconcile::{Reconciler, ReconcilerParts};

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
/// If it cannot start; the error says what to do, and nothing of the node is left changed by a first
/// start.
pub fn run(config: RunConfig, dropped_lines: DroppedLines) -> Result<()> {
    prepare::ensure_kernel()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("ambit-control")
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut changes = StartChanges::default();
        let agent = start(config, dropped_lines, &mut changes).await?;
        let _pins = changes.keep();
        Box::pin(agent.run()).await
    })
}

/// An agent that has taken over the node.
struct Agent {
    reconciler: Reconciler,
    proxy: Arc<Proxy>,
    first: Arc<Snapshot>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    arrivals: watch::Receiver<u64>,
    _source: FileSource,
    _node: NodePrograms,
}

/// Looks at everything first, then changes the node. The CA's files come last: other nodes may
/// depend on them as soon as they are there, so they could not be removed again.
async fn start(
    config: RunConfig,
    dropped_lines: DroppedLines,
    changes: &mut StartChanges,
) -> Result<Agent> {
    let Prepared {
        groups,
        node: settings,
        metrics,
        trust,
        certificates,
        source,
        snapshots,
        first,
        views,
        keys,
        events,
        proxy,
    } = Prepared::gather(&config).await?;
    let listener = changes.open_socket(&config)?;
    let pins = Pins::open(changes.pins(&config)?)?;
    let mut node = NodePrograms::install(&pins, groups.node.path(), settings, config.kernel_log)?;
    if config.kernel_log.is_on() {
        follow_kernel_log(&mut node)?;
    }
    let tables = PolicyTables::open(&pins)?;
    let mesh = MeshTable::open(&pins)?;
    let counters = Counters::open(&pins)?;
    let enroller = Enroller::new(EnrollerParts {
        pins: pins.clone(),
        cgroup: groups.node.clone(),
        tables: tables.clone(),
        shards: proxy.shards(),
        connect_timeout: config.connect_timeout,
        log: config.kernel_log,
    })?;
    let ca = certificates.open(&trust)?;
    let identities = Identities::new(ca, trust, config.certificate_lifetime);
    let (reports, node_report) = watch::channel(NodeReport::default());
    let name = config.node.as_str().into();
    let state = Arc::new(AgentState {
        config,
        cgroup: groups.node,
        mesh: views.subscribe(),
        node: node_report.clone(),
        proxy: Arc::clone(&proxy),
        tables: tables.clone(),
        identities: identities.clone(),
        keys: Arc::clone(&keys),
        counters,
        events: Arc::clone(&events),
        dropped_lines,
    });
    if let Some(listener) = metrics {
        tokio::spawn(ambit_observe::metrics::serve(listener, Arc::clone(&state)));
    }
    tokio::spawn(server::serve(listener, state));
    tokio::spawn(left_out::report(Arc::clone(&events)));
    tokio::spawn(kernel_denials::follow(pins, tables, node_report, events));
    Ok(Agent {
        arrivals: identities.arrivals(),
        reconciler: Reconciler::new(ReconcilerParts {
            node: name,
            enroller,
            mesh,
            proxy: Arc::clone(&proxy),
            identities,
            keys,
            views,
            reports,
        }),
        proxy,
        first,
        snapshots,
        _source: source,
        _node: node,
    })
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

/// Logs what kernel programs say, a little late: it is for debugging only.
fn follow_kernel_log(node: &mut NodePrograms) -> Result<()> {
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
