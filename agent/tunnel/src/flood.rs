//! A budget for frames that cost work and carry nothing.
//!
//! PING, SETTINGS, empty DATA, resets of streams that were not answered, frames for streams that have
//! ended: each is right now and then, and an attack by the thousand (CVE-2019-9512 and its kin,
//! CVE-2023-44487, CVE-2024-27316). Payload and time earn credit, so a busy or an old connection never
//! runs out of it.

use std::time::{Duration, Instant};

/// The most credit.
const MOST: u32 = 1000;

/// What time earns: one credit.
const EARNED_IN: Duration = Duration::from_millis(20);

/// Payload that earns one credit, in either direction.
const PAYLOAD: usize = 4 << 10;

/// What a frame costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Nuisance {
    /// It is looked at and forgotten, or answered with a few bytes.
    Trifle,
    /// It changes something on every stream.
    Settings,
    /// A stream that was opened for nothing.
    WastedStream,
}

/// The credit of one connection.
#[derive(Debug)]
pub(crate) struct FloodBudget {
    credit: u32,
    earned_until: Instant,
    payload: usize,
}

/// A connection has used up its credit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Flooded;

impl Nuisance {
    const fn cost(self) -> u32 {
        match self {
            Self::Trifle => 1,
            Self::Settings => 20,
            Self::WastedStream => 4,
        }
    }
}

impl FloodBudget {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            credit: MOST,
            earned_until: now,
            payload: 0,
        }
    }

    /// Credits payload.
    pub(crate) fn carried(&mut self, bytes: usize) {
        self.payload += bytes;
        let earned = self.payload / PAYLOAD;
        self.payload %= PAYLOAD;
        self.earn(earned);
    }

    /// Charges a frame.
    ///
    /// # Errors
    /// [`Flooded`].
    pub(crate) fn charge(&mut self, nuisance: Nuisance, now: Instant) -> Result<(), Flooded> {
        if self.credit < nuisance.cost() {
            let passed = now.saturating_duration_since(self.earned_until);
            self.earned_until = now;
            self.earn((passed.as_millis() / EARNED_IN.as_millis()) as usize);
        }
        self.credit = self.credit.checked_sub(nuisance.cost()).ok_or(Flooded)?;
        Ok(())
    }

    fn earn(&mut self, credit: usize) {
        let credit = u32::try_from(credit).unwrap_or(MOST);
        self.credit = self.credit.saturating_add(credit).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charges(budget: &mut FloodBudget, now: Instant) -> usize {
        let charge = || budget.charge(Nuisance::Trifle, now);
        std::iter::repeat_with(charge)
            .take_while(Result::is_ok)
            .count()
    }

    #[test]
    fn a_burst_is_bounded_and_a_trickle_is_not() {
        let mut now = Instant::now();
        let mut budget = FloodBudget::new(now);
        assert_eq!(charges(&mut budget, now), MOST as usize);
        for _ in 0..10 * MOST {
            now += 2 * EARNED_IN;
            budget.charge(Nuisance::Trifle, now).expect("it was earned");
        }
        now += 10 * MOST * EARNED_IN;
        let burst = charges(&mut budget, now);
        assert!(burst < 2 * MOST as usize, "{burst}");
    }

    #[test]
    fn payload_earns_credit() {
        let now = Instant::now();
        let mut budget = FloodBudget::new(now);
        charges(&mut budget, now);
        for _ in 0..4 {
            budget.carried(PAYLOAD / 2);
        }
        assert_eq!(charges(&mut budget, now), 2);
    }
}
