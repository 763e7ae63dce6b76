//! A client for external authorizers (AuthorizationPolicy with action CUSTOM).
//!
//! Authorizers speak Envoy's `ext_authz` over gRPC or plain HTTP, and are configured in Istio's
//! `MeshConfig` ([`ExtensionProvider`]). The policies decide whether a check is needed, and the proxy
//! acts on the result.
//!
//! # If there is no answer
//!
//! An authorizer that cannot be found or reached, answers too late, with 5xx, with a failed call, or
//! with something that cannot be used has given no answer ([`CheckError`]). The request is refused with
//! `statusOnError`, or let through if the provider says `failOpen`. As in Envoy, `failOpen` covers an
//! authorizer that says nothing and one that says that it failed. Unlike in Envoy, it does not cover:
//!
//! * a request that was denied, whatever follows the denial;
//! * an answer that began but did not end, or that cannot be read, since it may have been a denial;
//! * a failure that the caller can provoke: a check that the authorizer did not accept, or any failure
//!   on a request that many authorizers fail on ([`Oddity`]).
//!
//! # Connections
//!
//! A check takes the same path as a connection that the protected pod opens to the authorizer
//! ([`PodNetwork`]): from the pod's network namespace, with the pod's identity, and through a tunnel if
//! the authorizer is in the mesh, so that the authorizer's own policies apply. The node resolves only
//! names that no object of the mesh has. For each pod, a shard keeps one HTTP/2 connection to each gRPC
//! provider until it has been unused for a while. An HTTP/1.1 connection is kept only if nothing can
//! still arrive on it, and only for checks of the same caller: an answer that one caller provokes is
//! never the answer to another caller's check.

mod answer;
mod check;
mod connection;
mod envoy;
mod grpc;
mod headers;
mod http;
mod resolve;
mod stats;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

pub use answer::{Allowance, AuthorizerAnswer, CheckError, CheckOutcome, DenialResponse};
pub use check::{AuthorizationCheck, BodyExtent, BodyPart, CheckPeer, CheckedRequest, Oddity};
pub use connection::{AuthorizerStream, NotConnected, PodNetwork};
pub use headers::{
    HeaderChange, HeaderError, HeaderMutations, HeaderPlacement, withhold_unjudged, withhold_unseen,
};
pub use resolve::{in_mesh, resolve};
pub use stats::{AuthorizerCounts, AuthorizerStats, CheckSlots};

use self::check::SentCheck;
use self::connection::AnswerProgress;
use self::grpc::GrpcClient;
use self::http::HttpClient;
pub use ambit_model::ServiceEndpoint;
use ambit_model::{AuthorizerApi, ExtensionProvider, OnError};

/// The longest time limit of a check, whatever the provider says.
const LONGEST_CHECK: Duration = Duration::from_secs(24 * 60 * 60);

/// The head of the request that a check sends to its authorizer; `None` if it cannot be sent.
pub fn check_head(
    provider: &ExtensionProvider,
    request: Option<&CheckedRequest<'_>>,
) -> Option<::http::Request<()>> {
    match &provider.api {
        AuthorizerApi::Grpc => Some(grpc::check_head(&provider.service)),
        AuthorizerApi::Http(api) => http::check_head(api, request?),
    }
}

/// Asks authorizers on behalf of one pod, on one shard.
pub struct Authorizer {
    network: Rc<dyn PodNetwork>,
    slots: CheckSlots,
    grpc: GrpcClient,
    http: HttpClient,
    counts: Rc<AuthorizerCounts>,
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorizer")
            .field("slots", &self.slots)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Authorizer {
    /// A client without connections. It opens them through the pod's `network`, takes its share of the
    /// pod's `slots`, and counts in the shard's `counts`.
    pub fn new(
        network: impl PodNetwork + 'static,
        slots: CheckSlots,
        counts: Rc<AuthorizerCounts>,
    ) -> Self {
        Self {
            network: Rc::new(network),
            slots,
            grpc: GrpcClient::default(),
            http: HttpClient::default(),
            counts,
        }
    }

    /// Asks about a request or connection, and applies the provider's setting for failures.
    pub async fn decide(
        &self,
        provider: &ExtensionProvider,
        check: &AuthorizationCheck<'_>,
    ) -> CheckOutcome {
        let answer = match (self.check(provider, check).await, provider.on_error) {
            (AuthorizerAnswer::Error(error), OnError::LetThrough) => {
                AuthorizerAnswer::Error(error.on(oddity(provider, check)))
            }
            (answer, _) => answer,
        };
        let outcome = answer.settle(provider.on_error);
        self.counts.settled(&outcome);
        outcome
    }

    /// Asks about a request or connection.
    pub async fn check(
        &self,
        provider: &ExtensionProvider,
        check: &AuthorizationCheck<'_>,
    ) -> AuthorizerAnswer {
        let answer = self.ask(provider, check).await;
        let answer = answer.unwrap_or_else(AuthorizerAnswer::Error);
        self.counts.answered(&answer);
        answer
    }

    async fn ask(
        &self,
        provider: &ExtensionProvider,
        check: &AuthorizationCheck<'_>,
    ) -> Result<AuthorizerAnswer, CheckError> {
        let _slot = self.slots.take()?;
        let deadline = Instant::now() + provider.timeout.min(LONGEST_CHECK);
        let service = &provider.service;
        let late = || CheckError::TimedOut {
            service: service.clone(),
            timeout: provider.timeout,
        };
        let progress = AnswerProgress::default();
        let too_late = || {
            let problem = format!("did not end within {:?}", provider.timeout);
            progress.broken_off(problem).unwrap_or_else(late)
        };
        let network = &self.network;
        let endpoints = timeout_at(deadline, network.resolve(service))
            .await
            .map_err(|_| late())?
            .map_err(|source| CheckError::NotFound {
                service: service.clone(),
                source,
            })?;
        match &provider.api {
            AuthorizerApi::Grpc => {
                let asked = self
                    .grpc
                    .check(network, provider, &endpoints, check, &progress);
                timeout_at(deadline, asked).await.map_err(|_| too_late())?
            }
            AuthorizerApi::Http(api) => {
                let asked = self
                    .http
                    .check(network, api, service, &endpoints, check, &progress);
                let head = timeout_at(deadline, asked)
                    .await
                    .map_err(|_| too_late())??;
                Ok(head.answer(api, deadline).await)
            }
        }
    }
}

/// What is unusual about the check, in the form in which its authorizer gets it.
fn oddity(provider: &ExtensionProvider, check: &AuthorizationCheck<'_>) -> Option<Oddity> {
    let request = check.request.as_ref()?;
    match &provider.api {
        AuthorizerApi::Grpc => SentCheck::whole(request).oddity(),
        AuthorizerApi::Http(api) => http::oddity(api, request),
    }
}
