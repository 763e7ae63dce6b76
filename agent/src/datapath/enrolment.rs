//! Enrolling a pod in the kernel, in steps of which each leaves it closed until the last.
//!
//! 1. [`Enroller::close`]: sk_lookup with empty slots, and the pod's entry: closed both ways.
//! 2. [`Enroller::listen`]: the agent's listeners in the pod, and the slots.
//! 3. [`Enroller::open`]: the entry says open. The proxy must be accepting by then.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ambit_common::{Address, Generation, MAX_SHARDS, NetnsCookie, PodEntry, PodState, PolicySetId};

use super::agent_sockets::AgentSockets;
use super::cgroup::{CgroupError, CgroupPath};
use super::dial::{PodDatapathParts, ShardMaps};
use super::listeners::{ListenersError, PodListenerSet, PodListeners};
use super::netns::{NetnsError, NetnsHandle};
use super::node::KernelLog;
use super::pod_program::{self, PodProgram};
use super::pod_table::PodTable;
use super::processes::processes_outside;
use super::stock::SocketStock;
use super::tables::{Assigned, Tables};
use super::{DatapathError, Pins};
use crate::model::{ObjectName, Workload};
use crate::policy::WorkloadPolicies;

/// Why a pod is not enrolled. It stays closed where it was closed already.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The netns reference does not lead to a network namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The reference names the node's own network.
    #[error(
        "{0} is the node's own network namespace, which is never enrolled; mend the pod's netns \
         reference"
    )]
    HostNetns(String),
    /// Two pods name one network namespace.
    #[error("{path} is already enrolled as pod {other}; mend the netns reference of one of them")]
    SharedNetns {
        /// The reference.
        path: String,
        /// Who has it.
        other: ObjectName,
    },
    /// Processes of the pod would not be seen by the connect hook.
    #[error(
        "processes {pids:?} of the pod are not in a cgroup below {cgroup}, where Ambit's hooks are \
         attached; start the agent with a --cgroup that covers them"
    )]
    OutsideCgroup {
        /// The processes.
        pids: Vec<u32>,
        /// The attached cgroup.
        cgroup: String,
    },
    /// The pod's cgroups could not be read.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The listeners could not be made.
    #[error(transparent)]
    Listeners(#[from] ListenersError),
    /// The kernel refused something.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
}

/// What the enroller works with.
pub struct EnrollerParts {
    /// The pin directory.
    pub pins: Pins,
    /// The cgroup to which the node's programs are attached.
    pub cgroup: CgroupPath,
    /// The policy tables.
    pub tables: Tables,
    /// Shards of the proxy.
    pub shards: usize,
    /// How long a connect of the agent may take.
    pub connect_timeout: Duration,
    /// Whether the pods' programs log.
    pub log: KernelLog,
}

/// Enrols the pods of this node in the kernel.
pub struct Enroller {
    parts: EnrollerParts,
    table: PodTable,
    shard_maps: Vec<Arc<ShardMaps>>,
    agent_sockets: AgentSockets,
    /// Network namespaces that are the node's: the agent's own, and init's where it can be read.
    node: Vec<NetnsHandle>,
}

/// A pod that is enrolled in the kernel, closed or open.
pub struct EnrolledPod {
    name: ObjectName,
    netns: NetnsHandle,
    cookie: NetnsCookie,
    program: PodProgram,
    entry: PodEntry,
}

impl EnrolledPod {
    /// The pod's network namespace.
    pub fn netns(&self) -> &NetnsHandle {
        &self.netns
    }

    /// Its cookie.
    pub fn cookie(&self) -> NetnsCookie {
        self.cookie
    }

    /// What the kernel knows of it.
    pub fn entry(&self) -> &PodEntry {
        &self.entry
    }
}

impl Enroller {
    /// An enroller. Pods of an earlier agent stay as they are until they are enrolled again or
    /// [`Enroller::remove_leftover`].
    ///
    /// # Errors
    /// [`EnrolError`] where maps or the agent's own namespace cannot be opened.
    pub fn new(parts: EnrollerParts) -> Result<Self, EnrolError> {
        let shard_maps = (0..parts.shards)
            .map(|_| ShardMaps::open(&parts.pins).map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            table: PodTable::open(&parts.pins)?,
            shard_maps,
            agent_sockets: AgentSockets::open(&parts.pins)?,
            node: [NetnsHandle::current()?]
                .into_iter()
                .chain(NetnsHandle::init().ok())
                .collect(),
            parts,
        })
    }

    /// The kernel's marks on the agent's sockets.
    pub fn agent_sockets(&self) -> &AgentSockets {
        &self.agent_sockets
    }

    /// Closes a pod both ways: its program with empty slots, then its entry. `enrolled` are the
    /// pods that are enrolled.
    ///
    /// A pod that an earlier agent left keeps its entry: without listeners its mesh traffic is
    /// refused, and what policy allows in plaintext goes on.
    ///
    /// # Errors
    /// [`EnrolError`], before or after the pod was closed.
    pub fn close<'a>(
        &mut self,
        workload: &Workload,
        path: &Path,
        enrolled: impl IntoIterator<Item = &'a EnrolledPod>,
    ) -> Result<EnrolledPod, EnrolError> {
        let netns = NetnsHandle::open(path)?;
        let cookie = netns.cookie()?;
        self.admit(path, &netns, cookie, enrolled)?;
        let parts = &self.parts;
        let program = PodProgram::attach(&parts.pins, &netns, cookie, parts.log)?;
        let entry = match self.table.get(cookie)? {
            Some(left) => left,
            None => closed_entry(workload),
        };
        self.table.set_addresses(cookie, &workload.addresses)?;
        self.table.set_probe_ports(cookie, &workload.probe_ports)?;
        self.table.set(cookie, entry)?;
        Ok(EnrolledPod {
            name: workload.name.clone(),
            netns,
            cookie,
            program,
            entry,
        })
    }

    fn admit<'a>(
        &self,
        path: &Path,
        netns: &NetnsHandle,
        cookie: NetnsCookie,
        enrolled: impl IntoIterator<Item = &'a EnrolledPod>,
    ) -> Result<(), EnrolError> {
        for own in &self.node {
            if netns.same_as(own)? {
                return Err(EnrolError::HostNetns(path.display().to_string()));
            }
        }
        match enrolled.into_iter().find(|pod| pod.cookie == cookie) {
            None => Ok(()),
            Some(pod) => Err(EnrolError::SharedNetns {
                path: path.display().to_string(),
                other: pod.name.clone(),
            }),
        }
    }

    fn refuse_outside_cgroup(&self, netns: &NetnsHandle) -> Result<(), EnrolError> {
        let pids = processes_outside(&self.parts.cgroup, netns)?;
        if pids.is_empty() {
            return Ok(());
        }
        let cgroup = self.parts.cgroup.path().display().to_string();
        Err(EnrolError::OutsideCgroup { pids, cgroup })
    }

    /// Makes the listeners in a closed pod and fills its slots. The result is for the proxy, by
    /// shard.
    ///
    /// # Errors
    /// [`EnrolError`]; the pod stays closed.
    pub fn listen(
        &mut self,
        pod: &mut EnrolledPod,
        workload: &Workload,
    ) -> Result<Vec<(PodDatapathParts, PodListeners)>, EnrolError> {
        self.refuse_outside_cgroup(&pod.netns)?;
        let listeners = PodListenerSet::make(&pod.netns, self.parts.shards)?;
        pod.program.serve(&self.parts.pins, &listeners)?;
        pod.entry.listener_ports = listeners.ports;
        let ports = listeners.ports;
        let shards = listeners.shards.into_iter().zip(&self.shard_maps);
        Ok(shards
            .map(|(listeners, maps)| (self.shard_parts(pod, workload, ports, maps), listeners))
            .collect())
    }

    fn shard_parts(
        &self,
        pod: &EnrolledPod,
        workload: &Workload,
        ports: [[u16; MAX_SHARDS]; 3],
        maps: &Arc<ShardMaps>,
    ) -> PodDatapathParts {
        PodDatapathParts {
            pod: workload.name.clone(),
            netns: pod.cookie,
            addresses: workload.addresses.clone(),
            ports,
            stock: SocketStock::new(pod.netns.clone()),
            maps: Arc::clone(maps),
            tables: self.parts.tables.clone(),
            connect_timeout: self.parts.connect_timeout,
        }
    }

    /// Opens a pod: from here on the kernel sends its mesh traffic to the listeners.
    ///
    /// # Errors
    /// [`EnrolError`]; the pod stays as it was.
    pub fn open(
        &mut self,
        pod: &mut EnrolledPod,
        workload: &Workload,
        policies: &Arc<WorkloadPolicies>,
    ) -> Result<(), EnrolError> {
        self.table.set_addresses(pod.cookie, &workload.addresses)?;
        self.table
            .set_probe_ports(pod.cookie, &workload.probe_ports)?;
        let assigned = self
            .parts
            .tables
            .assign(pod.cookie, policies, pod.entry.generation)?;
        let mut entry = with_addresses(pod.entry, workload);
        entry.policy_set = assigned.set;
        entry.generation = assigned.generation;
        entry.shards = self.shard_maps.len() as u32;
        entry.state = PodState::Open as u8;
        self.table.set(pod.cookie, entry)?;
        pod.entry = entry;
        Ok(())
    }

    /// Makes the kernel follow a change of an open pod's objects or policies.
    ///
    /// # Errors
    /// [`EnrolError`]; what was in force still is.
    pub fn update(
        &mut self,
        pod: &mut EnrolledPod,
        workload: &Workload,
        policies: &Arc<WorkloadPolicies>,
    ) -> Result<Change, EnrolError> {
        self.table.set_addresses(pod.cookie, &workload.addresses)?;
        self.table
            .set_probe_ports(pod.cookie, &workload.probe_ports)?;
        let Assigned { set, generation } =
            self.parts
                .tables
                .assign(pod.cookie, policies, pod.entry.generation)?;
        let mut entry = with_addresses(pod.entry, workload);
        entry.policy_set = set;
        entry.generation = generation;
        if entry == pod.entry {
            return Ok(Change::None);
        }
        self.table.set(pod.cookie, entry)?;
        let changed = if entry.policy_set == pod.entry.policy_set {
            Change::Addresses
        } else {
            Change::Policies
        };
        pod.entry = entry;
        Ok(changed)
    }

    /// Closes an open pod whose configuration is no longer known.
    ///
    /// # Errors
    /// [`EnrolError`]; the pod stays as it was.
    pub fn shut(&mut self, pod: &mut EnrolledPod) -> Result<(), EnrolError> {
        let entry = PodEntry {
            state: PodState::Closed as u8,
            ..pod.entry
        };
        self.table.set(pod.cookie, entry)?;
        pod.entry = entry;
        Ok(())
    }

    /// Takes a pod out of the mesh. Its listeners must be closed by then.
    ///
    /// # Errors
    /// [`EnrolError`] where something could not be removed.
    pub fn remove(&mut self, pod: EnrolledPod) -> Result<(), EnrolError> {
        pod.program.detach(&self.parts.pins)?;
        self.table.remove(pod.cookie)?;
        self.parts.tables.release(pod.cookie);
        Ok(())
    }

    /// Takes out of the mesh the pods that an earlier agent left, apart from `known` ones and from
    /// those that have one of the addresses `claimed`; says how many of the latter there are.
    ///
    /// # Errors
    /// [`EnrolError`] where something could not be removed.
    pub fn remove_leftovers(
        &mut self,
        known: &BTreeSet<NetnsCookie>,
        claimed: &[IpAddr],
    ) -> Result<usize, EnrolError> {
        let mut kept = 0;
        for netns in self.parts.pins.pods()? {
            if known.contains(&netns) {
                continue;
            }
            if self.table.has_address(netns, claimed)? {
                kept += 1;
                continue;
            }
            pod_program::detach_leftover(&self.parts.pins, netns)?;
            self.table.remove(netns)?;
        }
        Ok(kept)
    }
}

/// What changed for an open pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nothing that the kernel knows.
    None,
    /// Its addresses.
    Addresses,
    /// Its policies: connections are to be judged again.
    Policies,
}

fn closed_entry(workload: &Workload) -> PodEntry {
    let entry = PodEntry {
        generation: Generation(0),
        policy_set: PolicySetId::NONE,
        shards: 0,
        primary_v4: Address::UNSPECIFIED,
        primary_v6: Address::UNSPECIFIED,
        listener_ports: [[0; MAX_SHARDS]; 3],
        state: PodState::Closed as u8,
        zero: [0; 7],
    };
    with_addresses(entry, workload)
}

fn with_addresses(entry: PodEntry, workload: &Workload) -> PodEntry {
    let first = |is_v4: bool| {
        let found = workload.addresses.iter().find(|ip| ip.is_ipv4() == is_v4);
        found.map_or(Address::UNSPECIFIED, |&ip| ip.into())
    };
    PodEntry {
        primary_v4: first(true),
        primary_v6: first(false),
        ..entry
    }
}
