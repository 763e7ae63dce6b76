//! The policy tables: look up a connection's four bitmaps and judge.

use ambit_common::{
    ADDRESS_KEY_SET_BITS, Address, AddressBitsKey, Bitmap, Endpoint, IdentityBitsKey, IdentityId,
    Judgement, MESH_PREFIX_BITS, PolicySetHeader, PolicySetId, PortBitsKey, SetMode, judge,
};
use aya_ebpf::btf_maps::LpmTrie;
use aya_ebpf::btf_maps::lpm_trie::Key;

use crate::maps::{DESTINATION_BITS, IDENTITY_BITS, POLICY_SETS, PORT_BITS, SOURCE_BITS};

/// Judges a connection to `destination` by a policy set. `None`: the tables lack an entry that
/// they must have, and the connection is to be refused.
#[inline(always)]
pub fn judge_connection(
    set: PolicySetId,
    identity: IdentityId,
    source: &Address,
    destination: &Endpoint,
) -> Option<Judgement> {
    // SAFETY: entries are written once, before anything refers to their set.
    let header: &PolicySetHeader = unsafe { POLICY_SETS.get(set) }?;
    if header.mode != SetMode::Tables as u8 {
        let any = &header.other_ports;
        return Some(judge(header, any, any, any, any));
    }
    // SAFETY: as above; an identity's entry is written before a delivery for it.
    let identity_bits = unsafe { IDENTITY_BITS.get(IdentityBitsKey { set, identity }) }?;
    let source_bits = address_bits(&SOURCE_BITS, set, source)?;
    let destination_bits = address_bits(&DESTINATION_BITS, set, &destination.address)?;
    // SAFETY: as above.
    let port_bits = unsafe {
        PORT_BITS.get(PortBitsKey {
            set,
            port: destination.port,
            zero: 0,
        })
    }
    .unwrap_or(&header.other_ports);
    Some(judge(
        header,
        identity_bits,
        source_bits,
        destination_bits,
        port_bits,
    ))
}

#[inline(always)]
fn address_bits<const N: usize, const FLAGS: usize>(
    trie: &'static LpmTrie<AddressBitsKey, Bitmap, N, FLAGS>,
    set: PolicySetId,
    address: &Address,
) -> Option<&'static Bitmap> {
    let data = AddressBitsKey {
        set,
        zero: 0,
        address: *address,
    };
    trie.get(&Key::new(ADDRESS_KEY_SET_BITS + MESH_PREFIX_BITS, data))
}
