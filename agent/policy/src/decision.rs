//! The verdicts of a workload's policies, and what they are about.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ambit_common::Reason;
use serde::{Deserialize, Serialize};

use ambit_model::{ObjectName, PolicyKind, WorkloadIdentity};

/// The L4 attributes of a connection to a workload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionAttributes {
    /// The verified peer identity; `None` for plaintext.
    pub identity: Option<WorkloadIdentity>,
    /// The immediate peer's address.
    pub source: IpAddr,
    /// The workload's address and port (never 15008).
    pub destination: SocketAddr,
}

/// The verdict on a connection before any byte of it has been read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConnectionVerdict {
    /// The connection may reach the application, whatever it carries.
    Allow(Permit),
    /// The connection may not reach the application, whatever it carries.
    Deny(Denial),
    /// The proxy decides: the verdict depends on the requests or on an external authorizer, or there
    /// is something to note.
    Ask,
}

/// Proof that the evaluator allowed one request. Only the evaluator makes one, and it cannot be
/// cloned.
#[derive(PartialEq, Eq, Debug)]
pub struct RequestPermit {
    decider: Option<Decider>,
}

impl RequestPermit {
    pub(super) fn new(decider: Option<Decider>) -> Self {
        Self { decider }
    }

    /// A permit for tests of code that needs one.
    #[cfg(any(test, feature = "testing"))]
    pub fn for_test() -> Self {
        Self::new(None)
    }

    /// The ALLOW rule that matched; `None` if no ALLOW policy applies.
    pub fn decider(&self) -> Option<&Decider> {
        self.decider.as_ref()
    }
}

/// Proof that the evaluator allowed a connection. Only the evaluator makes one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Permit {
    decider: Option<Decider>,
}

impl Permit {
    pub(super) fn new(decider: Option<Decider>) -> Self {
        Self { decider }
    }

    /// The ALLOW rule that matched; `None` if no ALLOW policy applies.
    pub fn into_decider(self) -> Option<Decider> {
        self.decider
    }
}

/// Which layer reached a verdict.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// The kernel, by its tables, before any byte of the connection passed.
    Kernel,
    /// The evaluator in the node's proxy.
    Proxy,
}

impl Layer {
    /// The word that logs use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Proxy => "proxy",
        }
    }
}

/// Why a connection or a request was denied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denial {
    /// The kind of reason.
    pub reason: Reason,
    /// The object or rule that decided, if it was a single one.
    pub decider: Option<Decider>,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.as_str())?;
        match &self.decider {
            Some(decider) => write!(f, " ({decider})"),
            None => Ok(()),
        }
    }
}

/// The object, or the rule of it, on account of which a verdict is what it is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Decider {
    /// The object's kind.
    pub kind: PolicyKind,
    /// The object's name.
    pub name: ObjectName,
    /// The index of the rule in `spec.rules`; `None` if the object as a whole decided.
    pub rule: Option<usize>,
}

impl fmt::Display for Decider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)?;
        match self.rule {
            Some(rule) => write!(f, " rule {rule}"),
            None => Ok(()),
        }
    }
}
