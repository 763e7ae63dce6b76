//! Criteria in the words of the Istio API, for explanations.

use std::fmt::Display;

use super::criterion::{Criterion, Facts, Knowledge};
use crate::matcher::Field;
use crate::request::{HeaderKey, RequestAttributes, VerifiedToken};
use ambit_model::WorkloadIdentity;

/// The part of a rule that a criterion is in. The name of its field depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Clause {
    /// A field of a source or an operation.
    Alternative,
    /// An entry of `when`.
    When,
}

impl Criterion {
    /// Splits the criterion into its field and the `not` twin, those that are set.
    pub(crate) fn halves(&self) -> Vec<Self> {
        match self {
            Self::Principal(field) => field.halves().map(Self::Principal).collect(),
            Self::Namespace(field) => field.halves().map(Self::Namespace).collect(),
            Self::ServiceAccount(field) => field.halves().map(Self::ServiceAccount).collect(),
            Self::TrustDomain(field) => field.halves().map(Self::TrustDomain).collect(),
            Self::SourceIp(field) => field.halves().map(Self::SourceIp).collect(),
            Self::RemoteIp(field) => field.halves().map(Self::RemoteIp).collect(),
            Self::DestinationIp(field) => field.halves().map(Self::DestinationIp).collect(),
            Self::DestinationPort(field) => field.halves().map(Self::DestinationPort).collect(),
            Self::Host(field) => field.halves().map(Self::Host).collect(),
            Self::Method(field) => field.halves().map(Self::Method).collect(),
            Self::Path(field) => field.halves().map(Self::Path).collect(),
            Self::RequestPrincipal(field) => field.halves().map(Self::RequestPrincipal).collect(),
            Self::Header(key, field) => {
                let header = |half| Self::Header(key.clone(), half);
                field.halves().map(header).collect()
            }
            Self::Claim(path, field) => {
                let claim = |half| Self::Claim(path.clone(), half);
                field.halves().map(claim).collect()
            }
        }
    }

    /// The field's name in the API, or the twin's name if only the twin is set.
    pub(crate) fn name(&self, clause: Clause) -> String {
        let (field, key) = self.names();
        let only_negative = self.values().positive.is_empty();
        match (clause, field) {
            (Clause::Alternative, Some(field)) if only_negative => negated(field),
            (Clause::Alternative, Some(field)) => field.to_owned(),
            (Clause::Alternative, None) | (Clause::When, _) => key,
        }
    }

    /// The field of a source or an operation, if there is one, and the key of a condition.
    fn names(&self) -> (Option<&'static str>, String) {
        let (field, key) = match self {
            Self::Principal(_) => ("principals", "source.principal"),
            Self::Namespace(_) => ("namespaces", "source.namespace"),
            Self::ServiceAccount(_) => ("serviceAccounts", "source.serviceAccount"),
            Self::TrustDomain(_) => ("trustDomains", "source.trustDomain"),
            Self::SourceIp(_) => ("ipBlocks", "source.ip"),
            Self::RemoteIp(_) => ("remoteIpBlocks", "remote.ip"),
            Self::DestinationPort(_) => ("ports", "destination.port"),
            Self::RequestPrincipal(_) => ("requestPrincipals", "request.auth.principal"),
            // These three have no key.
            Self::Host(_) => ("hosts", "hosts"),
            Self::Method(_) => ("methods", "methods"),
            Self::Path(_) => ("paths", "paths"),
            // These three have no field.
            Self::DestinationIp(_) => return (None, "destination.ip".to_owned()),
            Self::Header(name, _) => return (None, format!("request.headers[{name}]")),
            Self::Claim(path, _) => return (None, claim_key(path)),
        };
        (Some(field), key.to_owned())
    }

    /// The values that the criterion asks for, as text.
    pub(crate) fn wants(&self) -> String {
        let values = self.values();
        match (values.positive.as_slice(), values.negative.as_slice()) {
            (positive, []) => format!("one of {}", quoted(positive)),
            ([], negative) => format!("none of {}", quoted(negative)),
            (positive, negative) => {
                format!(
                    "one of {} and none of {}",
                    quoted(positive),
                    quoted(negative)
                )
            }
        }
    }

    fn values(&self) -> Field<String> {
        match self {
            Self::Principal(field)
            | Self::Namespace(field)
            | Self::TrustDomain(field)
            | Self::Method(field)
            | Self::Header(_, field)
            | Self::Claim(_, field) => texts(field),
            Self::ServiceAccount(field) => texts(field),
            Self::SourceIp(field) | Self::RemoteIp(field) | Self::DestinationIp(field) => {
                texts(field)
            }
            Self::DestinationPort(field) => texts(field),
            Self::Host(field) => texts(field),
            Self::Path(field) => texts(field),
            Self::RequestPrincipal(field) => texts(field),
        }
    }

    /// The actual value of the attribute, as text, as far as it is known.
    pub(crate) fn found(&self, facts: &Facts<'_>) -> String {
        let connection = facts.connection;
        let identity = connection.identity.as_ref();
        match self {
            Self::Principal(_) => of_caller(identity, |peer| format!("the caller is {peer}")),
            Self::Namespace(_) => of_caller(identity, |peer| {
                format!("the caller's namespace is {:?}", peer.namespace())
            }),
            Self::ServiceAccount(_) => of_caller(identity, |peer| {
                let (namespace, name) = (peer.namespace(), peer.service_account());
                format!("the caller's service account is \"{namespace}/{name}\"")
            }),
            Self::TrustDomain(_) => of_caller(identity, |peer| {
                format!("the caller's trust domain is \"{}\"", peer.trust_domain())
            }),
            Self::SourceIp(_) => format!("the connection comes from {}", connection.source),
            Self::DestinationIp(_) => format!("the address is {}", connection.destination.ip()),
            Self::DestinationPort(_) => format!("the port is {}", connection.destination.port()),
            Self::RemoteIp(_) => client(facts),
            Self::Host(_) => in_request(facts, |request| {
                format!("the host is {:?}", request.authority)
            }),
            Self::Method(_) => in_request(facts, |request| {
                format!("the method is {:?}", request.method)
            }),
            Self::Path(_) => in_request(facts, |request| format!("the path is {:?}", request.path)),
            Self::Header(key, _) => in_request(facts, |request| header(key, request)),
            Self::RequestPrincipal(_) => in_request(facts, principal),
            Self::Claim(names, _) => {
                in_request(facts, |request| claim(names, request.token.as_deref()))
            }
        }
    }
}

/// The actual value in a request, if there is a request.
fn in_request(facts: &Facts<'_>, text: impl Fn(&RequestAttributes) -> String) -> String {
    match facts.knowledge {
        Knowledge::Nothing => "the request decides".to_owned(),
        Knowledge::Opaque => format!(
            "port {} does not carry HTTP",
            facts.connection.destination.port()
        ),
        Knowledge::Request(request) => text(request),
    }
}

fn principal(request: &RequestAttributes) -> String {
    match request.token.as_deref() {
        None => "the request has no token".to_owned(),
        Some(token) => format!(
            "the token's principal is \"{}/{}\"",
            token.issuer, token.subject
        ),
    }
}

fn texts<M: Display>(field: &Field<M>) -> Field<String> {
    let texts = |values: &[M]| values.iter().map(ToString::to_string).collect();
    Field {
        positive: texts(&field.positive),
        negative: texts(&field.negative),
    }
}

fn negated(field: &str) -> String {
    let (first, rest) = field.split_at(1);
    format!("not{}{rest}", first.to_ascii_uppercase())
}

fn claim_key(path: &[String]) -> String {
    match path {
        [name] if name == "aud" => "request.auth.audiences".to_owned(),
        [name] if name == "azp" => "request.auth.presenter".to_owned(),
        _ => format!("request.auth.claims[{}]", path.join("][")),
    }
}

fn of_caller(
    identity: Option<&WorkloadIdentity>,
    text: impl Fn(&WorkloadIdentity) -> String,
) -> String {
    match identity {
        Some(identity) => text(identity),
        None => "the caller uses plaintext and has no identity".to_owned(),
    }
}

fn client(facts: &Facts<'_>) -> String {
    let own = facts.connection.source;
    match facts.knowledge {
        Knowledge::Nothing => "the request decides".to_owned(),
        Knowledge::Opaque => format!("the client is {own}"),
        Knowledge::Request(request) => match request.forwarded_for {
            Some(client) => {
                format!("the client is {client} (X-Forwarded-For), the caller is {own}")
            }
            None => format!("the client is {own}"),
        },
    }
}

fn header(key: &HeaderKey, request: &RequestAttributes) -> String {
    let lines = request.lines(key);
    let texts: Vec<_> = lines
        .iter()
        .map(|line| String::from_utf8_lossy(line))
        .collect();
    match texts.is_empty() {
        true => format!("the header {key} is absent"),
        false => format!("the header {key} is {}", quoted(&texts)),
    }
}

fn claim(path: &[String], token: Option<&VerifiedToken>) -> String {
    let Some(token) = token else {
        return "the request has no token".to_owned();
    };
    match token.texts(path) {
        None => "the token has no such claim that is a string".to_owned(),
        Some(texts) => format!("the claim is {}", quoted(&texts)),
    }
}

fn quoted<T: AsRef<str>>(texts: &[T]) -> String {
    let quoted: Vec<_> = texts
        .iter()
        .map(|text| format!("{:?}", text.as_ref()))
        .collect();
    quoted.join(", ")
}
