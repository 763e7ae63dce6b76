//! How long to wait before the next attempt at something that failed.

use std::time::Duration;

/// Pauses that double with each failure in a row, up to a bound.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    jitter: Option<Jitter>,
}

/// A random factor for pauses, so that those who failed together do not come back together.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Jitter {
    least: f64,
    most: f64,
}

impl Backoff {
    /// Pauses of `first` after one failure, doubled by each further one, and at most `longest`.
    pub const fn doubling(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            jitter: None,
        }
    }

    /// The same pauses, each multiplied by a random factor between `least` and `most`.
    pub const fn with_jitter(self, least: f64, most: f64) -> Self {
        Self {
            jitter: Some(Jitter { least, most }),
            ..self
        }
    }

    /// The pause after `failures` failures in a row, of which there is at least one.
    pub fn pause(self, failures: u32) -> Duration {
        self.pause_of_at_least(failures, Duration::ZERO)
    }

    /// The pause after `failures` failures in a row: `least` if that is longer, and then multiplied by
    /// the random factor.
    pub fn pause_of_at_least(self, failures: u32, least: Duration) -> Duration {
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
        let pause = self.first.saturating_mul(factor).min(self.longest);
        let pause = pause.max(least);
        match self.jitter {
            Some(Jitter { least, most }) => pause.mul_f64(rand::random_range(least..=most)),
            None => pause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(60);

    #[test]
    fn pauses_double_up_to_a_bound() {
        let backoff = Backoff::doubling(FIRST, LONGEST);
        let pauses: Vec<_> = (1..=9).map(|failures| backoff.pause(failures)).collect();
        let millis = [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000];
        assert_eq!(pauses, millis.map(Duration::from_millis));
        assert_eq!(backoff.pause(u32::MAX), LONGEST);
        assert_eq!(backoff.pause_of_at_least(1, LONGEST * 2), LONGEST * 2);
        assert_eq!(backoff.pause_of_at_least(2, FIRST), 2 * FIRST);
    }

    #[test]
    fn pauses_with_jitter_differ_within_their_bounds() {
        let backoff = Backoff::doubling(FIRST, LONGEST).with_jitter(0.5, 1.0);
        let pauses: Vec<_> = (1..=40).map(|failures| backoff.pause(failures)).collect();
        assert!((FIRST / 2..=FIRST).contains(&pauses[0]), "{pauses:?}");
        assert!((FIRST * 4..=FIRST * 8).contains(&pauses[3]), "{pauses:?}");
        let late = &pauses[10..];
        let bounds = LONGEST / 2..=LONGEST;
        assert!(late.iter().all(|pause| bounds.contains(pause)));
        assert!(late.iter().any(|pause| *pause != late[0]));
    }
}
