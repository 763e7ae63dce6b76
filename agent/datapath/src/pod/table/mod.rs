//! The kernel's table of enrolled pods: entries, addresses and probe ports.

mod slots;

use std::collections::{BTreeSet, HashMap as Known};
use std::net::IpAddr;

use ambit_common::{NetnsCookie, PodAddressKey, PodEntry, PodPortKey, PolicySetId};
use aya::Pod;
use aya::maps::{HashMap, MapData};

use crate::error::{BPF_NOEXIST, Failures, removed};
use crate::pod::table::slots::PodSlots;
use crate::{DatapathError, Pins};

/// What the kernel knows about the pods of this node.
pub(crate) struct PodTable {
    slots: PodSlots,
    addresses: OwnedKeys<PodAddressKey>,
    probe_ports: OwnedKeys<PodPortKey>,
}

impl PodTable {
    pub(crate) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self {
            slots: PodSlots::open(pins)?,
            addresses: OwnedKeys::open(pins)?,
            probe_ports: OwnedKeys::open(pins)?,
        })
    }

    pub(crate) fn get(&self, netns: NetnsCookie) -> Option<&PodEntry> {
        self.slots.get(netns)
    }

    /// Puts the entry of the pod that it names in force.
    ///
    /// # Errors
    /// [`DatapathError`]; the former entry stays in force.
    pub(crate) fn set(&mut self, entry: PodEntry) -> Result<(), DatapathError> {
        self.slots.set(entry)
    }

    /// Replaces the pod's own addresses and probe ports. Both let connections through, so those that are no
    /// longer right are removed first. If one change fails, the others are tried all the same.
    ///
    /// # Errors
    /// [`DatapathError`], which has all failures.
    pub(crate) fn set_own(
        &mut self,
        netns: NetnsCookie,
        addresses: &[IpAddr],
        probe_ports: &BTreeSet<u16>,
    ) -> Result<(), DatapathError> {
        let addresses = addresses.iter().map(|&ip| PodAddressKey {
            netns,
            address: ip.into(),
        });
        let ports = probe_ports.iter().map(|&port| PodPortKey {
            netns,
            port,
            zero: [0; 3],
        });
        let mut failures = Failures::default();
        self.probe_ports.replace(netns, ports, &mut failures);
        self.addresses.replace(netns, addresses, &mut failures);
        failures.into_result()
    }

    /// Removes a pod. Its `sk_lookup` program must be gone by then: without an entry, it refuses.
    ///
    /// # Errors
    /// [`DatapathError`], which has all failures.
    pub(crate) fn remove(&mut self, netns: NetnsCookie) -> Result<(), DatapathError> {
        let mut failures = Failures::default();
        self.probe_ports.replace(netns, [], &mut failures);
        self.addresses.replace(netns, [], &mut failures);
        failures.note(self.slots.remove(netns));
        failures.into_result()
    }

    /// Returns the pods that have anything in the maps.
    pub(crate) fn pods(&self) -> BTreeSet<NetnsCookie> {
        let owners = self
            .addresses
            .known
            .keys()
            .chain(self.probe_ports.known.keys());
        owners.copied().chain(self.slots.pods()).collect()
    }

    /// Returns the policy sets of the enrolled pods.
    pub(crate) fn policy_sets(&self) -> impl Iterator<Item = PolicySetId> {
        self.slots.policy_sets()
    }
}

/// A key that belongs to a pod, in a map in which only the presence of keys matters.
trait OwnedKey: Pod + Ord {
    const MAP: &'static str;

    fn owner(&self) -> NetnsCookie;
}

impl OwnedKey for PodAddressKey {
    const MAP: &'static str = "POD_ADDRESSES";

    fn owner(&self) -> NetnsCookie {
        self.netns
    }
}

impl OwnedKey for PodPortKey {
    const MAP: &'static str = "PROBE_PORTS";

    fn owner(&self) -> NetnsCookie {
        self.netns
    }
}

/// A map of keys that belong to pods, and its contents. Entries are inserted and deleted, never overwritten.
#[derive(Debug)]
struct OwnedKeys<K: OwnedKey> {
    map: HashMap<MapData, K, u8>,
    known: Known<NetnsCookie, BTreeSet<K>>,
}

impl<K: OwnedKey> OwnedKeys<K> {
    fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let map: HashMap<_, K, u8> = pins.hash(K::MAP)?;
        let mut known: Known<_, BTreeSet<K>> = Known::new();
        for key in map.keys() {
            let key = key.map_err(DatapathError::map(K::MAP, "read"))?;
            known.entry(key.owner()).or_default().insert(key);
        }
        Ok(Self { map, known })
    }

    /// Replaces the pod's keys: removes first, then adds.
    fn replace(
        &mut self,
        netns: NetnsCookie,
        wanted: impl IntoIterator<Item = K>,
        failures: &mut Failures,
    ) {
        let wanted: BTreeSet<K> = wanted.into_iter().collect();
        let known = self.known.remove(&netns).unwrap_or_default();
        let mut now = known.clone();
        for key in known.difference(&wanted) {
            if failures.note(removed(self.map.remove(key), K::MAP)) {
                now.remove(key);
            }
        }
        for key in wanted.difference(&known) {
            let added = self.map.insert(key, 1, BPF_NOEXIST);
            if failures.note(added.map_err(DatapathError::map(K::MAP, "written"))) {
                now.insert(*key);
            }
        }
        if !now.is_empty() {
            self.known.insert(netns, now);
        }
    }
}
