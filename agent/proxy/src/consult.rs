//! Asks an external authorizer that a CUSTOM policy names.

use http::StatusCode;

use super::consult_loop::asked_again;
use super::ends::Ends;
use super::pod::ServedPod;
use ambit_authorizer::{
    Allowance, AuthorizationCheck, CheckError, CheckOutcome, CheckPeer, CheckedRequest,
    DenialResponse,
};
use ambit_model::{MeshSettings, ObjectName};
use ambit_observe::events::InLog;
use ambit_policy::Consultation;

/// How a request or connection got past an authorizer.
#[derive(Debug)]
pub(crate) enum Agreement {
    /// It allowed it.
    Allowed(Allowance),
    /// It gave no answer, and the provider says `failOpen`.
    LetThrough,
}

/// Why an authorizer does not agree.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Disagreement {
    /// It denied.
    #[error("it denied, with status {}", .0.status)]
    Denied(DenialResponse),
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
    /// Its own pod's policies would have it asked about the check.
    #[error(
        "asking it would have it asked again, without an end, because of a CUSTOM policy on its own \
         pod {0}; take that pod, or what it is asked, out of the policy"
    )]
    AskedAboutItself(ObjectName),
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
) -> Result<Agreement, Disagreement> {
    let Consultation { provider, decider } = consultation;
    let found = settings
        .extension_provider(provider)
        .ok_or(Disagreement::NoAuthorizer("there is none of this name"))?;
    let check = AuthorizationCheck {
        source: CheckPeer {
            address: ends.caller.address,
            principal: ends.caller.identity.as_ref(),
        },
        destination: CheckPeer {
            address: ends.to,
            principal: Some(pod.certificates.identity()),
        },
        request,
    };
    if let Some(asker) = asked_again(&pod.view(), &pod.workload, found, check.request.as_ref()) {
        return Err(Disagreement::AskedAboutItself(asker));
    }
    // On the heap: few connections ever ask, and all would keep room for it.
    match Box::pin(pod.authorizer.decide(found, &check)).await {
        CheckOutcome::Allow(allowance) => Ok(Agreement::Allowed(allowance)),
        CheckOutcome::LetThrough(error) => {
            match pod.events.may_log(&pod.workload.name) {
                InLog::Written => tracing::warn!(
                    provider = &**provider, policy = %decider, pod = %pod.workload.name, %error,
                    "let through without an authorizer's answer (failOpen)"
                ),
                InLog::LeftOut => {}
            }
            Ok(Agreement::LetThrough)
        }
        CheckOutcome::Deny(answer) => Err(Disagreement::Denied(answer)),
        CheckOutcome::Refuse { status, error } => Err(Disagreement::NoAnswer { status, error }),
    }
}
