//! The agents' memory at rest, and how long a node is not served when its agent is killed and another
//! one starts.

use std::fmt;
use std::time::Duration;

use ambit_tests::{Lab, Swarm, SwarmServer};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::course::Course;
use super::figures::mebibytes;
use super::spending::Spending;

/// Connections that stand at the same time.
const STANDING: [usize; 2] = [1_000, 10_000];

/// How often an agent is killed; the median is reported.
const KILLED: usize = 5;

/// Longer than a node is without an agent.
const WATCHED: Duration = Duration::from_secs(4);

const PORT: u16 = 9000;

/// Figures that are not ratios.
pub(super) struct Standing {
    /// Bytes of memory of both agents by the connections that stand.
    resident: Vec<(usize, f64)>,
    /// For how long calls were not answered after the called pod's agent was killed.
    silences: Vec<Duration>,
}

impl Standing {
    pub(super) fn measure(lab: &Lab, course: &mut Course, idle: &Spending) -> Result<Self> {
        let [caller, called] = course.across().map(Clone::clone);
        let to = called.at(PORT);
        let _server = SwarmServer::start(lab, called.place(), to)?;
        let mut silences = Vec::new();
        for _ in 0..KILLED {
            let mut watch = Swarm::watch(lab, caller.place(), to, WATCHED)?;
            course.replace_agent(lab)?;
            silences.push(watch.longest_silence()?);
        }
        silences.sort();
        let mut resident = vec![(0, idle.resident)];
        for connections in STANDING {
            let mut swarm = Swarm::hold(lab, caller.place(), to, connections)?;
            let outcome = swarm.outcome()?;
            ensure!(
                outcome == (connections as u64, 0),
                "answered, refused: {outcome:?}"
            );
            resident.push((connections, Spending::of(&course.agents()?)?.resident));
        }
        Ok(Self { resident, silences })
    }

    pub(super) fn json(&self) -> Value {
        let resident = self.resident.iter().map(|(connections, bytes)| {
            json!({"connections": connections, "agents_resident_bytes": bytes})
        });
        let silences = self.silences.iter().map(Duration::as_secs_f64);
        json!({
            "memory": resident.collect::<Value>(),
            "seconds_without_answer_after_a_kill": silences.collect::<Value>(),
        })
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (connections, bytes) in &self.resident {
            let memory = mebibytes(*bytes);
            writeln!(
                f,
                "both agents' memory with {connections} connections: {memory:.0} MiB"
            )?;
        }
        let [first, .., last] = self.silences.as_slice() else {
            return Ok(());
        };
        let middle = self.silences[self.silences.len() / 2];
        write!(
            f,
            "no answer after the called pod's agent was killed and another started: {middle:?} \
             ({first:?} to {last:?})"
        )
    }
}
