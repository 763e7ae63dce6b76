//! The answer of `ambit explain`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use ambit_model::{ObjectName, PolicyKind, WorkloadIdentity};

/// Why a caller may or may not reach a destination.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccessExplanation {
    /// The caller.
    pub caller: ExplainedCaller,
    /// The destination: a pod, or a Service and its port.
    pub destination: String,
    /// The request as policies see it; `None` if the question was about a connection.
    pub request: Option<ExplainedRequest>,
    /// What the question left out and is assumed, as sentences.
    pub assumptions: Vec<String>,
    /// One result for each set of endpoints with the same explanation; never empty.
    pub results: Vec<EndpointResult>,
}

/// The caller that a question is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExplainedCaller {
    /// The identity that its tunnel proves; `None` for plaintext.
    pub identity: Option<WorkloadIdentity>,
    /// Its address, if it is known.
    pub address: Option<IpAddr>,
    /// Its pod, if it is known.
    pub pod: Option<ObjectName>,
}

/// The request that a question is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExplainedRequest {
    /// The method.
    pub method: String,
    /// The host.
    pub host: String,
    /// The path that policies see, normalised and without query.
    pub path: String,
    /// The path as the question has it.
    pub path_and_query: String,
}

/// The explanation for some endpoints.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointResult {
    /// The endpoints.
    pub endpoints: Vec<ExplainedEndpoint>,
    /// Their explanation.
    #[serde(flatten)]
    pub explanation: Explanation,
}

/// A pod, and the address at which its application listens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExplainedEndpoint {
    /// The pod.
    pub pod: ObjectName,
    /// Its address and port.
    pub address: SocketAddr,
}

/// A verdict and the reason for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The verdict.
    pub verdict: AccessVerdict,
    /// Where it is reached.
    pub decided: DecidedBy,
    /// The reason.
    pub cause: Cause,
    /// The criteria of the deciding rule that hold.
    pub matched: Vec<CriterionText>,
    /// If no ALLOW rule matches: the one with the fewest unmet criteria.
    pub nearest: Option<RuleText>,
    /// Rules that depend on the request, with the criteria that it decides.
    pub undecided: Vec<RuleText>,
    /// Whether the port accepts plaintext; `None` if nothing is enforced.
    pub authentication: Option<PortAuthentication>,
    /// Further notes, as sentences.
    pub notes: Vec<String>,
}

/// The verdict on a connection or a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AccessVerdict {
    /// It may reach the application.
    Allow,
    /// It may not reach the application.
    Deny,
    /// The port carries HTTP and the question is about a connection: each request is judged.
    DependsOnRequest,
    /// Everything else allows it, and an external authorizer decides.
    DependsOnAuthorizer,
    /// The destination is not in the mesh, so nothing is enforced.
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

/// What decides, on the destination's node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecidedBy {
    /// The kernel, when the node's proxy connects to the pod for a tunnel.
    KernelAtConnect,
    /// The kernel, when a plaintext connection's SYN arrives.
    KernelAtSyn,
    /// The proxy, before a connection's first byte.
    ProxyPerConnection,
    /// The proxy, for each request.
    ProxyPerRequest,
    /// Nothing is enforced.
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

/// The reason for a verdict.
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
    /// An object cannot be enforced, so everything is refused.
    NotEnforceable {
        /// The object.
        object: RuleName,
        /// Which field is the cause, and what to do.
        message: Option<String>,
    },
    /// A CUSTOM rule matches, and its authorizer decides.
    Authorizer {
        /// The rule.
        rule: RuleName,
        /// `spec.provider.name`.
        provider: String,
    },
    /// A CUSTOM rule matches, and the mesh configuration does not have its authorizer.
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
    /// The destination is not in the mesh.
    NotEnrolled {
        /// The reason, as a sentence.
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

/// A rule and some of its criteria.
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
    /// The values that it asks for: `one of "/order"`.
    pub wants: String,
    /// The actual value: `the path is "/admin"`.
    pub found: String,
}

impl fmt::Display for CriterionText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wants {}, {}", self.field, self.wants, self.found)
    }
}

/// Whether a port accepts plaintext, by PeerAuthentication.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PortAuthentication {
    /// The mode in force.
    pub mode: AuthenticationMode,
    /// The object that sets it; `None` if none does.
    pub object: Option<RuleName>,
    /// The verdict on the same connection or request in plaintext.
    pub plaintext: AccessVerdict,
}

/// A mode of PeerAuthentication. Mutual TLS is always accepted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AuthenticationMode {
    /// Plaintext is refused.
    Strict,
    /// Plaintext is accepted and judged by the other policies.
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
