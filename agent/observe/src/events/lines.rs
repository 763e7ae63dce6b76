//! Limits the log lines about a pod's denials and failures: any caller can cause as many as it likes.

use std::time::{Duration, Instant};

use ambit_model::ObjectName;

/// How many lines of each kind a pod may have in a [`PERIOD`].
pub(super) const LINES: u32 = 100;

/// The period in which they are counted.
const PERIOD: Duration = Duration::from_secs(1);

/// Whether to write a line to the log.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InLog {
    /// It is.
    Written,
    /// No: there are too many. The line is counted.
    LeftOut,
}

/// How many lines of a pod were left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftOut {
    /// The pod; `None` for network namespaces that do not belong to a known pod.
    pub pod: Option<ObjectName>,
    /// How many.
    pub lines: u64,
}

/// What a line is about. Each kind has its own share: a source that is denied again and again does not
/// hide that another one is denied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LineKind {
    /// A denial that differs from those that are kept.
    NewDenial,
    /// A denial similar to another.
    RepeatedDenial,
    /// A connection that failed, or that was refused for another reason than policy.
    Incident,
}

/// The shares of one pod.
#[derive(Debug, Default)]
pub(super) struct LineShares {
    new_denials: Share,
    repeated_denials: Share,
    incidents: Share,
    left_out: u64,
}

/// The lines in the current period.
#[derive(Debug, Default)]
struct Share {
    since: Option<Instant>,
    written: u32,
}

impl LineShares {
    /// Takes one line.
    pub(super) fn take(&mut self, line: LineKind, now: Instant) -> InLog {
        let share = match line {
            LineKind::NewDenial => &mut self.new_denials,
            LineKind::RepeatedDenial => &mut self.repeated_denials,
            LineKind::Incident => &mut self.incidents,
        };
        let in_log = share.take(now);
        self.left_out += u64::from(in_log == InLog::LeftOut);
        in_log
    }

    /// How many were left out since the last call.
    pub(super) fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }
}

impl Share {
    fn take(&mut self, now: Instant) -> InLog {
        let is_current = |since: Instant| now.duration_since(since) < PERIOD;
        if !self.since.is_some_and(is_current) {
            *self = Self {
                since: Some(now),
                written: 0,
            };
        }
        if self.written == LINES {
            return InLog::LeftOut;
        }
        self.written += 1;
        InLog::Written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(shares: &mut LineShares, line: LineKind, now: Instant) -> u32 {
        let asked = (0..3 * LINES).map(|_| shares.take(line, now));
        asked
            .map(|in_log| u32::from(in_log == InLog::Written))
            .sum()
    }

    #[test]
    fn each_kind_has_its_lines_each_second_and_the_rest_is_counted() {
        let (mut shares, start) = (LineShares::default(), Instant::now());
        for line in [
            LineKind::RepeatedDenial,
            LineKind::NewDenial,
            LineKind::Incident,
        ] {
            assert_eq!(written(&mut shares, line, start), LINES);
        }
        assert_eq!(shares.take_left_out(), u64::from(6 * LINES));
        let later = start + PERIOD;
        assert_eq!(written(&mut shares, LineKind::RepeatedDenial, later), LINES);
        assert_eq!(shares.take_left_out(), u64::from(2 * LINES));
        assert_eq!(shares.take_left_out(), 0);
    }
}
