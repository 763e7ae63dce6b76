//! The table of destinations: what the connect hook sends to the proxy.

use std::collections::HashMap;

use ambit_common::{Address, MESH_PREFIX_BITS, MeshClass};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::MapData;
use ipnet::IpNet;

use super::{DatapathError, PinDirectory};

const MAP: &str = "MESH";

/// IPv4 prefixes lie below `::ffff:0:0/96` in the one form of addresses.
const V4_PREFIX_OFFSET: u32 = 96;

/// The kernel's table of destinations, and what is in it.
#[derive(Debug)]
pub(super) struct MeshTable {
    map: LpmTrie<MapData, Address, u8>,
    written: HashMap<(u32, Address), u8>,
}

impl MeshTable {
    pub(super) fn open(pins: &PinDirectory) -> Result<Self, DatapathError> {
        let map: LpmTrie<_, Address, u8> = pins.trie(MAP)?;
        let mut written = HashMap::new();
        for entry in map.iter() {
            let (key, value) = entry.map_err(DatapathError::map(MAP, "read"))?;
            written.insert((key.prefix_len(), key.data()), value);
        }
        Ok(Self { map, written })
    }

    /// Makes the table say `classes`. Entries are added before others are removed, so that no
    /// address of the mesh is outside meanwhile.
    pub(super) fn replace(&mut self, classes: &[(IpNet, MeshClass)]) -> Result<(), DatapathError> {
        let wanted: HashMap<_, _> =
            classes.iter().map(|(net, class)| (key(net), *class as u8)).collect();
        for (&(prefix, address), &class) in &wanted {
            if self.written.get(&(prefix, address)) != Some(&class) {
                self.map
                    .insert(&Key::new(prefix, address), class, 0)
                    .map_err(DatapathError::map(MAP, "written"))?;
                self.written.insert((prefix, address), class);
            }
        }
        let stale: Vec<_> =
            self.written.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        for (prefix, address) in stale {
            self.map
                .remove(&Key::new(prefix, address))
                .map_err(DatapathError::map(MAP, "written"))?;
            self.written.remove(&(prefix, address));
        }
        Ok(())
    }
}

fn key(net: &IpNet) -> (u32, Address) {
    let bits = u32::from(net.prefix_len());
    let prefix = match net {
        IpNet::V4(_) => V4_PREFIX_OFFSET + bits,
        IpNet::V6(_) => bits,
    };
    debug_assert!(prefix <= MESH_PREFIX_BITS, "an IPv6 prefix has at most 128 bits");
    (prefix, Address::from(net.network()))
}
