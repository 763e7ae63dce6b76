//! Consults the external authorizers that CUSTOM policies name.

mod loops;
pub(crate) mod network;

use http::StatusCode;

use self::loops::asked_again;
use crate::connection::ConnectionContext;
use crate::connection::refusal::Refusal;
use crate::verdict::Judge;
use ambit_authorizer::{
    Allowance, AuthorizationCheck, CheckError, CheckOutcome, CheckPeer, CheckedRequest,
    DenialResponse,
};
use ambit_model::{MeshSettings, ObjectName};
use ambit_observe::events::InLog;
use ambit_policy::{Approvals, Consultation};

/// How a request or connection got past an authorizer.
#[derive(Debug)]
pub(crate) enum Agreement {
    /// The authorizer allowed it.
    Allowed(Allowance),
    /// The authorizer gave no answer, and its provider says `failOpen`.
    LetThrough,
}

/// Why an authorizer did not allow a request or connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Disagreement {
    /// It denied.
    #[error("it denied, with status {}", .0.status)]
    Denied(DenialResponse),
    /// It could not be asked.
    #[error("it gave no answer: {error}")]
    NoAnswer {
        /// The status that answers the client.
        status: StatusCode,
        /// What happened.
        error: CheckError,
    },
    /// There is no such authorizer, or it uses a setting that is not supported.
    #[error("it cannot be asked: {0}; correct extensionProviders in the ConfigMap istio")]
    NoAuthorizer(&'static str),
    /// The policies of its own pod would have it asked about the check.
    #[error(
        "asking it would have it asked again, in an endless loop, because of a CUSTOM policy on its \
         own pod {0}; exclude that pod, or the checks, from the policy"
    )]
    AskedAboutItself(ObjectName),
}

/// Consults every authorizer that CUSTOM policies name for a connection that is not HTTP.
///
/// # Errors
/// [`Refusal`] if one does not allow it.
pub(crate) async fn consult_on_opaque(context: &ConnectionContext) -> Result<Approvals, Refusal> {
    let view = context.pod.view();
    let judge = Judge::new(&view, &context.pod.workload);
    let policies = judge.policies().map_err(Refusal::by_evaluator)?;
    let settings = view.snapshot.mesh_settings();
    let mut approvals = Approvals::default();
    for consultation in policies.consultations_on_opaque(&context.attributes()) {
        match ask(context, settings, &consultation, None).await {
            Ok(_allowance) => approvals.add(consultation.provider),
            Err(disagreement) => {
                return Err(Refusal::NotApproved {
                    consultation,
                    disagreement,
                });
            }
        }
    }
    Ok(approvals)
}

/// Asks one authorizer about a request on a connection, or about the connection if it has none.
///
/// # Errors
/// [`Disagreement`].
pub(crate) async fn ask(
    context: &ConnectionContext,
    settings: &MeshSettings,
    consultation: &Consultation,
    request: Option<CheckedRequest<'_>>,
) -> Result<Agreement, Disagreement> {
    let pod = &context.pod;
    let Consultation { provider, decider } = consultation;
    let found = settings
        .extension_provider(provider)
        .ok_or(Disagreement::NoAuthorizer("no provider has this name"))?;
    let check = AuthorizationCheck {
        source: CheckPeer {
            address: context.source.address,
            principal: context.source.identity.as_ref(),
        },
        destination: CheckPeer {
            address: context.destination.address,
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
