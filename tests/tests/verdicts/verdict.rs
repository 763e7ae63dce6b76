//! Verdicts on connections: the kernel's two places of judgement, and what the agent's log has of them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

/// The place of the kernel's judgement.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Hook {
    /// The connect of the agent that delivers what came through a tunnel.
    Delivery,
    /// `sk_lookup`, for plaintext.
    Lookup,
}

/// What becomes of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Outcome {
    Allowed,
    Denied,
}

/// A verdict and its reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    /// The word of a denial's reason.
    pub(crate) reason: Option<String>,
    /// The policy and rule.
    pub(crate) decider: Option<String>,
}

/// The kernel's verdicts, from the log of the server's node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Logged {
    pub(crate) hook: Hook,
    pub(crate) source: IpAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) said: Verdict,
}

impl Hook {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "delivery" => Some(Self::Delivery),
            "sk_lookup" => Some(Self::Lookup),
            _ => None,
        }
    }
}

impl Logged {
    /// Reads a verdict from a line of the log: the kernel's report of a denial, or the line about the
    /// end of an allowed delivery. An allowed lookup is not logged.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let entry: Value = serde_json::from_str(line).ok()?;
        let text = |field: &str| Some(entry["fields"].get(field)?.as_str()?.to_owned());
        let address = |field: &str| text(field)?.parse::<SocketAddr>().ok();
        let is_delivery = || {
            let words = ["direction", "outcome", "decided_in"].map(text);
            words == ["inbound", "finished", "kernel"].map(|word| Some(word.to_owned()))
        };
        match entry["target"].as_str()? {
            "ambit::denied" => Some(Self {
                hook: Hook::parse(&text("hook")?)?,
                source: address("source")?.ip(),
                destination: address("destination")?,
                said: Verdict {
                    outcome: Outcome::Denied,
                    reason: text("reason"),
                    decider: text("policy"),
                },
            }),
            "ambit::access" if is_delivery() => Some(Self {
                hook: Hook::Delivery,
                source: address("source.address")?.ip(),
                destination: address("destination.address")?,
                said: Verdict {
                    outcome: Outcome::Allowed,
                    reason: None,
                    decider: text("decider"),
                },
            }),
            _ => None,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delivery => "the connect hook",
            Self::Lookup => "sk_lookup",
        })
    }
}
