//! How connections between two pods of one node travel, and on which node pods are therefore placed.

use anyhow::{Result, bail};

use crate::plan::NodeName;

/// Names how connections between two pods of one node travel in every lab: `tunnel` (the default) or
/// `handoff`.
const VARIABLE: &str = "AMBIT_SAME_NODE";

/// The agents' option `--same-node`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SameNode {
    /// Through a tunnel, the default.
    Tunnel,
    /// From socket to socket in the agent.
    Handoff,
}

/// The nodes of a lab's pods.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Placement {
    /// Those that the test names.
    AsNamed,
    /// Node B, whatever the test names, so that connections between pods are handed over.
    OnNodeB,
}

impl SameNode {
    /// What the environment says.
    ///
    /// # Errors
    ///
    /// If it says something else.
    pub(crate) fn of_environment() -> Result<Self> {
        match std::env::var(VARIABLE).as_deref() {
            Err(_) | Ok("tunnel") => Ok(Self::Tunnel),
            Ok("handoff") => Ok(Self::Handoff),
            Ok(other) => bail!("{VARIABLE} is {other:?}; it may be tunnel or handoff"),
        }
    }

    /// The value of the option.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Handoff => "handoff",
        }
    }

    /// Where tests that are not about nodes have their pods.
    pub(crate) fn placement(self) -> Placement {
        match self {
            Self::Tunnel => Placement::AsNamed,
            Self::Handoff => Placement::OnNodeB,
        }
    }
}

impl Placement {
    /// The node of a pod for which its test names `node`.
    pub(crate) fn of(self, node: NodeName) -> NodeName {
        match self {
            Self::AsNamed => node,
            Self::OnNodeB => NodeName::B,
        }
    }
}
