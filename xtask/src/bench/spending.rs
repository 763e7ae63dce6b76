//! The agents' processor time and memory, as the kernel counts them.

use std::fs;

use ambit_tests::Agent;
use anyhow::{Context, Result};

/// What some agents have spent together.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Spending {
    /// Seconds of processor time.
    pub(super) processor: f64,
    /// Bytes of memory, resident now.
    pub(super) resident: f64,
}

impl Spending {
    pub(super) fn of(agents: &[Agent]) -> Result<Self> {
        let mut all = Self::default();
        for agent in agents {
            let id = agent.id().context("an agent has ended")?;
            all.processor += processor(id)?;
            all.resident += f64::from(u32::try_from(agent.resident()? >> 10)?) * 1024.0;
        }
        Ok(all)
    }

    /// The processor time since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            processor: self.processor - before.processor,
            resident: self.resident,
        }
    }
}

/// utime and stime of proc(5), which follow the parenthesized name as the 12th and 13th field.
fn processor(id: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, fields) = text.rsplit_once(") ").context("no name in stat")?;
    let ticks: Vec<f64> = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    // USER_HZ has been 100 on every architecture that Ambit runs on.
    Ok(ticks.iter().sum::<f64>() / 100.0)
}
