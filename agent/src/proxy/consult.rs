//! Asks an external authorizer that a CUSTOM policy names.

use std::sync::Arc;

use http::StatusCode;

use super::ends::Ends;
use super::pod::ServedPod;
use crate::authorizer::{Allowance, Check, CheckError, CheckedRequest, Denial, Outcome, Peer};
use crate::model::{ExtensionProvider, MeshSettings};
use crate::policy::Consultation;

/// Why an authorizer does not agree.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Disagreement {
    /// It denied.
    #[error("it denied, with status {}", .0.status)]
    Denied(Denial),
    /// It could not be asked.
    #[error("it gave no answer: {error}")]
    NoAnswer {
        /// What the client is answered.
        status: StatusCode,
        /// What happened.
        error: CheckError,
    },
    /// There is no such authorizer, or one that asks for what is not supported.
    #[error("it cannot be asked: {0}; mend extensionProviders in the ConfigMap istio")]
    NoAuthorizer(&'static str),
}

/// Asks one authorizer about a request, or about a connection that has none.
///
/// # Errors
/// [`Disagreement`].
pub(crate) async fn ask(
    pod: &ServedPod,
    settings: &MeshSettings,
    consultation: &Consultation,
    ends: Ends<'_>,
    request: Option<CheckedRequest<'_>>,
) -> Result<Allowance, Disagreement> {
    let Consultation { provider, decider } = consultation;
    let known = settings.extension_provider(provider);
    let found = known
        .ok_or("there is none of this name")
        .and_then(supported);
    let found = found.map_err(Disagreement::NoAuthorizer)?;
    let check = Check {
        source: Peer {
            address: ends.caller.address,
            principal: ends.caller.identity.as_ref(),
        },
        destination: Peer {
            address: ends.to,
            principal: Some(pod.certificates.identity()),
        },
        request,
    };
    match pod.authorizer.decide(found, &check).await {
        Outcome::Allow(allowance) => Ok(allowance),
        Outcome::LetThrough(error) => {
            tracing::warn!(
                provider = &**provider, policy = %decider, pod = %pod.workload.name, %error,
                "let through without an authorizer's answer (failOpen)"
            );
            Ok(Allowance::default())
        }
        Outcome::Deny(answer) => Err(Disagreement::Denied(answer)),
        Outcome::Refuse { status, error } => Err(Disagreement::NoAnswer { status, error }),
    }
}

/// A provider that asks for no more than a request's head.
fn supported(provider: &Arc<ExtensionProvider>) -> Result<&ExtensionProvider, &'static str> {
    match provider.request_body {
        None => Ok(provider),
        Some(_) => Err("includeRequestBodyInCheck is not supported"),
    }
}
