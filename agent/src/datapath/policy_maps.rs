//! The kernel's policy tables, as maps.

use ambit_common::{
    ADDRESS_KEY_SET_BITS, Address, AddressBitsKey, Bitmap, IdentityBitsKey, IdentityId,
    PolicySetHeader, PolicySetId, PortBitsKey,
};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, MapData};

use super::error::removed;
use super::{DatapathError, Pins};
use crate::policy::CompiledSet;

/// The maps that hold policy sets.
#[derive(Debug)]
pub(super) struct PolicyMaps {
    headers: HashMap<MapData, PolicySetId, PolicySetHeader>,
    identities: HashMap<MapData, IdentityBitsKey, Bitmap>,
    sources: LpmTrie<MapData, AddressBitsKey, Bitmap>,
    destinations: LpmTrie<MapData, AddressBitsKey, Bitmap>,
    ports: HashMap<MapData, PortBitsKey, Bitmap>,
}

impl PolicyMaps {
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self {
            headers: pins.hash("POLICY_SETS")?,
            identities: pins.hash("IDENTITY_BITS")?,
            sources: pins.trie("SOURCE_BITS")?,
            destinations: pins.trie("DESTINATION_BITS")?,
            ports: pins.hash("PORT_BITS")?,
        })
    }

    /// Writes a set under a new number; the header last, since nothing is judged without it.
    pub(super) fn write(
        &mut self,
        set: PolicySetId,
        compiled: &CompiledSet,
    ) -> Result<(), DatapathError> {
        for &(address, prefix, bits) in &compiled.sources {
            self.sources
                .insert(&address_key(set, address, prefix), bits, 0)
                .map_err(DatapathError::map("SOURCE_BITS", "written"))?;
        }
        for &(address, prefix, bits) in &compiled.destinations {
            self.destinations
                .insert(&address_key(set, address, prefix), bits, 0)
                .map_err(DatapathError::map("DESTINATION_BITS", "written"))?;
        }
        for &(port, bits) in &compiled.ports {
            self.ports
                .insert(PortBitsKey { set, port, zero: 0 }, bits, 0)
                .map_err(DatapathError::map("PORT_BITS", "written"))?;
        }
        self.write_identity(set, IdentityId::NONE, compiled.identity_bits(None))?;
        self.headers
            .insert(set, compiled.header, 0)
            .map_err(DatapathError::map("POLICY_SETS", "written"))
    }

    /// Writes what a peer identity satisfies in a set.
    pub(super) fn write_identity(
        &mut self,
        set: PolicySetId,
        identity: IdentityId,
        bits: Bitmap,
    ) -> Result<(), DatapathError> {
        self.identities
            .insert(IdentityBitsKey { set, identity }, bits, 0)
            .map_err(DatapathError::map("IDENTITY_BITS", "written"))
    }

    /// Removes every set that `keep` does not keep, with all its entries: those that were retired,
    /// and those that a dead agent left, wholly or in part.
    pub(super) fn retain(
        &mut self,
        keep: impl Fn(PolicySetId) -> bool,
    ) -> Result<(), DatapathError> {
        let headers: Vec<_> = self.headers.keys().filter_map(Result::ok).collect();
        for key in headers.into_iter().filter(|&set| !keep(set)) {
            removed(self.headers.remove(&key), "POLICY_SETS")?;
        }
        let identities: Vec<_> = self.identities.keys().filter_map(Result::ok).collect();
        for key in identities.into_iter().filter(|key| !keep(key.set)) {
            removed(self.identities.remove(&key), "IDENTITY_BITS")?;
        }
        let ports: Vec<_> = self.ports.keys().filter_map(Result::ok).collect();
        for key in ports.into_iter().filter(|key| !keep(key.set)) {
            removed(self.ports.remove(&key), "PORT_BITS")?;
        }
        retain_prefixes(&mut self.sources, "SOURCE_BITS", &keep)?;
        retain_prefixes(&mut self.destinations, "DESTINATION_BITS", &keep)
    }
}

fn retain_prefixes(
    trie: &mut LpmTrie<MapData, AddressBitsKey, Bitmap>,
    name: &'static str,
    keep: impl Fn(PolicySetId) -> bool,
) -> Result<(), DatapathError> {
    let keys: Vec<_> = trie.keys().filter_map(Result::ok).collect();
    for key in keys.into_iter().filter(|key| !keep(key.data().set)) {
        removed(trie.remove(&key), name)?;
    }
    Ok(())
}

fn address_key(set: PolicySetId, address: Address, prefix: u8) -> Key<AddressBitsKey> {
    let data = AddressBitsKey {
        set,
        zero: 0,
        address,
    };
    Key::new(ADDRESS_KEY_SET_BITS + u32::from(prefix), data)
}
