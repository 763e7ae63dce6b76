//! External authorizers (AuthorizationPolicy with action CUSTOM): asks them, and says what they
//! answered.
//!
//! They speak Envoy's `ext_authz`, over gRPC or plain HTTP, and are configured in Istio's
//! `MeshConfig` ([`ExtensionProvider`]). Whether a request has to be asked about is the policies'
//! business; what follows from an answer is the proxy's.
//!
//! # Where no answer comes
//!
//! An authorizer that cannot be found or reached, answers too late, with 5xx, with a failed call, or
//! with something that cannot be read or followed has given no answer ([`CheckError`]). The request
//! is refused with `statusOnError`, or let through where the provider says `failOpen`. Two things
//! are never let through: a request that was denied, however ill-formed the rest of the denial, and
//! one that brought the failure about itself ([`CheckError::is_of_callers_making`]).
//!
//! # Connections
//!
//! Checks go in plain text from the node's own network, as from outside of the mesh, to an endpoint
//! of the authorizer's Service. Each shard keeps one HTTP/2 connection for each gRPC provider, and
//! some idle connections for HTTP.

mod answer;
mod check;
mod envoy;
mod error;
mod grpc;
mod headers;
mod http;
mod resolve;
mod slots;
mod stats;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

pub use answer::{Allowance, Answer, Denial, Outcome};
pub use check::{BodyExtent, BodyPart, Check, CheckedRequest, Peer};
pub use error::CheckError;
pub use headers::{HeaderChange, HeaderError, HeaderMutations, Placement};
pub use resolve::{MeshResolver, Resolve};
pub use slots::CheckSlots;
pub use stats::AuthorizerStats;

use self::grpc::GrpcClient;
use self::http::HttpClient;
use crate::model::{AuthorizerApi, ExtensionProvider};
use stats::Counts;

/// The longest that a check may take, whatever the provider says.
const LONGEST_CHECK: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a connection to an authorizer may take to be made; Istio's `connectTimeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What the checks of one shard share: connections and counts.
pub struct Clients {
    resolver: Box<dyn Resolve>,
    grpc: GrpcClient,
    http: HttpClient,
    counts: Counts,
}

/// Asks authorizers on behalf of one pod, on one shard.
#[derive(Clone, Debug)]
pub struct Authorizer {
    clients: Rc<Clients>,
    slots: CheckSlots,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients")
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Clients {
    /// Clients without connections, which find authorizers through `resolver`.
    pub fn new(resolver: impl Resolve + 'static) -> Self {
        Self {
            resolver: Box::new(resolver),
            grpc: GrpcClient::default(),
            http: HttpClient::default(),
            counts: Counts::default(),
        }
    }

    /// What the checks came to so far.
    pub fn stats(&self) -> AuthorizerStats {
        self.counts.read()
    }
}

impl Authorizer {
    /// An authorizer that takes its share of the pod's `slots`.
    pub fn new(clients: Rc<Clients>, slots: CheckSlots) -> Self {
        Self { clients, slots }
    }

    /// Asks about a request or connection, and applies what the provider says of failures.
    pub async fn decide(&self, provider: &ExtensionProvider, check: &Check<'_>) -> Outcome {
        let outcome = self.check(provider, check).await.settle(provider.on_error);
        self.clients.counts.settled(&outcome);
        outcome
    }

    /// Asks about a request or connection.
    pub async fn check(&self, provider: &ExtensionProvider, check: &Check<'_>) -> Answer {
        let answer = self.ask(provider, check).await;
        let answer = answer.unwrap_or_else(Answer::Error);
        self.clients.counts.answered(&answer);
        answer
    }

    async fn ask(
        &self,
        provider: &ExtensionProvider,
        check: &Check<'_>,
    ) -> Result<Answer, CheckError> {
        let _slot = self.slots.take()?;
        let deadline = Instant::now() + provider.timeout.min(LONGEST_CHECK);
        let service = &provider.service;
        let late = || CheckError::TimedOut {
            service: service.clone(),
            timeout: provider.timeout,
        };
        let clients = &self.clients;
        let addresses = timeout_at(deadline, clients.resolver.resolve(service))
            .await
            .map_err(|_| late())?
            .map_err(|source| CheckError::NotFound {
                service: service.clone(),
                source,
            })?;
        match &provider.api {
            AuthorizerApi::Grpc => {
                let asked = clients.grpc.check(provider, &addresses, check);
                timeout_at(deadline, asked).await.map_err(|_| late())?
            }
            AuthorizerApi::Http(api) => {
                let asked = clients.http.check(api, service, &addresses, check);
                let head = timeout_at(deadline, asked).await.map_err(|_| late())??;
                Ok(head.answer(api, deadline).await)
            }
        }
    }
}
