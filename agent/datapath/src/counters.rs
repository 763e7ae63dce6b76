//! The kernel's counters, summed over CPUs.

use std::collections::BTreeMap;

use ambit_common::Counter;
use aya::maps::{MapData, PerCpuArray};

use super::{DatapathError, Pins};

/// Reads the kernel's counters. They live as long as the pins: a restart of the agent does not
/// reset them.
pub struct Counters {
    map: PerCpuArray<MapData, u64>,
}

impl Counters {
    /// Opens the counters.
    ///
    /// # Errors
    /// [`DatapathError::Map`] where the map cannot be opened.
    pub fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self {
            map: pins.per_cpu_array("COUNTS")?,
        })
    }

    /// Every counter by its name.
    ///
    /// # Errors
    /// [`DatapathError::Map`] where the map cannot be read.
    pub fn read(&self) -> Result<BTreeMap<&'static str, u64>, DatapathError> {
        Counter::ALL
            .iter()
            .map(|&counter| {
                let per_cpu = self
                    .map
                    .get(&(counter as u32), 0)
                    .map_err(DatapathError::map("COUNTS", "read"))?;
                Ok((counter.as_str(), per_cpu.iter().sum()))
            })
            .collect()
    }
}
