//! The input and output of the programs in the object `classify`, which tests and benchmarks run.

use crate::{Address, AddressPort, IdentityId, Judgement, KernelVerdict, PolicySetId, assert_size};

/// A connection to judge: the input of `ambit_classify`.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(Debug, PartialEq, Eq))]
pub struct ClassifierInput {
    /// The policy set to judge by.
    pub set: PolicySetId,
    /// The caller's identity.
    pub identity: IdentityId,
    /// The caller's address.
    pub source: Address,
    /// The address that it calls.
    pub destination: AddressPort,
}
assert_size!(ClassifierInput, 44);

#[cfg(feature = "user")]
impl ClassifierInput {
    /// Returns the bytes that the program reads.
    pub fn to_bytes(&self) -> Vec<u8> {
        let AddressPort {
            address,
            port,
            zero,
        } = self.destination;
        [
            &self.set.0.to_ne_bytes()[..],
            &self.identity.0.to_ne_bytes(),
            &self.source.octets(),
            &address.octets(),
            &port.to_ne_bytes(),
            &zero.to_ne_bytes(),
        ]
        .concat()
    }
}

/// The return value of `ambit_classify`: a [`KernelVerdict`] in the low byte, and 24 bits of the alternative
/// above it.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct ClassifierOutput(pub u32);

impl ClassifierOutput {
    /// The input was too short.
    pub const UNREADABLE: Self = Self(u32::MAX);
    /// The maps lack an entry that must exist.
    pub const INCOMPLETE: Self = Self(u32::MAX - 1);

    /// Encodes a judgement.
    #[inline(always)]
    pub const fn new(judgement: Judgement) -> Self {
        Self(judgement.alternative << 8 | judgement.verdict as u32)
    }

    /// Returns the judgement, or `None` if the program came to none.
    pub const fn judgement(self) -> Option<Judgement> {
        let verdict = match self.0 & 0xff {
            0 => KernelVerdict::Allow,
            1 => KernelVerdict::Deny,
            2 => KernelVerdict::NoAllow,
            3 => KernelVerdict::Ask,
            4 => KernelVerdict::Refuse,
            _ => return None,
        };
        // The shift keeps the sign, so that all ones mean "none" in 24 bits as in 32.
        let alternative = (self.0 as i32 >> 8) as u32;
        Some(Judgement {
            verdict,
            alternative,
        })
    }
}

/// The return value of `ambit_watch`: how often it missed an entry, in the low half, and how often it saw
/// parts of two entries, in the high half.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Sightings(pub u32);

impl Sightings {
    /// The input was too short.
    pub const UNREADABLE: Self = Self(u32::MAX);

    /// The entry was seen, and whole, each time.
    pub const NONE: Self = Self(0);

    /// Counts a look-up that missed. There are fewer than 65,536 in a run.
    #[inline(always)]
    pub const fn and_missed(self) -> Self {
        Self(self.0 + 1)
    }

    /// Counts a look-up that saw parts of two entries.
    #[inline(always)]
    pub const fn and_torn(self) -> Self {
        Self(self.0 + (1 << 16))
    }

    /// Returns how often the entry was missing.
    pub const fn missed(self) -> u32 {
        self.0 & 0xffff
    }

    /// Returns how often parts of two entries were seen.
    pub const fn torn(self) -> u32 {
        self.0 >> 16
    }
}

#[cfg(all(test, feature = "user"))]
mod tests {
    use super::*;
    use crate::{MAX_ALTERNATIVES, NO_ALTERNATIVE};

    #[test]
    fn a_judgement_survives_its_encoding() {
        for verdict in [
            KernelVerdict::Allow,
            KernelVerdict::Deny,
            KernelVerdict::NoAllow,
            KernelVerdict::Ask,
            KernelVerdict::Refuse,
        ] {
            for alternative in [0, 1, MAX_ALTERNATIVES as u32 - 1, NO_ALTERNATIVE] {
                let judgement = Judgement {
                    verdict,
                    alternative,
                };
                assert_eq!(
                    ClassifierOutput::new(judgement).judgement(),
                    Some(judgement)
                );
            }
        }
        for none in [
            ClassifierOutput::UNREADABLE,
            ClassifierOutput::INCOMPLETE,
            ClassifierOutput(5),
        ] {
            assert_eq!(none.judgement(), None);
        }
    }
}
