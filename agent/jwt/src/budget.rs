//! Limits the cost of verifying the signatures of one request. Without a limit, tokens without `kid` and
//! policies with many or large keys would make other pods' requests wait.

use ambit_policy::{Curve, KeyMaterial};

/// The most that the signatures of one request may cost, in verifications with an RSA key of 2048 bits.
pub(super) const MAX_WORK: u32 = 64;

/// The cost of one verification, in verifications with an RSA key of 2048 bits and the usual exponent,
/// rounded up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Cost(u32);

/// What a request may still spend.
#[derive(Debug)]
pub(super) struct VerificationBudget {
    left: u32,
}

/// A verification would cost more than what is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Exhausted;

impl VerificationBudget {
    /// The budget of a request.
    pub(super) fn of_request() -> Self {
        Self { left: MAX_WORK }
    }

    /// Spends the cost of a verification before it is made.
    pub(super) fn spend(&mut self, cost: Cost) -> Result<(), Exhausted> {
        self.left = self.left.checked_sub(cost.0).ok_or(Exhausted)?;
        Ok(())
    }
}

impl Cost {
    /// The cost of a verification with a key.
    pub(super) fn of(key: &KeyMaterial) -> Self {
        Self(match key {
            KeyMaterial::Rsa { modulus, exponent } => rsa(modulus, exponent),
            KeyMaterial::Ec { curve, .. } => match curve {
                Curve::P256 => 4,
                Curve::P384 => 12,
                Curve::P521 => 20,
            },
            KeyMaterial::Ed25519(_) => 4,
        })
    }
}

/// A squaring for each bit of the exponent and a multiplication for each bit that is set. The cost of each
/// grows with the square of the modulus.
fn rsa(modulus: &[u8], exponent: &[u8]) -> u32 {
    const USUAL_STEPS: u64 = 17 + 2;
    const USUAL_LENGTH: u64 = 256;
    let leading = exponent.first().map_or(0, |byte| byte.leading_zeros());
    let bits = (exponent.len() as u64 * 8).saturating_sub(leading.into());
    let set: u64 = exponent
        .iter()
        .map(|byte| u64::from(byte.count_ones()))
        .sum();
    let length = modulus.len() as u64;
    let steps = bits.saturating_add(set);
    let work = length.saturating_mul(length).saturating_mul(steps);
    let cost = work.div_ceil(USUAL_LENGTH * USUAL_LENGTH * USUAL_STEPS);
    u32::try_from(cost).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rsa_key(bits: usize, exponent: &[u8]) -> KeyMaterial {
        KeyMaterial::Rsa {
            modulus: vec![0xc1; bits / 8],
            exponent: exponent.to_vec(),
        }
    }

    #[test]
    fn large_keys_and_unusual_exponents_cost_more() {
        let usual = &[1, 0, 1];
        let of = |bits, exponent: &[u8]| Cost::of(&rsa_key(bits, exponent));
        assert_eq!(of(2048, usual), Cost(1));
        assert_eq!(of(2048, &[3]), Cost(1));
        assert_eq!(of(4096, usual), Cost(4));
        assert_eq!(of(8192, usual), Cost(16));
        assert_eq!(of(2048, &[0xff; 4]), Cost(4));
        assert_eq!(of(8192, &[0xff; 4]), Cost(54));
    }

    #[test]
    fn what_is_spent_is_gone_and_what_cannot_be_paid_costs_nothing() {
        let mut budget = VerificationBudget::of_request();
        assert_eq!(budget.spend(Cost(MAX_WORK - 1)), Ok(()));
        assert_eq!(budget.spend(Cost(2)), Err(Exhausted));
        assert_eq!(budget.spend(Cost(1)), Ok(()));
        assert_eq!(budget.spend(Cost(1)), Err(Exhausted));
    }
}
