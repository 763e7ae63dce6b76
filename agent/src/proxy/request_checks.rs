//! What is asked about a request before policies judge it: external authorizers first, then the
//! issuers of its tokens, as in Istio's order of filters.

use std::time::SystemTime;

use super::http::RequestHead;
use super::pod::ServedPod;
use super::request_refusal::RequestRefusal;
use super::subject::Subject;
use crate::authorizer::{Check, CheckedRequest, Outcome, Peer};
use crate::jwt::{self, Verified, authenticate};
use crate::model::{ExtensionProvider, MeshSettings};
use crate::policy::{
    Approvals, Attributes, Consultation, RequestAttributes, WorkloadPolicies, forwarded_for,
};

/// What tells a request from others, where its client says so.
const REQUEST_ID: &str = "x-request-id";

/// Asks every authorizer that a CUSTOM policy names for this request; all have to allow it. What
/// they change of its headers is changed.
///
/// # Errors
/// [`RequestRefusal`] where one does not.
pub(crate) async fn consult(
    pod: &ServedPod,
    settings: &MeshSettings,
    asked: Vec<Consultation>,
    subject: &Subject,
    head: &mut RequestHead,
) -> Result<Approvals, RequestRefusal> {
    let mut approvals = Approvals::default();
    for Consultation { provider, decider } in asked {
        let known = settings.extension_provider(&provider);
        let found = known
            .ok_or("there is none of this name")
            .and_then(supported);
        let found = match found {
            Ok(found) => found,
            Err(problem) => {
                return Err(RequestRefusal::NoAuthorizer {
                    provider,
                    decider,
                    problem,
                });
            }
        };
        let outcome = pod.authorizer.decide(found, &check(subject, head)).await;
        match outcome {
            Outcome::Allow(allowance) => allowance.request.apply(&mut head.headers),
            Outcome::LetThrough(error) => {
                tracing::warn!(
                    provider = &*provider, policy = %decider, pod = %pod.workload.name, %error,
                    "a request is let through without an authorizer's answer (failOpen)"
                );
            }
            Outcome::Deny(answer) => {
                return Err(RequestRefusal::DeniedByAuthorizer {
                    provider,
                    decider,
                    answer,
                });
            }
            Outcome::Refuse { status, error } => {
                return Err(RequestRefusal::NoAnswer {
                    provider,
                    decider,
                    status,
                    error,
                });
            }
        }
        approvals.add(provider);
    }
    Ok(approvals)
}

/// A provider that asks for no more than a request's head.
fn supported(
    provider: &std::sync::Arc<ExtensionProvider>,
) -> Result<&ExtensionProvider, &'static str> {
    match provider.request_body {
        None => Ok(provider),
        Some(_) => Err("includeRequestBodyInCheck is not supported"),
    }
}

fn check<'a>(subject: &'a Subject, head: &'a RequestHead) -> Check<'a> {
    let id = head.headers.get(REQUEST_ID);
    Check {
        source: Peer {
            address: subject.source.address,
            principal: subject.source.identity.as_ref(),
        },
        destination: Peer {
            address: subject.destination.address,
            principal: subject.destination.identity.as_ref(),
        },
        request: Some(CheckedRequest {
            id: id.and_then(|id| id.to_str().ok()).unwrap_or_default(),
            method: &head.method,
            scheme: "http",
            authority: &head.authority,
            path: &head.target,
            headers: &head.headers,
            version: head.version,
            body: None,
        }),
    }
}

/// Verifies the tokens of a request by the rules of its port, and does to its head what they say.
///
/// # Errors
/// [`RequestRefusal::Unauthenticated`] where one is not accepted.
pub(crate) async fn verify_tokens(
    pod: &ServedPod,
    policies: &WorkloadPolicies,
    connection: &Attributes,
    head: &mut RequestHead,
) -> Result<Option<Verified>, RequestRefusal> {
    let rules = policies.jwt_rules(connection.destination.port());
    if rules.is_empty() {
        return Ok(None);
    }
    let as_it_came = jwt::RequestHead {
        method: &head.method,
        target: &head.target,
        headers: &head.headers,
    };
    let verified = authenticate(&rules, &as_it_came, &pod.keys, SystemTime::now()).await?;
    jwt::apply(
        &rules,
        verified.as_ref(),
        &mut head.headers,
        &mut head.target,
    );
    Ok(verified)
}

/// What policy knows of a request, as it is passed on.
pub(crate) fn attributes(head: &RequestHead, verified: Option<&Verified>) -> RequestAttributes {
    let path = head.target.split('?').next().unwrap_or_default();
    RequestAttributes {
        method: head.method.to_string(),
        authority: head.authority.clone(),
        path: path.to_owned(),
        path_and_query: head.target.clone(),
        forwarded_for: forwarded_for(&head.headers),
        headers: head.headers.clone(),
        token: verified.map(|verified| std::sync::Arc::clone(verified.token())),
    }
}
