//! How a pod's share of the ring buffer of denials is divided among source addresses, so that a flood from
//! one source does not hide the denials of another.

use crate::Address;

/// The most denials that are reported for one pod in a second.
const PER_SECOND: u64 = 100;

/// One source may use up to `1 / SHARE` of what is left. So after `k` sources, about `(1 - 1 / SHARE)^k` is
/// left.
const SHARE: u64 = 4;

/// The bits of the hash that tells sources apart.
const HASH_BITS: u32 = 3;

const COUNTER_BITS: u32 = 8;
const COUNTER_MASK: u64 = (1 << COUNTER_BITS) - 1;

/// An odd number whose multiples spread well, from the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// How many denials were reported in one second: eight counters of one byte, each for the sources with one
/// hash.
///
/// The hash changes with each second. Two sources that share a counter in one second rarely share one in
/// the next.
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq, Default))]
pub struct DenialCounts(u64);

impl DenialCounts {
    /// Reads the counts from a map value.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the map value.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Counts one more denial of a source in the second that began at `since_ns`. Returns `None` if the
    /// source has used up its part.
    #[inline(always)]
    pub const fn with(self, source: Address, since_ns: u64) -> Option<Self> {
        let shift = hash(source, since_ns) * COUNTER_BITS;
        let own = (self.0 >> shift) & COUNTER_MASK;
        let left = PER_SECOND.saturating_sub(self.total());
        // Rounded up, so that the last ones go to sources that have had none.
        if own * SHARE >= left {
            return None;
        }
        Some(Self(self.0 + (1 << shift)))
    }

    #[inline(always)]
    const fn total(self) -> u64 {
        const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
        const ONES: u64 = 0x0001_0001_0001_0001;
        // Adds the counters in pairs, and then the pairs, into the uppermost sixteen bits.
        let pairs = (self.0 & EVEN) + ((self.0 >> COUNTER_BITS) & EVEN);
        pairs.wrapping_mul(ONES) >> 48
    }
}

/// Returns the counter of a source. The hash uses the whole address, because the pods of a node often share
/// a /64.
#[inline(always)]
const fn hash(source: Address, since_ns: u64) -> u32 {
    let [first, second, third, last] = source.v6_be();
    let network = (first as u64) << 32 | second as u64;
    let host = (third as u64) << 32 | last as u64;
    // The multiplier changes with each second, so two addresses that share the upper bits of the product
    // in one second do not share them in another.
    let multiplier = since_ns.wrapping_mul(SPREAD);
    let multiplier = (multiplier ^ (multiplier >> 32)) | 1;
    let key = network.wrapping_mul(SPREAD) ^ host;
    (key.wrapping_mul(multiplier) >> (u64::BITS - HASH_BITS)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reports as often as the counts allow. Returns how often that was.
    fn exhaust(counts: &mut DenialCounts, source: Address, since_ns: u64) -> u64 {
        let mut reported = 0;
        while let Some(more) = counts.with(source, since_ns) {
            *counts = more;
            reported += 1;
        }
        reported
    }

    /// The beginning of a second.
    fn begin(second: u64) -> u64 {
        77_123_456_789 + second * 1_000_012_345
    }

    fn source(number: u8) -> Address {
        Address::v4([10, 0, 0, number])
    }

    #[test]
    fn a_source_reports_a_part_and_leaves_the_rest() {
        let mut counts = DenialCounts::default();
        assert_eq!(exhaust(&mut counts, source(1), 7), 20);
        assert_eq!(counts.total(), 20);
    }

    #[test]
    fn no_pod_reports_more_than_its_part() {
        for second in 0..50 {
            let since_ns = begin(second);
            let mut counts = DenialCounts::default();
            let all = (0..=255).map(|number| exhaust(&mut counts, source(number), since_ns));
            let reported: u64 = all.sum();
            assert_eq!(reported, counts.total());
            assert!((60..=PER_SECOND).contains(&reported), "{reported}");
        }
    }

    #[test]
    fn a_flood_from_one_source_hides_another_one_in_few_seconds_only() {
        const SECONDS: u64 = 1000;
        let v6 = |host: u32| Address::from_v6_be([0xfd, 0, 0, host.to_be()]);
        for (flood, other) in [
            (source(1), source(2)),
            (source(10), source(14)),
            (source(0), Address::v4([10, 1, 0, 0])),
            (v6(1), v6(2)),
            (source(1), v6(1)),
        ] {
            let hidden = (0..SECONDS).filter(|second| {
                let since_ns = begin(*second);
                let mut counts = DenialCounts::default();
                exhaust(&mut counts, flood, since_ns);
                counts.with(other, since_ns).is_none()
            });
            let hidden = hidden.count();
            assert!(
                hidden < 200,
                "{flood:?} hides {other:?} in {hidden} seconds"
            );
        }
    }
}
