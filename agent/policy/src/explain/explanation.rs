//! What `ambit explain` is answered.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use ambit_model::{ObjectName, PolicyKind, WorkloadIdentity};

/// Why somebody may or may not reach something.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccessExplanation {
    /// Who calls.
    pub caller: ExplainedCaller,
    /// What is called: a pod, or a Service and its port.
    pub destination: String,
    /// The request, as policies see it; `None` where only a connection was asked about.
    pub request: Option<ExplainedRequest>,
    /// What was not said, and is assumed. Sentences.
    pub assumptions: Vec<String>,
    /// One for each set of endpoints that give the same answer; never empty.
    pub results: Vec<EndpointResult>,
}

/// Who calls.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExplainedCaller {
    /// The identity that its tunnel proves; `None` for plaintext.
    pub identity: Option<WorkloadIdentity>,
    /// Its address; `None` where it is not known.
    pub address: Option<IpAddr>,
    /// Its pod, where that is known.
    pub pod: Option<ObjectName>,
}

/// A request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExplainedRequest {
    /// The method.
    pub method: String,
    /// The host.
    pub host: String,
    /// The path that policies see, normalised and without query.
    pub path: String,
    /// The path as it was asked about.
    pub path_and_query: String,
}

/// The answer for some endpoints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointResult {
    /// The endpoints.
    pub endpoints: Vec<ExplainedEndpoint>,
    /// Their answer.
    #[serde(flatten)]
    pub explanation: Explanation,
}

/// A pod and where its application listens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExplainedEndpoint {
    /// The pod.
    pub pod: ObjectName,
    /// Its address and port.
    pub address: SocketAddr,
}

/// A verdict, and why it is this one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The verdict.
    pub verdict: AccessVerdict,
    /// Where it is decided.
    pub decided: DecidedBy,
    /// Why.
    pub cause: Cause,
    /// The criteria of the deciding rule that hold.
    pub matched: Vec<CriterionText>,
    /// Of a denial for want of an ALLOW rule: the one with the fewest unmet criteria.
    pub nearest: Option<RuleText>,
    /// Rules that match or not by the request, with the criteria that it decides.
    pub undecided: Vec<RuleText>,
    /// What the port asks of callers; `None` where nothing is enforced.
    pub authentication: Option<PortAuthentication>,
    /// What else there is to know. Sentences.
    pub notes: Vec<String>,
}

/// What becomes of the connection or the request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AccessVerdict {
    /// It may reach the application.
    Allow,
    /// It may not.
    Deny,
    /// The port carries HTTP, and no request was asked about: each is judged.
    DependsOnRequest,
    /// Everything but an external authorizer allows it.
    DependsOnAuthorizer,
    /// The destination is not enrolled: nothing judges what reaches it.
    NotEnforced,
}

impl fmt::Display for AccessVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::DependsOnRequest => "DEPENDS ON THE REQUEST",
            Self::DependsOnAuthorizer => "DEPENDS ON THE EXTERNAL AUTHORIZER",
            Self::NotEnforced => "NOT ENFORCED",
        })
    }
}

/// Who decides, on the destination's node. Displays as words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecidedBy {
    /// The kernel, when the node's proxy connects to the pod for a tunnel.
    KernelAtConnect,
    /// The kernel, when a plaintext connection's SYN arrives.
    KernelAtSyn,
    /// The proxy, before a connection's first byte.
    ProxyPerConnection,
    /// The proxy.
    ProxyPerRequest,
    /// Nobody: nothing is enforced.
    Nobody,
}

impl fmt::Display for DecidedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KernelAtConnect => "the kernel, when the node's proxy connects to the pod",
            Self::KernelAtSyn => "the kernel, when the SYN arrives",
            Self::ProxyPerConnection => "the node's proxy, before the first byte",
            Self::ProxyPerRequest => "the node's proxy, per request",
            Self::Nobody => "nobody",
        })
    }
}

/// Why a verdict is what it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Cause {
    /// An ALLOW rule matches, and no DENY rule does.
    AllowRule {
        /// The rule.
        rule: RuleName,
    },
    /// No ALLOW policy applies to the port, and no DENY rule matches.
    NoAllowPolicy,
    /// A DENY rule matches.
    DenyRule {
        /// The rule.
        rule: RuleName,
    },
    /// PeerAuthentication refuses plaintext.
    Strict {
        /// The object.
        object: RuleName,
    },
    /// ALLOW policies apply, and none of their rules matches.
    NoAllowMatched {
        /// The policies.
        policies: Vec<RuleName>,
    },
    /// An object cannot be enforced, so that all is refused.
    NotEnforceable {
        /// The object.
        object: RuleName,
        /// Which of its fields, and what to do.
        message: Option<String>,
    },
    /// A CUSTOM rule matches, and its authorizer is asked.
    Authorizer {
        /// The rule.
        rule: RuleName,
        /// `spec.provider.name`.
        provider: String,
    },
    /// A CUSTOM rule matches, and the mesh configuration has no such authorizer.
    NoSuchAuthorizer {
        /// The rule.
        rule: RuleName,
    },
    /// A CUSTOM rule matches, and the policies of the port name several authorizers.
    SeveralAuthorizers {
        /// The rule.
        rule: RuleName,
    },
    /// Rules depend on the request.
    Request,
    /// The destination is not enrolled.
    NotEnrolled {
        /// Why, as a sentence.
        reason: String,
    },
}

/// An object, or a rule of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RuleName {
    /// The object's kind.
    pub kind: PolicyKind,
    /// The object's name.
    pub name: ObjectName,
    /// The index in `spec.rules`; `None` for the whole object.
    pub rule: Option<usize>,
    /// Where the object comes from: a document of a file, or the Kubernetes API.
    pub origin: Option<String>,
}

/// Displays as `rule 0 of AuthorizationPolicy shop/cart (shop.yaml, document 2)`.
impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(rule) = self.rule {
            write!(f, "rule {rule} of ")?;
        }
        write!(f, "{} {}", self.kind, self.name)?;
        match &self.origin {
            Some(origin) => write!(f, " ({origin})"),
            None => Ok(()),
        }
    }
}

/// A rule, and some of its criteria.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RuleText {
    /// The rule.
    pub rule: RuleName,
    /// `spec.action`.
    pub action: String,
    /// The criteria.
    pub criteria: Vec<CriterionText>,
}

/// A criterion in words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CriterionText {
    /// The field, or the key of a condition, as the API names it.
    pub field: String,
    /// What it wants: `one of "/order"`.
    pub wants: String,
    /// What there is: `the path is "/admin"`.
    pub found: String,
}

impl fmt::Display for CriterionText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wants {}, {}", self.field, self.wants, self.found)
    }
}

/// What PeerAuthentication asks of a port's callers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PortAuthentication {
    /// The mode in force.
    pub mode: AuthenticationMode,
    /// The object that says so; `None` where none does.
    pub object: Option<RuleName>,
    /// What becomes of the same in plaintext.
    pub plaintext: AccessVerdict,
}

/// A mode, as far as it matters: mutual TLS is always taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AuthenticationMode {
    /// Plaintext is refused.
    Strict,
    /// Plaintext is judged like anything else.
    Permissive,
}

impl fmt::Display for AuthenticationMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Strict => "STRICT",
            Self::Permissive => "PERMISSIVE",
        })
    }
}
