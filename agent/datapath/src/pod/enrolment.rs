//! Enrolling a pod in the kernel, in steps of which each leaves it closed until the last.
//!
//! 1. [`Enroller::enrol`]: whose the network namespace is, sk_lookup with empty slots, and the pod's
//!    entry: closed both ways.
//! 2. [`Enroller::listen`]: the agent's listeners in the pod, and the slots.
//! 3. [`Enroller::serve`]: the entry says open. The proxy must be accepting by then.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_common::{Address, Generation, MAX_SHARDS, NetnsCookie, PodEntry, PodMode, PolicySetId};

use crate::KernelLog;
use crate::kernel::cgroup::{CgroupError, CgroupPath};
use crate::kernel::link::LinkTarget;
use crate::kernel::netns::{NetnsError, NetnsHandle};
use crate::kernel::processes::processes_outside;
use crate::pod::owner::{self, PodOwner};
use crate::pod::table::PodTable;
use crate::policy::{AssignedPolicies, PolicyTables};
use crate::programs::pod_program::{self, PodProgram};
use crate::sockets::dial::{PodDatapathParts, ShardMaps};
use crate::sockets::listeners::{ListenersError, PodListenerSet, PodListeners};
use crate::sockets::marks::AgentSockets;
use crate::sockets::stock::SocketStock;
use crate::{DatapathError, Pins, pins};
use ambit_model::{ObjectName, Workload};
use ambit_policy::WorkloadPolicies;

/// Why a pod is not enrolled. It stays closed where it was closed already.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The netns reference does not lead to a network namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The reference names the node's own network.
    #[error(
        "{0} is the node's own network namespace, which is never enrolled; correct the pod's netns \
         reference"
    )]
    HostNetns(String),
    /// The network namespace was given to another pod.
    #[error(
        "{path} is the network namespace of pod {owner}, which keeps it for as long as it exists; \
         correct the netns reference of this pod"
    )]
    OwnedNetns {
        /// The reference.
        path: String,
        /// Whose it is.
        owner: ObjectName,
    },
    /// Several pods name one network namespace that was given to none of them.
    #[error(
        "{path} is also the network namespace of {}, and none of them was served in it before: it \
         is closed until only one pod names it",
        list(others)
    )]
    ContestedNetns {
        /// The reference.
        path: String,
        /// The other pods that name it.
        others: Vec<ObjectName>,
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
    pub tables: PolicyTables,
    /// Shards of the proxy.
    pub shards: usize,
    /// How long a connect of the agent may take.
    pub connect_timeout: Duration,
    /// Whether the pods' programs log.
    pub log: KernelLog,
}

/// Enrols the pods of this node in the kernel.
pub struct Enroller {
    pub(crate) parts: EnrollerParts,
    pub(crate) table: PodTable,
    shard_maps: Vec<Arc<ShardMaps>>,
    agent_sockets: AgentSockets,
    /// Network namespaces that are the node's: the agent's own, and init's where it can be read.
    node: Vec<NetnsHandle>,
}

/// A pod that is enrolled in the kernel, closed or open.
pub struct EnrolledPod {
    owner: PodOwner,
    netns: NetnsHandle,
    cookie: NetnsCookie,
    program: PodProgram,
    entry: PodEntry,
}

/// A network namespace that a reference leads to. It is not the node's own.
pub struct LocatedNetns {
    netns: NetnsHandle,
    cookie: NetnsCookie,
}

impl LocatedNetns {
    /// Its cookie.
    pub fn cookie(&self) -> NetnsCookie {
        self.cookie
    }

    /// The namespace.
    pub fn netns(&self) -> &NetnsHandle {
        &self.netns
    }
}

impl EnrolledPod {
    /// The pod that its network namespace was given to.
    pub fn owner(&self) -> &PodOwner {
        &self.owner
    }

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
    /// An enroller. Pods of an earlier agent stay as they are until they are enrolled again, or
    /// [`Enroller::close_leftover`] or [`Enroller::remove`] is called for them.
    ///
    /// # Errors
    /// [`EnrolError`] if maps or the agent's own namespace cannot be opened.
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

    /// The network namespace that a path leads to.
    ///
    /// # Errors
    /// [`EnrolError`] if it leads to none, or to the node's own.
    pub fn locate(&self, path: &Path) -> Result<LocatedNetns, EnrolError> {
        let netns = NetnsHandle::open(path)?;
        for own in &self.node {
            if netns.same_as(own)? {
                return Err(EnrolError::HostNetns(path.display().to_string()));
            }
        }
        let cookie = netns.cookie()?;
        Ok(LocatedNetns { netns, cookie })
    }

    /// Gives a network namespace to a pod, and closes it both ways: its program with empty slots,
    /// and its entry. Whether the pod may have it is decided by then.
    ///
    /// A pod that an earlier agent left keeps its entry: without listeners its mesh traffic is
    /// refused, and what policy allows in plaintext goes on.
    ///
    /// # Errors
    /// [`EnrolError`], before or after the pod was closed.
    pub fn enrol(
        &mut self,
        workload: &Workload,
        located: LocatedNetns,
    ) -> Result<EnrolledPod, EnrolError> {
        let owner = PodOwner::of(workload);
        let LocatedNetns { netns, cookie } = located;
        let recorded = self.record_owner(cookie, &owner);
        let left = self.table.get(cookie).copied();
        let entry = left.unwrap_or_else(|| with_addresses(closed(cookie), workload));
        let program = self.fasten(&netns, entry)?;
        recorded?;
        self.write_own(cookie, workload)?;
        Ok(EnrolledPod {
            owner,
            netns,
            cookie,
            program,
            entry,
        })
    }

    /// Closes a network namespace both ways that is given to no pod.
    ///
    /// # Errors
    /// [`EnrolError`], before or after it was closed.
    pub fn close_unowned(&mut self, located: &LocatedNetns) -> Result<(), EnrolError> {
        let target = LinkTarget::Netns(Some(located.netns.inode()?));
        let attached = pod_program::link_target(&self.parts.pins, located.cookie)?;
        let entry = self.table.get(located.cookie);
        if attached == Some(target) && entry.is_some_and(|entry| !entry.is_served()) {
            return Ok(());
        }
        self.fasten(&located.netns, closed(located.cookie))?;
        Ok(())
    }

    /// Program and entry: the one closes what comes in, the other what goes out. Each is tried,
    /// whatever becomes of the other.
    fn fasten(&mut self, netns: &NetnsHandle, entry: PodEntry) -> Result<PodProgram, EnrolError> {
        let program = PodProgram::attach(&self.parts.pins, netns, entry.netns, self.parts.log);
        let written = self.table.set(entry);
        let program = program?;
        written?;
        Ok(program)
    }

    fn write_own(&mut self, netns: NetnsCookie, workload: &Workload) -> Result<(), DatapathError> {
        self.table
            .set_own(netns, &workload.addresses, &workload.probe_ports)
    }

    /// Removes the policy sets that are out of use.
    ///
    /// # Errors
    /// [`DatapathError`] if something could not be removed. It is tried again the next time.
    pub fn sweep_policies(&self, now: Instant) -> Result<(), DatapathError> {
        let in_force = self.table.policy_sets().collect();
        self.parts.tables.sweep(now, &in_force)
    }

    fn record_owner(&self, netns: NetnsCookie, owner: &PodOwner) -> Result<(), EnrolError> {
        let folder = self.parts.pins.pod(netns);
        pins::create(&folder)?;
        owner::write(&folder, owner)?;
        Ok(())
    }

    /// Gives the network namespace of a closed pod to the pod of the same name that has taken its
    /// place there.
    ///
    /// # Errors
    /// [`EnrolError`] if that cannot be recorded.
    pub fn hand_over(
        &mut self,
        pod: &mut EnrolledPod,
        workload: &Workload,
    ) -> Result<(), EnrolError> {
        if !pod.owner.is(workload) {
            let owner = PodOwner::of(workload);
            self.record_owner(pod.cookie, &owner)?;
            pod.owner = owner;
        }
        Ok(())
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
    pub fn serve(
        &mut self,
        pod: &mut EnrolledPod,
        workload: &Workload,
        policies: &Arc<WorkloadPolicies>,
    ) -> Result<(), EnrolError> {
        self.write_own(pod.cookie, workload)?;
        let assigned = self
            .parts
            .tables
            .assign(pod.cookie, policies, pod.entry.generation)?;
        let mut entry = with_addresses(pod.entry, workload);
        entry.policy_set = assigned.set;
        entry.generation = assigned.generation;
        entry.shards = self.shard_maps.len() as u32;
        entry.state = PodMode::Served as u8;
        self.table.set(entry)?;
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
    ) -> Result<EntryChange, EnrolError> {
        self.write_own(pod.cookie, workload)?;
        let AssignedPolicies { set, generation } =
            self.parts
                .tables
                .assign(pod.cookie, policies, pod.entry.generation)?;
        let mut entry = with_addresses(pod.entry, workload);
        entry.policy_set = set;
        entry.generation = generation;
        if entry == pod.entry {
            return Ok(EntryChange::None);
        }
        self.table.set(entry)?;
        let changed = if entry.policy_set == pod.entry.policy_set {
            EntryChange::Addresses
        } else {
            EntryChange::Policies
        };
        pod.entry = entry;
        Ok(changed)
    }

    /// Closes an open pod both ways.
    ///
    /// # Errors
    /// [`EnrolError`]; the pod stays as it was.
    pub fn close(&mut self, pod: &mut EnrolledPod) -> Result<(), EnrolError> {
        let entry = PodEntry {
            state: PodMode::Closed as u8,
            ..pod.entry
        };
        self.table.set(entry)?;
        pod.entry = entry;
        Ok(())
    }

    /// Closes what an earlier agent left open of a pod that is not served. A failure is told of in the
    /// log, and the caller tries again: without listeners the pod's mesh traffic is refused.
    pub fn close_unserved(&mut self, pod: Option<&mut EnrolledPod>) {
        let Some(pod) = pod.filter(|pod| pod.entry.is_served()) else {
            return;
        };
        let name = pod.owner.pod.clone();
        match self.close(pod) {
            Ok(()) => tracing::info!(pod = %name, "closed until it is served"),
            Err(error) => tracing::error!(pod = %name, %error, "the pod could not be closed"),
        }
    }

    /// Takes a pod out of the mesh: its traffic passes as without a mesh from here on. Its listeners
    /// must be closed by then.
    ///
    /// # Errors
    /// [`EnrolError`] if something could not be removed. What is left is found again.
    pub fn remove(&mut self, netns: NetnsCookie) -> Result<(), EnrolError> {
        pod_program::detach(&self.parts.pins, netns)?;
        self.table.remove(netns)?;
        self.parts.tables.release(netns);
        pod_program::remove_pins(&self.parts.pins, netns)?;
        Ok(())
    }
}

/// What changed for an open pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryChange {
    /// Nothing that the kernel knows.
    None,
    /// Its addresses.
    Addresses,
    /// Its policies: connections are to be judged again.
    Policies,
}

/// The entry of what is closed both ways.
pub(crate) fn closed(netns: NetnsCookie) -> PodEntry {
    PodEntry {
        netns,
        generation: Generation(0),
        policy_set: PolicySetId::NONE,
        shards: 0,
        primary_v4: Address::UNSPECIFIED,
        primary_v6: Address::UNSPECIFIED,
        listener_ports: [[0; MAX_SHARDS]; 3],
        state: PodMode::Closed as u8,
        zero: [0; 7],
    }
}

fn list(pods: &[ObjectName]) -> String {
    let names: Vec<String> = pods.iter().map(|name| format!("pod {name}")).collect();
    names.join(" and ")
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
