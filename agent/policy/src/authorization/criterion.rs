//! A criterion on one attribute: a field of a source or an operation with its `not` twin, or an entry
//! of `when`.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Action;
use crate::decision::ConnectionAttributes;
use crate::evaluate::Ternary;
use crate::matcher::{Field, HostMatch, ServiceAccountMatch, StringMatch};
use crate::path::{Operators, PathMatch};
use crate::request::{HeaderKey, RequestAttributes, VerifiedToken};
use crate::request_principal::RequestPrincipalMatch;
use ambit_model::WorkloadIdentity;

/// A criterion on one attribute. It holds or not, or is unknown until a request has been read.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Criterion {
    /// `principals`, `source.principal`.
    Principal(Field<StringMatch>),
    /// `namespaces`, `source.namespace`.
    Namespace(Field<StringMatch>),
    /// `serviceAccounts`, `source.serviceAccount`.
    ServiceAccount(Field<ServiceAccountMatch>),
    /// `trustDomains`, `source.trustDomain`.
    TrustDomain(Field<StringMatch>),
    /// `ipBlocks`, `source.ip`.
    SourceIp(Field<IpNet>),
    /// `remoteIpBlocks`, `remote.ip`.
    RemoteIp(Field<IpNet>),
    /// `destination.ip`.
    DestinationIp(Field<IpNet>),
    /// `ports`, `destination.port`.
    DestinationPort(Field<u16>),
    /// `hosts`.
    Host(Field<HostMatch>),
    /// `methods`.
    Method(Field<StringMatch>),
    /// `paths`.
    Path(Field<PathMatch>),
    /// `request.headers[...]`.
    Header(HeaderKey, Field<StringMatch>),
    /// `requestPrincipals`, `request.auth.principal`.
    RequestPrincipal(Field<RequestPrincipalMatch>),
    /// `request.auth.audiences`, `request.auth.presenter`, `request.auth.claims[...]`, with the names
    /// that lead to the claim.
    Claim(Vec<String>, Field<StringMatch>),
}

/// What is known about the bytes that a connection carries.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Knowledge<'a> {
    /// Nothing yet. The port carries HTTP requests.
    Nothing,
    /// They are not HTTP.
    Opaque,
    /// This request.
    Request(&'a RequestAttributes),
}

/// What a policy's rules are matched against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) connection: &'a ConnectionAttributes,
    pub(crate) knowledge: Knowledge<'a>,
    /// The action of the policy.
    pub(crate) action: Action,
}

impl Criterion {
    /// Whether it is about an HTTP request. If a connection carries something else, the criterion is
    /// left out of a policy that restricts, and voids a rule that permits.
    pub(crate) const fn is_http(&self) -> bool {
        match self {
            Self::Principal(_)
            | Self::Namespace(_)
            | Self::ServiceAccount(_)
            | Self::TrustDomain(_)
            | Self::SourceIp(_)
            | Self::RemoteIp(_)
            | Self::DestinationIp(_)
            | Self::DestinationPort(_) => false,
            Self::Host(_)
            | Self::Method(_)
            | Self::Path(_)
            | Self::Header(..)
            | Self::RequestPrincipal(_)
            | Self::Claim(..) => true,
        }
    }

    /// Whether it depends on the request, if there is one.
    pub(crate) const fn depends_on_request(&self) -> bool {
        self.is_http() || matches!(self, Self::RemoteIp(_))
    }

    /// Whether it holds.
    pub(crate) fn holds(&self, facts: &Facts<'_>) -> Ternary {
        let connection = facts.connection;
        let identity = connection.identity.as_ref();
        match self {
            Self::Principal(_)
            | Self::Namespace(_)
            | Self::ServiceAccount(_)
            | Self::TrustDomain(_) => self.admits_identity(identity).into(),
            Self::SourceIp(field) => field.admits_address(connection.source).into(),
            Self::DestinationIp(field) => field.admits_address(connection.destination.ip()).into(),
            Self::DestinationPort(field) => field.admits_port(connection.destination.port()).into(),
            Self::RemoteIp(field) => remote_ip(field, facts),
            Self::Host(field) => {
                facts.of_request(|request| field.admits(request.host(), HostMatch::matches))
            }
            Self::Method(field) => {
                facts.of_request(|request| field.admits_text(Some(&request.method)))
            }
            Self::Path(field) => {
                facts.of_request(|request| path(field, &request.path, facts.action))
            }
            Self::Header(key, field) => {
                facts.of_request(|request| header(field, key, &request.lines(key), facts.action))
            }
            Self::RequestPrincipal(field) => facts.of_token(|token| {
                field.admits(token, |principal, token: &VerifiedToken| {
                    principal.matches(token)
                })
            }),
            Self::Claim(path, field) => facts.of_token(|token| {
                let texts = token.and_then(|token| token.texts(path));
                field.admits_list(texts.as_deref())
            }),
        }
    }

    /// Whether a caller's identity satisfies it; true if it is not about the identity.
    pub(crate) fn admits_identity(&self, identity: Option<&WorkloadIdentity>) -> bool {
        match self {
            Self::Principal(field) => field.admits_text(identity.map(WorkloadIdentity::principal)),
            Self::Namespace(field) => field.admits_text(identity.map(WorkloadIdentity::namespace)),
            Self::ServiceAccount(field) => field.admits(identity, ServiceAccountMatch::matches),
            Self::TrustDomain(field) => {
                field.admits_text(identity.map(|peer| peer.trust_domain().as_str()))
            }
            _ => true,
        }
    }
}

impl Facts<'_> {
    fn of_request(&self, holds: impl FnOnce(&RequestAttributes) -> bool) -> Ternary {
        match self.knowledge {
            Knowledge::Nothing => Ternary::Unknown,
            Knowledge::Opaque => (self.action != Action::Allow).into(),
            Knowledge::Request(request) => holds(request).into(),
        }
    }

    fn of_token(&self, holds: impl FnOnce(Option<&VerifiedToken>) -> bool) -> Ternary {
        self.of_request(|request| holds(request.token.as_deref()))
    }
}

/// The client's address is the last one in X-Forwarded-For, or else the caller's own, as in Istio
/// (Envoy's `use_remote_address: false` without trusted hops). Anyone in the mesh can write that
/// header. A list of clients to let in (`remoteIpBlocks` of ALLOW, `notRemoteIpBlocks` of DENY)
/// believes it, because clients behind a gateway could not be let in otherwise. A list of clients to
/// keep out (`remoteIpBlocks` of DENY, `notRemoteIpBlocks` of ALLOW) is about both addresses, so that a
/// caller cannot evade it by writing the header.
fn remote_ip(field: &Field<IpNet>, facts: &Facts<'_>) -> Ternary {
    let own: IpAddr = facts.connection.source;
    let request = match facts.knowledge {
        Knowledge::Nothing => return Ternary::Unknown,
        Knowledge::Opaque => return field.admits_address(own).into(),
        Knowledge::Request(request) => request,
    };
    let claimed = field.admits_address(request.forwarded_for.unwrap_or(own));
    let holds = match facts.action {
        Action::Allow => claimed && !field.excludes_address(own),
        Action::Deny | Action::Audit | Action::Custom => {
            claimed || !field.positive.is_empty() && field.admits_address(own)
        }
    };
    holds.into()
}

/// Whether a path satisfies a field. If it is unclear whether a template means the path, the request is
/// kept out.
fn path(field: &Field<PathMatch>, path: &str, action: Action) -> bool {
    let (positive, negative) = match action {
        Action::Allow => (Operators::Strict, Operators::Lenient),
        Action::Deny | Action::Audit | Action::Custom => (Operators::Lenient, Operators::Strict),
    };
    let any = |values: &[PathMatch], operators| values.iter().any(|v| v.matches(path, operators));
    (field.positive.is_empty() || any(&field.positive, positive)) && !any(&field.negative, negative)
}

/// Whether the lines of a header satisfy a field. With several lines it is unknown which one the
/// application reads: a policy that permits needs all of them to match, a policy that restricts needs
/// one.
fn header(
    field: &Field<StringMatch>,
    key: &HeaderKey,
    lines: &[Cow<'_, [u8]>],
    action: Action,
) -> bool {
    if lines.is_empty() {
        return field.admits_text(None);
    }
    let joined = lines.join(key.separator());
    let one_of = |values: &[StringMatch], line: &[u8]| values.iter().any(|v| v.matches_line(line));
    let (positive, negative) = (&field.positive, &field.negative);
    if action == Action::Allow {
        let all_match = lines.iter().all(|line| one_of(positive, line));
        let none_matches = !lines.iter().any(|line| one_of(negative, line));
        (positive.is_empty() || all_match) && none_matches && !one_of(negative, &joined)
    } else {
        let one_matches = lines.iter().any(|line| one_of(positive, line));
        let one_does_not = lines.iter().any(|line| !one_of(negative, line));
        (positive.is_empty() || one_matches || one_of(positive, &joined))
            && (negative.is_empty() || one_does_not)
    }
}
