//! Prefixes of addresses: within one, and outside the longer ones, all addresses are alike.

use std::collections::BTreeSet;

use ambit_common::{Address, Bitmap, MESH_PREFIX_BITS};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::matcher::Field;

/// The prefixes that blocks name, and one for all other addresses of each family: IPv4 lies inside
/// `::/0` in the one form of addresses, so it always has a prefix of its own.
pub(super) fn prefixes<'a>(
    blocks: impl Iterator<Item = &'a Field<IpNet>>,
    bits: impl Fn(&IpNet) -> Bitmap,
) -> Vec<(Address, u8, Bitmap)> {
    let named = blocks.flat_map(|field| field.positive.iter().chain(&field.negative).copied());
    let all = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    let prefixes: BTreeSet<IpNet> = named.chain(all).collect();
    prefixes
        .iter()
        .map(|net| (net.network().into(), prefix_bits(net), bits(net)))
        .collect()
}

/// How many blocks there are.
pub(super) fn block_count<'a>(blocks: impl Iterator<Item = &'a Field<IpNet>>) -> usize {
    blocks
        .map(|field| field.positive.len() + field.negative.len())
        .sum()
}

/// Whether the addresses of a prefix that are in no longer one are admitted: those blocks matter
/// that cover the whole prefix.
pub(super) fn admits_prefix(blocks: &Field<IpNet>, prefix: &IpNet) -> bool {
    blocks.admits(Some(prefix), |block, prefix| block.contains(prefix))
}

/// The bits of the longest prefix that covers an address.
pub(super) fn longest(prefixes: &[(Address, u8, Bitmap)], address: Address) -> Bitmap {
    let covering = prefixes
        .iter()
        .filter(|(prefix, bits, _)| covers(*prefix, *bits, address));
    let longest = covering.max_by_key(|(_, bits, _)| *bits);
    longest.map_or(Bitmap::EMPTY, |(_, _, bits)| *bits)
}

fn prefix_bits(net: &IpNet) -> u8 {
    match net {
        IpNet::V4(_) => 96 + net.prefix_len(),
        IpNet::V6(_) => net.prefix_len(),
    }
}

fn covers(prefix: Address, bits: u8, address: Address) -> bool {
    let number = |address: Address| u128::from_be_bytes(address.octets());
    let differing = number(prefix) ^ number(address);
    bits == 0 || differing >> (MESH_PREFIX_BITS - u32::from(bits)) == 0
}
