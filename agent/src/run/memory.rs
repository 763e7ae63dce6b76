//! How much memory waiting bytes may take.

use std::str::FromStr;

use anyhow::{Context, Result};

use ambit_daemon::memory::MemoryLimit;

/// The part of its control group's limit that the agent's account gets. The rest is for its tables, for the
/// kernel's buffers of its sockets, which count towards the same limit, and for what the allocator keeps.
const PART_OF_CGROUP: u64 = 2;

/// The part of the machine's memory, if no control group limits the agent.
const PART_OF_MACHINE: u64 = 4;

/// The most, if no control group limits the agent.
const MOST_OF_MACHINE: u64 = 512 << 20;

/// The least that can be configured: with less, few connections could be carried at a time.
const LEAST: usize = 8 << 20;

/// A size of memory, as `--memory` has it: bytes, or a number with `Ki`, `Mi` or `Gi`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemorySize(usize);

/// A text that is not such a size.
#[derive(Debug, thiserror::Error)]
pub enum NoMemorySize {
    /// It is not a number, or too large.
    #[error("give bytes, or a number with Ki, Mi or Gi, such as 256Mi")]
    Unreadable,
    /// It is too small.
    #[error("at least {}Mi are needed", LEAST >> 20)]
    TooSmall,
}

impl FromStr for MemorySize {
    type Err = NoMemorySize;

    fn from_str(text: &str) -> Result<Self, NoMemorySize> {
        let units = [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30)];
        let with_unit = units
            .iter()
            .find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
        let (number, unit) = with_unit.unwrap_or((text, 1_usize));
        let number: usize = number.parse().map_err(|_| NoMemorySize::Unreadable)?;
        let bytes = number.checked_mul(unit).ok_or(NoMemorySize::Unreadable)?;
        if bytes < LEAST {
            return Err(NoMemorySize::TooSmall);
        }
        Ok(Self(bytes))
    }
}

/// Returns the bytes of the node's account of memory: as configured, or else a part of what this process may
/// have.
///
/// # Errors
/// If that cannot be found out.
pub(super) fn account(configured: Option<MemorySize>) -> Result<usize> {
    if let Some(MemorySize(bytes)) = configured {
        return Ok(bytes);
    }
    let limit = MemoryLimit::read()
        .context("it cannot be found out how much memory the agent may have; set --memory")?;
    let bytes = part_of(&limit);
    match &limit {
        MemoryLimit::Cgroup { bytes: of, file } => {
            tracing::info!(bytes, of, file = %file.display(), "memory: a part of the control group's limit");
        }
        MemoryLimit::Machine { bytes: of } => {
            tracing::info!(bytes, of, "memory: a part of the machine's");
        }
    }
    if bytes < LEAST {
        tracing::warn!(
            bytes,
            "very little memory: few connections can be carried at a time. Raise the control group's limit, \
             or set --memory"
        );
    }
    Ok(bytes)
}

fn part_of(limit: &MemoryLimit) -> usize {
    let part = match limit {
        MemoryLimit::Cgroup { bytes, .. } => bytes / PART_OF_CGROUP,
        MemoryLimit::Machine { bytes } => (bytes / PART_OF_MACHINE).min(MOST_OF_MACHINE),
    };
    usize::try_from(part).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("8388608", Some(8 << 20)),
            ("65536Ki", Some(64 << 20)),
            ("256Mi", Some(256 << 20)),
            ("2Gi", Some(2 << 30)),
            ("7Mi", None),
            ("0", None),
            ("-1", None),
            ("1.5Gi", None),
            ("256M", None),
            ("Mi", None),
            ("", None),
            ("99999999999999999999", None),
            ("18014398509481984Gi", None),
        ] {
            assert_eq!(
                text.parse::<MemorySize>().ok(),
                bytes.map(MemorySize),
                "{text}"
            );
        }
    }

    #[test]
    fn the_default_is_a_part_of_the_lower_limit() {
        let cgroup = |bytes| MemoryLimit::Cgroup {
            bytes,
            file: "memory.max".into(),
        };
        let machine = |bytes| MemoryLimit::Machine { bytes };
        for (limit, bytes) in [
            (cgroup(1 << 30), 512 << 20),
            (cgroup(8 << 30), 4 << 30),
            (machine(1 << 30), 256 << 20),
            (machine(64 << 30), 512 << 20),
        ] {
            assert_eq!(part_of(&limit), bytes, "{limit:?}");
        }
    }
}
