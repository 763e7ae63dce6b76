//! The maps that hold policy sets.
//!
//! An entry is written once, under a set's new number, and never changed. It is removed only when no program
//! can judge by its set any more: see [`crate::PolicyTables::sweep`].

use std::collections::BTreeSet;

use ambit_common::{
    ADDRESS_KEY_SET_BITS, Address, AddressBitsKey, Bitmap, IdentityBitsKey, IdentityId,
    PolicySetHeader, PolicySetId, PortBitsKey, SetBits,
};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, MapData, MapError};

use crate::error::{BPF_NOEXIST, Failures, removed};
use crate::{DatapathError, Pins};
use ambit_policy::CompiledSet;

const HEADERS: &str = "POLICY_SETS";
const IDENTITIES: &str = "IDENTITY_BITS";
const SOURCES: &str = "SOURCE_BITS";
const DESTINATIONS: &str = "DESTINATION_BITS";
const PORTS: &str = "PORT_BITS";

/// The maps, opened.
#[derive(Debug)]
pub(crate) struct PolicyMaps {
    headers: HashMap<MapData, PolicySetId, PolicySetHeader>,
    identities: HashMap<MapData, IdentityBitsKey, SetBits>,
    sources: LpmTrie<MapData, AddressBitsKey, SetBits>,
    destinations: LpmTrie<MapData, AddressBitsKey, SetBits>,
    ports: HashMap<MapData, PortBitsKey, SetBits>,
}

impl PolicyMaps {
    pub(crate) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self {
            headers: pins.hash(HEADERS)?,
            identities: pins.hash(IDENTITIES)?,
            sources: pins.trie(SOURCES)?,
            destinations: pins.trie(DESTINATIONS)?,
            ports: pins.hash(PORTS)?,
        })
    }

    /// Writes a set under a new number. The header comes last, because no program judges without it.
    pub(crate) fn write(
        &mut self,
        set: PolicySetId,
        compiled: &CompiledSet,
    ) -> Result<(), DatapathError> {
        for (trie, name, entries) in [
            (&mut self.sources, SOURCES, &compiled.sources),
            (&mut self.destinations, DESTINATIONS, &compiled.destinations),
        ] {
            for &(address, prefix, bits) in entries {
                let bits = of(set, prefix.into(), bits);
                trie.insert(&address_key(set, address, prefix), bits, 0)
                    .map_err(DatapathError::map(name, "written"))?;
            }
        }
        for &(port, bits) in &compiled.ports {
            let key = PortBitsKey { set, port, zero: 0 };
            self.ports
                .insert(key, of(set, port.into(), bits), BPF_NOEXIST)
                .map_err(DatapathError::map(PORTS, "written"))?;
        }
        self.write_identity(set, IdentityId::NONE, compiled.identity_bits(None))?;
        let header = PolicySetHeader {
            set,
            ..compiled.header
        };
        self.headers
            .insert(set, header, BPF_NOEXIST)
            .map_err(DatapathError::map(HEADERS, "written"))
    }

    /// Writes the alternatives of a set that a peer identity satisfies.
    pub(crate) fn write_identity(
        &mut self,
        set: PolicySetId,
        identity: IdentityId,
        bits: Bitmap,
    ) -> Result<(), DatapathError> {
        let key = IdentityBitsKey { set, identity };
        self.identities
            .insert(key, of(set, identity.0, bits), BPF_NOEXIST)
            .map_err(DatapathError::map(IDENTITIES, "written"))
    }

    /// Returns the sets that have anything in the maps, including those that an earlier agent left, complete or
    /// not.
    pub(crate) fn sets(&self) -> Result<BTreeSet<PolicySetId>, DatapathError> {
        let mut sets = BTreeSet::new();
        collect(self.headers.keys(), HEADERS, |&set| set, &mut sets)?;
        collect(self.identities.keys(), IDENTITIES, |key| key.set, &mut sets)?;
        collect(self.ports.keys(), PORTS, |key| key.set, &mut sets)?;
        collect(
            self.sources.keys(),
            SOURCES,
            |key| key.data().set,
            &mut sets,
        )?;
        let of_prefix = |key: &Key<AddressBitsKey>| key.data().set;
        collect(self.destinations.keys(), DESTINATIONS, of_prefix, &mut sets)?;
        Ok(sets)
    }

    /// Removes sets with all their entries, the headers first. If a removal fails, the others are tried all the
    /// same.
    pub(crate) fn remove(&mut self, sets: &BTreeSet<PolicySetId>) -> Result<(), DatapathError> {
        let mut failures = Failures::default();
        for set in sets {
            failures.note(removed(self.headers.remove(set), HEADERS));
        }
        remove_keys(
            self.identities.keys().collect(),
            |key| sets.contains(&key.set),
            |key| removed(self.identities.remove(key), IDENTITIES),
            IDENTITIES,
            &mut failures,
        );
        remove_keys(
            self.ports.keys().collect(),
            |key| sets.contains(&key.set),
            |key| removed(self.ports.remove(key), PORTS),
            PORTS,
            &mut failures,
        );
        for (trie, name) in [
            (&mut self.sources, SOURCES),
            (&mut self.destinations, DESTINATIONS),
        ] {
            remove_keys(
                trie.keys().collect(),
                |key| sets.contains(&key.data().set),
                |key| removed(trie.remove(key), name),
                name,
                &mut failures,
            );
        }
        failures.into_result()
    }
}

fn collect<K>(
    keys: impl Iterator<Item = Result<K, MapError>>,
    name: &'static str,
    set: impl Fn(&K) -> PolicySetId,
    sets: &mut BTreeSet<PolicySetId>,
) -> Result<(), DatapathError> {
    for key in keys {
        sets.insert(set(&key.map_err(DatapathError::map(name, "read"))?));
    }
    Ok(())
}

/// Removes the keys that are meant. If one fails, the others are tried all the same.
fn remove_keys<K>(
    keys: Vec<Result<K, MapError>>,
    is_meant: impl Fn(&K) -> bool,
    mut remove: impl FnMut(&K) -> Result<(), DatapathError>,
    name: &'static str,
    failures: &mut Failures,
) {
    for key in keys {
        match key {
            Ok(key) if !is_meant(&key) => {}
            Ok(key) => {
                failures.note(remove(&key));
            }
            Err(error) => {
                failures.note(Err(DatapathError::map(name, "read")(error)));
            }
        }
    }
}

fn of(set: PolicySetId, value: u32, bits: Bitmap) -> SetBits {
    SetBits { set, value, bits }
}

fn address_key(set: PolicySetId, address: Address, prefix: u8) -> Key<AddressBitsKey> {
    let data = AddressBitsKey {
        set,
        zero: 0,
        address,
    };
    Key::new(ADDRESS_KEY_SET_BITS + u32::from(prefix), data)
}
