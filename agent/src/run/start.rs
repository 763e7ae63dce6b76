//! Takes over the node: what a start changes, after [`prepare`](super::prepare) has looked at
//! everything. A start that fails undoes it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ambit_common::NodeSettings;
use anyhow::{Context, Result};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use super::answers::AgentState;
use super::pods::NodeReport;
use super::prepare::{FollowedConfiguration, Prepared};
use super::reconcile::{Reconciler, ReconcilerParts};
use super::{Agent, RunConfig, denials};
use crate::admin::{server, socket};
use ambit_daemon::{heap, program};
use ambit_datapath::PinDirectory;
use ambit_datapath::cgroup::CgroupPath;
use ambit_datapath::{
    Counters, Enroller, EnrollerParts, MeshTable, NodePrograms, Pins, PolicyTables,
};
use ambit_identity::Identities;
use ambit_observe::events::RecentEvents;
use ambit_observe::logging::DroppedLines;

/// The changes of a start that is under way. They are undone unless the start succeeds. No pod depends
/// on them until then.
#[derive(Default)]
pub(super) struct StartChanges {
    socket: Option<PathBuf>,
    pins: Option<PinDirectory>,
}

impl StartChanges {
    /// Opens the admin socket.
    pub(super) fn open_socket(&mut self, config: &RunConfig) -> Result<UnixListener> {
        let listener = socket::bind(&config.socket)?;
        self.socket = Some(config.socket.clone());
        Ok(listener)
    }

    /// Makes the pin directory.
    pub(super) fn pins(&mut self, config: &RunConfig) -> Result<&PinDirectory> {
        let pins = PinDirectory::prepare(&config.pin_dir)?;
        Ok(self.pins.insert(pins))
    }

    /// Keeps them. Hold the result while the agent runs: it keeps other agents away.
    pub(super) fn keep(mut self) -> Option<PinDirectory> {
        self.socket = None;
        self.pins.take()
    }
}

impl Drop for StartChanges {
    fn drop(&mut self) {
        if let Some(pins) = self.pins.take() {
            pins.undo();
        }
        if let Some(socket) = self.socket.take() {
            // One that stays is replaced by the next agent.
            let _ = fs::remove_file(socket);
        }
    }
}

/// Changes the node. The CA's files come last: other nodes may depend on them as soon as they exist, so
/// they could not be removed again.
pub(super) fn start(
    config: RunConfig,
    prepared: Prepared,
    dropped_lines: DroppedLines,
    changes: &mut StartChanges,
) -> Result<Agent> {
    let Prepared {
        groups,
        node: settings,
        metrics,
        trust,
        issuer,
        configuration,
        views,
        keys,
        events,
        proxy,
    } = prepared;
    let admin = changes.open_socket(&config)?;
    let pins = Pins::open(changes.pins(&config)?)?;
    let kernel = KernelSide::set_up(pins, &config, &groups.node, settings, proxy.shards())?;
    let provider = issuer.open(&trust)?;
    let identities = Identities::new(provider, trust, config.certificate_lifetime);
    let (reports, node_report) = watch::channel(NodeReport::default());
    let node_name = config.node.as_str().into();
    let state = Arc::new(AgentState {
        config,
        cgroup: groups.node,
        mesh: views.subscribe(),
        node: node_report.clone(),
        proxy: Arc::clone(&proxy),
        tables: kernel.tables.clone(),
        identities: identities.clone(),
        keys: Arc::clone(&keys),
        counters: kernel.counters,
        events: Arc::clone(&events),
        dropped_lines,
    });
    serve_operators(admin, metrics, state);
    tokio::spawn(heap::give_back());
    tokio::spawn(program::give_back());
    log_denials(kernel.pins, kernel.tables, node_report, events);
    let FollowedConfiguration {
        source,
        snapshots,
        first,
    } = configuration;
    Ok(Agent {
        arrivals: identities.arrivals(),
        reconciler: Reconciler::new(ReconcilerParts {
            node: node_name,
            enroller: kernel.enroller,
            mesh: kernel.mesh,
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
        _node: kernel.node,
    })
}

/// The kernel's programs and tables, as this agent holds them.
struct KernelSide {
    pins: Pins,
    node: NodePrograms,
    tables: PolicyTables,
    mesh: MeshTable,
    counters: Counters,
    enroller: Enroller,
}

impl KernelSide {
    fn set_up(
        pins: Pins,
        config: &RunConfig,
        cgroup: &CgroupPath,
        settings: NodeSettings,
        shards: usize,
    ) -> Result<Self> {
        let mut node = NodePrograms::install(&pins, cgroup.path(), settings, config.kernel_log)?;
        if config.kernel_log.is_on() {
            follow_kernel_log(&mut node)?;
        }
        let tables = PolicyTables::open(&pins)?;
        let mesh = MeshTable::open(&pins)?;
        let counters = Counters::open(&pins)?;
        let enroller = Enroller::new(EnrollerParts {
            pins: pins.clone(),
            cgroup: cgroup.clone(),
            tables: tables.clone(),
            shards,
            connect_timeout: config.connect_timeout,
            log: config.kernel_log,
        })?;
        Ok(Self {
            pins,
            node,
            tables,
            mesh,
            counters,
            enroller,
        })
    }
}

/// Answers on the admin socket, and to those who collect metrics, in the background.
fn serve_operators(admin: UnixListener, metrics: Option<TcpListener>, state: Arc<AgentState>) {
    if let Some(listener) = metrics {
        tokio::spawn(ambit_observe::metrics::serve(listener, Arc::clone(&state)));
    }
    tokio::spawn(server::serve(admin, state));
}

/// Logs the kernel's denials, and how many lines were left out, in the background.
fn log_denials(
    pins: Pins,
    tables: PolicyTables,
    node: watch::Receiver<NodeReport>,
    events: Arc<RecentEvents>,
) {
    tokio::spawn(denials::report_left_out(Arc::clone(&events)));
    tokio::spawn(denials::follow(pins, tables, node, events));
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
