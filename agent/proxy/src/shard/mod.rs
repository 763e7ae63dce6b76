//! A shard: a thread with a single-threaded runtime of its own, which serves its part of every
//! pod's connections. A connection stays on the shard that accepted it.

pub(crate) mod accept;
pub(crate) mod pod;
pub(crate) mod tasks;
pub(crate) mod turns;

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ambit_common::NetnsCookie;
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot, watch};

use self::accept::listen;
use crate::authorizers::network::AuthorizerNetwork;
use crate::connection::registry::{ConnectionInfo, ConnectionNumbers, Registry};
use crate::connection::stats::{ProxyStats, ShardStats};
use crate::failed::FailedDestinations;
use crate::handoff::Neighbours;
use crate::hbone::TunnelPool;
use crate::limits::{PodCaps, ProxyLimits};
use crate::node::ProxyConfig;
use crate::shard::pod::ServedPod;
use crate::shard::tasks::PodTasks;
use crate::shard::turns::{Budget, TurnScheduler};
use crate::verdict::PodRemoval;
use ambit_authorizer::{Authorizer, AuthorizerCounts, CheckSlots};
use ambit_datapath::{PodDatapath, PodDatapathParts, PodListeners};
use ambit_identity::WorkloadCertificates;
use ambit_jwt::KeyCache;
use ambit_model::Workload;
use ambit_observe::events::RecentEvents;
use ambit_policy::MeshView;

/// What one shard needs to serve a pod.
#[derive(Debug)]
pub(crate) struct ShardPod {
    pub(crate) workload: Arc<Workload>,
    pub(crate) certificates: WorkloadCertificates,
    pub(crate) datapath: PodDatapathParts,
    pub(crate) listeners: PodListeners,
    pub(crate) caps: PodCaps,
    pub(crate) checks: CheckSlots,
}

/// A command to a shard, which replies when it is done.
#[derive(Debug)]
pub(crate) enum ShardCommand {
    AddPod(Box<ShardPod>, oneshot::Sender<io::Result<()>>),
    RemovePod(NetnsCookie, PodRemoval, oneshot::Sender<()>),
    JudgeAgain(oneshot::Sender<usize>),
    Connections(oneshot::Sender<Vec<ConnectionInfo>>),
    Stats(oneshot::Sender<ProxyStats>),
    Stop(Stop),
}

/// The command to stop after connections have had time to end by themselves.
#[derive(Debug)]
pub(crate) struct Stop {
    pub(crate) drain: Duration,
    pub(crate) done: oneshot::Sender<()>,
}

/// A shard's state, on its own thread.
pub(crate) struct Shard {
    number: usize,
    limits: ProxyLimits,
    mesh: watch::Receiver<Arc<MeshView>>,
    keys: Arc<KeyCache>,
    pods: HashMap<NetnsCookie, Rc<ServedPod>>,
    neighbours: Rc<Neighbours>,
    turns: TurnScheduler,
    numbers: Rc<ConnectionNumbers>,
    stats: Rc<ShardStats>,
    events: Arc<RecentEvents>,
    authorizers: Rc<AuthorizerCounts>,
}

impl Shard {
    pub(crate) fn new(
        number: usize,
        config: ProxyConfig,
        mesh: watch::Receiver<Arc<MeshView>>,
        keys: Arc<KeyCache>,
        events: Arc<RecentEvents>,
    ) -> Self {
        Self {
            number,
            limits: config.limits,
            mesh,
            keys,
            pods: HashMap::new(),
            neighbours: Rc::new(Neighbours::new(config.same_node)),
            turns: TurnScheduler::default(),
            numbers: Rc::default(),
            stats: Rc::default(),
            events,
            authorizers: Rc::default(),
        }
    }

    /// Executes commands until [`ShardCommand::Stop`], or until every sender is gone.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<ShardCommand>) {
        tokio::task::spawn_local(self.turns.clone().run());
        while let Some(command) = commands.recv().await {
            if let Some(Stop { drain, done }) = self.execute(command) {
                self.drain(drain, &mut commands).await;
                self.close().await;
                let _ = done.send(());
                return;
            }
        }
        self.close().await;
    }

    /// Executes a command, and returns the one to stop.
    fn execute(&mut self, command: ShardCommand) -> Option<Stop> {
        // It does not matter if nothing waits for the reply any more.
        match command {
            ShardCommand::AddPod(pod, done) => {
                let _ = done.send(self.add_pod(*pod));
            }
            ShardCommand::RemovePod(netns, removal, done) => self.remove_pod(netns, removal, done),
            ShardCommand::JudgeAgain(done) => {
                let ended = self.pods.values().map(|pod| pod.judge_again()).sum();
                let _ = done.send(ended);
            }
            ShardCommand::Connections(done) => {
                let _ = done.send(self.connections());
            }
            ShardCommand::Stats(done) => {
                let live = self.pods.values().map(|pod| pod.registry.len()).sum();
                let _ = done.send(self.stats.read(live, self.authorizers.read()));
            }
            ShardCommand::Stop(stop) => return Some(stop),
        }
        None
    }

    fn add_pod(&mut self, pod: ShardPod) -> io::Result<()> {
        let (served, listeners) = self.assemble(pod);
        listen(&served, listeners)?;
        self.neighbours.add(&served);
        self.pods.insert(served.datapath.netns(), served);
        Ok(())
    }

    /// Puts together what serves a pod on this shard. Nothing is accepted yet.
    fn assemble(&self, pod: ShardPod) -> (Rc<ServedPod>, PodListeners) {
        let ShardPod {
            workload,
            certificates,
            datapath,
            listeners,
            caps,
            checks,
        } = pod;
        let datapath = PodDatapath::new(datapath);
        let budget = Budget::new(self.turns.clone());
        let served = Rc::new_cyclic(|pod| ServedPod {
            pool: TunnelPool::new(
                datapath.clone(),
                certificates.clone(),
                caps.memory.clone(),
                Rc::clone(&budget),
            ),
            workload,
            certificates,
            caps,
            limits: self.limits,
            registry: Registry::new(Rc::clone(&self.numbers)),
            stats: Rc::clone(&self.stats),
            events: Arc::clone(&self.events),
            mesh: self.mesh.clone(),
            keys: Arc::clone(&self.keys),
            neighbours: Rc::clone(&self.neighbours),
            authorizer: Authorizer::new(
                AuthorizerNetwork::new(pod.clone(), self.mesh.clone()),
                checks,
                Rc::clone(&self.authorizers),
            ),
            tasks: PodTasks::new(budget),
            failed: FailedDestinations::default(),
            datapath,
        });
        (served, listeners)
    }

    fn remove_pod(&mut self, netns: NetnsCookie, removal: PodRemoval, done: oneshot::Sender<()>) {
        let removed = self.pods.remove(&netns);
        if let Some(pod) = &removed {
            self.neighbours.remove(pod);
        }
        tokio::task::spawn_local(async move {
            if let Some(pod) = removed {
                pod.close(removal).await;
            }
            let _ = done.send(());
        });
    }

    fn connections(&self) -> Vec<ConnectionInfo> {
        self.pods
            .values()
            .flat_map(|pod| pod.registry.list(self.number, &pod.workload.name))
            .collect()
    }

    /// Gives connections `time` to end by themselves. Executes other commands meanwhile, so that a change of
    /// policy still ends connections immediately.
    async fn drain(&mut self, time: Duration, commands: &mut mpsc::Receiver<ShardCommand>) {
        let pods: Vec<_> = self.pods.values().cloned().collect();
        let mut drained = pin!(join_all(pods.iter().map(|pod| pod.drain())));
        let mut late = pin!(tokio::time::sleep(time));
        loop {
            tokio::select! {
                _ = &mut drained => return,
                () = &mut late => break,
                Some(command) = commands.recv() => {
                    self.execute(command);
                }
            }
        }
        tracing::info!(shard = self.number, "ending the connections that are left");
    }

    /// Ends everything.
    async fn close(&mut self) {
        join_all(
            self.pods
                .values()
                .map(|pod| pod.close(PodRemoval::AgentStops)),
        )
        .await;
        self.pods.clear();
    }
}
