//! The policies in the kernel: which policy set decides for which pod, and the number of each identity.

pub(crate) mod ids;
pub(crate) mod maps;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ambit_common::{Generation, IdentityId, NetnsCookie, PolicySetId, SetMode};

use crate::kernel::grace::Grace;
use crate::policy::ids::Ids;
use crate::policy::maps::PolicyMaps;
use crate::{DatapathError, Pins};
use ambit_model::WorkloadIdentity;
use ambit_policy::{CompiledSet, Decider, WorkloadPolicies};

/// How long a set stays after its last pod has left it, so that its last denials can be explained. Kernel
/// programs may still read it for another reason: see [`PolicyTables::sweep`].
const RETIREMENT: Duration = Duration::from_secs(10);

/// The policy tables of this node. Cheap to clone. Locked once for each connection, never for each byte.
#[derive(Clone)]
pub struct PolicyTables(Arc<SharedTables>);

struct SharedTables {
    inner: Mutex<TablesState>,
    /// Has its own lock, so that connections do not wait for a grace period.
    grace: Mutex<Grace>,
}

struct TablesState {
    maps: PolicyMaps,
    ids: Ids,
    sets: HashMap<PolicySetId, Set>,
    by_policies: HashMap<Arc<WorkloadPolicies>, PolicySetId>,
    pods: HashMap<NetnsCookie, AssignedPolicies>,
    identities: HashMap<WorkloadIdentity, IdentityId>,
    names: HashMap<IdentityId, WorkloadIdentity>,
    leftovers: Leftovers,
}

/// Whether the maps may hold entries of sets that are unknown here: sets of an earlier agent, and sets that
/// could not be written or removed completely.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leftovers {
    /// The maps may hold some.
    Possible,
    /// The maps hold none.
    None,
}

/// A set in the kernel.
#[derive(Debug)]
struct Set {
    policies: Arc<WorkloadPolicies>,
    compiled: CompiledSet,
    /// The identities whose bits are written.
    peers: HashSet<IdentityId>,
    retired: Option<Instant>,
}

/// The policy set that decides for a pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AssignedPolicies {
    /// Its policy set.
    pub set: PolicySetId,
    /// The number of changes of the set.
    pub generation: Generation,
}

/// How many policy sets decide in which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PolicySetCounts {
    /// Sets that the kernel's maps decide.
    pub in_kernel: usize,
    /// Sets that userspace decides, because they do not fit the maps.
    pub in_userspace: usize,
    /// Sets that refuse everything, because a policy cannot be enforced.
    pub refusing: usize,
}

impl PolicyTables {
    /// Opens the maps.
    ///
    /// # Errors
    /// [`DatapathError::Map`] if a map cannot be opened.
    pub fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let inner = TablesState {
            maps: PolicyMaps::open(pins)?,
            ids: Ids::open(pins)?,
            sets: HashMap::new(),
            by_policies: HashMap::new(),
            pods: HashMap::new(),
            identities: HashMap::new(),
            names: HashMap::new(),
            leftovers: Leftovers::Possible,
        };
        Ok(Self(Arc::new(SharedTables {
            inner: Mutex::new(inner),
            grace: Mutex::new(Grace::new()?),
        })))
    }

    /// Writes `policies` into the kernel for a pod, and returns what the pod's entry has to hold. Equal policies
    /// share a set. `previous` is the generation in the pod's present entry.
    ///
    /// # Errors
    /// [`DatapathError`] if the set could not be written; the former set stays in force.
    pub fn assign(
        &self,
        netns: NetnsCookie,
        policies: &Arc<WorkloadPolicies>,
        previous: Generation,
    ) -> Result<AssignedPolicies, DatapathError> {
        let mut inner = self.lock();
        let set = inner.set_for(policies)?;
        let generation = match inner.pods.get(&netns) {
            Some(assigned) if assigned.set == set => assigned.generation,
            Some(assigned) => Generation(assigned.generation.0.max(previous.0) + 1),
            None => Generation(previous.0 + 1),
        };
        let assigned = AssignedPolicies { set, generation };
        inner.pods.insert(netns, assigned);
        Ok(assigned)
    }

    /// Removes a pod.
    pub fn release(&self, netns: NetnsCookie) {
        self.lock().pods.remove(&netns);
    }

    /// Gives a peer its number, and writes its bits in the set of the pod that it calls. Must be called before
    /// the kernel is asked for a verdict.
    ///
    /// # Errors
    /// [`DatapathError`] if the bits could not be written. The connection must be refused then.
    pub fn admit_peer(
        &self,
        netns: NetnsCookie,
        peer: Option<&WorkloadIdentity>,
    ) -> Result<(IdentityId, Generation), DatapathError> {
        let mut inner = self.lock();
        let Some(&assigned) = inner.pods.get(&netns) else {
            return Err(DatapathError::PodUnknown(netns));
        };
        let id = match peer {
            None => IdentityId::NONE,
            Some(peer) => inner.admit(assigned.set, peer)?,
        };
        Ok((id, assigned.generation))
    }

    /// Returns the policy and rule behind an alternative of a set.
    pub fn decider(&self, set: PolicySetId, alternative: u32) -> Option<Decider> {
        let inner = self.lock();
        inner.sets.get(&set)?.compiled.decider(alternative).cloned()
    }

    /// Returns the policies of a set, to explain a denial that no single alternative decided.
    pub fn policies(&self, set: PolicySetId) -> Option<Arc<WorkloadPolicies>> {
        self.lock()
            .sets
            .get(&set)
            .map(|set| Arc::clone(&set.policies))
    }

    /// Returns the identity with a number.
    pub fn identity(&self, id: IdentityId) -> Option<WorkloadIdentity> {
        self.lock().names.get(&id).cloned()
    }

    /// Removes sets that no pod has used for a while, and sets of a dead agent. Keeps the sets in `in_force`,
    /// which entries of pods in the kernel refer to.
    ///
    /// Once a set is chosen, nothing here refers to it. It is removed only after all programs that may have
    /// looked it up have ended, because the kernel reuses its memory immediately.
    ///
    /// # Errors
    /// [`DatapathError`] if something could not be removed. The next call tries again.
    pub fn sweep(
        &self,
        now: Instant,
        in_force: &BTreeSet<PolicySetId>,
    ) -> Result<(), DatapathError> {
        let out_of_use = self.lock().take_out_of_use(now, in_force)?;
        if out_of_use.is_empty() {
            return Ok(());
        }
        let removed = self.wait_for_programs().and_then(|()| {
            let mut inner = self.lock();
            inner.maps.remove(&out_of_use)
        });
        if removed.is_err() {
            self.lock().leftovers = Leftovers::Possible;
        }
        removed
    }

    fn wait_for_programs(&self) -> Result<(), DatapathError> {
        let mut grace = self.0.grace.lock().unwrap_or_else(PoisonError::into_inner);
        let now = grace.note();
        grace.wait(now)
    }

    /// Counts the sets in use.
    pub fn counts(&self) -> PolicySetCounts {
        let inner = self.lock();
        let mut counts = PolicySetCounts::default();
        for set in inner.sets.values().filter(|set| set.retired.is_none()) {
            match set.compiled.header.mode {
                mode if mode == SetMode::Tables as u8 => counts.in_kernel += 1,
                mode if mode == SetMode::Ask as u8 => counts.in_userspace += 1,
                _ => counts.refusing += 1,
            }
        }
        counts
    }

    fn lock(&self) -> MutexGuard<'_, TablesState> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TablesState {
    fn set_for(&mut self, policies: &Arc<WorkloadPolicies>) -> Result<PolicySetId, DatapathError> {
        if let Some(&set) = self.by_policies.get(policies) {
            if let Some(known) = self.sets.get_mut(&set) {
                known.retired = None;
            }
            return Ok(set);
        }
        let set = self.ids.policy_set()?;
        let compiled = policies.compile();
        if let Err(error) = self.maps.write(set, &compiled) {
            self.leftovers = Leftovers::Possible;
            return Err(error);
        }
        let policies = Arc::clone(policies);
        self.by_policies.insert(Arc::clone(&policies), set);
        self.sets.insert(
            set,
            Set {
                policies,
                compiled,
                peers: HashSet::new(),
                retired: None,
            },
        );
        Ok(set)
    }

    fn admit(
        &mut self,
        set: PolicySetId,
        peer: &WorkloadIdentity,
    ) -> Result<IdentityId, DatapathError> {
        let id = match self.identities.get(peer) {
            Some(&id) => id,
            None => {
                let id = self.ids.identity()?;
                self.identities.insert(peer.clone(), id);
                self.names.insert(id, peer.clone());
                id
            }
        };
        if let Some(known) = self.sets.get_mut(&set)
            && !known.peers.contains(&id)
        {
            let bits = known.compiled.identity_bits(Some(peer));
            self.maps.write_identity(set, id, bits)?;
            known.peers.insert(id);
        }
        Ok(id)
    }

    /// Forgets the sets that have been retired for long enough. Returns the sets to remove from the maps.
    fn take_out_of_use(
        &mut self,
        now: Instant,
        in_force: &BTreeSet<PolicySetId>,
    ) -> Result<BTreeSet<PolicySetId>, DatapathError> {
        let assigned = self.pods.values().map(|assigned| assigned.set);
        let used: HashSet<_> = assigned.chain(in_force.iter().copied()).collect();
        let mut out_of_use = BTreeSet::new();
        self.sets.retain(|&id, set| {
            match (used.contains(&id), set.retired) {
                (true, _) => set.retired = None,
                (false, None) => set.retired = Some(now),
                (false, Some(_)) => {}
            }
            let stays = set
                .retired
                .is_none_or(|since| now.saturating_duration_since(since) < RETIREMENT);
            if !stays {
                out_of_use.insert(id);
            }
            stays
        });
        let sets = &self.sets;
        self.by_policies.retain(|_, id| sets.contains_key(id));
        if self.leftovers == Leftovers::Possible {
            let found = self.maps.sets()?;
            let unknown = found.into_iter().filter(|id| !sets.contains_key(id));
            let (kept, left): (Vec<_>, Vec<_>) = unknown.partition(|id| in_force.contains(id));
            if kept.is_empty() {
                self.leftovers = Leftovers::None;
            }
            out_of_use.extend(left);
        }
        Ok(out_of_use)
    }
}
