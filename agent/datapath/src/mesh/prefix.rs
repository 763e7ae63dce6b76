//! Prefixes in the kernel's form, and which of them the table needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ambit_common::{Address, MESH_PREFIX_BITS, MeshClass};
use ipnet::IpNet;

/// IPv4 prefixes are below `::ffff:0:0/96`.
const V4_PREFIX_OFFSET: u32 = 96;

/// A prefix in the kernel's form. Shorter ones come first in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Prefix {
    pub(super) bits: u32,
    pub(super) address: Address,
}

/// A [`MeshClass`] for each prefix.
pub(super) type Classes = BTreeMap<Prefix, u8>;

impl Prefix {
    /// Cuts the prefix down to `bits` bits.
    fn cut(self, bits: u32) -> Self {
        let mut octets = self.address.octets();
        for (octet, start) in octets.iter_mut().zip((0_u32..).step_by(8)) {
            let kept = bits.saturating_sub(start).min(8);
            *octet &= u8::MAX.checked_shl(8 - kept).unwrap_or(0);
        }
        Self {
            bits,
            address: octets.into(),
        }
    }

    /// Whether `other` lies within this prefix.
    #[cfg(test)]
    pub(super) fn contains(self, other: Self) -> bool {
        self.bits <= other.bits && other.cut(self.bits) == self
    }
}

impl From<&IpNet> for Prefix {
    fn from(net: &IpNet) -> Self {
        let bits = u32::from(net.prefix_len());
        let bits = match net {
            IpNet::V4(_) => V4_PREFIX_OFFSET + bits,
            IpNet::V6(_) => bits,
        };
        debug_assert!(
            bits <= MESH_PREFIX_BITS,
            "an IPv6 prefix has at most 128 bits"
        );
        Self {
            bits,
            address: net.network().into(),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = IpAddr::from(self.address);
        let bits = match address {
            IpAddr::V4(_) => self.bits.saturating_sub(V4_PREFIX_OFFSET),
            IpAddr::V6(_) => self.bits,
        };
        write!(f, "{address}/{bits}")
    }
}

/// Whether the connect hook lets a connect to this class go on. It sends an unknown class to the proxy.
pub(super) fn is_exemption(class: u8) -> bool {
    match MeshClass::from_u8(class) {
        Some(MeshClass::NotOptedIn | MeshClass::Outside) => true,
        Some(MeshClass::Proxy) | None => false,
    }
}

/// Returns the entries that make a difference: all but those that repeat a shorter prefix. So an address in
/// the mesh's ranges has no entry if its calls go to the proxy, and to withdraw its exemption needs no room.
pub(super) fn needed(classes: &[(IpNet, MeshClass)]) -> Classes {
    let all: Classes = classes
        .iter()
        .map(|(net, class)| (Prefix::from(net), *class as u8))
        .collect();
    let lengths = lengths(&all);
    let covering = |prefix: Prefix| {
        let shorter = lengths.range(..prefix.bits).rev();
        shorter.copied().find_map(|bits| all.get(&prefix.cut(bits)))
    };
    all.iter()
        .filter(|&(&prefix, class)| covering(prefix) != Some(class))
        .map(|(&prefix, &class)| (prefix, class))
        .collect()
}

fn lengths(classes: &Classes) -> BTreeSet<u32> {
    classes.keys().map(|prefix| prefix.bits).collect()
}

/// The prefixes that have to go to the proxy and that a table lets pass: entries that are missing, and
/// exemptions that could not be withdrawn.
pub(super) struct Unprotected {
    prefixes: BTreeSet<Prefix>,
    /// Their lengths.
    lengths: BTreeSet<u32>,
    /// The prefixes that contain them, of the lengths of all entries.
    around: BTreeSet<Prefix>,
}

impl Unprotected {
    pub(super) fn new(written: &Classes, wanted: &Classes) -> Self {
        let missing = wanted
            .iter()
            .filter(|&(prefix, class)| !is_exemption(*class) && written.get(prefix) != Some(class));
        let left = written
            .iter()
            .filter(|&(prefix, class)| is_exemption(*class) && !wanted.contains_key(prefix));
        let prefixes: BTreeSet<_> = missing.chain(left).map(|(&prefix, _)| prefix).collect();
        let mut all = BTreeSet::new();
        if !prefixes.is_empty() {
            all = lengths(written);
            all.extend(lengths(wanted));
        }
        let around = |prefix: &Prefix| {
            let (prefix, shorter) = (*prefix, all.range(..prefix.bits));
            shorter.map(move |&bits| prefix.cut(bits))
        };
        Self {
            lengths: prefixes.iter().map(|prefix| prefix.bits).collect(),
            around: prefixes.iter().flat_map(around).collect(),
            prefixes,
        }
    }

    /// Whether `prefix` lies within one of them.
    pub(super) fn cover(&self, prefix: Prefix) -> bool {
        let lengths = self.lengths.range(..=prefix.bits);
        lengths
            .copied()
            .any(|bits| self.prefixes.contains(&prefix.cut(bits)))
    }

    /// Whether one of them lies within `prefix`, which belongs to an entry.
    pub(super) fn lie_within(&self, prefix: Prefix) -> bool {
        self.around.contains(&prefix)
    }
}
