//! Policy sets as bit vectors (Lakshman and Stiliadis, SIGCOMM 1998).
//!
//! The policies of a workload are expanded to alternatives. An alternative is a conjunction over four
//! dimensions: peer identity, source address, destination address and destination port. Alternatives are
//! numbered. Each value of a dimension has the bitmap of the alternatives that it satisfies. The AND of
//! the four bitmaps is the set of alternatives that match.

use crate::{Address, IdentityId, PolicySetId, assert_size};

/// The number of words of a [`Bitmap`].
pub const BITMAP_WORDS: usize = 16;

/// The most alternatives that a policy set can have in the kernel. Userspace decides for a larger set
/// ([`SetMode::Ask`]).
pub const MAX_ALTERNATIVES: usize = BITMAP_WORDS * 64;

/// The number that means that no alternative decided.
pub const NO_ALTERNATIVE: u32 = u32::MAX;

/// A set of alternatives. Alternative *n* is bit *n* % 64 of word *n* / 64.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug, Hash))]
pub struct Bitmap(pub [u64; BITMAP_WORDS]);
assert_size!(Bitmap, 128);

impl Bitmap {
    /// No alternative.
    pub const EMPTY: Self = Self([0; BITMAP_WORDS]);

    /// Adds an alternative, which is below [`MAX_ALTERNATIVES`].
    pub const fn insert(&mut self, alternative: usize) {
        self.0[alternative / 64] |= 1 << (alternative % 64);
    }

    /// Whether an alternative, which is below [`MAX_ALTERNATIVES`], is in the set.
    pub const fn contains(&self, alternative: usize) -> bool {
        self.0[alternative / 64] & (1 << (alternative % 64)) != 0
    }
}

/// How a policy set decides.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub enum SetMode {
    /// Refuses everything, because a policy in the set cannot be enforced.
    Refuse = 0,
    /// Decides by the bitmaps.
    Tables = 1,
    /// Leaves everything to userspace, because the set does not fit the maps.
    Ask = 2,
}

/// What a policy set says apart from its dimensions: the value of `POLICY_SETS`, by [`PolicySetId`].
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq))]
pub struct PolicySetHeader {
    /// DENY alternatives that L4 attributes decide alone.
    pub deny: Bitmap,
    /// DENY alternatives that also depend on HTTP attributes.
    pub deny_ask: Bitmap,
    /// ALLOW alternatives that L4 attributes decide alone.
    pub allow: Bitmap,
    /// ALLOW alternatives that also depend on HTTP attributes.
    pub allow_ask: Bitmap,
    /// Alternatives that a port without an entry in `PORT_BITS` satisfies.
    pub other_ports: Bitmap,
    /// A [`SetMode`].
    pub mode: u8,
    /// Non-zero if ALLOW policies exist. Then what matches none of them is refused.
    pub has_allow: u8,
    /// Zero.
    pub zero: [u8; 2],
    /// The set whose header this is. See [`SetBits`].
    pub set: PolicySetId,
}
assert_size!(PolicySetHeader, 648);

/// The alternatives that a value of one dimension satisfies in a set: the value of `IDENTITY_BITS`,
/// `SOURCE_BITS`, `DESTINATION_BITS` and `PORT_BITS`.
///
/// An entry is written once and never changed. It is removed only after every program that may still read
/// it has ended. The entry names its set and its key nevertheless, and a program that finds another one's
/// entry refuses: the kernel reuses the memory of removed entries immediately.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq))]
pub struct SetBits {
    /// The policy set.
    pub set: PolicySetId,
    /// The identity, the port, or the prefix length.
    pub value: u32,
    /// The alternatives.
    pub bits: Bitmap,
}
assert_size!(SetBits, 136);

/// The key of `IDENTITY_BITS`.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq, Hash))]
pub struct IdentityBitsKey {
    /// The policy set.
    pub set: PolicySetId,
    /// The peer. A miss refuses the connection: the agent writes the entry before it delivers.
    pub identity: IdentityId,
}
assert_size!(IdentityBitsKey, 8);

/// The key of `PORT_BITS`. On a miss, [`PolicySetHeader::other_ports`] applies.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq, Hash))]
pub struct PortBitsKey {
    /// The policy set.
    pub set: PolicySetId,
    /// The port, in host order.
    pub port: u16,
    /// Zero: part of the key.
    pub zero: u16,
}
assert_size!(PortBitsKey, 8);

/// The data of the longest-prefix-match keys of `SOURCE_BITS` and `DESTINATION_BITS`. Each set has an entry
/// for the empty prefix, so a miss is a fault and refuses the connection.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq, Hash))]
pub struct AddressBitsKey {
    /// The policy set.
    pub set: PolicySetId,
    /// Zero: part of the prefix.
    pub zero: u32,
    /// The address.
    pub address: Address,
}
assert_size!(AddressBitsKey, 24);

/// The bits of an [`AddressBitsKey`] that precede its address.
pub const ADDRESS_KEY_SET_BITS: u32 = 64;

/// What a policy set says about a connection.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub enum KernelVerdict {
    /// The connection may reach the application.
    Allow,
    /// A DENY alternative matches.
    Deny,
    /// ALLOW policies exist and none matches.
    NoAllow,
    /// Userspace decides: the policies depend on HTTP attributes, or do not fit the maps.
    Ask,
    /// A policy cannot be enforced.
    Refuse,
}

/// A verdict and the alternative that decided it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Judgement {
    /// The verdict.
    pub verdict: KernelVerdict,
    /// The alternative that decided, or [`NO_ALTERNATIVE`].
    pub alternative: u32,
}

impl Judgement {
    #[inline(always)]
    const fn new(verdict: KernelVerdict, alternative: u32) -> Self {
        Self {
            verdict,
            alternative,
        }
    }
}

/// Judges a connection by the bitmaps of its four dimensions: DENY first, then what depends on HTTP
/// attributes, then ALLOW.
///
/// This function is behind every verdict of the kernel. Tests in userspace call it, too.
#[inline(always)]
pub fn judge(
    header: &PolicySetHeader,
    identity: &Bitmap,
    source: &Bitmap,
    destination: &Bitmap,
    port: &Bitmap,
) -> Judgement {
    if header.mode == SetMode::Ask as u8 {
        return Judgement::new(KernelVerdict::Ask, NO_ALTERNATIVE);
    }
    if header.mode != SetMode::Tables as u8 {
        return Judgement::new(KernelVerdict::Refuse, NO_ALTERNATIVE);
    }
    let matched =
        |word: usize| identity.0[word] & source.0[word] & destination.0[word] & port.0[word];
    let (mut denied, mut asked, mut allowed, mut maybe_allowed) = (0, 0, 0, 0);
    let mut word = 0;
    while word < BITMAP_WORDS {
        let matched = matched(word);
        denied |= matched & header.deny.0[word];
        asked |= matched & header.deny_ask.0[word];
        allowed |= matched & header.allow.0[word];
        maybe_allowed |= matched & header.allow_ask.0[word];
        word += 1;
    }
    let needs_allow = header.has_allow != 0 && allowed == 0;
    let (verdict, deciding) = if denied != 0 {
        (KernelVerdict::Deny, &header.deny)
    } else if needs_allow && maybe_allowed == 0 {
        return Judgement::new(KernelVerdict::NoAllow, NO_ALTERNATIVE);
    } else if asked != 0 {
        (KernelVerdict::Ask, &header.deny_ask)
    } else if needs_allow {
        (KernelVerdict::Ask, &header.allow_ask)
    } else if allowed != 0 {
        (KernelVerdict::Allow, &header.allow)
    } else {
        return Judgement::new(KernelVerdict::Allow, NO_ALTERNATIVE);
    };
    Judgement::new(verdict, first(|word| matched(word) & deciding.0[word]))
}

/// Returns the first alternative of a set that is given by its words.
///
/// This is a loop of its own that ends at the first hit. If the loop above carried along the first hit of
/// each class, the verifier would have to follow every combination of hits.
#[inline(always)]
fn first(words: impl Fn(usize) -> u64) -> u32 {
    let mut word = 0;
    while word < BITMAP_WORDS {
        let bits = words(word);
        if bits != 0 {
            return word as u32 * 64 + bits.trailing_zeros();
        }
        word += 1;
    }
    NO_ALTERNATIVE
}

#[cfg(all(test, feature = "user"))]
mod tests {
    use super::*;

    const FULL: Bitmap = Bitmap([u64::MAX; BITMAP_WORDS]);

    fn bits(alternatives: &[usize]) -> Bitmap {
        let mut bitmap = Bitmap::EMPTY;
        for &alternative in alternatives {
            bitmap.insert(alternative);
        }
        bitmap
    }

    fn header() -> PolicySetHeader {
        PolicySetHeader {
            deny: bits(&[0]),
            deny_ask: bits(&[1]),
            allow: bits(&[2, 700]),
            allow_ask: bits(&[3]),
            other_ports: FULL,
            mode: SetMode::Tables as u8,
            has_allow: 1,
            zero: [0; 2],
            set: PolicySetId(1),
        }
    }

    fn verdict(header: &PolicySetHeader, matched: &[usize]) -> Judgement {
        judge(header, &bits(matched), &FULL, &FULL, &FULL)
    }

    #[test]
    fn deny_beats_everything() {
        assert_eq!(
            verdict(&header(), &[0, 1, 2, 3]),
            Judgement::new(KernelVerdict::Deny, 0)
        );
    }

    #[test]
    fn without_a_match_only_allow_policies_refuse() {
        assert_eq!(verdict(&header(), &[]).verdict, KernelVerdict::NoAllow);
        let open = PolicySetHeader {
            has_allow: 0,
            ..header()
        };
        assert_eq!(
            verdict(&open, &[]),
            Judgement::new(KernelVerdict::Allow, NO_ALTERNATIVE)
        );
    }

    #[test]
    fn allow_names_its_alternative_in_any_word() {
        assert_eq!(
            verdict(&header(), &[700]),
            Judgement::new(KernelVerdict::Allow, 700)
        );
    }

    #[test]
    fn userspace_decides_what_depends_on_http() {
        assert_eq!(
            verdict(&header(), &[1, 2]),
            Judgement::new(KernelVerdict::Ask, 1)
        );
        assert_eq!(
            verdict(&header(), &[3]),
            Judgement::new(KernelVerdict::Ask, 3)
        );
        assert_eq!(verdict(&header(), &[2, 3]).verdict, KernelVerdict::Allow);
        assert_eq!(verdict(&header(), &[1]).verdict, KernelVerdict::NoAllow);
    }

    #[test]
    fn an_unknown_mode_refuses() {
        for mode in [SetMode::Refuse as u8, 9] {
            let header = PolicySetHeader { mode, ..header() };
            assert_eq!(verdict(&header, &[2]).verdict, KernelVerdict::Refuse);
        }
        let header = PolicySetHeader {
            mode: SetMode::Ask as u8,
            ..header()
        };
        assert_eq!(verdict(&header, &[0]).verdict, KernelVerdict::Ask);
    }

    #[test]
    fn every_dimension_has_to_match() {
        let header = header();
        for absent in 0..4 {
            let dimension = |n| if n == absent { Bitmap::EMPTY } else { FULL };
            let judgement = judge(
                &header,
                &dimension(0),
                &dimension(1),
                &dimension(2),
                &dimension(3),
            );
            assert_eq!(
                judgement.verdict,
                KernelVerdict::NoAllow,
                "dimension {absent}"
            );
        }
    }
}
