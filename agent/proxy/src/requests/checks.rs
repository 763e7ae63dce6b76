//! The checks of a request before policies judge it: external authorizers are consulted first, then its
//! tokens are verified, as in Istio's order of filters.

use std::sync::Arc;
use std::time::SystemTime;

use super::body::BodyPrefix;
use super::refusal::RequestRefusal;
use crate::authorizers::{Agreement, ask};
use crate::connection::ConnectionContext;
use ambit_authorizer::{
    Allowance, BodyPart, CheckedRequest, HeaderMutations, withhold_unjudged, withhold_unseen,
};
use ambit_http::{InjectedHeaders, RequestHead};
use ambit_jwt::{VerifiedTokens, authenticate};
use ambit_model::{AuthorizerApi, ExtensionProvider, MeshSettings};
use ambit_policy::{Approvals, Consultation, RequestAttributes, WorkloadPolicies, forwarded_for};

/// The header by which a client may identify its request.
const REQUEST_ID: &str = "x-request-id";

/// What the authorizers of a request agreed to.
#[derive(Debug, Default)]
pub(crate) struct Agreed {
    pub(crate) approvals: Approvals,
    /// Their changes to the response's headers.
    pub(crate) response_mutations: Vec<HeaderMutations>,
    /// The headers of the request that only they may write.
    pub(crate) injected_headers: InjectedHeaders,
}

/// Asks every authorizer that a CUSTOM policy names for this request, and shows each its part of the
/// body; all have to allow it. Applies their changes to the request's headers, and removes the headers that
/// only they may write.
///
/// # Errors
/// [`RequestRefusal::NotApproved`] if one does not allow it.
pub(crate) async fn consult(
    connection: &ConnectionContext,
    settings: &MeshSettings,
    asked: Vec<Consultation>,
    head: &mut RequestHead,
    body: &BodyPrefix,
) -> Result<Agreed, RequestRefusal> {
    let mut agreed = Agreed::default();
    let providers = asked
        .iter()
        .filter_map(|one| settings.extension_provider(&one.provider));
    for provider in providers {
        withhold_unseen(provider, &mut head.headers);
        agreed.add_patterns(provider);
    }
    for consultation in asked {
        let provider = settings.extension_provider(&consultation.provider);
        let demand = provider.and_then(|provider| provider.request_body.as_ref());
        let part = demand.and_then(|demand| body.part(demand));
        let request = Some(checked(head, part));
        match ask(connection, settings, &consultation, request).await {
            Ok(Agreement::Allowed(allowance)) => {
                allowance.request.apply_to_request(&mut head.headers);
                agreed.add(allowance);
            }
            Ok(Agreement::LetThrough) => {
                if let Some(provider) = provider {
                    withhold_unjudged(provider, &mut head.headers);
                }
            }
            Err(disagreement) => {
                return Err(RequestRefusal::NotApproved {
                    consultation,
                    disagreement,
                });
            }
        }
        agreed.approvals.add(consultation.provider);
    }
    Ok(agreed)
}

impl Agreed {
    fn add_patterns(&mut self, provider: &ExtensionProvider) {
        if let AuthorizerApi::Http(api) = &provider.api {
            for pattern in &api.to_upstream_on_allow {
                self.injected_headers.add_pattern(pattern);
            }
        }
    }

    fn add(&mut self, allowance: Allowance) {
        for name in allowance.request.names() {
            self.injected_headers.add(name);
        }
        self.response_mutations.push(allowance.response);
    }
}

fn checked(head: &RequestHead, body: Option<BodyPart>) -> CheckedRequest<'_> {
    let id = head.headers.get(REQUEST_ID);
    CheckedRequest {
        id: id.and_then(|id| id.to_str().ok()).unwrap_or_default(),
        method: &head.method,
        scheme: "http",
        authority: &head.authority,
        path: &head.target,
        headers: &head.headers,
        version: head.version,
        body,
    }
}

/// Verifies the tokens of a request by the rules of its port, and changes its head as the rules say. Adds
/// the headers that the rules write to `injected_headers`.
///
/// # Errors
/// [`RequestRefusal::Unauthenticated`] if a token is not accepted.
pub(crate) async fn verify_tokens(
    connection: &ConnectionContext,
    policies: &WorkloadPolicies,
    head: &mut RequestHead,
    injected_headers: &mut InjectedHeaders,
) -> Result<Option<VerifiedTokens>, RequestRefusal> {
    let rules = policies.jwt_rules(connection.destination.address.port());
    if rules.is_empty() {
        return Ok(None);
    }
    for rule in &*rules {
        let claims = rule.claim_headers.iter().map(|output| &output.header);
        claims
            .chain(&rule.payload_header)
            .for_each(|name| injected_headers.add(name));
    }
    let as_it_came = ambit_jwt::RequestToAuthenticate {
        method: &head.method,
        target: &head.target,
        headers: &head.headers,
    };
    let verified =
        authenticate(&rules, &as_it_came, &connection.pod.keys, SystemTime::now()).await?;
    ambit_jwt::apply(
        &rules,
        verified.as_ref(),
        &mut head.headers,
        &mut head.target,
    );
    Ok(verified)
}

/// Returns the attributes of a request as it is passed on.
pub(crate) fn attributes(
    head: &RequestHead,
    verified: Option<&VerifiedTokens>,
) -> RequestAttributes {
    let path = head.target.split('?').next().unwrap_or_default();
    RequestAttributes {
        method: head.method.to_string(),
        authority: head.authority.clone(),
        path: path.to_owned(),
        path_and_query: head.target.clone(),
        forwarded_for: forwarded_for(&head.headers),
        headers: head.headers.clone(),
        token: verified.map(|verified| Arc::clone(verified.token())),
    }
}
