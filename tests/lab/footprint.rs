//! What a process has in memory, as `/proc/PID/smaps` tells.

use std::fmt;

use anyhow::{Context, Result};

/// The resident memory of a process, by what it holds. In bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Footprint {
    /// All of it.
    pub resident: u64,
    /// The part of it that this process has to answer for: pages that are shared with others count in part.
    pub proportional: u64,
    /// Pages of files that are as on disk: the program and its libraries. The kernel can drop them.
    pub files: u64,
    /// The heap and the arenas of the allocator, stacks, and written pages of files.
    pub anonymous: u64,
}

impl Footprint {
    /// Reads that of a process.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn of(process: u32) -> Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
        Self::parse(&text)
    }

    fn parse(rollup: &str) -> Result<Self> {
        let bytes = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next());
            let kib: u64 = kib
                .with_context(|| format!("no {name} in smaps"))?
                .parse()?;
            anyhow::Ok(kib * 1024)
        };
        let (resident, anonymous) = (bytes("Rss:")?, bytes("Anonymous:")?);
        Ok(Self {
            resident,
            proportional: bytes("Pss:")?,
            files: resident.saturating_sub(anonymous),
            anonymous,
        })
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            to,
            "{:.1} MiB resident: {:.1} of files, {:.1} anonymous",
            mebibytes(self.resident),
            mebibytes(self.files),
            mebibytes(self.anonymous)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollup_is_read() {
        let text = "5591-7ffe ---p 00000000 00:00 0 [rollup]\nRss:  100 kB\nPss:  60 kB\nAnonymous:  40 kB\n";
        let footprint = Footprint::parse(text).unwrap();
        assert_eq!(footprint.resident, 100 << 10);
        assert_eq!(footprint.proportional, 60 << 10);
        assert_eq!((footprint.files, footprint.anonymous), (60 << 10, 40 << 10));
        assert!(Footprint::parse("").is_err());
        assert!(Footprint::of(std::process::id()).unwrap().resident > 0);
    }
}
