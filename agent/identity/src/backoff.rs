//! Pauses between attempts.

use std::time::Duration;

/// How often in a row it has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    /// The pause after one more failure: `first`, doubled with each up to `longest`, and of that
    /// somewhere between the half and the whole, so that those who failed together do not come back
    /// together.
    pub(super) fn next(&mut self, first: Duration, longest: Duration) -> Duration {
        let doubled = first.saturating_mul(2_u32.saturating_pow(self.0));
        self.0 = self.0.saturating_add(1);
        doubled.min(longest).mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let (first, longest) = (Duration::from_millis(500), Duration::from_secs(60));
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..40).map(|_| backoff.next(first, longest)).collect();
        assert!((first / 2..=first).contains(&pauses[0]), "{pauses:?}");
        assert!((first * 4..=first * 8).contains(&pauses[3]), "{pauses:?}");
        let late = &pauses[10..];
        assert!(
            late.iter()
                .all(|pause| (longest / 2..=longest).contains(pause))
        );
        assert!(late.iter().any(|pause| *pause != late[0]));
    }
}
