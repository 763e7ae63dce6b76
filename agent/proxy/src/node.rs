//! The node's proxy as the control plane sees it: starts its shards and sends them commands.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ambit_common::{MAX_SHARDS, NetnsCookie};
use futures_util::future::join_all;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};

use crate::connection::registry::ConnectionInfo;
use crate::connection::stats::ProxyStats;
use crate::handoff::SameNode;
use crate::limits::{PodCaps, ProxyLimits};
use crate::shard::{Shard, ShardCommand, ShardPod, Stop};
use crate::verdict::PodRemoval;
use ambit_account::{NodeAccount, NodeUsage};
use ambit_authorizer::CheckSlots;
use ambit_datapath::{PodDatapathParts, PodListeners};
use ambit_identity::WorkloadCertificates;
use ambit_jwt::KeyCache;
use ambit_model::{ObjectName, Workload};
use ambit_observe::events::RecentEvents;
use ambit_policy::MeshView;

/// The most shards, if the configuration does not set a number.
const DEFAULT_SHARDS: usize = 4;

/// How many commands may wait for a shard.
const COMMAND_QUEUE: usize = 64;

/// The configuration of the proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProxyConfig {
    /// Bytes of the node's account of memory, from which everything that waits draws.
    pub memory: usize,
    /// Shards, 1 to [`MAX_SHARDS`]. `None`: as many as the CPU quota or the cores allow, up to 4.
    pub shards: Option<NonZeroUsize>,
    /// Caps and timeouts.
    pub limits: ProxyLimits,
    /// How connections between two pods of this node travel.
    pub same_node: SameNode,
}

/// A pod to be served.
#[derive(Debug)]
pub struct PodAttachment {
    /// The pod.
    pub workload: Arc<Workload>,
    /// Its certificates.
    pub certificates: WorkloadCertificates,
    /// Its datapath and its listeners, by shard.
    pub shards: Vec<(PodDatapathParts, PodListeners)>,
}

/// Why the proxy could not carry out a command.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A shard could not be started.
    #[error("the proxy's shard {shard} could not be started: {source}")]
    Start {
        /// The number of the shard.
        shard: usize,
        /// What failed.
        source: io::Error,
    },
    /// A shard has ended, which is a fault of the agent. The kernel refuses the connections that it
    /// served.
    #[error("the proxy's shard {0} is not running; its connections are refused. Restart the agent")]
    ShardGone(usize),
    /// The listeners were created for another number of shards.
    #[error("the pod {pod} has listeners for {given} shards, but the proxy has {shards}")]
    ShardCount {
        /// The pod.
        pod: ObjectName,
        /// The number of shards that it has listeners for.
        given: usize,
        /// The number of shards of the proxy.
        shards: usize,
    },
    /// A pod's listeners could not be used.
    #[error("the listeners of the pod {pod} cannot be used: {source}")]
    Listeners {
        /// The pod.
        pod: ObjectName,
        /// What failed.
        source: io::Error,
    },
}

/// The node's proxy. Dropping it resets every connection; [`Proxy::stop`] gives them time to end.
#[derive(Debug)]
pub struct Proxy {
    shards: Vec<ShardHandle>,
    limits: ProxyLimits,
    memory: NodeAccount,
}

#[derive(Debug)]
struct ShardHandle {
    number: usize,
    commands: mpsc::Sender<ShardCommand>,
}

impl Proxy {
    /// Starts the shards, which read the mesh from `mesh` and the keys of tokens from `keys`, and
    /// record in `events` what they deny.
    ///
    /// # Errors
    /// [`ProxyError::Start`] if a thread or its runtime cannot be created.
    pub fn start(
        config: ProxyConfig,
        mesh: &watch::Receiver<Arc<MeshView>>,
        keys: &Arc<KeyCache>,
        events: &Arc<RecentEvents>,
    ) -> Result<Self, ProxyError> {
        let parallelism = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let shards = (0..shard_count(config.shards, parallelism))
            .map(|number| {
                let (mesh, keys, events) = (mesh.clone(), Arc::clone(keys), Arc::clone(events));
                let shard = move || Shard::new(number, config, mesh, keys, events);
                ShardHandle::start(number, shard)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            shards,
            limits: config.limits,
            memory: NodeAccount::new(config.memory),
        })
    }

    /// Returns the number of shards. Every pod needs listeners for each of them.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Returns how much of the node's account of memory is in use.
    pub fn memory(&self) -> NodeUsage {
        self.memory.usage()
    }

    /// Serves a pod. When this returns the pod is served, and the kernel may send its traffic.
    ///
    /// # Errors
    /// [`ProxyError`]; [`Proxy::remove_pod`] undoes what was begun.
    pub async fn add_pod(&self, pod: PodAttachment) -> Result<(), ProxyError> {
        let name = &pod.workload.name;
        if pod.shards.len() != self.shards.len() {
            return Err(ProxyError::ShardCount {
                pod: name.clone(),
                given: pod.shards.len(),
                shards: self.shards.len(),
            });
        }
        let caps = PodCaps::new(self.limits, self.memory.pod());
        let checks = CheckSlots::default();
        for (shard, (datapath, listeners)) in self.shards.iter().zip(pod.shards) {
            let pod = ShardPod {
                workload: Arc::clone(&pod.workload),
                certificates: pod.certificates.clone(),
                datapath,
                listeners,
                caps: caps.clone(),
                checks: checks.clone(),
            };
            let added = shard
                .ask(|done| ShardCommand::AddPod(Box::new(pod), done))
                .await?;
            added.map_err(|source| ProxyError::Listeners {
                pod: name.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Stops serving a pod. When this returns, its listeners, tunnels, deliveries and stocked sockets are
    /// closed. It is not an error if the pod is not served.
    ///
    /// # Errors
    /// [`ProxyError::ShardGone`].
    pub async fn remove_pod(
        &self,
        netns: NetnsCookie,
        removal: PodRemoval,
    ) -> Result<(), ProxyError> {
        self.ask_all(|done| ShardCommand::RemovePod(netns, removal, done))
            .await?;
        Ok(())
    }

    /// Judges every connection by the current view of the mesh, and ends those that it does not allow.
    /// Returns how many it ended. Call this after the kernel's tables follow that view.
    ///
    /// # Errors
    /// [`ProxyError::ShardGone`].
    pub async fn judge_again(&self) -> Result<usize, ProxyError> {
        Ok(self
            .ask_all(ShardCommand::JudgeAgain)
            .await?
            .into_iter()
            .sum())
    }

    /// Lists the live connections, by shard and age.
    ///
    /// # Errors
    /// [`ProxyError::ShardGone`].
    pub async fn connections(&self) -> Result<Vec<ConnectionInfo>, ProxyError> {
        Ok(self.ask_all(ShardCommand::Connections).await?.concat())
    }

    /// Returns the counts of all shards since they were started.
    ///
    /// # Errors
    /// [`ProxyError::ShardGone`].
    pub async fn stats(&self) -> Result<ProxyStats, ProxyError> {
        let mut all = ProxyStats::default();
        for shard in self.ask_all(ShardCommand::Stats).await? {
            all.add(&shard);
        }
        Ok(all)
    }

    /// Stops the proxy: it accepts nothing new, gives live connections the time `drain` to end, and then
    /// resets them. Meanwhile [`Proxy::judge_again`] still works.
    ///
    /// # Errors
    /// [`ProxyError::ShardGone`] if a shard had ended before.
    pub async fn stop(&self, drain: Duration) -> Result<(), ProxyError> {
        self.ask_all(|done| ShardCommand::Stop(Stop { drain, done }))
            .await?;
        Ok(())
    }

    /// Asks all shards concurrently.
    async fn ask_all<T>(
        &self,
        command: impl Fn(oneshot::Sender<T>) -> ShardCommand,
    ) -> Result<Vec<T>, ProxyError> {
        let answers = self.shards.iter().map(|shard| shard.ask(&command));
        join_all(answers).await.into_iter().collect()
    }
}

impl ShardHandle {
    /// Runs the shard that `shard` creates on a thread of its own.
    fn start(
        number: usize,
        shard: impl FnOnce() -> Shard + Send + 'static,
    ) -> Result<Self, ProxyError> {
        let failed = |source| ProxyError::Start {
            shard: number,
            source,
        };
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let run = move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => {
                    let _ = ready.send(Ok(()));
                    runtime.block_on(shard().run(receiver));
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        };
        thread::Builder::new()
            .name(format!("ambit-shard-{number}"))
            .spawn(run)
            .map_err(failed)?;
        started
            .recv()
            .map_err(io::Error::other)
            .and_then(|outcome| outcome)
            .map_err(failed)?;
        Ok(Self { number, commands })
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> ShardCommand,
    ) -> Result<T, ProxyError> {
        let (done, answer) = oneshot::channel();
        let gone = || ProxyError::ShardGone(self.number);
        self.commands
            .send(command(done))
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

/// Returns the number of shards: as configured, else by the node's parallelism.
fn shard_count(configured: Option<NonZeroUsize>, parallelism: usize) -> usize {
    let number = configured.map_or(parallelism.min(DEFAULT_SHARDS), NonZeroUsize::get);
    number.clamp(1, MAX_SHARDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_follow_the_configuration_or_the_node() {
        for (configured, parallelism, expected) in [
            (None, 1, 1),
            (None, 2, 2),
            (None, 64, 4),
            (Some(6), 2, 6),
            (Some(99), 2, MAX_SHARDS),
        ] {
            let configured = configured.and_then(NonZeroUsize::new);
            assert_eq!(shard_count(configured, parallelism), expected);
        }
    }
}
