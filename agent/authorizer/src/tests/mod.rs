//! The clients against real servers on loopback.

mod failures;
mod grpc;
mod grpc_calls;
mod grpc_server;
mod http;
mod http_server;
mod resolve;
mod reuse;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use futures_util::future::LocalBoxFuture;
use tokio::net::TcpStream;

use super::*;
use ambit_model::{HttpApi, OnError, ProviderService, WorkloadIdentity};

/// A network on which every service is at these addresses.
struct Fixed(Vec<SocketAddr>);

impl PodNetwork for Fixed {
    fn resolve<'a>(
        &'a self,
        _: &'a ProviderService,
    ) -> LocalBoxFuture<'a, io::Result<Vec<ServiceEndpoint>>> {
        let endpoints = self
            .0
            .iter()
            .copied()
            .map(ServiceEndpoint::Outside)
            .collect();
        Box::pin(async { Ok(endpoints) })
    }

    fn connect<'a>(
        &'a self,
        endpoint: &'a ServiceEndpoint,
    ) -> LocalBoxFuture<'a, Result<Box<dyn AuthorizerStream>, NotConnected>> {
        Box::pin(async {
            match TcpStream::connect(endpoint.address()).await {
                Ok(stream) => Ok(Box::new(stream) as Box<dyn AuthorizerStream>),
                Err(error) => Err(NotConnected::Unreachable(error.to_string())),
            }
        })
    }

    fn spawn(&self, task: LocalBoxFuture<'static, ()>) {
        tokio::task::spawn_local(task);
    }
}

/// A client that finds every service at these addresses.
fn at(addresses: &[SocketAddr]) -> Authorizer {
    Authorizer::new(
        Fixed(addresses.to_vec()),
        CheckSlots::default(),
        Rc::default(),
    )
}

/// An address on which nothing listens: the kernel does not assign this port.
const GONE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// A provider that refuses with 503 if there is no answer.
fn provider(api: AuthorizerApi) -> ExtensionProvider {
    ExtensionProvider {
        name: "authz".into(),
        service: ProviderService {
            namespace: None,
            host: "authz.tools.svc.cluster.local".into(),
            port: 9000,
        },
        timeout: Duration::from_secs(10),
        on_error: OnError::Refuse(StatusCode::SERVICE_UNAVAILABLE),
        request_body: None,
        api,
    }
}

fn fail_open(provider: ExtensionProvider) -> ExtensionProvider {
    ExtensionProvider {
        on_error: OnError::LetThrough,
        ..provider
    }
}

fn http_api() -> AuthorizerApi {
    AuthorizerApi::Http(HttpApi::default())
}

/// The parts of a check, owned.
struct TestCheck {
    source: WorkloadIdentity,
    destination: WorkloadIdentity,
    method: Method,
    path: &'static str,
    headers: HeaderMap,
    body: Option<BodyPart>,
}

impl TestCheck {
    fn new() -> Self {
        let identity = |id: &str| id.parse().expect("an identity");
        Self {
            source: identity("cluster.local/ns/shop/sa/frontend"),
            destination: identity("cluster.local/ns/shop/sa/orders"),
            method: Method::GET,
            path: "/order?id=7",
            headers: HeaderMap::new(),
            body: None,
        }
    }

    fn with_headers(lines: &[(&'static str, &'static str)]) -> Self {
        Self {
            headers: header_map(lines),
            ..Self::new()
        }
    }

    fn connection(&self) -> AuthorizationCheck<'_> {
        let peer = |address: &str, principal| CheckPeer {
            address: address.parse().expect("an address"),
            principal: Some(principal),
        };
        AuthorizationCheck {
            source: peer("10.1.0.1:40000", &self.source),
            destination: peer("10.2.0.7:8080", &self.destination),
            request: None,
        }
    }

    fn check(&self) -> AuthorizationCheck<'_> {
        AuthorizationCheck {
            request: Some(CheckedRequest {
                id: "request-1",
                method: &self.method,
                scheme: "http",
                authority: "orders.shop",
                path: self.path,
                headers: &self.headers,
                version: Version::HTTP_11,
                body: self.body.clone(),
            }),
            ..self.connection()
        }
    }
}

fn header_map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_static(name);
        headers.append(name, HeaderValue::from_static(value));
    }
    headers
}

fn allowed(answer: AuthorizerAnswer) -> Allowance {
    match answer {
        AuthorizerAnswer::Allow(allowance) => allowance,
        other => panic!("not allowed: {other:?}"),
    }
}

fn denied(answer: AuthorizerAnswer) -> DenialResponse {
    match answer {
        AuthorizerAnswer::Deny(denial) => denial,
        other => panic!("not denied: {other:?}"),
    }
}

fn unanswered(answer: AuthorizerAnswer) -> CheckError {
    match answer {
        AuthorizerAnswer::Error(error) => error,
        other => panic!("an answer: {other:?}"),
    }
}
