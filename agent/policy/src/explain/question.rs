//! What `ambit explain` asks, and why a question may have no answer.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::explanation::ExplainedRequest;
use crate::normalise::{BadPath, normalise_path};
use crate::request::{RequestAttributes, VerifiedToken, forwarded_for};
use ambit_model::{ObjectName, Snapshot, WorkloadIdentity};

/// Asks whether a caller may reach a destination.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AccessQuestion {
    /// The caller.
    pub from: CallerName,
    /// The caller's address, to override the one that the objects say.
    pub from_address: Option<IpAddr>,
    /// Whether the caller comes through a tunnel.
    pub transport: CallerTransport,
    /// The destination.
    pub to: DestinationName,
    /// The pod's port, or the Service's, 1 to 65535.
    pub port: u16,
    /// The request; `None` asks about the connection alone.
    pub request: Option<HypotheticalRequest>,
}

/// Whether a caller comes through a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallerTransport {
    /// If the caller has an identity.
    Tunnel,
    /// Never: it calls in plaintext.
    Plaintext,
}

/// A request of which only some parts are given. The rest is what a simple client sends.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct HypotheticalRequest {
    /// The method; GET by default.
    pub method: Option<String>,
    /// The path with its query; `/` by default.
    pub path: Option<String>,
    /// The host; by default the destination's name.
    pub host: Option<String>,
    /// Names and values of headers, in order.
    pub headers: Vec<(String, String)>,
    /// The payload of a token that counts as verified.
    pub claims: Option<Map<String, Value>>,
}

/// How a question names the caller.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CallerName {
    /// `pod:namespace/name`.
    Pod(ObjectName),
    /// `namespace/service-account` in the mesh's own trust domain.
    Account(ObjectName),
    /// A principal: `trust-domain/ns/namespace/sa/service-account`.
    Identity(WorkloadIdentity),
    /// An address.
    Address(IpAddr),
}

/// How a question names the destination.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DestinationName {
    /// `pod:namespace/name`.
    Pod(ObjectName),
    /// `service:namespace/name`, or `name.namespace`, with or without `.svc` and the cluster's
    /// domain.
    Service(ObjectName),
    /// `namespace/name`: a pod, or else a Service.
    Either(ObjectName),
    /// A pod's address or a Service's.
    Address(IpAddr),
}

/// The text is not the name of a caller or a destination.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AccessNameError {
    /// Not the name of a caller.
    #[error(
        "{0:?} does not name a caller; write namespace/service-account, pod:namespace/name, an IP \
         address, or a principal"
    )]
    Caller(String),
    /// Not the name of a destination.
    #[error(
        "{0:?} does not name a destination; write namespace/pod, pod:namespace/name, \
         service:namespace/name, service.namespace, or an IP address"
    )]
    Destination(String),
}

fn object_name(text: &str) -> Option<ObjectName> {
    let (namespace, name) = text.split_once('/')?;
    let is_name = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
    is_name.then(|| ObjectName::new(namespace, name))
}

impl FromStr for CallerName {
    type Err = AccessNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = if let Ok(address) = text.parse() {
            Some(Self::Address(address))
        } else if let Some(pod) = text.strip_prefix("pod:") {
            object_name(pod).map(Self::Pod)
        } else if let Some(account) = object_name(text) {
            Some(Self::Account(account))
        } else {
            let principal = text.strip_prefix("spiffe://").unwrap_or(text);
            principal.parse().ok().map(Self::Identity)
        };
        name.ok_or_else(|| AccessNameError::Caller(text.to_owned()))
    }
}

impl FromStr for DestinationName {
    type Err = AccessNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = if let Ok(address) = text.parse() {
            Some(Self::Address(address))
        } else if let Some(pod) = text.strip_prefix("pod:") {
            object_name(pod).map(Self::Pod)
        } else if let Some(service) = text.strip_prefix("service:") {
            object_name(service).map(Self::Service)
        } else if text.contains('/') {
            object_name(text).map(Self::Either)
        } else {
            host_name(text).map(Self::Service)
        };
        name.ok_or_else(|| AccessNameError::Destination(text.to_owned()))
    }
}

/// The Service of a DNS name.
fn host_name(text: &str) -> Option<ObjectName> {
    let mut labels = text.trim_end_matches('.').split('.');
    let (name, namespace) = (labels.next()?, labels.next()?);
    let is_service = matches!(labels.next(), None | Some("svc"));
    let is_name = is_service && !name.is_empty() && !namespace.is_empty();
    is_name.then(|| ObjectName::new(namespace, name))
}

impl fmt::Display for CallerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "pod:{name}"),
            Self::Account(name) => name.fmt(f),
            Self::Identity(identity) => identity.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for DestinationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "pod:{name}"),
            Self::Service(name) => write!(f, "service:{name}"),
            Self::Either(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Lets serde read and write names as the strings that people write.
macro_rules! as_string {
    ($name:ty) => {
        impl TryFrom<String> for $name {
            type Error = AccessNameError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.to_string()
            }
        }
    };
}

as_string!(CallerName);
as_string!(DestinationName);

impl HypotheticalRequest {
    /// The attributes of the request to a host.
    pub(super) fn attributes(
        &self,
        host: &str,
        snapshot: &Snapshot,
    ) -> Result<RequestAttributes, QuestionError> {
        let mode = snapshot.mesh_settings().path_normalization;
        let path_and_query = self.path_and_query();
        let path_and_query = match path_and_query {
            "*" => path_and_query.to_owned(),
            path => normalise_path(mode, path).map_err(|problem| QuestionError::Path {
                path: path.to_owned(),
                problem,
            })?,
        };
        let headers = self.headers()?;
        Ok(RequestAttributes {
            method: self.method.clone().unwrap_or_else(|| "GET".to_owned()),
            authority: self.host.clone().unwrap_or_else(|| host.to_owned()),
            path: path_and_query
                .split('?')
                .next()
                .unwrap_or_default()
                .to_owned(),
            path_and_query,
            forwarded_for: forwarded_for(&headers),
            headers,
            token: self.claims.as_ref().map(|claims| Arc::new(token(claims))),
        })
    }

    /// The path as the question has it.
    pub(super) fn path_and_query(&self) -> &str {
        self.path.as_deref().unwrap_or("/")
    }

    fn headers(&self) -> Result<HeaderMap, QuestionError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let parsed = (HeaderName::try_from(name), HeaderValue::try_from(value));
            let (Ok(name), Ok(value)) = parsed else {
                return Err(QuestionError::Header(format!("{name}={value}")));
            };
            headers.append(name, value);
        }
        Ok(headers)
    }
}

fn token(claims: &Map<String, Value>) -> VerifiedToken {
    let text = |name| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    VerifiedToken {
        issuer: text("iss").to_owned(),
        subject: text("sub").to_owned(),
        claims: claims.clone(),
    }
}

impl ExplainedRequest {
    pub(super) fn of(request: &RequestAttributes, path_and_query: &str) -> Self {
        Self {
            method: request.method.clone(),
            host: request.authority.clone(),
            path: request.path.clone(),
            path_and_query: path_and_query.to_owned(),
        }
    }

    /// Whether normalisation changed the path.
    pub(super) fn is_normalised(&self) -> bool {
        self.path_and_query.split(['?', '#']).next() != Some(&self.path)
    }
}

/// Why a question has no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QuestionError {
    /// No object has this name.
    #[error("there is no {kind} {name}; {}", did_you_mean(near))]
    Unknown {
        /// The kind, or kinds.
        kind: &'static str,
        /// The name.
        name: ObjectName,
        /// Similar names.
        near: Vec<String>,
    },
    /// A pod and a Service have this name.
    #[error("there are a pod and a Service {0}; write pod:{0} or service:{0}")]
    PodAndService(ObjectName),
    /// No object has this address.
    #[error("no pod and no Service has the address {0}; `ambit workloads` lists the pods")]
    UnknownAddress(IpAddr),
    /// Several objects have this address.
    #[error(
        "{address} is claimed by {}; name one of them instead",
        names(claimants)
    )]
    ContestedAddress {
        /// The address.
        address: IpAddr,
        /// The objects that have it.
        claimants: Vec<ObjectName>,
    },
    /// The Service does not have this port.
    #[error("the Service {service} has no TCP port {port}; {}", known_ports(ports))]
    NoSuchPort {
        /// The Service.
        service: ObjectName,
        /// The port.
        port: u16,
        /// The ports that it has.
        ports: Vec<u16>,
    },
    /// No pod is behind the Service's port.
    #[error(
        "no pod is behind this port of the Service {0}, neither by its selector nor by its \
         EndpointSlices, so callers in the mesh reach no pod there"
    )]
    NoEndpoints(ObjectName),
    /// The port is reserved for tunnels, or 0.
    #[error("port {0} cannot be the port of an application; name the application's own port")]
    Port(u16),
    /// The path is refused before policies see it.
    #[error("{path:?} is answered 400 before policies see it: {problem}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        problem: BadPath,
    },
    /// Not a header.
    #[error("{0:?} is not a header; write name=value, with printable characters")]
    Header(String),
    /// The caller's address and the destination's are of different families.
    #[error(
        "{from} and {to} are of different address families; name an address that can reach {to}"
    )]
    Family {
        /// The caller's address.
        from: IpAddr,
        /// The destination's.
        to: IpAddr,
    },
}

fn did_you_mean(near: &[String]) -> String {
    match near {
        [] => "no name is similar".to_owned(),
        near => format!("there is {}", near.join(", ")),
    }
}

fn names(names: &[ObjectName]) -> String {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    names.join(" and ")
}

fn known_ports(ports: &[u16]) -> String {
    let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
    match ports.is_empty() {
        true => "it has none".to_owned(),
        false => format!("it has {}", ports.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_told_apart_by_their_form() {
        for (text, shown) in [
            ("web/frontend", "Account"),
            ("pod:web/frontend-0", "Pod"),
            ("10.0.0.1", "Address"),
            ("fd00::1", "Address"),
            ("cluster.local/ns/web/sa/frontend", "Identity"),
            ("spiffe://cluster.local/ns/web/sa/frontend", "Identity"),
        ] {
            let name: CallerName = text.parse().expect(text);
            assert!(format!("{name:?}").starts_with(shown), "{text}: {name:?}");
            assert_eq!(name.to_string().parse(), Ok(name), "{text}");
        }
        for text in [
            "",
            "web",
            "web/",
            "/frontend",
            "a/b/c",
            "pod:frontend",
            "10.0.0",
        ] {
            let error = text.parse::<CallerName>().expect_err(text);
            assert!(error.to_string().contains("pod:namespace/name"), "{error}");
        }
    }

    #[test]
    fn destinations_are_told_apart_by_their_form() {
        let name = ObjectName::new("shop", "cart");
        for (text, destination) in [
            ("shop/cart", DestinationName::Either(name.clone())),
            ("pod:shop/cart", DestinationName::Pod(name.clone())),
            ("service:shop/cart", DestinationName::Service(name.clone())),
            ("cart.shop", DestinationName::Service(name.clone())),
            ("cart.shop.svc", DestinationName::Service(name.clone())),
            (
                "cart.shop.svc.cluster.local.",
                DestinationName::Service(name.clone()),
            ),
        ] {
            assert_eq!(text.parse(), Ok(destination.clone()), "{text}");
            assert_eq!(destination.to_string().parse(), Ok(destination), "{text}");
        }
        for text in [
            "",
            "cart",
            ".shop",
            "cart.shop.com",
            "a/b/c",
            "service:cart",
        ] {
            text.parse::<DestinationName>().expect_err(text);
        }
    }
}
