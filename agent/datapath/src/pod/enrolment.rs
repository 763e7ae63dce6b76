//! Enrols a pod in the kernel and serves it, in steps that leave it closed until the last one.
//!
//! 1. [`Enroller::enrol`] records whose the network namespace is, attaches `sk_lookup` with empty slots, and
//!    writes the pod's entry. The pod is closed in both directions.
//! 2. [`Enroller::listen`] makes the agent's listeners in the pod and fills the slots.
//! 3. [`Enroller::serve`] writes an entry that says that the pod is served. The proxy must be accepting by
//!    then.
//!
//! [`Enroller::close`] closes a served pod. [`Enroller::remove`] takes a pod out of the kernel.

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
use crate::sockets::unheard::pace::LookTurn;
use crate::{DatapathError, Pins, pins};
use ambit_model::{ObjectName, Workload};
use ambit_policy::WorkloadPolicies;

/// Why a pod could not be enrolled or served. A pod that was closed stays closed.
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
    /// The network namespace belongs to another pod.
    #[error(
        "{path} is the network namespace of pod {owner}, which keeps it while it exists; \
         correct the netns reference of this pod"
    )]
    OwnedNetns {
        /// The reference.
        path: String,
        /// The pod that it belongs to.
        owner: ObjectName,
    },
    /// Several pods name a network namespace that belongs to none of them.
    #[error(
        "{path} is also the network namespace of {}, and none of these pods was served in it before: it \
         is closed until only one pod names it",
        list(others)
    )]
    ContestedNetns {
        /// The reference.
        path: String,
        /// The other pods that name it.
        others: Vec<ObjectName>,
    },
    /// The connect hook would not see all processes of the pod.
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

/// The parts of an [`Enroller`].
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
    /// Whether the pods' programs log each step.
    pub log: KernelLog,
}

/// Enrols the pods of this node in the kernel.
pub struct Enroller {
    pub(crate) parts: EnrollerParts,
    pub(crate) table: PodTable,
    shard_maps: Vec<Arc<ShardMaps>>,
    look_turn: LookTurn,
    agent_sockets: AgentSockets,
    /// The network namespaces of the node: the agent's own, and that of process 1 if it can be read.
    node: Vec<NetnsHandle>,
}

/// A pod that is enrolled in the kernel, closed or served.
pub struct EnrolledPod {
    owner: PodOwner,
    netns: NetnsHandle,
    cookie: NetnsCookie,
    program: PodProgram,
    entry: PodEntry,
}

/// The network namespace that a pod's reference leads to. It is not the node's own.
pub struct LocatedNetns {
    netns: NetnsHandle,
    cookie: NetnsCookie,
}

impl LocatedNetns {
    /// Returns the cookie of the network namespace.
    pub fn cookie(&self) -> NetnsCookie {
        self.cookie
    }

    /// Returns the namespace.
    pub fn netns(&self) -> &NetnsHandle {
        &self.netns
    }
}

impl EnrolledPod {
    /// Returns the pod that the network namespace belongs to.
    pub fn owner(&self) -> &PodOwner {
        &self.owner
    }

    /// Returns the pod's network namespace.
    pub fn netns(&self) -> &NetnsHandle {
        &self.netns
    }

    /// Returns the cookie of the network namespace.
    pub fn cookie(&self) -> NetnsCookie {
        self.cookie
    }

    /// Returns the pod's entry in the kernel.
    pub fn entry(&self) -> &PodEntry {
        &self.entry
    }
}

impl Enroller {
    /// Makes an enroller. Pods of an earlier agent stay as they are until they are enrolled again, or until
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
            look_turn: LookTurn::new(),
            agent_sockets: AgentSockets::open(&parts.pins)?,
            node: [NetnsHandle::current()?]
                .into_iter()
                .chain(NetnsHandle::init().ok())
                .collect(),
            parts,
        })
    }

    /// Returns the kernel's marks on the agent's sockets.
    pub fn agent_sockets(&self) -> &AgentSockets {
        &self.agent_sockets
    }

    /// Opens the network namespace that a path leads to.
    ///
    /// # Errors
    /// [`EnrolError`] if it leads to no network namespace, or to the node's own.
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

    /// Gives a network namespace to a pod and enrols the pod, closed: attaches its program with empty slots
    /// and writes its entry. The caller has decided that the pod may have the namespace.
    ///
    /// A pod that an earlier agent left keeps its entry. Without listeners its mesh traffic is refused, and
    /// plaintext that policy allows still passes.
    ///
    /// # Errors
    /// [`EnrolError`]. The pod may be closed or not.
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
        let program = self.attach_and_write(&netns, entry)?;
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

    /// Closes a network namespace that belongs to no pod, in both directions.
    ///
    /// # Errors
    /// [`EnrolError`]. The namespace may be closed or not.
    pub fn close_unowned(&mut self, located: &LocatedNetns) -> Result<(), EnrolError> {
        let target = LinkTarget::Netns(Some(located.netns.inode()?));
        let attached = pod_program::link_target(&self.parts.pins, located.cookie)?;
        let entry = self.table.get(located.cookie);
        if attached == Some(target) && entry.is_some_and(|entry| !entry.is_served()) {
            return Ok(());
        }
        self.attach_and_write(&located.netns, closed(located.cookie))?;
        Ok(())
    }

    /// Attaches the program, which closes the inbound direction, and writes the entry, which closes the
    /// outbound direction. Each is tried even if the other fails.
    fn attach_and_write(
        &mut self,
        netns: &NetnsHandle,
        entry: PodEntry,
    ) -> Result<PodProgram, EnrolError> {
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

    /// Removes policy sets that are no longer used.
    ///
    /// # Errors
    /// [`DatapathError`] if something could not be removed. The next call tries again.
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

    /// Gives the network namespace of a closed pod to the pod of the same name that has replaced it there.
    ///
    /// # Errors
    /// [`EnrolError`] if the new owner cannot be recorded.
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

    /// Makes the listeners in a closed pod and fills its slots. Returns what each shard of the proxy needs.
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
            look_turn: self.look_turn.clone(),
            connect_timeout: self.parts.connect_timeout,
        }
    }

    /// Serves a closed pod: from here on, the kernel sends its mesh traffic to the listeners.
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

    /// Applies a change of a served pod's objects or policies to the kernel.
    ///
    /// # Errors
    /// [`EnrolError`]; the former state stays in force.
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

    /// Closes a served pod in both directions.
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

    /// Closes a pod that is not served, if an earlier agent left its entry open. A failure is logged, and the
    /// caller tries again. Without listeners, the pod's mesh traffic is refused in any case.
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

    /// Takes a pod out of the kernel. From here on, its traffic passes as without a mesh. Its listeners must be
    /// closed by then.
    ///
    /// # Errors
    /// [`EnrolError`] if something could not be removed. [`Enroller::leftovers`] finds what is left.
    pub fn remove(&mut self, netns: NetnsCookie) -> Result<(), EnrolError> {
        pod_program::detach(&self.parts.pins, netns)?;
        self.table.remove(netns)?;
        self.parts.tables.release(netns);
        pod_program::remove_pins(&self.parts.pins, netns)?;
        Ok(())
    }
}

/// What changed in the entry of a served pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryChange {
    /// Nothing.
    None,
    /// Its addresses.
    Addresses,
    /// Its policies. Its connections have to be judged again.
    Policies,
}

/// Returns the entry of a closed network namespace.
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
