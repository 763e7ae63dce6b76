//! What the agents logged about a connection: its path, and the policy that decided.

use std::net::SocketAddr;

use anyhow::Result;
use serde_json::Value;

use crate::agent::Agent;
use crate::reference::Decider;
use crate::wait::{SOON, eventually};

/// A decision of the node of a connection's destination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// `tunnel`, `handoff` or `plaintext`; `tunnel` for every denial by the kernel at a delivery.
    pub path: String,
    /// `kernel` or `proxy`.
    pub layer: String,
    /// The policy object and its rule, or the reason if no policy decided.
    pub decided_by: String,
}

impl Decision {
    /// Whether it is this one.
    pub fn is_by(&self, decider: &Decider) -> bool {
        self.layer == decider.layer && self.decided_by.starts_with(decider.policy)
    }
}

/// A moment in the agents' logs.
pub struct LogMark(Vec<usize>);

impl LogMark {
    /// Now.
    pub fn now(agents: &[Agent]) -> Self {
        Self(agents.iter().map(|agent| agent.log().len()).collect())
    }

    /// Waits for the first decision since then about a connection to `destination`.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn decision_about(&self, agents: &[Agent], destination: SocketAddr) -> Result<Decision> {
        let what = format!("a decision about {destination} in the agents' logs");
        eventually(SOON, &what, || {
            let logs = agents.iter().zip(&self.0);
            logs.filter_map(|(agent, start)| {
                let log = agent.log();
                let lines = log.get(*start..)?.lines();
                lines.filter_map(|line| decision(line, destination)).next()
            })
            .next()
        })
    }
}

/// Reads a line about an inbound connection, of the proxy's access log or of a kernel denial.
fn decision(line: &str, destination: SocketAddr) -> Option<Decision> {
    let entry: Value = serde_json::from_str(line).ok()?;
    let text = |field: &str| Some(entry["fields"].get(field)?.as_str()?.to_owned());
    let (path, layer, called, decider) = match entry["target"].as_str()? {
        "ambit::access" if text("direction")? == "inbound" => (
            text("path")?,
            text("decided_in")?,
            text("destination.address")?,
            text("decider"),
        ),
        "ambit::denied" => {
            let path = match text("hook")?.as_str() {
                "delivery" => "tunnel",
                _ => "plaintext",
            };
            let (called, policy) = (text("destination")?, text("policy"));
            (path.to_owned(), "kernel".to_owned(), called, policy)
        }
        _ => return None,
    };
    let decided_by = decider.or_else(|| text("reason")).unwrap_or_default();
    (called == destination.to_string()).then_some(Decision {
        path,
        layer,
        decided_by,
    })
}
