//! The proxies' processor time and memory, as the kernel counts them.

use std::fs;

use anyhow::{Context, Result, bail};

/// What some processes have spent.
#[derive(Clone, Default, Debug)]
pub(super) struct Spending {
    /// Seconds of processor time, by process.
    processor: Vec<(u32, f64)>,
    /// Bytes of memory of all, resident now.
    pub(super) resident: f64,
}

impl Spending {
    pub(super) fn of(processes: &[u32]) -> Result<Self> {
        let mut all = Self::default();
        for &id in processes {
            all.processor.push((id, processor(id)?));
            all.resident += resident(id)?;
        }
        Ok(all)
    }

    /// The processor time of all since `before`.
    ///
    /// # Errors
    ///
    /// If a process spent none: then the connections that were measured did not pass through it.
    pub(super) fn since(&self, before: &Self) -> Result<f64> {
        let mut sum = 0.0;
        for (now, then) in self.processor.iter().zip(&before.processor) {
            let spent = now.1 - then.1;
            if spent <= 0.0 {
                bail!(
                    "process {} spent no time: it did not carry what was measured",
                    now.0
                );
            }
            sum += spent;
        }
        Ok(sum)
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

fn resident(id: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kilobytes.context("no VmRSS")?.parse::<f64>()? * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_did_nothing_carried_nothing() {
        let spent = |processor: [f64; 2]| Spending {
            processor: vec![(7, processor[0]), (8, processor[1])],
            resident: 0.0,
        };
        let before = spent([1.0, 1.0]);
        assert_eq!(spent([1.5, 1.25]).since(&before).ok(), Some(0.75));
        let error = spent([1.5, 1.0]).since(&before).err();
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with("process 8 spent no time"), "{error}");
    }

    #[test]
    fn this_process_uses_time_and_memory() -> Result<()> {
        assert!(resident(std::process::id())? > 0.0);
        assert!(processor(std::process::id())? >= 0.0);
        Ok(())
    }
}
