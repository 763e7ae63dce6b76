//! Judges a connection by the policy maps: looks up its four bitmaps and combines them.

use ambit_common::{
    ADDRESS_KEY_SET_BITS, Address, AddressBitsKey, AddressPort, IdentityBitsKey, IdentityId,
    Judgement, MESH_PREFIX_BITS, PolicySetHeader, PolicySetId, PortBitsKey, SetBits, SetMode,
    judge,
};
use aya_ebpf::btf_maps::LpmTrie;
use aya_ebpf::btf_maps::lpm_trie::Key;

use crate::maps::{DESTINATION_BITS, IDENTITY_BITS, POLICY_SETS, PORT_BITS, SOURCE_BITS};

/// Judges a connection to `destination` by a policy set.
///
/// Returns `None` if the maps lack an entry that must exist, or hold another entry in its place. The
/// caller must refuse the connection then.
#[inline(always)]
pub fn judge_connection(
    set: PolicySetId,
    identity: IdentityId,
    source: &Address,
    destination: &AddressPort,
) -> Option<Judgement> {
    // SAFETY: an entry is written once, before anything refers to its set, and removed after every
    // program that may have read the set's number has ended. The checks below do not rely on that.
    let header: &PolicySetHeader = unsafe { POLICY_SETS.get(set) }?;
    if header.mode != SetMode::Tables as u8 {
        let any = &header.other_ports;
        let judgement = judge(header, any, any, any, any);
        return is_header_of(header, set).then_some(judgement);
    }
    // SAFETY: as above. The agent writes an identity's entry before it makes a delivery for it.
    let of_identity = unsafe { IDENTITY_BITS.get(IdentityBitsKey { set, identity }) }?;
    let of_source = address_bits(&SOURCE_BITS, set, source)?;
    let of_destination = address_bits(&DESTINATION_BITS, set, &destination.address)?;
    // SAFETY: as above. A port's entry exists for as long as its set is used, so a miss means that the
    // set does not name the port.
    let of_port = unsafe {
        PORT_BITS.get(PortBitsKey {
            set,
            port: destination.port,
            zero: 0,
        })
    };
    let judgement = judge(
        header,
        &of_identity.bits,
        &of_source.bits,
        &of_destination.bits,
        of_port.map_or(&header.other_ports, |of_port| &of_port.bits),
    );
    let checked = is_header_of(header, set)
        && is_of(of_identity, set, Some(identity.0))
        && is_of(of_source, set, None)
        && is_of(of_destination, set, None)
        && of_port.is_none_or(|bits| is_of(bits, set, Some(destination.port.into())));
    checked.then_some(judgement)
}

/// Whether the bitmap that was read belongs to the set and to the value. Must be called after the bitmap
/// was used.
#[inline(always)]
fn is_of(bits: &SetBits, set: PolicySetId, value: Option<u32>) -> bool {
    // SAFETY: the reference is valid. The fields are read again because they may have changed.
    let (own_set, own_value) = unsafe {
        (
            (&raw const bits.set).read_volatile(),
            (&raw const bits.value).read_volatile(),
        )
    };
    own_set == set && value.is_none_or(|value| value == own_value)
}

/// The same as [`is_of`] for a header.
#[inline(always)]
fn is_header_of(header: &PolicySetHeader, set: PolicySetId) -> bool {
    // SAFETY: as in `is_of`.
    unsafe { (&raw const header.set).read_volatile() == set }
}

#[inline(always)]
fn address_bits<const N: usize, const FLAGS: usize>(
    trie: &'static LpmTrie<AddressBitsKey, SetBits, N, FLAGS>,
    set: PolicySetId,
    address: &Address,
) -> Option<&'static SetBits> {
    let data = AddressBitsKey {
        set,
        zero: 0,
        address: *address,
    };
    trie.get(&Key::new(ADDRESS_KEY_SET_BITS + MESH_PREFIX_BITS, data))
}
